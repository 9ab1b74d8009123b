"""Cleaning the session store, which all tenants of the pool share.

Odoo's auto-vacuum calls `FilesystemSessionStore.vacuum` with the tenant's own `sessions.max_inactivity_seconds`, on
everybody's files: an administrator who sets 0 there signs out all tenants. So that one does nothing here, and cron's
`Sweeper` removes a session after the pool's longest time, or after its tenant's own when that is shorter.
"""

import contextlib
import json
import os
import time

from odoo import http

from .control import pool
from .patching import replace

# A session is saved through a temporary file beside the directories; a killed process leaves it there.
LEFTOVER_AFTER = 24 * 3600
# Odoo notes a session's use at most once an hour, so a file's age says no more than that.
RESOLUTION = 3600
PARAMETER = 'sessions.max_inactivity_seconds'


@replace(http.FilesystemSessionStore, 'vacuum')
def _vacuum(store, max_lifetime=http.SESSION_LIFETIME):
    """Nothing: see the module."""


class Sweeper:
    """Removes sessions that nobody has used for long."""

    def __init__(self):
        # What tenants have chosen for themselves, learned when cron visits them.
        self._chosen = {}

    def learn(self, database, setting):
        """Notes a tenant's own limit: the parameter's text, or None."""
        with contextlib.suppress(TypeError, ValueError):
            seconds = int(setting)
            if 0 <= seconds < pool.session_max_age:
                self._chosen[database] = seconds + RESOLUTION
                return
        self._chosen.pop(database, None)

    def sweep(self):
        """One pass over the store. Returns how many sessions it removed."""
        now = time.time()
        shortest = min(self._chosen.values(), default=pool.session_max_age)
        removed = 0
        root = http.root.session_store.path
        for directory in _entries(root):
            if directory.is_file(follow_symlinks=False):
                if _age(directory, now) > LEFTOVER_AFTER:
                    _remove(directory.path)
                continue
            for file in _entries(directory.path):
                age = _age(file, now)
                # Only a file that some tenant's limit may end is opened to see whose it is.
                if age > pool.session_max_age or (age > shortest and age > self._limit_of(file.path)):
                    removed += _remove(file.path)
        return removed

    def _limit_of(self, path):
        try:
            with open(path, encoding='utf-8') as file:
                return self._chosen.get(json.load(file).get('db'), pool.session_max_age)
        except (OSError, ValueError, AttributeError):
            return pool.session_max_age


def _entries(path):
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []


def _age(entry, now):
    try:
        return now - entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return 0


def _remove(path):
    try:
        os.unlink(path)
    except OSError:
        return 0
    return 1
