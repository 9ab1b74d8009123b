"""One piece of work on one database, in a container of the pool: run by `entry.sh`, exit code 0 when it is done.

    task.py template DATABASE MODULE,...   fills an empty database: base, web and the modules, without demo data, and the
                                           asset bundles that a browser asks for at its first sign-in
    task.py install DATABASE MODULE,...    installs modules in a tenant's database while it is served
    task.py upgrade DATABASE MODULE,...    updates them there

Each can be done twice. It goes through Odoo's registry and not through its commands: `odoo module` and `odoo db` load no
server-wide modules, and `odoo server -d` first tries to create the database, as a user that a pool does not have.
"""

import logging
import re
import sys
import threading
import time

import odoo
from odoo.modules.registry import Registry
from odoo.service.server import load_server_wide_modules
from odoo.tools import config

CONFIGURATION = '/etc/platform-pool/odoo.conf'
MODULE = re.compile(r'[a-z][a-z0-9_]*')
# Every template has these; Odoo installs their companions (rpc, bus, base_setup ...) by itself.
ALWAYS = ['base', 'web']
# Asked for by the client's own code at the first sign-in; Odoo's search for bundles looks only into templates.
LAZY_BUNDLES = ['bus.websocket_worker_assets']
# Bundles of Odoo's own test suites: a third of the time and of the files, and nobody's browser asks for them.
TESTS = re.compile('test|qunit')

_logger = logging.getLogger('platform.task')


def install(database, modules):
    """Installs what is missing."""
    registry = Registry.new(database, update_module=True, install_modules=modules)
    check_installed(registry, modules)
    return registry


def upgrade(database, modules):
    """Updates modules that are installed."""
    check_installed(Registry(database), modules)
    return Registry.new(database, update_module=True, upgrade_modules=modules)


def check_installed(registry, modules):
    """Odoo only logs a module that it does not know."""
    with registry.cursor() as cursor:
        cursor.execute('SELECT name FROM ir_module_module WHERE state = %s', ['installed'])
        missing = set(modules) - {name for (name,) in cursor.fetchall()}
    if missing:
        raise SystemExit(f'task.py: not installed: {", ".join(sorted(missing))}')


def template(database, modules):
    """Fills a template's database."""
    registry = install(database, list(dict.fromkeys(ALWAYS + modules)))
    make_bundles(registry)
    return registry


def make_bundles(registry):
    """Compiles the asset bundles into attachments of the database and files of its filestore."""
    begun = time.monotonic()
    with registry.cursor() as cursor:
        env = odoo.api.Environment(cursor, odoo.SUPERUSER_ID, {})
        qweb = env['ir.qweb']
        scripts, styles = qweb._get_bundles_to_pregenarate()
        for bundle in sorted(scripts.union(LAZY_BUNDLES)):
            if not TESTS.search(bundle):
                qweb._get_asset_bundle(bundle, css=False, js=True).js()
        for bundle in sorted(styles):
            if not TESTS.search(bundle):
                qweb._get_asset_bundle(bundle, css=True, js=False).css()
        cursor.commit()
    _logger.info('Asset bundles made in %.1f s', time.monotonic() - begun)


WORK = {'template': template, 'install': install, 'upgrade': upgrade}


def main(work, database, modules):
    """Does one piece of work."""
    begun = time.monotonic()
    config.parse_config([
        '-c', CONFIGURATION, '-d', database, '--no-http', '--workers=0', '--max-cron-threads=0',
        '--db_app_name=odoo-task-{pid}',
    ], setup_logging=True)
    threading.current_thread().dbname = database  # in every line of the log
    load_server_wide_modules()
    WORK[work](database, modules)
    _logger.info('%s done in %.1f s', work, time.monotonic() - begun)


if __name__ == '__main__':
    if not 3 <= len(sys.argv) <= 4 or sys.argv[1] not in WORK:
        sys.exit(f'usage: task.py {"|".join(WORK)} DATABASE [MODULE,...]')
    named = [name for name in sys.argv[3].split(',') if name] if len(sys.argv) == 4 else []
    if not all(MODULE.fullmatch(name) for name in named):
        sys.exit('task.py: a module name has small letters, digits and _')
    main(sys.argv[1], sys.argv[2], named)
