"""What the platform tells this pool: the files of its control volume. Nothing here ever comes from the environment.

pool.json    which pool this is, and its bus database
pool.key     the key ring: one 32-byte key a line in base64, newest first
edge.secret  what the edge shows to prove that it is the edge; during a change two lines, either is good

The platform writes keys and secrets over the running pool's files, and a reader may meet a file that is missing or half
written: what was read before stays good until something whole takes its place.
"""

import base64
import binascii
import hmac
import json
import logging
import os
import pathlib
import re
import threading

_logger = logging.getLogger(__name__)

DIRECTORY = pathlib.Path('/etc/platform-pool')

_BUS_DATABASE = re.compile(r'pool_[0-9a-z]{26}')
_ROLE = re.compile(r'[a-z][a-z0-9_]{0,62}')
_KEY_BYTES = 32
_SECRET = re.compile(r'[A-Za-z0-9_-]{32,128}')


class ControlError(Exception):
    """A file of the control volume is not what it must be. Says nothing of a secret's content."""


class Pool:
    """Which pool this is."""

    def __init__(self, text):
        try:
            fields = json.loads(text)
            self.id = str(fields['pool'])
            self.bus_database = fields['bus_database']
            self.tenants_role = fields.get('tenants_role', 'tenants')
            self.session_max_age = int(fields.get('session_max_age_hours', 168)) * 3600
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ControlError(f'pool.json: {error!r}') from error
        if not _BUS_DATABASE.fullmatch(str(self.bus_database)):
            raise ControlError('pool.json: bus_database must be pool_ and 26 characters')
        if not _ROLE.fullmatch(str(self.tenants_role)):
            raise ControlError('pool.json: tenants_role must be the name of a role')
        if self.session_max_age < 3600:
            raise ControlError('pool.json: session_max_age_hours must be at least 1')


def parse_keys(text):
    """The keys of a ring, newest first."""
    try:
        keys = tuple(base64.b64decode(line, validate=True) for line in text.split())
    except (binascii.Error, ValueError):
        raise ControlError('pool.key: a line is not base64') from None
    if not keys or any(len(key) != _KEY_BYTES for key in keys):
        raise ControlError('pool.key: needs at least one key, each of 32 bytes')
    return keys


def parse_secrets(text):
    """The secrets of the edge that are good now."""
    secrets = tuple(text.split())
    if not secrets or not all(_SECRET.fullmatch(secret) for secret in secrets):
        raise ControlError('edge.secret: needs 32 to 128 letters, digits, - or _')
    return tuple(secret.encode() for secret in secrets)


class WatchedFile:
    """A parsed file that is read again when it has changed; looking costs one stat."""

    def __init__(self, path, parse):
        self._path = path
        self._parse = parse
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._value = parse(path.read_text())

    def _look(self):
        status = os.stat(self._path)
        return status.st_mtime_ns, status.st_ino, status.st_size

    def value(self):
        """What the file says now, or said last when it can't be read."""
        try:
            stamp = self._look()
            if stamp != self._stamp:
                with self._lock:
                    value = self._parse(self._path.read_text())
                    # The stamp was taken before the content: a write in between is seen at the next look.
                    self._value, self._stamp = value, stamp
        except (OSError, ControlError) as error:
            _logger.warning('%s stays as it was: %s', self._path.name, error)
        return self._value


class Ring:
    """The pool's keys; they yield the roles' passwords."""

    def __init__(self, path):
        self._file = WatchedFile(path, parse_keys)
        self._fitting = {}

    def passwords(self, role):
        """The passwords that `role` may have, the likeliest first, each with a token for `fits`."""
        keys = self._file.value()
        last = self._fitting.get(role)
        for key in sorted(keys, key=lambda key: key != last):
            digest = hmac.digest(key, role.encode(), 'sha256')
            yield key, base64.urlsafe_b64encode(digest).decode().rstrip('=')

    def fits(self, role, key):
        """Remembers which key opened `role`, so that a rotation costs it one failed attempt, not one a connection.

        The newest key needs no remembering: roles move towards it.
        """
        if key == self._file.value()[0]:
            self._fitting.pop(role, None)
        else:
            self._fitting[role] = key


class EdgeSecret:
    """What the edge must show."""

    def __init__(self, path):
        self._file = WatchedFile(path, parse_secrets)

    def is_shown(self, text):
        """Whether `text` is one of the secrets; takes the same time whatever is wrong with it."""
        shown = text.encode('utf-8', 'surrogateescape')
        matches = [hmac.compare_digest(shown, secret) for secret in self._file.value()]
        return any(matches)


pool = Pool((DIRECTORY / 'pool.json').read_text())
ring = Ring(DIRECTORY / 'pool.key')
edge_secret = EdgeSecret(DIRECTORY / 'edge.secret')
