"""Health check of a pool's container: `health.py web|gevent|cron`, run every ten seconds or so by the runtime.

Exits 0 when the role's process does its work, else 1. When it has not for too long, the check ends Odoo: the container
then ends too, and the runtime's restart policy starts it again, with no control plane involved. It must never end an Odoo
that is merely busy, nor one whose database is away: both come back by themselves.
"""

import configparser
import http.client
import os
import pathlib
import signal
import sys
import time

STATE = pathlib.Path('/tmp/platform-pool')
CONFIGURATION = '/etc/platform-pool/odoo.conf'
PATH = '/platform/health'
ANSWER_WITHIN = 5
# Nobody listens: Odoo is starting, or its main process is lost.
DEAF_FOR = 60
# A machine that slept for an hour finds old beats; its workers need a moment.
PAUSED_FOR = 30
# Beyond what Odoo itself allows a request or a job before it ends the worker: only a lost main process gets here.
GRACE = 90


class Unhealthy(Exception):
    """The role does not do its work; `patience` is how many seconds that may last."""

    def __init__(self, reason, patience):
        super().__init__(reason)
        self.patience = patience


def setting(name):
    """A number of odoo.conf."""
    parser = configparser.RawConfigParser()
    parser.read(CONFIGURATION)
    return parser.getint('options', name)


def check_http(port):
    """Any process of the role answers, without asking any database."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=ANSWER_WITHIN)
    try:
        connection.request('GET', PATH)
        answer = connection.getresponse()
        if answer.status != 200:
            raise Unhealthy(f'{PATH} answers {answer.status}', DEAF_FOR)
    except ConnectionRefusedError as error:
        raise Unhealthy('nobody listens', DEAF_FOR) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unhealthy(f'no answer: {error}', setting('limit_time_real') + GRACE) from error
    finally:
        connection.close()


def check_cron():
    """Some cron worker was alive a moment ago; a job may take its time, up to its limit."""
    patience = setting('limit_time_real_cron') + GRACE
    beats = [beat.stat().st_mtime for beat in STATE.glob('cron-*.beat')]
    if not beats:
        raise Unhealthy('no cron worker has started', DEAF_FOR)
    if time.time() - max(beats) > patience:
        raise Unhealthy('no cron worker is alive', PAUSED_FOR)


CHECKS = {
    'web': lambda: check_http(setting('http_port')),
    'gevent': lambda: check_http(setting('gevent_port')),
    'cron': check_cron,
}


def end_odoo():
    """Ends Odoo's main process; its container ends with it."""
    try:
        os.kill(int((STATE / 'main.pid').read_text()), signal.SIGKILL)
    except (OSError, ValueError) as error:
        print(f'cannot end Odoo: {error}')


def main(role):
    """Checks one role and remembers since when it fails."""
    since = STATE / f'{role}.failing'
    try:
        CHECKS[role]()
    except Unhealthy as unhealthy:
        now = time.time()
        try:
            failing = now - float(since.read_text())
        except (OSError, ValueError):
            since.write_text(str(now))
            failing = 0
        print(f'{role}: {unhealthy} (for {failing:.0f} s)')
        if failing >= unhealthy.patience:
            since.unlink(missing_ok=True)
            end_odoo()
        return 1
    since.unlink(missing_ok=True)
    print(f'{role}: ok')
    return 0


if __name__ == '__main__':
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        sys.exit('usage: health.py web|gevent|cron')
    sys.exit(main(sys.argv[1]))
