"""The nodes of a cluster, and their addresses. The entries of the list differ between releases."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

from asyncbackup.wire.messages import Bytes, NodeReply

NODE_ENTRY_SIZE: Final = 80
"""Bytes of an entry of 1.0, the longest that there is."""
MAX_NODES: Final = 6144
"""Nodes that a 1.0 cluster can have."""

_ENTRY_0A: Final = struct.Struct("<24x16sH16sH4xH2xIQ")
_ENTRY_07: Final = struct.Struct("<16sH16sH4xH2xIQ")
_ENTRY_06: Final = struct.Struct("<16sHHIQ")
_ENTRY_05: Final = struct.Struct("<16sHHI")
_ENTRIES: Final = {
    0x0A: _ENTRY_0A,
    0x09: _ENTRY_0A,
    0x08: _ENTRY_07,
    0x07: _ENTRY_07,
    0x06: _ENTRY_06,
    0x05: _ENTRY_05,
}
"""By internal version: address, port, then maybe address and port for data, vnodes, zone, then maybe the space."""

_IPV4_PREFIX: Final = bytes(12)
_NOWHERE: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class Node:
    """One sheep; ``space`` in bytes, 0 where its release does not say it."""

    host: str
    port: int
    zone: int
    vnodes: int
    space: int = 0
    io_host: str | None = None
    """The address to which data should go; None: the same address as for other requests."""
    io_port: int = 0


def format_address(host: str, port: int) -> str:
    """Write ``host:port``, an IPv6 address in brackets: what people type, and messages say."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def pack_node(node: Node, internal_version: int = 0x0A) -> bytes:
    """Build the entry of a node, as servers of ``internal_version`` do."""
    entry = _ENTRIES[internal_version]
    address = _packed(node.host)
    if entry is _ENTRY_05:
        return entry.pack(address, node.port, node.vnodes, node.zone)
    if entry is _ENTRY_06:
        return entry.pack(address, node.port, node.vnodes, node.zone, node.space)
    io_address = _NOWHERE if node.io_host is None else _packed(node.io_host)
    return entry.pack(address, node.port, io_address, node.io_port, node.vnodes, node.zone, node.space)


def unpack_nodes(entries: Bytes, internal_version: int = 0x0A) -> list[Node]:
    """Read a node list of a server of ``internal_version``. Raises ValueError unless it is whole entries of it."""
    entry = _ENTRIES.get(internal_version)
    if entry is None:
        raise ValueError(f"expected a known internal version, got {internal_version:#x}")
    if len(entries) % entry.size:
        raise ValueError(f"expected a multiple of {entry.size} bytes, got {len(entries)}")
    if len(entries) > MAX_NODES * entry.size:
        raise ValueError(f"expected at most {MAX_NODES} nodes, got {len(entries) // entry.size}")
    if entry in (_ENTRY_05, _ENTRY_06):
        return [
            Node(_host(address), port, zone, vnodes, *space)
            for address, port, vnodes, zone, *space in entry.iter_unpack(entries)
        ]
    return [
        Node(_host(address), port, zone, vnodes, space, *_io_address(io_address, io_port))
        for address, port, io_address, io_port, vnodes, zone, space in entry.iter_unpack(entries)
    ]


def unpack_node_list(reply: Bytes, entries: Bytes, internal_version: int = 0x0A) -> list[Node]:
    """Read an answer to GET_NODE_LIST of a server of ``internal_version``: the end of its header, and its payload.

    Raises ValueError unless it is whole entries, as many as the header says. Servers that were built with vnodes for
    disks have longer entries: those could be read as some of another layout.
    """
    nodes = unpack_nodes(entries, internal_version)
    said = NodeReply.unpack(reply).nr_nodes
    if said != len(nodes):
        raise ValueError(f"expected {said} nodes, got {len(nodes)}")
    return nodes


def _io_address(address: bytes, port: int) -> tuple[str | None, int]:
    return (None, 0) if address == _NOWHERE or not port else (_host(address), port)


def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host).packed.rjust(16, b"\0")


def _host(address: bytes) -> str:
    if address[:12] == _IPV4_PREFIX:
        return str(ipaddress.IPv4Address(address[12:]))
    return str(ipaddress.IPv6Address(address))
