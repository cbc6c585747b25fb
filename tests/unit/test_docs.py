"""What the documents for developers name is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

import asyncbackup
from benchmarks.pace import draw, rows

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = Path(asyncbackup.__file__).parent
"""Not always in ROOT: the tests also run on a package that was installed."""
DOCUMENTS: Final = ("docs/architecture.md", "docs/failures.md", "CONTRIBUTING.md")

_PLACE: Final = re.compile(r"[a-z][\w.-]*(?:/[\w.-]+)+/?")
_NAME: Final = re.compile(r"[A-Z]\w*[a-z]\w*(?:\.\w+)*|[a-z]+(?:_[a-z]+)+")


def names_in(tree: ast.AST) -> set[str]:
    """Give what a module calls by a name: classes, functions, fields, constants, arguments."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                found.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
    return found


NAMES: Final = set().union(
    *(
        names_in(ast.parse(path.read_text()))
        for folder in (PACKAGE, ROOT / "tests", ROOT / "benchmarks")
        for path in folder.rglob("*.py")
    )
)


def words(document: str) -> list[str]:
    """Give what stands between backticks in the text of a document, outside of its pictures."""
    text = re.sub(r"```.*?```", "", document, flags=re.DOTALL)
    return re.findall(r"`([^`]+)`", text)


def is_there(place: str) -> bool:
    """Tell whether there is such a file or folder: of the project, or as a module of the package."""
    paths = (ROOT / place, PACKAGE.parent / place, PACKAGE / place, PACKAGE / f"{place}.py")
    return any(path.exists() for path in paths)


def missing(document: str) -> list[str]:
    """Give the modules, files and names that a document speaks of, and that are not there."""
    return [
        word
        for word in words(document)
        if (_PLACE.fullmatch(word) and "NAME" not in word and not is_there(word))
        or (_NAME.fullmatch(word) and not NAMES.issuperset(word.split(".")))
    ]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_names_is_there(name: str) -> None:
    document = (ROOT / name).read_text()

    assert len(words(document)) > 50
    assert missing(document) == []


@pytest.mark.parametrize("name", ["docs/architecture.md"])
def test_the_picture_names_modules_that_are_there(name: str) -> None:
    pictures = re.findall(r"```\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    places = [place for picture in pictures for place in re.findall(r"\b[a-z]+/[a-z_]+\b", picture)]

    assert len(places) > 20
    assert [place for place in places if not is_there(place)] == []


@pytest.mark.parametrize(
    "word", ["engine/nonsense", "tests/unit/nonsense.py", "Nonsense", "Cluster.nonsense", "no_such"]
)
def test_what_is_not_there_is_found(word: str) -> None:
    assert missing(f"See `{word}`, and `Cluster.counted` in `client/cluster`.") == [word]


@pytest.mark.slow
def test_the_table_of_paces_is_what_the_benchmark_prints() -> None:
    assert draw(rows()) in (ROOT / "docs/performance.md").read_text()
