"""RPC (`/jsonrpc`, `/xmlrpc/2/*`) names its database in the body, whatever the host: here it must be the request's own.

Odoo checks only the credentials, so at one tenant's host another tenant's data would answer, and failed sign-ins would be
counted and logged at the wrong door. A wrong database is refused like a wrong password, so that nobody learns which exist.

The services' own `dispatch` are wrapped and not `http.dispatch_rpc`, which other modules have imported by name.
"""

from odoo.exceptions import AccessDenied
from odoo.service import common, db, model

from . import tenancy
from .patching import around, replace

# Of the service `common`: what needs no database.
PUBLIC = frozenset({'version', 'about', 'set_loglevel'})


def _check(params):
    if not isinstance(params, (list, tuple)) or not params or params[0] != tenancy.current():
        raise AccessDenied()


@around(common, 'dispatch')
def _dispatch_common(original, method, params):
    if method not in PUBLIC:
        _check(params)
    return original(method, params)


@around(model, 'dispatch')
def _dispatch_model(original, method, params):
    _check(params)
    return original(method, params)


@replace(db, 'dispatch')
def _dispatch_db(method, params):
    """Creating, dumping, dropping and listing databases is the platform's work, never Odoo's."""
    raise AccessDenied()


@replace(db, 'check_super')
def _check_super(passwd):
    """The database manager's pages ask for the master password: a pool has none."""
    raise AccessDenied()
