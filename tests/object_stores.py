"""A server that speaks S3, in a thread of the test process, with faults between it and its clients."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, NamedTuple

import pytest

KEY_ID: Final = "AKIATESTONLY"
SECRET: Final = "s3cr3t/that+nobody/may=see"
REGION: Final = "us-east-1"


class Request(NamedTuple):
    """A request to the store, as far as faults are chosen by it."""

    method: str
    key: str
    """The name of the object, without the bucket."""
    query: str
    range: str
    """Its header of this name."""


Fault = Callable[["Exchange"], Iterable[bytes]]
"""Answers in place of the store, or after it."""


@dataclass(slots=True)
class Exchange:
    """A request in the middle of being answered."""

    request: Request
    environment: dict[str, Any]
    start: Callable[..., Any]
    app: Callable[..., Iterable[bytes]]

    def answer(self) -> Iterable[bytes]:
        """Have the store answer."""
        return self.app(self.environment, self.start)


@dataclass(slots=True)
class S3Server:
    """A running server. ``faults`` are asked for each request, the first one first; None: no fault here."""

    endpoint: str
    backend: Any
    faults: list[Callable[[Request], Fault | None]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def new_bucket(self) -> str:
        name = f"bucket{next(self._numbers)}"
        self.backend.create_bucket(name, REGION)
        return name

    def objects(self, bucket: str) -> list[str]:
        return sorted(self.backend.buckets[bucket].keys)

    def content(self, bucket: str, key: str) -> bytes:
        value: bytes = self.backend.buckets[bucket].keys[key].value
        return value

    def uploads(self, bucket: str) -> list[str]:
        """Name the objects of which an upload in parts is open."""
        return [upload.key_name for upload in self.backend.buckets[bucket].multiparts.values()]

    def count_requests(self, method: str, key: str) -> int:
        return sum(request.method == method and request.key == key for request in self.requests)

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to know to get at it."""
        return environment_of(self.endpoint)

    @property
    def options(self) -> dict[str, str]:
        """The same as options of the store."""
        return {
            "access_key_id": KEY_ID,
            "secret_access_key": SECRET,
            "region": REGION,
            "endpoint": self.endpoint,
        }

    def serve(self, app: Callable[..., Any], environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        _, _, key = environment["PATH_INFO"].lstrip("/").partition("/")
        request = Request(
            environment["REQUEST_METHOD"], key, environment["QUERY_STRING"], environment.get("HTTP_RANGE", "")
        )
        self.requests.append(request)
        exchange = Exchange(request, environment, start, app)
        fault = next((found for fault in self.faults if (found := fault(request)) is not None), None)
        return exchange.answer() if fault is None else fault(exchange)


@contextmanager
def serving_s3() -> Iterator[S3Server]:
    """Run a server, which says nothing of its requests."""
    # These take a second to import, and most tests need none of them.
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    threaded: Any = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    threaded.start()
    try:
        host, port = threaded.get_host_and_port()
        server = S3Server(f"http://{host}:{port}", s3_backends[DEFAULT_ACCOUNT_ID]["aws"])
        app = threaded._server.app
        threaded._server.app = lambda environment, start: server.serve(app, environment, start)
        yield server
    finally:
        threaded.stop()


def environment_of(endpoint: str) -> dict[str, str]:
    """Give what a command needs to know to get at the store of tests there."""
    return {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
    }


def name_store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment name the store there."""
    for name, value in environment_of(endpoint).items():
        monkeypatch.setenv(name, value)


def times(number: int, fault: Fault, matches: Callable[[Request], bool]) -> Callable[[Request], Fault | None]:
    """Make a rule: so many requests that match meet with ``fault``."""
    left = count(number, -1)
    return lambda request: fault if matches(request) and next(left) > 0 else None


def always(fault: Fault, matches: Callable[[Request], bool]) -> Callable[[Request], Fault | None]:
    """Make a rule: all requests that match meet with ``fault``."""
    return lambda request: fault if matches(request) else None


def fail(exchange: Exchange) -> Iterable[bytes]:
    """Answer that the server failed."""
    _read_all(exchange.environment)
    exchange.start("500 Internal Server Error", [("Content-Length", "0")])
    return []


def forbid(exchange: Exchange) -> Iterable[bytes]:
    """Answer that this is not permitted."""
    _read_all(exchange.environment)
    exchange.start("403 Forbidden", [("Content-Length", "0")])
    return []


def cut(exchange: Exchange) -> Iterable[bytes]:
    """Close the connection before an answer."""
    connection: socket.socket = exchange.environment["werkzeug.socket"]
    connection.shutdown(socket.SHUT_RDWR)
    return []


def lose(exchange: Exchange) -> Iterable[bytes]:
    """Let the store do it, and close the connection in place of its answer."""
    b"".join(exchange.app(exchange.environment, lambda *_: None))
    return cut(exchange)


def lengthen(exchange: Exchange) -> Iterable[bytes]:
    """Answer with more bytes than were asked for."""
    began: list[tuple[str, list[tuple[str, str]]]] = []
    content = b"".join(exchange.app(exchange.environment, lambda *begun: began.append(begun[:2]))) + b"more"
    status, headers = began[-1]
    others = [(name, value) for name, value in headers if name.lower() != "content-length"]
    exchange.start(status, [*others, ("Content-Length", str(len(content)))])
    return [content]


def cut_after_half(exchange: Exchange) -> Iterable[bytes]:
    """Close the connection in the middle of the answer."""
    content = b"".join(exchange.answer())
    yield content[: len(content) // 2]
    exchange.environment["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


def _read_all(environment: dict[str, Any]) -> None:
    environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
