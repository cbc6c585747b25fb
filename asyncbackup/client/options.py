"""How to talk to a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How to talk to a cluster. Raises ValueError for what cannot be."""

    connections: int | None = None
    """Connections to a node, with ``DEPTH`` requests on each. None: what is observed decides both."""
    connect_timeout_s: float = 5.0
    """Seconds until a sheep must have accepted a connection and answered a first request."""
    request_timeout_s: float = 30.0
    """Seconds until requests that are sent together must be answered completely by the nodes that got them."""
    give_up_after_s: float = 600.0
    """Seconds in which a request may be tried again, and nodes and cluster may recover. 0: it fails at once where no
    other node can carry it out."""
    retry_delay_s: float = 0.1
    """Seconds before a request is tried again for the first time. The delay doubles with each try."""

    rate: int | None = None
    """Bytes a second to read, at most. None: as many as there are."""

    def shared_by(self, count: int) -> ClientOptions:
        """Give those of each of ``count`` processes: they share the rate."""
        return self if self.rate is None else replace(self, rate=max(1, self.rate // count))

    def __post_init__(self) -> None:
        if self.connections is not None and self.connections < 1:
            raise ValueError(f"expected at least 1 connection, got {self.connections}")
        if min(self.connect_timeout_s, self.request_timeout_s) <= 0:
            raise ValueError("timeouts must be positive")
        if self.rate is not None and self.rate < 1:
            raise ValueError(f"expected a rate of at least 1 byte a second, got {self.rate}")
        if min(self.give_up_after_s, self.retry_delay_s) < 0:
            raise ValueError("expected no negative time to give up after, and no negative delay")
