"""What the access log says.

Odoo logs the whole request line, and query strings carry secrets: invitations, password resets, access to documents. They
are left out. The health check's requests, six a minute and process, are not logged at all.
"""

import logging
import re

from .gate import HEALTH

QUERY = re.compile(r'\?\S*')


def _say_less(record):
    message = record.getMessage()
    if HEALTH in message:
        return False
    record.msg, record.args = QUERY.sub('?...', message), None
    return True


# The servers of the roles web and gevent.
for _name in ('werkzeug', 'longpolling'):
    logging.getLogger(_name).addFilter(_say_less)
