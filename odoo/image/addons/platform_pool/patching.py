"""Replacing a part of Odoo, and failing at once when Odoo no longer has that part."""

import functools


def replace(owner, name):
    """Decorator: puts a function in the place of `owner.name`, which must exist."""
    if not hasattr(owner, name):
        raise AttributeError(f'Odoo has no {owner!r}.{name} any more: the pool module must follow')

    def put(function):
        setattr(owner, name, function)
        return function

    return put


def around(owner, name):
    """Decorator: like `replace`, and the function gets what it replaces as its first argument."""
    original = getattr(owner, name)

    def put(function):
        @functools.wraps(original)
        def replacement(*args, **kwargs):
            return function(original, *args, **kwargs)

        return replace(owner, name)(replacement)

    return put
