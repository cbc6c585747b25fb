"""The embedded server: a real, if small, cluster of sheep for tests, demonstrations and benchmarks.

It speaks the protocol to any client, the reference ``dog`` included, and keeps objects in memory or in folders. Its
nodes share one event loop. They place replicas as servers of 1.0 do. It locks nothing, and knows no erasure coding.
"""

from asyncbackup.sheep.faults import Fault, FaultScript
from asyncbackup.sheep.release import Release
from asyncbackup.sheep.server import Server, Sheep, SheepCluster
from asyncbackup.sheep.store import FolderStore, MemoryStore, Store

__all__ = ["Fault", "FaultScript", "FolderStore", "MemoryStore", "Release", "Server", "Sheep", "SheepCluster", "Store"]
