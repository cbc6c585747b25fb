from __future__ import annotations

import json
from typing import Any

import pytest

from asyncbackup.bench.cases import Place, Results, decode
from asyncbackup.errors import ResultsDamaged
from tests.unit.bench.made import case

RESULTS = Results({"processor": "fast"}, ["asyncbackup backup"], 2, [case(), case(place=Place("delay", 2.0))])


def test_results_are_read_as_they_were_written() -> None:
    assert decode(RESULTS.encode(), "old.json") == RESULTS


def damaged(change: Any) -> str:
    told = json.loads(RESULTS.encode())
    change(told)
    return json.dumps(told)


DAMAGE = {
    "another format": lambda told: told.update(format=2),
    "no cases": lambda told: told.pop("cases"),
    "a case without runs": lambda told: told["cases"][0].pop("runs"),
    "a time that is text": lambda told: told["cases"][0]["runs"]["drain"][0].update(wall_s="1"),
    "a time below zero": lambda told: told["cases"][0]["runs"]["drain"][0].update(wall_s=-1),
    "a time that is no number": lambda told: told["cases"][0]["runs"]["drain"][0].update(wall_s=float("nan")),
    "a machine that is a list": lambda told: told.update(machine=[]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_no_results_is_refused_by_name(name: str) -> None:
    with pytest.raises(ResultsDamaged, match=r"^old\.json: expected"):
        decode(damaged(DAMAGE[name]), "old.json")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"format": 1}', "[" * 100000])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ResultsDamaged):
        decode(text, "old.json")
