"""The server-wide module of a pool: one Odoo server, many tenants, each with a database and a role of its own.

By itself Odoo has one database user a process and lets cookies, query strings and request bodies choose the database. Each
file here mends one such idea; what it replaces in Odoo it names, with the reason. All of it happens at import, before the
server forks or answers anything.

Odoo only logs it when a server-wide module fails to load, and goes on without: that would be a pool without its doors, so
here a failure ends the process.
"""

import logging

_logger = logging.getLogger(__name__)

try:
    from . import connections
    from . import catalog
    from . import doors
    from . import unavailable
    from . import rpc
    from . import sessions
    from . import cron
    from . import bus
    from . import gate
    from . import logs
    from . import preload
except BaseException as error:
    _logger.critical('The pool does not start: its module failed to load.', exc_info=True)
    raise SystemExit(70) from error
