"""Read arrays from files, once it is known from their headers that they are of use.

An archive of a few kilobytes can unpack to terabytes, and a header can claim anything. So
names, shapes and types are read first and held against the model; then what they add up to.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from bnfold import limits
from bnfold.errors import DataError, ModelError
from bnfold.model.regular import UnreadableError, read_regular, size_of
from bnfold.model.tensors import Stored, check_tensor
from bnfold.runtime import Arrays

_FREE_BYTES: Final = 256 << 20
_TIMES: Final = 64
"""What an archive may unpack to, and in times of its size: zeros are far smaller than that."""
_MOST_PROTO_BYTES: Final = (1 << 31) - 1
_SUFFIX: Final = ".npy"
_KINDS: Final = {
    ".npz": "a .npz file written by numpy.savez",
    ".npy": "an array written by numpy.save",
    ".pb": "a serialised onnx.TensorProto (sequences and optionals are not read)",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of an array in it.

    Attributes:
        shape: Its shape.
        dtype: Its type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size_bytes(self) -> int:
        """What its elements take."""
        return math.prod(self.shape) * self.dtype.itemsize


def headers_of_npz(path: Path) -> dict[str, Header]:
    """Return what the arrays of an archive are; nothing is unpacked.

    Raises:
        DataError: If it is no archive of arrays.
    """
    try:
        size_of(path)
        with zipfile.ZipFile(path) as archive:
            return dict(_members(archive))
    except Exception as error:  # zipfile and numpy raise many kinds
        raise unreadable(path, error) from error


def header_of_npy(path: Path) -> Header:
    """Return what the array of a file is; its elements are not read.

    Raises:
        DataError: If it is no array.
    """
    try:
        size_bytes = size_of(path)
        with path.open("rb") as file:
            found = _header(file)
            held = size_bytes - file.tell()
        _check_held(found, held, path.name)
    except Exception as error:
        raise unreadable(path, error) from error
    return found


def read_npz(path: Path, headers: Mapping[str, Header]) -> Arrays:
    """Unpack the arrays of an archive whose headers are known.

    Raises:
        DataError: If they are more than an archive of its size holds, or cannot be read.
    """
    whole = sum(header.size_bytes for header in headers.values())
    most = limits.current().memory_bytes or max(_FREE_BYTES, _TIMES * path.stat().st_size)
    if whole > most:
        why = f"it unpacks to {whole} bytes, {most} are allowed for a file of its size"
        raise DataError(
            "the inputs are an archive that unpacks to far more than it holds",
            where=str(path),
            why=why,
            remedy="save them with numpy.savez, uncompressed, or allow more by --max-memory",
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in headers}
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def read_npy(path: Path) -> NDArray[Any]:
    """Read the array of a file whose header is known.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def read_pb(path: Path) -> NDArray[Any]:
    """Read a tensor of onnx, which must hold its own data.

    Raises:
        DataError: If it cannot be read, or its data is elsewhere.
    """
    proto = onnx.TensorProto()
    try:
        proto.ParseFromString(read_regular(path, _MOST_PROTO_BYTES))
        _check_inside(proto)
        check_tensor(Stored(proto, f"tensor {proto.name!r}"), str(path))
        return np.asarray(onnx.numpy_helper.to_array(proto))
    except MemoryError:
        raise
    except ModelError as error:
        raise unreadable(path, ValueError(f"{error.what}: {error.why}")) from error
    except Exception as error:
        raise unreadable(path, error) from error


def _check_inside(proto: onnx.TensorProto) -> None:
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        raise UnreadableError("its data lies in another file")


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, Header]]:
    seen: set[str] = set()
    for member in archive.infolist():
        if not member.filename.endswith(_SUFFIX) or member.filename in seen:
            message = f"its member {member.filename!r} is no array, or there twice"
            raise ValueError(message)
        seen.add(member.filename)
        with archive.open(member) as file:
            # a header is small: what follows is not unpacked
            start = BytesIO(file.read(np.lib.format.MAGIC_LEN + 4 + (1 << 16)))
            found = _header(start)
        _check_held(found, member.file_size - start.tell(), member.filename)
        yield member.filename.removesuffix(_SUFFIX), found


def _header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version, np.lib.format.read_array_header_2_0)
    shape, _, dtype = read(file)
    if dtype.hasobject:
        message = "it holds Python objects, which are not read"
        raise ValueError(message)
    return Header(tuple(int(size) for size in shape), dtype)


def _check_held(header: Header, held: int, name: str) -> None:
    if any(size < 0 for size in header.shape) or header.size_bytes > held:
        message = (
            f"{name} says that it is {header.dtype} of shape {list(header.shape)}, and holds"
            f" {max(held, 0)} bytes"
        )
        raise ValueError(message)


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error that says what such a file should be."""
    return DataError(
        "the inputs cannot be read",
        where=str(path),
        why=str(error).splitlines()[0] if str(error) else type(error).__name__,
        remedy=f"it should be {_KINDS.get(path.suffix.lower(), 'a file of arrays')}",
    )
