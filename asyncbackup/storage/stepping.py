"""Runs a function that reads one file object and writes another, step by step, in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

_ENOUGH: Final = 1 << 20
"""Bytes of output to give at a time, if there are as many: each step is a hop to a thread and back.

The function waits while it has as many more.
"""


class Reader(Protocol):
    """What the function reads."""

    def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    """What the function writes to."""

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


class Stepping:
    """Runs ``work``, which gets a reader and a writer, from the first ``feed`` on until ``close``.

    At most two threads use it: that of ``work``, and one that feeds and takes. ``close`` ends ``work`` wherever it is,
    and the thread does not keep the process from ending.
    """

    def __init__(self, name: str, work: Callable[[Reader, Writer], object]) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._input: deque[memoryview] = deque()
        self._input_has_ended = False
        self._is_hungry = True
        self._output: list[bytes] = []
        self._output_size = 0
        self._has_ended = False
        self._error: BaseException | None = None
        self._is_closed = False
        self._reading = memoryview(b"")
        """Input that ``work`` has got, and reads in small parts. Only its thread uses this and what follows."""
        self._written: list[bytes] = []
        self._written_size = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def feed(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Hand ``buffers`` over. They stay as they are until ``take`` gives None, or this is closed."""
        with self._changed:
            self._input += [memoryview(buffer) for buffer in buffers if len(buffer)]
            self._is_hungry = self._is_hungry and not self._input
            self._changed.notify_all()
        if not self._thread.ident:
            self._thread.start()

    def end_input(self) -> None:
        """Say that there is no more input."""
        with self._changed:
            self._input_has_ended, self._is_hungry = True, False
        self.feed([])

    def take(self) -> bytes | None:
        """Give output. None: all input was used, and more is wanted. Nothing: ``work`` has returned. Blocks.

        Raises what ``work`` raised, once all output before that was given.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_hungry or self._has_ended or self._output_size >= _ENOUGH or self._is_closed
            )
            if self._output:
                output, self._output, self._output_size = self._output, [], 0
                self._changed.notify_all()
                return b"".join(output)
            if self._error is not None:
                raise self._error
            return b"" if self._has_ended else None

    def close(self) -> None:
        """End ``work``, and wait for that. Does nothing the second time."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread.ident:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._work(self, self)
        # It is raised where the output is taken. Code in Rust may even end with other kinds of exceptions.
        except BaseException as error:  # noqa: BLE001
            self._error = error
        with self._changed:
            self._pass_output()
            self._has_ended = True
            self._changed.notify_all()

    # What follows is what ``work`` reads and writes: a few KiB at a time, so that it seldom takes the lock.

    def read(self, size: int, /) -> bytes:
        if not self._reading:
            self._reading = self._next_input()
        part = bytes(self._reading[:size])
        self._reading = self._reading[len(part) :]
        return part

    def _next_input(self) -> memoryview:
        with self._changed:
            while not self._input and not self._input_has_ended and not self._is_closed:
                self._pass_output()
                self._is_hungry = True
                self._changed.notify_all()
                self._changed.wait()
            self._refuse_if_closed()
            return self._input.popleft() if self._input else memoryview(b"")

    def write(self, data: bytes, /) -> int:
        self._written.append(data)
        self._written_size += len(data)
        if self._written_size >= _ENOUGH:
            with self._changed:
                self._changed.wait_for(lambda: self._output_size < _ENOUGH or self._is_closed)
                self._refuse_if_closed()
                self._pass_output()
                self._changed.notify_all()
        return len(data)

    def _pass_output(self) -> None:
        self._output += self._written
        self._output_size += self._written_size
        self._written, self._written_size = [], 0

    def flush(self) -> None:
        """All output is given when more input is wanted, or at the end."""

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            # No OSError: Rust would take an interrupted call as one to try again.
            raise RuntimeError("nobody wants the rest")
