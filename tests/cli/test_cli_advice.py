"""What the command line says to type next."""

from __future__ import annotations

import click
import pytest

from asyncbackup.cli import advice as advice_module
from asyncbackup.cli.advice import advice, with_advice
from asyncbackup.cli.main import program
from asyncbackup.errors import AsyncBackupError, Fact, FactMissing, TargetExists, Unreachable


def test_advice_stands_behind_what_went_wrong() -> None:
    assert with_advice(TargetExists("file")) == "file: exists already; use another name, or --force to replace it"


def test_an_error_of_which_nothing_more_is_known_stands_alone() -> None:
    error = Unreachable("host:7000", "refused")

    assert advice(error) is None
    assert with_advice(error) == str(error)


@pytest.mark.parametrize("fact", Fact)
def test_there_is_an_option_for_each_fact_that_a_manifest_may_lack(fact: Fact) -> None:
    assert "--" in with_advice(FactMissing(fact))


def options() -> set[str]:
    """Give the options of all verbs."""
    context = click.Context(program)
    verbs = [program.get_command(context, name) for name in program.list_commands(context)]
    return {name for verb in verbs if verb for parameter in verb.params for name in parameter.opts}


def test_every_option_that_advice_names_exists() -> None:
    known = options()
    texts = [*advice_module._OF_FACT.values(), *advice_module._BY_ERROR.values()]
    named = {word.strip(",:;.") for text in texts for word in text.split() if word.startswith("-")}

    assert named
    assert named <= known


def test_advice_is_for_errors_that_are_no_kind_of_one_another() -> None:
    kinds = list(advice_module._BY_ERROR)

    assert all(issubclass(kind, AsyncBackupError) for kind in kinds)
    assert [(one, other) for one in kinds for other in kinds if one is not other and issubclass(one, other)] == []
