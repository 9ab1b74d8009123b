"""Whose code a thread is running: the one tenant database that it may open.

Set for each request before Odoo sees it, and for each database that cron visits. It is not taken away after a request but
replaced by the next: what runs late in the same thread (a streamed answer, a websocket's life) is still that tenant's.
A thread without one runs no tenant's code: the server's own loops.
"""

import contextlib
import re
import threading

_TENANT = re.compile(r't_[0-9a-z]{26}')
_TEMPLATE = re.compile(r'tpl_[0-9a-z]{26}')

# In the websocket process threads are greenlets, and so is this.
_thread = threading.local()


def is_tenant(name):
    """Whether `name` can be a tenant's database."""
    return isinstance(name, str) and _TENANT.fullmatch(name) is not None


def is_database(name):
    """Whether `name` can be a database that holds an Odoo: a tenant's, or a template while it is built."""
    return is_tenant(name) or (isinstance(name, str) and _TEMPLATE.fullmatch(name) is not None)


def current():
    """The database of the tenant whose code runs in this thread, or None."""
    return getattr(_thread, 'database', None)


def enter(database):
    """From now on this thread runs the code of `database`'s tenant; None: of nobody."""
    _thread.database = database


@contextlib.contextmanager
def only(database):
    """Runs a block as `database`'s tenant."""
    before = current()
    enter(database)
    try:
        yield
    finally:
        enter(before)
