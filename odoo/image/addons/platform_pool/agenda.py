"""When cron visits which database: only those with something due, and never one broken database before all others.

Knows no Odoo and no Postgres; times are seconds of one clock.
"""

import random

# A tenant's schedule is read again at least this often, whatever it was said to be.
AT_MOST = 3600
# After a failed visit: half a minute, doubling up to an hour.
FIRST_PAUSE = 30
LONGEST_PAUSE = 3600
# Something is due but another process holds it: soon, then rarer.
BUSY_PAUSE = 2
LONGEST_BUSY_PAUSE = 60
# A process that starts knows nobody's schedule. It asks all, this many a second.
FIRST_VISITS = 20


class _Entry:
    __slots__ = ('busy', 'due', 'failures')

    def __init__(self, due):
        self.due = due
        self.failures = 0
        self.busy = 0


class Agenda:
    """The tenants' next visits."""

    def __init__(self):
        self._entries = {}

    def __contains__(self, database):
        return database in self._entries

    def __len__(self):
        return len(self._entries)

    def members(self, databases, now):
        """Takes the list of tenants: new ones are visited soon, gone ones no more."""
        databases = set(databases)
        for gone in self._entries.keys() - databases:
            del self._entries[gone]
        fresh = list(databases - self._entries.keys())
        random.shuffle(fresh)
        for place, database in enumerate(fresh):
            self._entries[database] = _Entry(now + place / FIRST_VISITS)

    def notified(self, database, now):
        """The database says that its schedule has changed. One that fails waits all the same."""
        entry = self._entries.get(database)
        if entry is not None and not entry.failures:
            entry.due = min(entry.due, now)

    def next_due(self):
        """The time of the next visit, or None."""
        return min((entry.due for entry in self._entries.values()), default=None)

    def take(self, now):
        """The database that has been due for longest, or None."""
        database = min(self._entries, key=lambda name: self._entries[name].due, default=None)
        if database is None or self._entries[database].due > now:
            return None
        return database

    def visited(self, database, now, wait, ran):
        """A visit went well: `wait` seconds to the next due job (None: there is none), `ran` of them were run."""
        entry = self._entries.get(database)
        if entry is None:
            return
        entry.failures = 0
        if wait is None or wait > AT_MOST:
            wait = AT_MOST * random.uniform(0.9, 1)
        if wait <= 0 and not ran:
            wait = min(BUSY_PAUSE * 2**entry.busy, LONGEST_BUSY_PAUSE)
            entry.busy = min(entry.busy + 1, 10)
        else:
            entry.busy = 0
        entry.due = now + max(wait, 0)

    def postponed(self, database, now, wait):
        """Not now, for a reason that says nothing about the database."""
        entry = self._entries.get(database)
        if entry is not None:
            entry.due = now + wait

    def failed(self, database, now):
        """A visit failed. Returns how many have in a row, and the pause."""
        entry = self._entries.get(database)
        if entry is None:
            return 1, 0
        entry.failures += 1
        pause = min(FIRST_PAUSE * 2 ** (entry.failures - 1), LONGEST_PAUSE)
        entry.due = now + pause * random.uniform(0.9, 1.1)
        return entry.failures, pause

    def forgive(self, now):
        """The server itself was away: what failed meanwhile proves nothing."""
        for place, entry in enumerate(self._entries.values()):
            if entry.failures:
                entry.failures = 0
                entry.due = now + place / FIRST_VISITS
