"""Where the bytes of a backup go: a file, a pipe, or nowhere."""

from asyncbackup.sinks.base import Sink
from asyncbackup.sinks.file import FileSink
from asyncbackup.sinks.image import NewImage, StandingImage
from asyncbackup.sinks.null import NullSink
from asyncbackup.sinks.pipe import PipeSink
from asyncbackup.sinks.source import FileSource, PipeSource, Source

__all__ = [
    "FileSink",
    "FileSource",
    "NewImage",
    "NullSink",
    "PipeSink",
    "PipeSource",
    "Sink",
    "Source",
    "StandingImage",
]
