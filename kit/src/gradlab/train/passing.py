"""A batch on its way from the process that made it to the one that wants it.

Promises: arrays of any size and kind are handed over through memory that needs no /dev/shm, has no
name, and is freed with its process, however that ends. What was received is ordinary memory of the
receiver's. What can't be sent is an error where it was made, and leaves nothing half sent.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, cycle
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import numpy as np

from . import frameworks

STEP = 64  # bytes: each array begins at a multiple of it
SMALL = 1 << 16  # bytes that go through the pipe sooner than through a file


class _Pickler(pickle.Pickler):
    """Pickles a batch, with the bytes of the frameworks' arrays apart, as NumPy's own are."""

    def reducer_override(self, value: Any) -> Any:
        for framework in frameworks.loaded():
            if (reduced := framework.reduced(value)) is not NotImplemented:
                return reduced
        return NotImplemented


def pickled(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle a value, and give the bytes of its arrays apart."""
    stream, apart = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(stream, 5, buffer_callback=apart.append).dump(value)
    return stream.getvalue(), [buffer.raw() for buffer in apart]


class Sender:
    """Sends batches, of which `ahead` may be under way: one more only after one was received.

    The memory of one that was received is used again, for it costs much to get.
    """

    def __init__(self, pipe: Connection, receiver: int, ahead: int) -> None:
        self._pipe, self._receiver = pipe, receiver
        self._files = cycle([_File() for _ in range(ahead)])

    def send(self, batch: Any) -> None:
        """Send a batch to the process `receiver`; an error before any of it was sent."""
        plain, pieces = pickled(batch)
        sizes = [piece.nbytes for piece in pieces]
        file = next(self._files)
        in_file = sum(sizes) > SMALL and file.write(_padded(pieces))
        self._pipe.send_bytes(pickle.dumps((plain, sizes, in_file)))
        if in_file:
            send_handle(self._pipe, file.handle, self._receiver)
        elif pieces:
            self._pipe.send_bytes(b"".join(_padded(pieces)))


class _File:
    """A file in memory, where the system has such."""

    def __init__(self) -> None:
        self.handle = -1

    def write(self, pieces: Iterable[memoryview | bytes]) -> bool:
        """Write pieces one after the other, over what was there; tell whether that worked."""
        try:
            if self.handle < 0:
                self.handle = os.memfd_create("batch")
            os.lseek(self.handle, 0, os.SEEK_SET)
            # Written, not mapped: too little memory is then an error, not the process's end.
            for piece in pieces:
                done = 0
                while done < len(piece):
                    done += os.write(self.handle, piece[done:])
        except (AttributeError, OSError):
            return False
        return True


def _padded(pieces: Sequence[memoryview]) -> Iterator[memoryview | bytes]:
    """Give the pieces, and what fills the places between them."""
    for piece in pieces:
        yield piece
        yield bytes(-piece.nbytes % STEP)


def receive(pipe: Connection) -> Any:
    """Receive a batch; EOFError where the sender has gone."""
    plain, sizes, in_file = pickle.loads(pipe.recv_bytes())
    starts = [0, *accumulate(size + -size % STEP for size in sizes)]
    memory = _aligned(starts[-1])
    if in_file:
        handle = recv_handle(pipe)
        try:
            _read(handle, memory)
        finally:
            os.close(handle)
    elif sizes:
        pipe.recv_bytes_into(memory)
    places = zip(starts, sizes, strict=False)
    return pickle.loads(plain, buffers=[memory[at : at + size] for at, size in places])


def _aligned(size: int) -> memoryview:
    """Give memory that begins where an array may."""
    # Not a bytearray, which would be filled first.
    memory: Any = np.empty(size + STEP, np.uint8)
    start = -memory.ctypes.data % STEP
    return memoryview(memory)[start : start + size]


def _read(handle: int, memory: memoryview) -> None:
    at = 0
    while at < len(memory):
        at += os.preadv(handle, [memory[at:]], at)
