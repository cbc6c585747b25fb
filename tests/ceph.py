"""A Ceph cluster of one node, in memory, for the tests that bring images to it."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from tests.clusters import free_ports

TOOLS = ("ceph-mon", "ceph-osd", "ceph", "rbd", "monmaptool", "ceph-authtool")
MISSING = ", ".join(f"no {tool} on PATH" for tool in TOOLS if shutil.which(tool) is None)
"""Why there can be no Ceph cluster here; empty if there can."""

_PATIENCE_S: Final = 40
"""Seconds for the cluster to answer one command."""

_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{port}
ms bind msgr2 = false
auth cluster required = none
auth service required = none
auth client required = none
run dir = {folder}
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
admin socket = {folder}/$name.$pid.asok
crash dir = {folder}
keyring = {folder}/keyring
mon data = {folder}/mon
mon data avail crit = 0
mon allow pool size one = true
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
rbd default features = 1
"""


class CephCluster:
    """A monitor and an OSD with pool ``rbd``; they die with the context.

    Where they do not come up (not every machine lets an OSD serve), the test is skipped, and the reason is what the
    OSD last wrote into its log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._configuration = folder / "ceph.conf"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            self._kill_all()
            if isinstance(error, subprocess.SubprocessError | TimeoutError):
                pytest.skip(f"Ceph did not come up here: {error}; its OSD wrote last: {self._last_words()}")
            raise
        return self

    def _last_words(self) -> str:
        log = self._folder / "osd.0.log"
        return " | ".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else "nothing"

    def _start(self) -> None:
        (port,) = free_ports(1)
        fsid = str(uuid.uuid4())
        self._configuration.write_text(_CONFIGURATION.format(fsid=fsid, port=port, folder=self._folder))
        for name in ("mon", "osd"):
            (self._folder / name).mkdir()
        keyring, monmap = self._folder / "keyring", self._folder / "monmap"
        self._run("ceph-authtool", "--create-keyring", str(keyring), "--gen-key", "-n", "mon.")
        self._run("monmaptool", "--create", "--addv", "a", f"[v1:127.0.0.1:{port}]", "--fsid", fsid, str(monmap))
        mkfs = ("--mkfs", "-i", "a", "--monmap", str(monmap), "--keyring", str(keyring))
        self._run("ceph-mon", "-c", str(self._configuration), *mkfs)
        self.spawn("ceph-mon", "-i", "a")
        self._wait_for("ceph", "mon", "stat")
        osd = str(uuid.uuid4())
        self.ceph("osd", "new", osd, "0")
        self._run("ceph-osd", "-c", str(self._configuration), "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._serve_osd()
        self.ceph("osd", "pool", "create", "rbd", "8")
        self.rbd("pool", "init", "rbd")

    def _serve_osd(self) -> None:
        """Start the OSD, again if it ends: now and then it asks the monitor before it knows its cluster's id."""
        deadline = time.monotonic() + _PATIENCE_S
        osd = self.spawn("ceph-osd", "-i", "0")
        while b"1 up" not in self._ask("ceph", "osd", "stat").stdout:
            if time.monotonic() > deadline:
                raise TimeoutError("the OSD is not up")
            if osd.poll() is not None:
                osd = self.spawn("ceph-osd", "-i", "0")

    def _ask(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a program of Ceph, which may fail."""
        command = [program, "-c", str(self._configuration), "--connect-timeout", "5", *arguments]
        return subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE_S)

    def spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a daemon that dies with the context."""
        command = [program, "-f", "-c", str(self._configuration), *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._processes.append(process)
        return process

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_PATIENCE_S)

    def _wait_for(self, program: str, *arguments: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            if self._ask(program, *arguments).returncode == 0:
                return
            time.sleep(0.1)  # The daemons have no other way to say that they serve.
        raise TimeoutError(f"{program} {' '.join(arguments)} did not succeed")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill_all()

    def _kill_all(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def ceph(self, *arguments: str) -> bytes:
        """Run ``ceph``; give its standard output. Raises if it fails."""
        return self._talk("ceph", *arguments)

    def rbd(self, *arguments: str) -> bytes:
        """Run ``rbd``; give its standard output. Raises if it fails."""
        return self._talk("rbd", *arguments)

    def radosgw_admin(self, *arguments: str) -> bytes:
        """Run ``radosgw-admin``; give its standard output. Raises if it fails."""
        return self._talk("radosgw-admin", *arguments)

    def _talk(self, program: str, *arguments: str) -> bytes:
        command = [program, "-c", str(self._configuration), *arguments]
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_PATIENCE_S
        ).stdout
