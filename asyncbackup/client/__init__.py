"""The way into a cluster: connections, nodes, a router that carries requests out, and typed operations on top.

What lives here knows the wire, and nothing of backups.
"""

from asyncbackup.client.cluster import Cluster, connect, connect_any
from asyncbackup.client.options import ClientOptions
from asyncbackup.client.placement import Address
from asyncbackup.client.volume import Volume

__all__ = ["Address", "ClientOptions", "Cluster", "Volume", "connect", "connect_any"]
