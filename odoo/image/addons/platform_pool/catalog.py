"""Which databases there are.

Odoo's `service.db.list_dbs` lists what the connected user owns. A tenant does not own its database, so the server's
catalogs are asked instead: a tenant's role has the database's name, is a member of the tenants' group and may log in
(a suspended tenant's may not, and cron then leaves it alone).

Inside a request there is one database: the request's own.
"""

from contextlib import closing

from odoo import http
from odoo.service import db as db_service, server as server_service
from odoo.sql_db import db_connect

from . import connections, tenancy
from .control import pool
from .patching import replace

TENANTS = """
    SELECT tenant.rolname
      FROM pg_catalog.pg_roles tenants
      JOIN pg_catalog.pg_auth_members membership ON membership.roleid = tenants.oid
      JOIN pg_catalog.pg_roles tenant ON tenant.oid = membership.member
      JOIN pg_catalog.pg_database ON datname = tenant.rolname
     WHERE tenants.rolname = %s AND tenant.rolcanlogin AND datallowconn AND NOT datistemplate
     ORDER BY 1
"""


def tenants(cursor):
    """The pool's tenants that may log in. Takes a cursor on the bus database."""
    cursor.execute(TENANTS, [pool.tenants_role])
    return [name for (name,) in cursor.fetchall() if tenancy.is_tenant(name)]


# `service.server` holds the function under its own name too.
@replace(server_service, 'list_dbs')
@replace(db_service, 'list_dbs')
def list_dbs(force=False):
    """Odoo's signature. Whoever asks is Odoo itself: the service `db` is closed (rpc.py)."""
    current = tenancy.current()
    if current is not None:
        return [current]
    with closing(db_connect(connections.BUS).cursor()) as cursor:
        return tenants(cursor)


@replace(http, 'db_list')
def db_list(force=False, host=None):
    """The request's database: not by host name, not by a regular expression."""
    current = tenancy.current()
    return [] if current is None else [current]


@replace(http, 'db_filter')
def db_filter(dbs, host=None):
    """What of `dbs` the request may use. Sign-in (`/web/session/authenticate`), OAuth and `?db=` all ask here."""
    current = tenancy.current()
    return [name for name in dbs if name == current]
