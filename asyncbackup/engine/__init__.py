"""The backup engine: plan what to read, fetch it in a bounded window, compact it in threads, write it in order."""

from asyncbackup.engine.backup import backup
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.convert import RbdDiffSummary, convert, convert_to_rbd_diff
from asyncbackup.engine.export import ExportSummary, export
from asyncbackup.engine.info import Info, info
from asyncbackup.engine.merge import MergeSummary, merge
from asyncbackup.engine.options import BackupOptions
from asyncbackup.engine.progress import Progress, Summary
from asyncbackup.engine.replay import ReplayProgress
from asyncbackup.engine.restore import RestoreSummary, restore

__all__ = [
    "BackupOptions",
    "ChainOptions",
    "ExportSummary",
    "Info",
    "MergeSummary",
    "Progress",
    "RbdDiffSummary",
    "ReplayProgress",
    "RestoreSummary",
    "Summary",
    "backup",
    "convert",
    "convert_to_rbd_diff",
    "export",
    "info",
    "merge",
    "restore",
]
