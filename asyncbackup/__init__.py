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
    from asyncbackup.client import ClientOptions, Cluster, Volume, connect, connect_any
    from asyncbackup.engine.chain import ChainOptions
    from asyncbackup.engine.cut import Shard
    from asyncbackup.engine.opening import BaseSnapshot
    from asyncbackup.engine.progress import DeltaSummary, Progress, Summary
    from asyncbackup.engine.window import WindowOptions
    from asyncbackup.errors import AsyncBackupError
    from asyncbackup.format import Dialect
    from asyncbackup.storage import Access, FileTarget, Layers, NullTarget, PipeTarget, Target
    from asyncbackup.verbs.backup import Delta, Estimate, backup, estimate
    from asyncbackup.verbs.compare import Comparison, compare
    from asyncbackup.verbs.convert import RbdDiffSummary, convert, convert_to_rbd_diff
    from asyncbackup.verbs.discard import Discarded, discard
    from asyncbackup.verbs.export import ExportSummary, export
    from asyncbackup.verbs.follow import follow
    from asyncbackup.verbs.info import Info, info
    from asyncbackup.verbs.join import JoinSummary, join
    from asyncbackup.verbs.join_shards import join_shards
    from asyncbackup.verbs.list_backups import Listing, find_chain, list_backups
    from asyncbackup.verbs.merge import MergeSummary, merge
    from asyncbackup.verbs.restore import RestoreSummary, restore
    from asyncbackup.verbs.restore_shard import ShardSummary, restore_shard
    from asyncbackup.verbs.verify import FileReport, VerifyReport, verify

__all__ = [
    "Access",
    "AsyncBackupError",
    "BaseSnapshot",
    "ChainOptions",
    "ClientOptions",
    "Cluster",
    "Comparison",
    "Delta",
    "DeltaSummary",
    "Dialect",
    "Discarded",
    "Estimate",
    "ExportSummary",
    "FileReport",
    "FileTarget",
    "Info",
    "JoinSummary",
    "Layers",
    "Listing",
    "MergeSummary",
    "NullTarget",
    "PipeTarget",
    "Progress",
    "RbdDiffSummary",
    "RestoreSummary",
    "Shard",
    "ShardSummary",
    "Summary",
    "Target",
    "VerifyReport",
    "Volume",
    "WindowOptions",
    "backup",
    "compare",
    "connect",
    "connect_any",
    "convert",
    "convert_to_rbd_diff",
    "discard",
    "estimate",
    "export",
    "find_chain",
    "follow",
    "info",
    "join",
    "join_shards",
    "list_backups",
    "merge",
    "restore",
    "restore_shard",
    "verify",
]

__version__ = "0.1.0"

_HOMES: Final = {
    "Access": "asyncbackup.storage",
    "Layers": "asyncbackup.storage",
    "AsyncBackupError": "asyncbackup.errors",
    "WindowOptions": "asyncbackup.engine.window",
    "BaseSnapshot": "asyncbackup.engine.opening",
    "ChainOptions": "asyncbackup.engine.chain",
    "ClientOptions": "asyncbackup.client",
    "Cluster": "asyncbackup.client",
    "Comparison": "asyncbackup.verbs.compare",
    "Delta": "asyncbackup.verbs.backup",
    "DeltaSummary": "asyncbackup.engine.progress",
    "Dialect": "asyncbackup.format",
    "Discarded": "asyncbackup.verbs.discard",
    "Estimate": "asyncbackup.verbs.backup",
    "ExportSummary": "asyncbackup.verbs.export",
    "FileReport": "asyncbackup.verbs.verify",
    "FileTarget": "asyncbackup.storage",
    "Info": "asyncbackup.verbs.info",
    "JoinSummary": "asyncbackup.verbs.join",
    "Listing": "asyncbackup.verbs.list_backups",
    "MergeSummary": "asyncbackup.verbs.merge",
    "NullTarget": "asyncbackup.storage",
    "PipeTarget": "asyncbackup.storage",
    "Progress": "asyncbackup.engine.progress",
    "RbdDiffSummary": "asyncbackup.verbs.convert",
    "RestoreSummary": "asyncbackup.verbs.restore",
    "Target": "asyncbackup.storage",
    "Shard": "asyncbackup.engine.cut",
    "ShardSummary": "asyncbackup.verbs.restore_shard",
    "Summary": "asyncbackup.engine.progress",
    "VerifyReport": "asyncbackup.verbs.verify",
    "Volume": "asyncbackup.client",
    "backup": "asyncbackup.verbs.backup",
    "compare": "asyncbackup.verbs.compare",
    "connect": "asyncbackup.client",
    "connect_any": "asyncbackup.client",
    "convert": "asyncbackup.verbs.convert",
    "convert_to_rbd_diff": "asyncbackup.verbs.convert",
    "discard": "asyncbackup.verbs.discard",
    "estimate": "asyncbackup.verbs.backup",
    "export": "asyncbackup.verbs.export",
    "find_chain": "asyncbackup.verbs.list_backups",
    "follow": "asyncbackup.verbs.follow",
    "info": "asyncbackup.verbs.info",
    "join": "asyncbackup.verbs.join",
    "join_shards": "asyncbackup.verbs.join_shards",
    "list_backups": "asyncbackup.verbs.list_backups",
    "merge": "asyncbackup.verbs.merge",
    "restore": "asyncbackup.verbs.restore",
    "restore_shard": "asyncbackup.verbs.restore_shard",
    "verify": "asyncbackup.verbs.verify",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: a command that needs a tenth of the package should not wait for all of it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
