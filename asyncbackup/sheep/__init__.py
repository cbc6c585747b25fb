"""The embedded server: a real, if single-node, sheep for tests, demonstrations and benchmarks.

It speaks the protocol to any client, the reference ``dog`` included, and keeps objects in memory or in a folder. It
replicates nothing, locks nothing, and knows no erasure coding.
"""

from asyncbackup.sheep.faults import Fault, FaultScript
from asyncbackup.sheep.release import Release
from asyncbackup.sheep.server import Sheep
from asyncbackup.sheep.store import FolderStore, MemoryStore, Store

__all__ = ["Fault", "FaultScript", "FolderStore", "MemoryStore", "Release", "Sheep", "Store"]
