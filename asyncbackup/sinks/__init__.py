"""Where the bytes of a backup go: a file, a pipe, or nowhere."""

from asyncbackup.sinks.base import Sink
from asyncbackup.sinks.file import FileSink
from asyncbackup.sinks.image import NewImage, StandingImage
from asyncbackup.sinks.null import NullSink
from asyncbackup.sinks.pipe import PipeSink, is_fifo, open_fifo
from asyncbackup.sinks.source import FileSource, PipeSource, Source, open_source

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
    "is_fifo",
    "open_fifo",
    "open_source",
]
