"""Write a model so that it appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from bnfold.errors import OutputError
from bnfold.model.external import outside_from_bytes
from bnfold.model.graphs import graphs_of
from bnfold.model.io import to_proto


def save(model: ir.Model, path: str | Path) -> None:
    """Write a model to ``path``, weights beside it in ``<name>.data`` when they were outside.

    Everything is written to a temporary folder beside ``path``, flushed to disk and renamed.
    Weights go outside as well when the model would exceed protobuf's 2 GB.

    Raises:
        OutputError: If the file cannot be written; nothing is left behind then.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(prefix=".bnfold-", dir=path.parent) as folder:
            _write(model, Path(folder) / path.name)
            for written in sorted(
                Path(folder).iterdir(), key=lambda file: file.name == path.name
            ):
                _flush(written)
                written.replace(path.parent / written.name)
        _flush(path.parent)
    except OSError as error:
        raise OutputError(
            "cannot write the model",
            where=str(path),
            why=error.strerror or str(error),
            remedy="check that the folder exists, is writable and has space left",
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file that appears whole or not at all.

    Raises:
        OutputError: If the file cannot be written; nothing is left behind then.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(prefix=".bnfold-", dir=path.parent) as folder:
            written = Path(folder) / path.name
            written.write_text(text, encoding="utf-8")
            _flush(written)
            written.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise OutputError(
            "cannot write the file",
            where=str(path),
            why=error.strerror or str(error),
            remedy="check that the folder exists, is writable and has space left",
        ) from error


def check_writable(path: str | Path) -> None:
    """Find out before the work whether a file could be written.

    Raises:
        OutputError: If ``path`` is a folder, or its folder is missing or read-only.
    """
    path = Path(path)
    why = ""
    if path.is_dir():
        why = "it is a folder"
    elif not path.parent.is_dir():
        why = f"there is no folder {str(path.parent)!r}"
    elif not os.access(path.parent, os.W_OK):
        why = f"the folder {str(path.parent)!r} is not writable"
    if why:
        remedy = "name a file in a folder that exists and is writable"
        raise OutputError("cannot write the file", where=str(path), why=why, remedy=remedy)


def _write(model: ir.Model, path: Path) -> None:
    size_bytes = outside_from_bytes(model)
    inside = contextlib.nullcontext()
    with inside if size_bytes is None else _weights_outside(model, path, size_bytes):
        data = to_proto(model).SerializeToString()
    path.write_bytes(data)


@contextlib.contextmanager
def _weights_outside(model: ir.Model, path: Path, size_bytes: int) -> Iterator[None]:
    """Write large initializers to ``<path>.data`` and refer to them there for a while."""
    values = [
        value for graph in graphs_of(model.graph) for value in graph.initializers.values()
    ]
    tensors = [value.const_value for value in values]
    try:
        ir.external_data.unload_from_model(
            model,
            path.parent,
            f"{path.name}.data",
            size_threshold_bytes=size_bytes - 1,
            alignment=4096,
        )
        yield
    finally:
        for value, tensor in zip(values, tensors, strict=True):
            value.const_value = tensor


def _flush(path: Path) -> None:
    """Ask the system to put a file, or a folder's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
