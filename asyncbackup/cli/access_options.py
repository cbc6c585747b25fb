"""The options that say how to get at backups in object stores, and at encrypted ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import click

from asyncbackup.cli.options import PATH
from asyncbackup.storage import Access

_Function = TypeVar("_Function", bound=Callable[..., Any])


def access_options(function: _Function) -> _Function:
    """Add --store-option and --identity. ``function`` gets both as ``access``."""

    @wraps(function)
    def call(*, store_options: dict[str, str], identities: tuple[str, ...], **others: Any) -> Any:
        return function(access=Access(store_options, identities), **others)

    add_store_options = click.option(
        "--store-option",
        "store_options",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_store_options,
        help="Set an option of the object store, such as endpoint=https://store.example. You can give several.  "
        "[default: what the environment says]",
    )
    add_identities = click.option(
        "--identity",
        "identities",
        multiple=True,
        type=PATH,
        metavar="FILE",
        help="Decrypt with the keys in this file: of age, or a private key of ssh. You can give several.",
    )
    return add_store_options(add_identities(cast(_Function, call)))


def _store_options(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    options = {}
    for value in values:
        key, equals, content = value.partition("=")
        if not key or not equals:
            # The value may be a secret, so no message shows it.
            raise click.BadParameter("expected KEY=VALUE")
        options[key] = content
    return options
