"""Where the bytes of a backup go: a file, a pipe, or nowhere."""

from asyncbackup.sinks.base import Sink
from asyncbackup.sinks.file import FileSink
from asyncbackup.sinks.null import NullSink
from asyncbackup.sinks.pipe import PipeSink

__all__ = ["FileSink", "NullSink", "PipeSink", "Sink"]
