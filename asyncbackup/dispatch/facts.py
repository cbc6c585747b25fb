"""What must be the same on all machines: jobs and results are written by one of them and read by another."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import numpy as np

from asyncbackup import __version__


def _distributed() -> str:
    try:
        return version("distributed")
    except PackageNotFoundError:
        return "missing"


FACTS: Final = {
    "asyncbackup": __version__,
    "Python": f"{sys.version_info.major}.{sys.version_info.minor}",
    "numpy": np.__version__.partition(".")[0],
    "distributed": _distributed(),
}
