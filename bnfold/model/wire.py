"""The fields of a protobuf message, as they lie in its bytes: where each begins and ends.

Only what every reader of protobuf takes for the same is walked (the encoding page of
protobuf.dev): varints of the least length, no groups, nothing beyond the end. All else is an
`UnusualError`, and whoever asks lets protobuf itself read the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

VARINT: Final = 0
_FIXED64: Final = 1
BYTES: Final = 2
_FIXED32: Final = 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}

MOST_BYTES: Final = (1 << 31) - 1
"""What a message may hold."""

_MOST_TAG: Final = (1 << 32) - 1
_MOST_VARINT: Final = (1 << 64) - 1
_LONGEST_HEADER: Final = 20
"""A tag and a value: two varints of ten bytes at the most."""

Read = Callable[[int, int], bytes]
"""From a place and a length to so many bytes; fewer where there are no more."""


class UnusualError(Exception):
    """Bytes that are damaged, or that not every writer of protobuf would have written so."""


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: Its number.
        kind: Its wire type.
        start: Where its tag begins.
        begin: Where its contents begin, behind the tag and the length.
        end: Where they end.
    """

    number: int
    kind: int
    start: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes its contents are."""
        return self.end - self.begin


class Steps:
    """How many fields may still be looked at: a file of empty ones is no reason to wait."""

    def __init__(self, most: int) -> None:
        """Begin with so many."""
        self._left = most

    def take(self) -> None:
        """Take one.

        Raises:
            UnusualError: If there is none left.
        """
        self._left -= 1
        if self._left < 0:
            message = "it has too many fields"
            raise UnusualError(message)


def fields(read: Read, begin: int, end: int, chunk: int, steps: Steps) -> Iterator[Field]:
    """Yield the fields of the message that lies from one place to another, in their order.

    Args:
        read: Reads the bytes.
        begin: Where the message begins.
        end: Where it ends.
        chunk: So much is read at once.
        steps: How many fields may be looked at.

    Raises:
        UnusualError: If its bytes are damaged, or unusual.
    """
    buffer, base, place = b"", begin, begin
    while place < end:
        steps.take()
        loaded = base + len(buffer)
        if place + _LONGEST_HEADER > loaded and loaded < end:
            buffer, base = read(place, min(chunk, end - place)), place
        tag, at = _varint(buffer, place - base, _MOST_TAG)
        number, kind = tag >> 3, tag & 7
        if not number:
            message = "a field has the number 0"
            raise UnusualError(message)
        if kind == BYTES:
            length, at = _varint(buffer, at, MOST_BYTES)
            stop = base + at + length
        elif kind == VARINT:
            _, behind = _varint(buffer, at, _MOST_VARINT)
            stop = base + behind
        elif kind in _FIXED:
            stop = base + at + _FIXED[kind]
        else:
            message = f"a field has the wire type {kind}"
            raise UnusualError(message)
        if stop > end:
            message = "a field ends behind its message"
            raise UnusualError(message)
        yield Field(number, kind, place, base + at, stop)
        place = stop


def _varint(buffer: bytes, at: int, most: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while at < len(buffer):
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > most or (shift and not byte):
                message = "a number is too large, or longer than it need be"
                raise UnusualError(message)
            return value, at
        shift += 7
        if shift > 63:
            break
    message = "a number has no end"
    raise UnusualError(message)


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it: in as few bytes as can be."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def header(number: int, size: int) -> bytes:
    """Return what stands in front of a field of so many bytes."""
    return varint(number << 3 | BYTES) + varint(size)
