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
    Comparison,
    ExportSummary,
    FileReport,
    Info,
    MergeSummary,
    Progress,
    RbdDiffSummary,
    ReplayProgress,
    RestoreSummary,
    Summary,
    VerifyReport,
    backup,
    compare,
    convert,
    convert_to_rbd_diff,
    export,
    info,
    merge,
    restore,
    verify,
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
    "Comparison",
    "Dialect",
    "ExportSummary",
    "FileReport",
    "FileSink",
    "Info",
    "MergeSummary",
    "NullSink",
    "PipeSink",
    "Progress",
    "RbdDiffSummary",
    "ReplayProgress",
    "RestoreSummary",
    "Sink",
    "Summary",
    "VerifyReport",
    "Volume",
    "backup",
    "compare",
    "connect",
    "convert",
    "convert_to_rbd_diff",
    "export",
    "info",
    "merge",
    "restore",
    "verify",
]

__version__ = "0.1.0"
