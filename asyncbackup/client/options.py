"""How to talk to a cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How to talk to a cluster."""

    connections: int = 3
    """Connections to a node. With one connection a core of the node is idle. Many need more of its cache."""
    depth: int = 2
    """Requests that the server has on one connection at a time: it sends one answer, and meanwhile reads for the next.

    More requests only make the server's buffers fall out of its processor's cache.
    """
    connect_timeout_s: float = 5.0
    """Seconds until a sheep must have accepted a connection and answered a first request."""
    request_timeout_s: float = 30.0
    """Seconds until requests that are sent together must be answered completely."""
    attempts: int = 5
    """How often to send a request that the cluster asks to send again."""
    retry_delay_s: float = 0.1
    """Seconds before the second attempt. The delay doubles for each later attempt."""

    def __post_init__(self) -> None:
        if min(self.connections, self.depth, self.attempts) < 1:
            raise ValueError("connections, depth and attempts must be at least 1")
        if min(self.connect_timeout_s, self.request_timeout_s) <= 0:
            raise ValueError("timeouts must be positive")
