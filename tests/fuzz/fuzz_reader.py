"""Fuzzes the readers of backups and manifests: ``python -m tests.fuzz.fuzz_reader -max_total_time=60``.

Needs atheris, which is in no lock: it has wheels for few systems. What it finds is left as ``crash-…``.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ModuleNotFoundError:
    sys.exit("fuzzing needs atheris: pip install atheris")

with atheris.instrument_imports(include=["asyncbackup.format", "asyncbackup.engine"]):
    from tests.fuzz.reading import decode, read, seeds


def main() -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    with tempfile.TemporaryDirectory() as made, asyncio.Runner() as runner:
        corpus, folder = Path(made) / "corpus", Path(made) / "files"
        for each in (corpus, folder):
            each.mkdir()
        for number, seed in enumerate(seeds()):
            (corpus / str(number)).write_bytes(b"\0" + seed)

        def once(data: bytes) -> None:
            """Take the first byte for how much of the rest is a manifest: of 256ths."""
            share, rest = data[:1], data[1:]
            length = len(rest) * (share or b"\0")[0] // 256
            decode(rest)
            runner.run(read(folder, rest[length:], rest[:length] if length else None))

        atheris.Setup([*sys.argv, f"-artifact_prefix={Path.cwd()}/", str(corpus)], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
