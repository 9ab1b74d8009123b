"""Scheduled actions for many tenants.

Odoo's `WorkerCron` connects to every database each minute (200 tenants: hundreds of connections a minute for nothing), and a
database error of one tenant ends the worker, again and again, so that the tenants behind it in the alphabet get no cron.

This worker takes its place. It keeps an agenda: a database is visited when its next job is due, when it says that its
schedule has changed (`ODOO_NOTIFY_CRON_CHANGES`), or after an hour. A visit that fails costs that database a pause and
nobody else anything. Two workers never work for the same tenant at the same time, so one tenant's long jobs leave a worker
to the others; a job that hangs is ended with its worker by Odoo's own watchdog (`limit_time_real_cron`).
"""

import logging
import os
import pathlib
import select
import threading
import time
from contextlib import closing

import psycopg2

from odoo import sql_db
from odoo.addons.base.models import ir_cron
from odoo.modules.registry import Registry
from odoo.service import server

from . import catalog, connections, tenancy
from .agenda import Agenda
from .patching import replace
from .sessions import PARAMETER, Sweeper

_logger = logging.getLogger(__name__)

BEATS = pathlib.Path('/tmp/platform-pool')
LONGEST_SLEEP = 15
MEMBERS_EVERY = 60
SWEEP_EVERY = 3600
# Databases and the sweep lock in different key spaces of the bus database's advisory locks.
VISIT_LOCKS = 1
SWEEP_LOCKS = 2

NEXT_DUE = """
    SELECT EXTRACT(EPOCH FROM (
               LEAST(
                   min(job.nextcall),
                   (SELECT min(trigger.call_at)
                      FROM ir_cron_trigger trigger JOIN ir_cron triggered ON triggered.id = trigger.cron_id
                     WHERE triggered.active)
               ) - (now() AT TIME ZONE 'UTC')
           ))::float,
           (SELECT value FROM ir_config_parameter WHERE key = %s)
      FROM ir_cron job
     WHERE job.active
"""


class Listener:
    """The worker's own connection to the bus: hears of changes, lists tenants, holds locks. Comes back by itself."""

    def __init__(self):
        self._connection = None
        self._failures = 0
        self._not_before = 0

    def fileno(self):
        """For select; only while connected."""
        return self._connection.fileno()

    @property
    def connected(self):
        """Whether the bus could be reached a moment ago."""
        return self._connection is not None

    def ensure(self, now):
        """Connects if need be and if it is time to try. Returns whether this call made a new connection."""
        if self._connection is not None or now < self._not_before:
            return False
        try:
            connection = connections.connect_bus()
            with connection.cursor() as cursor:
                cursor.execute('SELECT pg_is_in_recovery()')
                if cursor.fetchone()[0]:
                    _logger.warning('The server is a standby: no notice of changes to scheduled actions')
                else:
                    cursor.execute('LISTEN cron_trigger')
        except psycopg2.Error as error:
            self._failures += 1
            self._not_before = now + min(2 ** (self._failures - 1), 10)
            _logger.warning('No connection to the bus: %s', str(error).strip())
            return False
        self._failures = 0
        self._connection = connection
        return True

    def close(self):
        """Ends the connection and with it the locks."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self, query):
        """Runs `query(cursor)`; a lost connection is None as the answer."""
        if self._connection is None:
            return None
        try:
            with self._connection.cursor() as cursor:
                return query(cursor)
        except psycopg2.Error as error:
            _logger.warning('The connection to the bus is lost: %s', str(error).strip())
            self.close()
            return None

    def notified(self):
        """The databases that said something since the last call."""
        if self._connection is None:
            return []
        try:
            self._connection.poll()
        except psycopg2.Error as error:
            _logger.warning('The connection to the bus is lost: %s', str(error).strip())
            self.close()
            return []
        names = {notice.payload for notice in self._connection.notifies if notice.channel == 'cron_trigger'}
        self._connection.notifies.clear()
        return names

    def lock(self, space, name):
        """Tries to take a lock that only one worker of the pool can hold."""
        return bool(self.ask(lambda cursor: _one(cursor, 'SELECT pg_try_advisory_lock(%s, hashtext(%s))', [space, name])))

    def unlock(self, space, name):
        """Gives the lock back."""
        self.ask(lambda cursor: _one(cursor, 'SELECT pg_advisory_unlock(%s, hashtext(%s))', [space, name]))


def _one(cursor, query, parameters):
    cursor.execute(query, parameters)
    return cursor.fetchone()[0]


@replace(server, 'WorkerCron')
class WorkerCron(server.Worker):
    """Odoo's server starts these as its cron processes; `_runloop` calls `sleep` and `process_work` in turn."""

    def __init__(self, multi):
        super().__init__(multi)
        self.watchdog_timeout = multi.cron_timeout

    def start(self):
        os.nice(10)
        super().start()
        if self.multi.socket:
            self.multi.socket.close()
        self.agenda = Agenda()
        self.listener = Listener()
        self.sweeper = Sweeper()
        self.members_at = 0
        self.sweep_at = time.time() + SWEEP_EVERY / 60
        BEATS.mkdir(exist_ok=True)
        self.beat = BEATS / f'cron-{self.pid}.beat'
        for stale in BEATS.glob('cron-*.beat'):
            if not pathlib.Path('/proc', stale.stem.removeprefix('cron-')).exists():
                stale.unlink(missing_ok=True)

    def stop(self):
        super().stop()
        self.listener.close()
        self.beat.unlink(missing_ok=True)

    def sleep(self):
        """Until something is due, someone says something, or the server wakes the worker to end it."""
        self.beat.touch()
        now = time.time()
        due = self.agenda.next_due() if self.listener.connected else now + 1
        pause = LONGEST_SLEEP if due is None else min(max(due - now, 0), LONGEST_SLEEP)
        heard = [self.wakeup_fd_r] + ([self.listener] if self.listener.connected else [])
        select.select(heard, [], [], pause)
        server.empty_pipe(self.wakeup_fd_r)

    def process_work(self):
        """At most one database a call: between calls the server sees that the worker lives."""
        now = time.time()
        if self.listener.ensure(now):
            self.members_at = 0
            self.agenda.forgive(now)
        notified = self.listener.notified()
        if now >= self.members_at or any(tenancy.is_tenant(name) and name not in self.agenda for name in notified):
            self.members_at = now + MEMBERS_EVERY
            members = self.listener.ask(catalog.tenants)
            if members is not None:
                self.agenda.members(members, now)
        for name in notified:
            self.agenda.notified(name, now)
        if not self.listener.connected:
            # While the server is away every visit would fail, and say nothing about the tenant.
            return
        database = self.agenda.take(now)
        if database is not None:
            self.visit(database)
        elif now >= self.sweep_at:
            self.sweep()

    def visit(self, database):
        """Runs what is due in one database. Whatever goes wrong there stays there."""
        if not self.listener.lock(VISIT_LOCKS, database):
            self.agenda.postponed(database, time.time(), 1)
            return
        self.setproctitle(database)
        threading.current_thread().dbname = database
        try:
            with tenancy.only(database):
                wait, ran, setting = run_due(database)
            self.agenda.visited(database, time.time(), wait, ran)
            self.sweeper.learn(database, setting)
            self.request_count += 1
        except (ir_cron.BadModuleState, ir_cron.BadVersion) as error:
            failures, pause = self.agenda.failed(database, time.time())
            _logger.warning('No cron for %s: %s. Next try in %d s', database, type(error).__name__, pause)
        except Exception as error:
            failures, pause = self.agenda.failed(database, time.time())
            _logger.warning(
                'Cron of %s failed, %d times in a row: %s. Next try in %d s',
                database, failures, str(error).strip() or type(error).__name__, pause,
                exc_info=failures == 1 and not isinstance(error, psycopg2.Error),
            )
        finally:
            # One connection a database and process would add up to more than the server has.
            sql_db.close_db(database)
            self.listener.unlock(VISIT_LOCKS, database)
            vars(threading.current_thread()).pop('dbname', None)
            self.setproctitle()

    def sweep(self):
        """Cleans the session store, in one worker of the pool at a time."""
        self.sweep_at = time.time() + SWEEP_EVERY
        if not self.listener.lock(SWEEP_LOCKS, 'sessions'):
            return
        try:
            removed = self.sweeper.sweep()
            if removed:
                _logger.info('Removed %d sessions that were not used any more', removed)
        finally:
            self.listener.unlock(SWEEP_LOCKS, 'sessions')


def run_due(database):
    """Runs the due jobs of a database. Returns seconds to the next one (or None), how many ran, and its session limit.

    Does what Odoo's `IrCron._process_jobs` does, but says what happened instead of logging it.
    """
    jobs_of = ir_cron.IrCron
    ran = 0
    with closing(sql_db.db_connect(database).cursor()) as cursor:
        jobs_of._check_version(cursor)
        jobs = jobs_of._get_all_ready_jobs(cursor)
        if jobs:
            jobs_of._check_modules_state(cursor, jobs)
        for ready in jobs:
            try:
                job = jobs_of._acquire_one_job(cursor, ready['id'])
            except psycopg2.extensions.TransactionRollbackError:
                cursor.rollback()
                continue
            if job is None:
                continue
            # The tenant's modules may override how a job is run; its registry may have changed since the last visit.
            registry = Registry(database).check_signaling()
            registry['ir.cron']._process_job(cursor, job)
            cursor.commit()
            ran += 1
        # A transaction sees its own beginning as "now".
        cursor.rollback()
        cursor.execute(NEXT_DUE, [PARAMETER])
        wait, setting = cursor.fetchone()
    return wait, ran, setting
