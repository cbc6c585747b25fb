"""Concurrent backups of Sheepdog volumes.

Three lines make one::

    async with connect("localhost", 7000) as cluster:
        summary = await backup(cluster, "vm1", "vm1.tuesday", snapshot="tuesday", base="monday")
    print(summary.records, summary.bytes_written)

Everything that can go wrong on purpose is an ``asyncbackup.errors.AsyncBackupError``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncbackup.client import ClientOptions, Cluster, Volume, connect
    from asyncbackup.engine.against import Comparison, compare
    from asyncbackup.engine.backup import backup
    from asyncbackup.engine.chain import ChainOptions
    from asyncbackup.engine.convert import RbdDiffSummary, convert, convert_to_rbd_diff
    from asyncbackup.engine.discard import Discarded, discard
    from asyncbackup.engine.export import ExportSummary, export
    from asyncbackup.engine.info import Info, info
    from asyncbackup.engine.merge import MergeSummary, merge
    from asyncbackup.engine.opening import BaseSnapshot
    from asyncbackup.engine.options import BackupOptions
    from asyncbackup.engine.progress import Progress, Summary
    from asyncbackup.engine.restore import RestoreSummary, restore
    from asyncbackup.engine.verify import FileReport, VerifyReport, verify
    from asyncbackup.errors import AsyncBackupError
    from asyncbackup.format import Dialect
    from asyncbackup.sinks import FileSink, NullSink, PipeSink, Sink

__all__ = [
    "AsyncBackupError",
    "BackupOptions",
    "BaseSnapshot",
    "ChainOptions",
    "ClientOptions",
    "Cluster",
    "Comparison",
    "Dialect",
    "Discarded",
    "ExportSummary",
    "FileReport",
    "FileSink",
    "Info",
    "MergeSummary",
    "NullSink",
    "PipeSink",
    "Progress",
    "RbdDiffSummary",
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
    "discard",
    "export",
    "info",
    "merge",
    "restore",
    "verify",
]

__version__ = "0.1.0"

_HOMES: Final = {
    "AsyncBackupError": "asyncbackup.errors",
    "BackupOptions": "asyncbackup.engine.options",
    "BaseSnapshot": "asyncbackup.engine.opening",
    "ChainOptions": "asyncbackup.engine.chain",
    "ClientOptions": "asyncbackup.client",
    "Cluster": "asyncbackup.client",
    "Comparison": "asyncbackup.engine.against",
    "Dialect": "asyncbackup.format",
    "Discarded": "asyncbackup.engine.discard",
    "ExportSummary": "asyncbackup.engine.export",
    "FileReport": "asyncbackup.engine.verify",
    "FileSink": "asyncbackup.sinks",
    "Info": "asyncbackup.engine.info",
    "MergeSummary": "asyncbackup.engine.merge",
    "NullSink": "asyncbackup.sinks",
    "PipeSink": "asyncbackup.sinks",
    "Progress": "asyncbackup.engine.progress",
    "RbdDiffSummary": "asyncbackup.engine.convert",
    "RestoreSummary": "asyncbackup.engine.restore",
    "Sink": "asyncbackup.sinks",
    "Summary": "asyncbackup.engine.progress",
    "VerifyReport": "asyncbackup.engine.verify",
    "Volume": "asyncbackup.client",
    "backup": "asyncbackup.engine.backup",
    "compare": "asyncbackup.engine.against",
    "connect": "asyncbackup.client",
    "convert": "asyncbackup.engine.convert",
    "convert_to_rbd_diff": "asyncbackup.engine.convert",
    "discard": "asyncbackup.engine.discard",
    "export": "asyncbackup.engine.export",
    "info": "asyncbackup.engine.info",
    "merge": "asyncbackup.engine.merge",
    "restore": "asyncbackup.engine.restore",
    "verify": "asyncbackup.engine.verify",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: a command that needs a tenth of the package should not wait for all of it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
