"""The thread that passes Postgres's notices on to websockets, and websockets during an outage.

Odoo's `ImDispatch` waits fifty seconds after it has lost its connection, and what was sent meanwhile reaches a browser only
with the next message. Here it is back a second or two after the server, and then looks once for every websocket whether
something is waiting. Which database a websocket may open is settled by the gate: its whole life is one request (tenancy.py).
"""

import logging
import selectors
import time

import psycopg2
from psycopg2.pool import PoolError

from odoo.addons.bus import websocket
from odoo.addons.bus.models import bus
from odoo.sql_db import db_connect

from . import connections
from .patching import around, replace

_logger = logging.getLogger(__name__)

PAUSE = 1
LONGEST_PAUSE = 2
# How long to wait for a notice before looking whether the server stops.
LISTEN_FOR = 50


@around(bus.ImDispatch, 'start')
def _start(original, dispatch):
    """Two websockets that subscribe at the same moment both find the thread not alive; it is started once."""
    if not getattr(dispatch, '_was_started', False):
        dispatch._was_started = True
        original(dispatch)


@around(websocket.WebsocketRequest, 'serve_websocket_message')
def _serve_websocket_message(original, request, message):
    """A message that comes while Postgres is away is lost, and Odoo only logs it: a browser whose subscription it was would
    hear nothing until it is reloaded. As `PoolError` it closes the websocket with "try again later", and the browser does."""
    try:
        return original(request, message)
    except (websocket.InvalidDatabaseException, psycopg2.OperationalError) as error:
        raise PoolError(str(error) or type(error).__name__) from error


@replace(bus.ImDispatch, 'run')
def _run(dispatch):
    failures = 0
    while not bus.stop_event.is_set():
        try:
            with db_connect(connections.BUS).cursor() as cursor:
                cursor.execute('LISTEN imbus')
                cursor.commit()
                _logger.info('Listening on the bus')
                if failures:
                    _wake(dispatch, list(dispatch._channels_to_ws))
                failures = 0
                _pass_on(dispatch, cursor._cnx)
        except Exception as error:
            if bus.stop_event.is_set():
                return
            failures += 1
            _logger.warning('The bus is lost: %s', str(error).strip() or type(error).__name__)
            time.sleep(min(PAUSE * 2 ** (failures - 1), LONGEST_PAUSE))


def _pass_on(dispatch, connection):
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while not bus.stop_event.is_set():
            if not selector.select(LISTEN_FOR):
                continue
            connection.poll()
            channels = []
            while connection.notifies:
                try:
                    channels.extend(bus.hashable(channel) for channel in bus.orjson.loads(connection.notifies.pop().payload))
                except (ValueError, TypeError):
                    _logger.warning('A notice on the bus is not a list of channels')
            _wake(dispatch, channels)


def _wake(dispatch, channels):
    websockets = set()
    for channel in channels:
        websockets.update(dispatch._channels_to_ws.get(channel, ()))
    for websocket in websockets:
        websocket.trigger_notification_dispatching()
