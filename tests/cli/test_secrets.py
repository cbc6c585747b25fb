"""No secret is in anything that a run says, logs or stores: whatever it does, and however it fails."""

from __future__ import annotations

import logging
import os
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from asyncbackup import Dialect, backup, connect, list_backups
from asyncbackup.errors import AsyncBackupError
from asyncbackup.storage import Access
from asyncbackup.storage.age_keys import load_pyrage
from tests.cli.command import PROGRAM, Served
from tests.object_stores import SECRET, S3Server, always, fail, forbid

TOKEN = "FwoGZXIvYXdzEtoken+nobody/may=see"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def identity() -> str:
    """A private key of age."""
    return str(load_pyrage().x25519.Identity.generate())


@dataclass
class Runs:
    """Runs the program, has it say all that it can, and keeps that."""

    folder: Path
    environment: dict[str, str]
    said: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, *arguments: str, code: int) -> None:
        run = subprocess.run(
            [*PROGRAM, "--debug", *arguments, "-v"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert run.returncode == code, run.stderr.decode()
        self.said[" ".join(arguments)] = run.stdout + run.stderr


@pytest.fixture
def runs(tmp_path: Path, s3: S3Server, identity: str) -> Runs:
    (tmp_path / "key").write_text(f"{identity}\n")
    environment = os.environ | s3.environment | {"AWS_SESSION_TOKEN": TOKEN, "RUST_LOG": "trace", "RUST_BACKTRACE": "1"}
    return Runs(tmp_path, environment | {"PYTHONPATH": str(Path.cwd())})


def spellings(identity: str) -> Iterator[bytes]:
    """Spell each secret in the ways in which programs write one."""
    for secret in (SECRET, TOKEN, identity):
        yield from (each.encode() for each in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)})
        yield b64encode(secret.encode()).rstrip(b"=")


def refuse_secrets(what: str, content: bytes, identity: str) -> None:
    for secret in spellings(identity):
        assert secret not in content, what


def test_no_run_says_a_secret(runs: Runs, s3: S3Server, served: Served, identity: str) -> None:
    url = f"s3://{s3.new_bucket()}/f"
    recipient = str(load_pyrage().x25519.Identity.from_str(identity).to_public())
    port = ("-p", served.port)
    key = ("--identity", "key")

    runs("backup", "disk", f"{url}/a", "-s", "a", "--zstd", "--encrypt", recipient, *port, code=0)
    runs("backup", "disk", f"{url}/b", "-s", "b", "-F", "a", *port, "--json", code=0)
    runs("backup", "disk", f"{url}/a", "-s", "a", *port, code=3)
    runs("backup", "disk", f"{url}/c", "-s", "nothing", *port, code=5)
    for verb in ("list", "info"):
        what = url if verb == "list" else f"{url}/a"
        runs(verb, what, *key, code=0)
        runs(verb, what, *key, "--json", code=0)
    runs("list", url, code=0)
    runs("info", f"{url}/a", code=1)
    runs("info", f"{url}/missing", code=5)
    runs("verify", f"{url}@b", *key, code=0)
    runs("verify", f"{url}@b", "--identity", "wrong", code=5)
    runs("restore", f"{url}@b", "--to", "of-secrets", *key, *port, code=0)
    runs("export", f"{url}@a", "--to", "image", *key, code=0)
    s3.faults.append(always(forbid, lambda request: request.key.endswith(("/b", "/d"))))
    runs("verify", f"{url}/b", *key, code=2)
    runs("backup", "disk", f"{url}/d", "-s", "a", *port, code=2)
    s3.faults[:] = [always(fail, lambda request: request.method == "GET")]
    runs("list", url, *key, "--store-option", "timeout=1s", code=2)
    s3.faults.clear()
    runs("list", url, "--store-option", f"secret_access_key={SECRET}", code=64)
    runs.environment["ASYNCBACKUP_STORE_OPTIONS"] = f"aws_secret_access_key={SECRET} session_token={TOKEN} no={TOKEN}"
    runs("list", url, code=64)
    del runs.environment["ASYNCBACKUP_STORE_OPTIONS"]
    runs.environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
    runs("list", url, *key, "--json", code=2)

    for command, said in runs.said.items():
        refuse_secrets(command, said, identity)


def test_nothing_that_is_stored_holds_a_secret(runs: Runs, s3: S3Server, served: Served, identity: str) -> None:
    bucket = s3.new_bucket()
    runs("backup", "disk", f"s3://{bucket}/a", "-s", "a", "-p", served.port, code=0)

    assert s3.objects(bucket) == ["a", "a.manifest"]
    for key in s3.objects(bucket):
        refuse_secrets(key, s3.content(bucket, key), identity)


async def test_no_log_holds_a_secret_even_at_its_lowest_level(
    s3: S3Server, served: Served, identity: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "key").write_text(f"{identity}\n")
    access = Access(s3.options | {"session_token": TOKEN}, (str(tmp_path / "key"),))
    bucket = s3.new_bucket()

    async with connect("127.0.0.1", int(served.port)) as cluster:
        await backup(cluster, "disk", f"s3://{bucket}/a", snapshot="a", dialect=Dialect.DOG, access=access)
    assert len((await list_backups(f"s3://{bucket}", access=access)).placed) == 1
    with pytest.raises(AsyncBackupError) as caught:
        await list_backups("s3://missing-bucket", access=access)

    refuse_secrets("log", caplog.text.encode(), identity)
    refuse_secrets("error", f"{caught.value!r} {caught.value.__dict__} {access!r}".encode(), identity)
