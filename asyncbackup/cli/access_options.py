"""The options that say how to get at backups in object stores, and at encrypted ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import click

from asyncbackup.cli.options import LOCAL_PATH
from asyncbackup.storage import Access
from asyncbackup.storage.access import STORE_OPTIONS_VARIABLE, is_secret, parse_store_option, read_store_options

_Function = TypeVar("_Function", bound=Callable[..., Any])


def access_options(function: _Function) -> _Function:
    """Add --store-option and --identity. ``function`` gets both as ``access``."""

    @wraps(function)
    def call(*, store_options: dict[str, str], identities: tuple[str, ...], **others: Any) -> Any:
        return function(access=Access(store_options, identities).sharing_stores(), **others)

    add_store_options = click.option(
        "--store-option",
        "store_options",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_store_options,
        help="Set an option of the object store, such as endpoint=https://store.example. You can give several. "
        f"Secret ones go into the environment: {STORE_OPTIONS_VARIABLE} has any, with spaces between them.  "
        "[default: what the environment and the profile say]",
    )
    add_identities = click.option(
        "--identity",
        "identities",
        multiple=True,
        type=LOCAL_PATH,
        metavar="FILE",
        help="Decrypt with the keys in this file: of age, or a private key of ssh. You can give several.",
    )
    return add_store_options(add_identities(cast(_Function, call)))


def _store_options(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    try:
        given = dict(map(parse_store_option, values))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    for key, value in given.items():
        if is_secret(key, value):
            raise click.BadParameter(
                f"others could see {key} in the list of processes: set it in {STORE_OPTIONS_VARIABLE}, as KEY=VALUE"
            )
    try:
        return read_store_options(os.environ) | given
    except ValueError as error:
        raise click.BadParameter(f"{error} in {STORE_OPTIONS_VARIABLE}") from None
