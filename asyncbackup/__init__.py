"""Concurrent backups of Sheepdog volumes.

Three lines make one::

    async with connect("localhost", 7000) as cluster:
        summary = await backup(cluster, "vm1", "vm1.tuesday", snapshot="tuesday", base="monday")
    print(summary.records, summary.bytes_written)

Everything that can go wrong on purpose is an ``asyncbackup.errors.AsyncBackupError``.
"""

from asyncbackup.client import ClientOptions, Cluster, Volume, connect
from asyncbackup.engine import (
    BackupOptions,
    ChainOptions,
    ExportSummary,
    MergeSummary,
    Progress,
    RbdDiffSummary,
    ReplayProgress,
    Summary,
    backup,
    convert,
    convert_to_rbd_diff,
    export,
    merge,
)
from asyncbackup.errors import AsyncBackupError
from asyncbackup.format import Dialect
from asyncbackup.sinks import FileSink, NullSink, PipeSink, Sink

__all__ = [
    "AsyncBackupError",
    "BackupOptions",
    "ChainOptions",
    "ClientOptions",
    "Cluster",
    "Dialect",
    "ExportSummary",
    "FileSink",
    "MergeSummary",
    "NullSink",
    "PipeSink",
    "Progress",
    "RbdDiffSummary",
    "ReplayProgress",
    "Sink",
    "Summary",
    "Volume",
    "backup",
    "connect",
    "convert",
    "convert_to_rbd_diff",
    "export",
    "merge",
]

__version__ = "0.1.0"
