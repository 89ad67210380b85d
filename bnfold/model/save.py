"""Write a model so that it appears whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir

from bnfold.errors import OutputError, UsageError
from bnfold.files.apart import Write, check_apart
from bnfold.files.identity import Identity, identity_of
from bnfold.files.pairs import Saved, data_path, put_model
from bnfold.files.replacing import flush
from bnfold.files.scratch import scratch_folder
from bnfold.files.streams import write_into
from bnfold.files.targets import Target, target_of, told_of
from bnfold.model.external import outside_from_bytes
from bnfold.model.graphs import graphs_of
from bnfold.model.io import to_proto
from bnfold.model.reads import READS, SOURCE, Source, all_tensors, reads_of_model

_ALIGNMENT: Final = 4096
_WHAT: Final = "cannot write the model"


def save(model: ir.Model, path: str | Path) -> Saved:
    """Write a model to ``path``, weights beside it in ``<name>.data`` when they were outside.

    Weights go outside as well when the model would exceed protobuf's 2 GB. The model at
    ``path`` is the old one or the new one at every moment, with its own weights: where
    ``<name>.data`` has other contents, the new data has a name made of its contents, and old
    data that is named after the model is removed at the end, unless something names it. A
    pipe or a device is written into.

    Raises:
        UsageError: If that would overwrite a file that the model is read from.
        OutputError: If it cannot be written; nothing is left behind then.
    """
    target = target_of(path)
    writes = [Write(Path(path), "the model")]
    if not target.is_stream and outside_from_bytes(model) is not None:
        writes.append(Write(data_path(target.path), "its data"))
    check_apart(writes, reads_of_model(model))
    return _save(model, target, _identities(model))


def save_over_source(model: ir.Model) -> Saved:
    """Write a model over the file that it was read from, with the same promise as `save`.

    The model in memory goes on with the new files.

    Raises:
        UsageError: If it was not read from a file, or that has changed since.
        OutputError: If it cannot be written; the file and its data are as they were then.
    """
    source = _unchanged_source(model)
    saved = _save(model, target_of(source.path), frozenset(), goes_on=True)
    model.graph.meta[SOURCE] = Source.of(source.path)
    model.graph.meta[READS] = ()
    return saved


def _unchanged_source(model: ir.Model) -> Source:
    source = model.graph.meta.get(SOURCE)
    if not isinstance(source, Source):
        raise UsageError(
            "the model cannot be replaced",
            why="it was not read from a file",
            remedy="save it under a path",
        )
    with told_of(source.path, _WHAT):
        if Source.of(source.path) != source:
            raise UsageError(
                "the model cannot be replaced",
                where=str(source.path),
                why="the file has changed since it was read, and what changed would be lost",
                remedy="fold it again",
            )
    return source


def _save(
    model: ir.Model, target: Target, kept: frozenset[Identity], *, goes_on: bool = False
) -> Saved:
    size_bytes = outside_from_bytes(model)
    with told_of(target.given, _WHAT):
        if target.is_stream and size_bytes is None:
            write_into(target, to_proto(model).SerializeToString())
            return Saved(target.given)
        if size_bytes is not None:
            _check_has_place(target)
        with scratch_folder(within=target.path.parent) as scratch:
            if size_bytes is None:
                data = to_proto(model).SerializeToString()
                return put_model(scratch, target, None, lambda _: data, kept)
            written = scratch / f"{scratch.name}.data"  # a name that no tensor has
            with _weights_outside(model, written, size_bytes) as moved:
                proto = to_proto(model)
            saved = _put_both(proto, scratch, written, target, kept)
            if goes_on and saved.data is not None:
                for value, tensor in moved:
                    value.const_value = _in_file(
                        tensor, target.path.with_name(saved.data.name)
                    )
            return saved


def _put_both(
    proto: onnx.ModelProto,
    scratch: Path,
    written: Path,
    target: Target,
    kept: frozenset[Identity],
) -> Saved:
    """Put a model and its data in their places; the model says where its data is."""
    entries = [
        entry
        for tensor in all_tensors(proto)
        for entry in tensor.external_data
        if entry.key == "location" and entry.value == written.name
    ]

    def named(name: str) -> bytes:
        for entry in entries:
            entry.value = name
        return bytes(proto.SerializeToString())

    if not entries:
        return put_model(scratch, target, None, named, kept)
    flush(written)
    return put_model(scratch, target, written, named, kept)


def _check_has_place(target: Target) -> None:
    """Refuse outputs beside which no data can lie where readers look for it.

    Raises:
        OutputError: Saying why.
    """
    why = ""
    if target.is_stream:
        why = "its weights go to a file beside it, and a pipe or a device has none"
    elif identity_of(target.given.parent) != identity_of(target.path.parent):
        why = f"it is a link to {target.path}, and readers look for its data beside the link"
    elif not target.path.name.isprintable():
        why = "its data is named after it, and ONNX takes no such name"
    if why:
        raise OutputError(
            _WHAT,
            where=str(target.given),
            why=why,
            remedy="name a file in the folder that it shall lie in",
        )


_Moved = list[tuple[ir.Value, ir.ExternalTensor]]


@contextlib.contextmanager
def _weights_outside(model: ir.Model, written: Path, size_bytes: int) -> Iterator[_Moved]:
    """Write large initializers to a file and refer to them there for a while."""
    values = [
        value for graph in graphs_of(model.graph) for value in graph.initializers.values()
    ]
    tensors = [value.const_value for value in values]
    try:
        ir.external_data.unload_from_model(
            model,
            written.parent,
            written.name,
            size_threshold_bytes=size_bytes - 1,
            alignment=_ALIGNMENT,
        )
        yield [
            (value, value.const_value)
            for value in values
            if isinstance(value.const_value, ir.ExternalTensor)
        ]
    finally:
        for value, tensor in zip(values, tensors, strict=True):
            value.const_value = tensor


def _in_file(tensor: ir.ExternalTensor, path: Path) -> ir.ExternalTensor:
    """Return the same tensor in a file that has another name by now."""
    return ir.ExternalTensor(
        path.name,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        base_dir=path.parent,
    )


def _identities(model: ir.Model) -> frozenset[Identity]:
    """Return the files that the model is read from, as far as they are there."""
    found = set()
    for read in reads_of_model(model):
        with contextlib.suppress(OSError):
            found.add(identity_of(read.path))
    return frozenset(found)
