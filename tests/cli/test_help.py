"""What `-h` shows to who has not read the code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from asyncbackup.cli.main import Verb, program


def verbs(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Give all verbs, those of groups too, each with what is typed for it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from verbs(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


VERBS = dict(verbs(program))

each_verb = pytest.mark.parametrize("name", VERBS)


@each_verb
def test_the_help_of_an_option_is_whole_sentences(name: str) -> None:
    for option in VERBS[name].params:
        if isinstance(option, click.Option):
            help_text = re.sub(r"  \[.*", "", option.help or "")
            assert re.fullmatch(r"[A-Z-].{20,}\.", help_text), option.opts


@each_verb
def test_help_ends_with_examples(name: str) -> None:
    command = VERBS[name]
    assert isinstance(command, Verb)

    shown = command.get_help(click.Context(command, info_name=name, **command.context_settings)).splitlines()

    assert 1 <= len(command.examples) <= 2
    assert shown[-len(command.examples) - 1 :] == ["Examples:", *(f"  {example}" for example in command.examples)]


@each_verb
def test_examples_can_be_typed(name: str) -> None:
    command = VERBS[name]
    assert isinstance(command, Verb)
    for example in command.examples:
        asyncbackup, *arguments = shlex.split(example.split(" | ")[0])
        typed = arguments[len(name.split()) :]

        assert (asyncbackup, arguments[: len(name.split())]) == ("asyncbackup", name.split())
        command.make_context(name, typed)


@each_verb
def test_help_fits_a_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = VERBS[name]
    context = click.Context(command, info_name=name, terminal_width=80, **command.context_settings)
    formatter = context.make_formatter()
    command.format_options(context, formatter)
    command.format_help_text(context, formatter)

    assert max(map(len, formatter.getvalue().splitlines())) <= 80
