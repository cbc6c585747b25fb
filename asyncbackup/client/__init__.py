"""Sockets: one pipelined connection, a cluster of them with typed operations, and the policy that steers both.

Knows the wire and nothing of backups.
"""

from asyncbackup.client.cluster import Cluster, connect
from asyncbackup.client.policy import ClientOptions
from asyncbackup.client.volume import Volume

__all__ = ["ClientOptions", "Cluster", "Volume", "connect"]
