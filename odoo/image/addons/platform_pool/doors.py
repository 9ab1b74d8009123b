"""Which database and session a request has.

By itself Odoo chooses: the session's database, else the header `X-Odoo-Database` (then without a session, so nobody can
sign in), else the only database there is. And a session of another database is emptied and saved: one tenant's page could
set its cookie for a sibling's host name and log its users out.

Here the gate (gate.py) has chosen already. A session that belongs to another database is left as it is, file and all, and
the visitor starts a new one.
"""

import werkzeug.http

from odoo import http

from . import tenancy
from .patching import replace


@replace(http.Request, '_get_session_and_dbname')
def _get_session_and_dbname(request):
    database = tenancy.current()
    if database is None:
        raise RuntimeError('A request passed the gate without a database.')
    session = _session_of(request.httprequest._session_id__, database)
    for key, value in http.get_default_session().items():
        session.setdefault(key, value)
    if not session.context.get('lang'):
        session.context['lang'] = request.default_lang()
    session.db = database
    # Nothing so far is worth a file: it is saved when someone signs in or a page stores something.
    session.is_dirty = False
    return session, database


def database_of_session(environ):
    """The database of the session whose id the request shows, or None; for requests that no edge has sent."""
    store = http.root.session_store
    sid = werkzeug.http.parse_cookie(environ).get('session_id')
    if not sid or not store.is_valid_key(sid):
        return None
    session = store.get(sid)
    return session.get('db') if session.get('uid') else None


def _session_of(sid, database):
    store = http.root.session_store
    if not sid or not store.is_valid_key(sid):
        return store.new()
    session = store.get(sid)
    if session.db and session.db != database:
        return store.new()
    # The store hands out a new id for a session without a file; the browser's cookie keeps its own.
    session.sid = sid
    return session
