"""What import rules cannot say of the layers, and of the tests that mirror them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import asyncbackup

_ROOT = Path(asyncbackup.__file__).parent
_FLAG = re.compile(r"(?:^|[\s`'\"(])--?[A-Za-z][\w-]*")

BELOW_CLI = sorted(
    path
    for path in _ROOT.rglob("*.py")
    # It writes the command lines of programs that it runs.
    if "cli" not in path.relative_to(_ROOT).parts and path != _ROOT / "bench/programs.py"
)


def literals(tree: ast.AST) -> list[str]:
    """Give the texts of a module that are no docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


@pytest.mark.parametrize("path", BELOW_CLI, ids=lambda path: str(path.relative_to(_ROOT)))
def test_no_text_below_the_command_line_names_an_option(path: Path) -> None:
    found = [text for text in literals(ast.parse(path.read_text())) if _FLAG.search(text)]

    assert found == []


@pytest.mark.parametrize("text", ["see --size", "name it with -s", "--force", "`--to`", "(-F)"])
def test_an_option_in_a_text_is_found(text: str) -> None:
    assert [literal for literal in literals(ast.parse(f"'a docstring'\nx = {text!r}")) if _FLAG.search(literal)]


CONCRETE = {
    node.name
    for path in (_ROOT / "storage").glob("*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.ClassDef)
    and node.name.endswith(("Source", "Target"))
    and not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
}
"""What implements a protocol of storage: those who use it know the protocol alone."""


def concrete_types_asked_for(tree: ast.AST) -> list[str]:
    """Give the sources and targets of storage that code asks whether a value is one of."""
    asked = [
        node.args[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
    ]
    return [name.id for each in asked for name in ast.walk(each) if isinstance(name, ast.Name) and name.id in CONCRETE]


@pytest.mark.parametrize("path", sorted(_ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(_ROOT)))
def test_no_code_asks_for_a_concrete_source_or_target(path: Path) -> None:
    assert concrete_types_asked_for(ast.parse(path.read_text())) == []


@pytest.mark.parametrize("asked", ["FileTarget", "(int, FileSource)", "PipeSource | None"])
def test_a_concrete_source_or_target_that_is_asked_for_is_found(asked: str) -> None:
    assert len(concrete_types_asked_for(ast.parse(f"isinstance(x, {asked})"))) == 1


def test_a_test_of_a_module_is_named_after_it() -> None:
    unit = Path(__file__).parent
    tested = [path.relative_to(unit) for path in unit.glob("*/test_*.py")]

    assert tested
    assert [path for path in tested if not (_ROOT / path.parent / path.name.removeprefix("test_")).exists()] == []
