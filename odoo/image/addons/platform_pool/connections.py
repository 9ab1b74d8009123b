"""Connections to Postgres: the role has the database's name, and its password comes from the pool's key.

Odoo has one user and password a process (`sql_db.connection_info_for`, the only place where they are read). Here each
database is opened as its own role, so Postgres itself keeps tenants apart.

The database `postgres` is hard-coded where Odoo's processes notify each other (bus, cron). No role of a pool may connect
there: the name leads to the pool's own bus database instead. `Connection.dbname` keeps saying "postgres", which is how
Odoo knows not to pool these connections.

Every cursor takes its connection from `ConnectionPool.borrow`. There a thread that runs a tenant's code is refused every
other tenant's database: Odoo has methods that open whatever database they are given the name of, and a server action can
call some (`env['ir.cron']._process_jobs(name)`).
"""

import psycopg2

from odoo import sql_db
from odoo.service import db as db_service
from odoo.tools import config, misc

from . import tenancy
from .control import pool as this_pool, ring
from .patching import around, replace

BUS = 'postgres'
# A server that does not answer is as good as away; a request should not hang on it.
CONNECT_WITHIN = 10


class DatabaseRefused(psycopg2.OperationalError):
    """This database is not for this pool or this thread. Odoo treats it like one that can't be reached."""


@around(sql_db, 'connection_info_for')
def _connection_info_for(original, db_or_uri, readonly=False):
    if db_or_uri == BUS:
        database = this_pool.bus_database
    elif tenancy.is_database(db_or_uri):
        database = db_or_uri
    else:
        raise DatabaseRefused('This is not a database of the pool.')
    name, info = original(db_or_uri, readonly)
    info.pop('password', None)
    info.update(database=database, user=database, connect_timeout=CONNECT_WITHIN)
    return name, info


@around(sql_db.ConnectionPool, 'borrow')
def _borrow(original, connection_pool, connection_info):
    database = connection_info.get('database')
    allowed = tenancy.current()
    if allowed is not None and database not in (allowed, this_pool.bus_database):
        raise DatabaseRefused('This is not the database of the request.')
    return with_password(
        database,
        lambda password: original(connection_pool, {**connection_info, 'password': password}),
    )


def with_password(role, connect):
    """Calls `connect(password)` with the passwords that `role` may have, until one opens.

    The server's message is in the server's language, so what went wrong is not read from it: each key is tried, and there
    is more than one only while they are rotated.
    """
    refusal = None
    for key, password in ring.passwords(role):
        try:
            connection = connect(password)
        except psycopg2.OperationalError as error:
            refusal = refusal or error
            continue
        ring.fits(role, key)
        return connection
    raise refusal


def connect_bus():
    """A connection of its own to the pool's bus database, outside Odoo's connection pool, in autocommit."""
    _name, info = sql_db.connection_info_for(BUS)
    connection = with_password(info['user'], lambda password: psycopg2.connect(**info, password=password))
    connection.autocommit = True
    return connection


def _no_children():
    """Odoo's `exec_pg_environ` gives pg_dump and psql the process's user and password. A pool has no such user."""
    raise DatabaseRefused('Child processes get no database here.')


replace(misc, 'exec_pg_environ')(_no_children)
replace(db_service, 'exec_pg_environ')(_no_children)

if config['db_user'] or config['db_password'] or config['db_replica_host']:
    raise RuntimeError('A pool has no db_user, db_password or db_replica_host: each database has its own role.')
