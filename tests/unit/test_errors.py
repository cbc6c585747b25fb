from __future__ import annotations

import ast
import pickle
import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import asyncbackup
from asyncbackup import errors
from asyncbackup.errors import AsyncBackupError, LeftUnfinished, SchedulerLost, VdiNotFound, single_error

ROOT = Path(asyncbackup.__file__).parent

KINDS = {"AsyncBackupError", "ClusterError", "Incompatible", "NotFound", "SourceError", "TargetError"}
"""Only what is below them says what is wrong."""


def leaf(message: str = "leaf") -> ValueError:
    return ValueError(message)


def test_the_first_error_of_a_group_stands_for_it() -> None:
    first = leaf("first")

    with pytest.raises(ValueError, match="first") as caught, single_error():
        raise BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [first]), leaf("second")])

    assert caught.value is first


def test_an_error_that_says_what_was_left_goes_before_what_caused_it() -> None:
    left = LeftUnfinished("vm", "tagged", "the restore was stopped", "nobody answers")

    with pytest.raises(LeftUnfinished), single_error():
        raise ExceptionGroup("", [SchedulerLost("tcp://x:1"), ExceptionGroup("", [left])])


def test_an_error_from_a_group_keeps_its_cause() -> None:
    cause = RuntimeError("cause")
    error = leaf()
    error.__cause__ = cause

    with pytest.raises(ValueError, match="leaf") as caught, single_error():
        raise BaseExceptionGroup("group", [error])

    assert caught.value.__cause__ is cause


def test_a_single_error_passes() -> None:
    with pytest.raises(ValueError, match="leaf"), single_error():
        raise leaf()


MODULES = [import_module(f"{errors.__name__}.{module.name}") for module in iter_modules(errors.__path__)]
ERRORS = {
    name: kind
    for module in MODULES
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
}


def test_every_expected_error_has_one_root() -> None:
    assert len(ERRORS) > 100
    assert all(issubclass(kind, AsyncBackupError) for kind in ERRORS.values())


def test_the_package_offers_every_error_of_its_modules() -> None:
    assert ERRORS.keys() - set(errors.__all__) == set()


def test_the_docstring_draws_every_error() -> None:
    assert errors.__doc__ is not None
    assert ERRORS.keys() - set(re.findall(r"\w+", errors.__doc__)) == set()


def test_the_docstring_says_what_each_module_is_for() -> None:
    names = [module.__name__.rpartition(".")[2] for module in MODULES]

    assert errors.__doc__ is not None
    assert [name for name in names if f"``{name}``" not in errors.__doc__] == []


def test_all_others_import_errors_from_the_package() -> None:
    others = [path for path in ROOT.rglob("*.py") if path.parent != Path(errors.__file__).parent]

    assert [path for path in others if "from asyncbackup.errors." in path.read_text()] == []


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_error_is_raised_as_one_that_says_what_is_wrong(path: Path) -> None:
    raised = [node.exc for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]
    names = [ast.unparse(exc.func) for exc in raised if isinstance(exc, ast.Call)]

    assert {"AsyncBackupError", "ClusterError", "Incompatible", "NotFound", "SourceError", "TargetError"}.isdisjoint(
        names
    )


def test_a_long_listing_is_cut() -> None:
    error = VdiNotFound("vm", [f"vm{number}" for number in range(15)])

    assert str(error).endswith("vm10, vm11 and 3 more")
    assert len(error.existing) == 15


def test_an_error_goes_to_another_process_with_its_fields_and_notes() -> None:
    error = errors.ObjectReadFailed(7, 42, 2, "no such object")
    error.add_note("a note")

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is errors.ObjectReadFailed
    assert (str(again), again.idx, again.oid, again.__notes__) == (str(error), 7, 42, ["a note"])
