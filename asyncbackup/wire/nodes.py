"""The nodes of a cluster: who serves it, and where; their list is that of 1.0."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

from asyncbackup.wire.messages import Bytes

NODE_ENTRY_SIZE: Final = 80
MAX_NODES: Final = 6144
"""Nodes that a 1.0 cluster can have."""

_ENTRY: Final = struct.Struct("<24x16sH16sH4xH2xIQ")
_IPV4_PREFIX: Final = bytes(12)


@dataclass(frozen=True, slots=True)
class Node:
    """One sheep; ``space`` in bytes."""

    host: str
    port: int
    zone: int
    vnodes: int
    space: int


def format_address(host: str, port: int) -> str:
    """Write ``host:port``, an IPv6 address in brackets: what people type, and messages say."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def pack_node(node: Node) -> bytes:
    """Build the 80-byte entry of a node (internal version 0x0a)."""
    address = ipaddress.ip_address(node.host).packed.rjust(16, b"\0")
    return _ENTRY.pack(address, node.port, bytes(16), 0, node.vnodes, node.zone, node.space)


def unpack_nodes(entries: Bytes) -> list[Node]:
    """Read a node list of internal version 0x0a. Raises ValueError unless it is whole entries."""
    if len(entries) % NODE_ENTRY_SIZE:
        raise ValueError(f"expected a multiple of {NODE_ENTRY_SIZE} bytes, got {len(entries)}")
    return [
        Node(_host(address), port, zone, vnodes, space)
        for address, port, _io_address, _io_port, vnodes, zone, space in _ENTRY.iter_unpack(entries)
    ]


def _host(address: bytes) -> str:
    if address[:12] == _IPV4_PREFIX:
        return str(ipaddress.IPv4Address(address[12:]))
    return str(ipaddress.IPv6Address(address))
