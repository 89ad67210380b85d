"""The elements of any tensor piece by piece: what is large is neither held nor kept mapped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.blocks import InParts, blocks
from bnfold.files.data_writer import DataWriter, Digest
from bnfold.model.constants import expression_of
from bnfold.model.held_inside import HeldInside, InFile


def pieces_of(tensor: ir.TensorProtocol) -> Iterator[NDArray[Any]]:
    """Yield the elements of a tensor in C order, as arrays that lie in one piece.

    Together they are ``tensor.numpy()``; a folded tensor is computed as it goes.
    """
    expression = expression_of(tensor)
    if expression is not None:
        for _, part in expression.rounded_blocks(tensor.dtype.numpy()):
            yield part
    elif isinstance(tensor, InParts):
        for block in blocks((tensor.size,)):
            yield tensor.part(block.start, block.stop)
    else:
        yield np.ascontiguousarray(tensor.numpy())


def bytes_of(tensor: ir.TensorProtocol) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a tensor as it is stored: little-endian, narrow types packed."""
    if expression_of(tensor) is None:
        yield tensor.tobytes()
        return
    for part in pieces_of(tensor):
        if part.dtype.byteorder == ">":
            yield part.byteswap().reshape(-1).view(np.uint8).data
        else:
            yield part.reshape(-1).view(np.uint8).data


def put_bytes(
    tensor: ir.TensorProtocol, file: DataWriter, digest: Digest | None = None
) -> None:
    """Write the bytes of a tensor behind what a file has; the system copies those of files.

    Args:
        tensor: The tensor.
        file: Where they go.
        digest: What they are added to as well.

    Raises:
        OSError: If they cannot be written.
        ModelError: If the file that they lie in is not what it was.
    """
    if not isinstance(tensor, InFile):
        for piece in bytes_of(tensor):
            file.write(piece, digest)
        return
    with tensor.file.opened() as source:
        file.copy(source, tensor.offset or 0, tensor.nbytes, digest)
    if isinstance(tensor, HeldInside):
        tensor.file.check()
