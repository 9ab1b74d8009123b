"""Imports what every tenant has, before the server forks.

Odoo imports a module's code when the first database that has it is loaded, in each worker anew: half a second of the first
request after a start. What comes with `base` and `web` is in every template, so its code is read once, for all workers.
Code is all that is loaded: a module is in a database only where it was installed.
"""

from odoo.modules.module import Manifest, load_openerp_module

COMPANIONS = (
    'api_doc', 'auth_passkey', 'auth_totp', 'base_import', 'base_import_module', 'base_setup', 'html_editor', 'iap',
    'web_tour', 'web_unsplash',
)

for _name in COMPANIONS:
    if Manifest.for_addon(_name, display_warning=False) is not None:
        load_openerp_module(_name)
