"""The backup engine: plan what to read, fetch it in a bounded window, compact it in threads, write it in order."""

from asyncbackup.engine.against import Comparison, compare
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
from asyncbackup.engine.verify import FileReport, VerifyReport, verify

__all__ = [
    "BackupOptions",
    "ChainOptions",
    "Comparison",
    "ExportSummary",
    "FileReport",
    "Info",
    "MergeSummary",
    "Progress",
    "RbdDiffSummary",
    "ReplayProgress",
    "RestoreSummary",
    "Summary",
    "VerifyReport",
    "backup",
    "compare",
    "convert",
    "convert_to_rbd_diff",
    "export",
    "info",
    "merge",
    "restore",
    "verify",
]
