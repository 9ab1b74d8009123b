{
    'name': 'Platform pool',
    'summary': 'Lets one Odoo server safely serve many tenants, each with a database and a role of its own',
    'description': "Loaded server-wide by a pool's processes; never installed in a database.",
    'category': 'Hidden',
    'author': 'Odoo SaaS Platform',
    'license': 'LGPL-3',
    'depends': ['base', 'web', 'bus'],
    'installable': False,
}
