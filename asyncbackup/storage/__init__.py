"""Where the bytes of backups come from and go to: files, pipes, images, object stores, or nowhere."""

from asyncbackup.storage.access import Access
from asyncbackup.storage.backup_source import BackupSource, open_source
from asyncbackup.storage.backup_target import BackupTarget, open_standard_output, open_target
from asyncbackup.storage.file import FileTarget
from asyncbackup.storage.image import NewImage, StandingImage
from asyncbackup.storage.layers import Layers
from asyncbackup.storage.null import NullTarget
from asyncbackup.storage.partial import Partial
from asyncbackup.storage.pipe import PipeTarget, ScratchTarget, is_fifo, open_fifo
from asyncbackup.storage.source import FileSource, PipeSource, PlainSource, Source
from asyncbackup.storage.target import JoinableTarget, Target, publish

__all__ = [
    "Access",
    "BackupSource",
    "BackupTarget",
    "FileSource",
    "FileTarget",
    "JoinableTarget",
    "Layers",
    "NewImage",
    "NullTarget",
    "Partial",
    "PipeSource",
    "PipeTarget",
    "PlainSource",
    "ScratchTarget",
    "Source",
    "StandingImage",
    "Target",
    "is_fifo",
    "open_fifo",
    "open_source",
    "open_standard_output",
    "open_target",
    "publish",
]
