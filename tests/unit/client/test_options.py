from __future__ import annotations

from typing import Any

import pytest

from asyncbackup.client import ClientOptions


@pytest.mark.parametrize(
    "fields",
    [
        {"connections": 0},
        {"connect_timeout_s": 0},
        {"request_timeout_s": -1},
        {"give_up_after_s": -1},
        {"retry_delay_s": -0.1},
    ],
)
def test_options_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|expected"):
        ClientOptions(**fields)
