"""A database that can't be reached: 503, and nobody is signed out.

Odoo answers a failed connection by ending the visitor's session (`Application.__call__` on `RegistryError`) and serving the
page without a database, where `/web/login` redirects to itself for ever. A Postgres restart, or too many connections, would
so sign everybody out.
"""

import logging
import threading

import psycopg2
from psycopg2.pool import PoolError

from odoo import http

from .connections import DatabaseRefused
from .patching import around

_logger = logging.getLogger(__name__)

RETRY_AFTER = 5
PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="5"><title>Back in a moment</title></head>
<body style="font:1.1em/1.5 system-ui,sans-serif;max-width:32em;margin:15vh auto;padding:0 1em">
<h1>Back in a moment</h1><p>The database does not answer right now. Nothing is lost, and you stay signed in.
This page tries again by itself.</p></body></html>
"""


@around(http.Request, '_serve_db')
def _serve_db(original, request):
    try:
        return original(request)
    except http.RegistryError as error:
        return _refuse(request, error.__cause__ or error)
    except PoolError as error:
        return _refuse(request, error)
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        if not is_lost(error):
            raise
        return _refuse(request, error)


def is_lost(error):
    """Whether the connection broke in the middle of a request, as opposed to a statement that the server refused."""
    if isinstance(error, DatabaseRefused):
        return False
    code = getattr(error, 'pgcode', None)
    # Classes 08 (connection) and 57P (shutdown, crash, terminated by an administrator); no code: libpq gave up by itself.
    return code is None or code.startswith(('08', '57P'))


def _refuse(request, error):
    request.session.can_save = False
    # The log line should say which database; Odoo sets this only once a registry is loaded.
    threading.current_thread().dbname = request.db
    _logger.warning('The database does not answer: %s', str(error).strip())
    return http.Response(
        PAGE,
        status=503,
        headers=[('Content-Type', 'text/html; charset=utf-8'), ('Retry-After', str(RETRY_AFTER)), ('Cache-Control', 'no-store')],
    )
