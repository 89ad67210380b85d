"""Digests of tensors: SHA-256 of the type, the shape and the elements.

They do not depend on where a tensor lies, nor on how it is laid out there.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Hashable
from typing import Final, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.model.held_inside import InFile
from bnfold.model.pieces import pieces_of

_BYTE_BITS: Final = 8

Place = tuple[Hashable, ...]
"""Where the elements of a tensor are, as long as it is held: equal places, equal ones."""


class Digest(Protocol):
    """A digest under way."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes."""
        ...

    def copy(self) -> Digest:
        """Return another that goes on from here."""
        ...

    def hexdigest(self) -> str:
        """Return the digest of what was added."""
        ...


def place_of(tensor: ir.TensorProtocol) -> Place:
    """Return where a tensor's elements are: a range of a file, or the object itself.

    A file that is opened twice gives other objects; its type and shape belong to the digest.
    """
    if isinstance(tensor, InFile):
        return tensor.key
    if isinstance(tensor, ir.ExternalTensor):
        shape = tuple(tensor.shape.numpy())
        return str(tensor.path), tensor.offset, tensor.length, tensor.dtype, shape
    return (id(tensor),)


def begun_digest(tensor: ir.TensorProtocol) -> Digest:
    """Return the digest of the type and the shape of a tensor; the elements are to follow."""
    shape = tuple(int(size) for size in tensor.shape.numpy())
    return hashlib.sha256(f"{tensor.dtype.name} {shape}\n".encode())


def tensor_digest(tensor: ir.TensorProtocol) -> str:
    """Return the digest of the type, the shape and the elements of a tensor."""
    digest = begun_digest(tensor)
    for piece in pieces_of(tensor):
        digest.update(element_bytes(piece))
    return digest.hexdigest()


def is_digest_of_bytes(tensor: ir.TensorProtocol) -> bool:
    """Whether what is digested of the elements are the very bytes that a data file holds.

    Not where elements share bytes (they are digested unpacked), nor on a machine that has the
    bytes of a number the other way around.
    """
    return sys.byteorder == "little" and tensor.dtype.bitwidth % _BYTE_BITS == 0


def element_bytes(elements: NDArray[np.generic]) -> bytes | memoryview:
    """Return the bytes of elements that lie in one piece; texts with a zero between them."""
    flat = elements.reshape(-1)
    if elements.dtype == np.object_:
        return b"\0".join(bytes(one) for one in flat.tolist())
    return flat.view(np.uint8).data if flat.size else b""
