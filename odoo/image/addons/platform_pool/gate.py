"""The gate: nothing gets in that does not come through the platform's edge, and the edge says for which database.

The edge sets two headers and deletes what a client sent under these names:

    X-Platform-Edge       the pool's edge secret
    X-Platform-Database   the database of the host that was asked for

Both leave the request here: code of a tenant that can look at its request (a server action of a website, a page's
template) must not learn the secret. Odoo's own `X-Odoo-Database` goes with them.

One more way in: a process of the same container that shows a session, for reading only, as that session's tenant. Odoo starts
wkhtmltopdf to print a report; it fetches styles and images from `report.url` (http://127.0.0.1:8069) with a session made for
it, and no container can reach the edge.

Also closed: the pages of the database manager, under any spelling or language prefix. And `PreforkServer`, which by itself
starts a websocket process of its own, starts none: that is a container of its own.
"""

import posixpath
import threading

from werkzeug.wrappers import Response

import odoo
from odoo import http
from odoo.service import server

from . import doors, tenancy
from .control import edge_secret
from .patching import around, replace

EDGE = 'HTTP_X_PLATFORM_EDGE'
DATABASE = 'HTTP_X_PLATFORM_DATABASE'
ODOO_DATABASE = 'HTTP_X_ODOO_DATABASE'
HEALTH = '/platform/health'
MANAGER = '/web/database'
LOOPBACK = '127.0.0.1'


@around(http.Application, '__call__')
def _call(original, application, environ, start_response):
    refusal = examine(environ)
    if refusal is not None:
        tenancy.enter(None)
        # What the log line of the last request in this thread said.
        vars(threading.current_thread()).pop('dbname', None)
        return refusal(environ, start_response)
    return original(application, environ, start_response)


def examine(environ):
    """Lets a request in, as its database's tenant, or returns the answer that refuses it."""
    shown = environ.pop(EDGE, None)
    database = environ.pop(DATABASE, None)
    environ.pop(ODOO_DATABASE, None)
    path = environ.get('PATH_INFO', '')
    if shown is None and path == HEALTH:
        return _text(200, 'ok')
    if shown is None and is_printing(environ):
        database = doors.database_of_session(environ)
        if database is None:
            return _text(403, 'This server answers only its edge.')
    elif shown is None or not edge_secret.is_shown(shown):
        return _text(403, 'This server answers only its edge.')
    if not tenancy.is_tenant(database):
        return _text(404, 'There is no such site.')
    if is_manager(path):
        return _text(404, 'There is no such page.')
    tenancy.enter(database)
    return None


def is_printing(environ):
    """Whether a request can be wkhtmltopdf's: from this container, reading, in the process that prints."""
    return (
        not odoo.evented
        and environ.get('REMOTE_ADDR') == LOOPBACK
        and environ.get('REQUEST_METHOD') in ('GET', 'HEAD')
        and 'HTTP_UPGRADE' not in environ
    )


def is_manager(path):
    """Whether a path leads to the database manager: with doubled slashes, dots, or below a language (`/fr/web/database`)."""
    plain = posixpath.normpath('/' + path.lstrip('/')).lower()
    return f'{MANAGER}/' in f'{plain}/'


def _text(status, text):
    return Response(f'{text}\n', status=status, content_type='text/plain; charset=utf-8', headers=[('Cache-Control', 'no-store')])


@replace(server.PreforkServer, 'long_polling_spawn')
def _long_polling_spawn(prefork):
    """Nothing: the websocket process has its own container."""
