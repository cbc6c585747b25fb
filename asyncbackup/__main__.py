"""The process: its descriptors and signals are put in order before the rest is imported, which takes a while."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from asyncbackup.cli import process


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    process.fill_closed_descriptors()
    process.use_one_arena()
    process.exit_at_signals()
    # numpy brings threads for linear algebra, which we have none of, and which spin for a while after its import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from asyncbackup.cli.main import run  # noqa: PLC0415 - a signal during this import must find its handler

    process.end(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
