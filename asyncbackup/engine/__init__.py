"""The backup engine: plan what to read, fetch it in a bounded window, compact it in threads, write it in order."""

from asyncbackup.engine.backup import backup
from asyncbackup.engine.options import BackupOptions
from asyncbackup.engine.progress import Progress, Summary

__all__ = ["BackupOptions", "Progress", "Summary", "backup"]
