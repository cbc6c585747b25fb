"""Ceph's server that speaks S3, over a Ceph cluster of its own, for the tests that back up to a real object store."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from tests import ceph
from tests.ceph import CephCluster
from tests.clusters import free_ports
from tests.object_stores import KEY_ID, REGION, SECRET

_TOOLS = ("radosgw", "radosgw-admin")
MISSING = ", ".join(filter(None, (ceph.MISSING, *(f"no {tool} on PATH" for tool in _TOOLS if not shutil.which(tool)))))
"""Why there can be no such server here; empty if there can."""

_START_S: Final = 60
"""Seconds for the server to make its pools and to answer."""


@dataclass(frozen=True, slots=True)
class RadosGateway:
    """A running server. ``s3`` is a client of it that is not ours."""

    endpoint: str
    s3: Any
    _numbers: Iterator[int] = field(default_factory=count)

    def new_bucket(self) -> str:
        name = f"bucket{next(self._numbers)}"
        self.s3.create_bucket(Bucket=name)
        return name

    def content(self, bucket: str) -> dict[str, bytes]:
        """Read all objects, by their names."""
        listed = self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {entry["Key"]: self.s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read() for entry in listed}

    def uploads(self, bucket: str) -> dict[str, int]:
        """Count the parts that are there of each object of which an upload is open."""
        return {
            upload["Key"]: len(
                self.s3.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts", [])
            )
            for upload in self.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        }


@contextmanager
def serving_radosgw(folder: Path) -> Iterator[RadosGateway]:
    """Run a cluster and the server over it in ``folder``; both die with the context."""
    with CephCluster(folder) as cluster:
        (port,) = free_ports(1)
        user = ("user", "create", "--uid", "tests", "--display-name", "tests")
        cluster.radosgw_admin(*user, "--access-key", KEY_ID, "--secret-key", SECRET)
        gateway = cluster.spawn(
            *("radosgw", "-n", "client.radosgw", "--rgw-data", str(folder / "radosgw")),
            *("--rgw-frontends", f"beast endpoint=127.0.0.1:{port}"),
        )
        _wait_for(gateway, port)
        with _connecting(f"http://127.0.0.1:{port}") as s3:
            yield RadosGateway(f"http://127.0.0.1:{port}", s3)


def _wait_for(gateway: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and gateway.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.1)  # It has no other way to say that it serves.
        else:
            return
        finally:
            connection.close()
    pytest.skip(f"radosgw did not answer within {_START_S} seconds; it ended with {gateway.poll()}")


@contextmanager
def _connecting(endpoint: str) -> Iterator[Any]:
    # These take a second to import, and most tests need none of them.
    import boto3
    from botocore.config import Config

    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "region_name": REGION}
    bounds = Config(connect_timeout=5, read_timeout=30, s3={"addressing_style": "path"})
    s3 = boto3.client("s3", endpoint_url=endpoint, config=bounds, **keys)
    try:
        yield s3
    finally:
        s3.close()
