"""Write a model so that it appears whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir

from bnfold.errors import OutputError, UsageError
from bnfold.files.apart import Write, check_apart
from bnfold.files.data_writer import DataWriter
from bnfold.files.identity import Identity, identity_of
from bnfold.files.pairs import Saved, Written, data_path, put_model, wants_digest
from bnfold.files.scratch import scratch_folder
from bnfold.files.streams import write_into
from bnfold.files.targets import Target, target_of, told_of
from bnfold.model.external import INSIDE, PLACES
from bnfold.model.graphs import graphs_of
from bnfold.model.held_outside import DataFile, HeldOutside, held_outside
from bnfold.model.io import to_proto
from bnfold.model.layout import Layout, Placed, Plan, plan_of
from bnfold.model.neighbours import Region
from bnfold.model.pieces import bytes_of
from bnfold.model.reads import READS, SOURCE, Source, all_tensors, reads_of_model

_WHAT: Final = "cannot write the model"


def save(model: ir.Model, path: str | Path, layout: Layout | None = None) -> Saved:
    """Write a model to ``path``, with weights beside it where they lay outside before.

    Weights go outside as well when the model would exceed protobuf's 2 GB. The model at
    ``path`` is the old one or the new one at every moment, with its own weights: where
    ``<name>.data`` has other contents, or where there are several data files, they have names
    made of their contents; old data that is named after the model is removed at the end,
    unless something names it. A pipe or a device is written into.

    Args:
        model: The model; not changed.
        path: Where its ``.onnx`` file goes.
        layout: Where its weights go; None for as they lay.

    Raises:
        UsageError: If that would overwrite a file that the model is read from.
        OutputError: If it cannot be written; nothing is left behind then.
    """
    target = target_of(path)
    plan = plan_of(model, layout or Layout())
    writes = [Write(Path(path), "the model")]
    if not target.is_stream and plan.files:
        writes.append(Write(data_path(target.path), "its data"))
    check_apart(writes, reads_of_model(model))
    return _save(model, target, plan, _identities(model))


def save_over_source(model: ir.Model, layout: Layout | None = None) -> Saved:
    """Write a model over the file that it was read from, with the same promise as `save`.

    The model in memory goes on with the new files.

    Args:
        model: The model.
        layout: Where its weights go; None for as they lay.

    Raises:
        UsageError: If it was not read from a file, or that has changed since.
        OutputError: If it cannot be written; the file and its data are as they were then.
    """
    source = _unchanged_source(model)
    plan = plan_of(model, layout or Layout())
    saved = _save(model, target_of(source.path), plan, frozenset(), goes_on=True)
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
    model: ir.Model,
    target: Target,
    plan: Plan,
    kept: frozenset[Identity],
    *,
    goes_on: bool = False,
) -> Saved:
    with told_of(target.given, _WHAT):
        if plan.files:
            _check_has_place(target)
        elif target.is_stream:
            with _exchanged(model, {}):
                data = to_proto(model).SerializeToString()
            write_into(target, data)
            return Saved(target.given)
        with scratch_folder(within=target.path.parent) as scratch:
            # names that no tensor has
            paths = [scratch / f"{scratch.name}.{n}.data" for n in range(len(plan.files))]
            hashed = wants_digest(target, len(paths))
            pairs = zip(plan.files, paths, strict=True)
            written = [_written(placed, path, hashed=hashed) for placed, path in pairs]
            with _exchanged(model, _outside(plan, paths)) as inside:
                naming = _Naming(to_proto(model), paths)
            saved = put_model(scratch, target, written, naming.named, kept)
            if goes_on:
                folder = target.path.parent
                _go_on(model, _outside(plan, [folder / name for name in naming.names]), inside)
            return replace(saved, said=plan.said)


def _written(placed: Sequence[Placed], path: Path, *, hashed: bool) -> Written:
    """Write one data file; one tensor at a time, and what did not change by the system."""
    with DataWriter(path, hashed=hashed) as file:
        for tensor, offset, _ in placed:
            file.pad_to(offset)
            if isinstance(tensor, HeldOutside):
                with tensor.file.opened() as source:
                    file.copy(source, tensor.offset or 0, tensor.nbytes)
            else:
                for piece in bytes_of(tensor):
                    file.write(piece)
    return Written(path, file.digest)


class _Naming:
    """A model whose data files get their names last."""

    def __init__(self, proto: onnx.ModelProto, paths: Sequence[Path]) -> None:
        """Find out where the names go.

        Args:
            proto: The model; it names its data files as they are called now.
            paths: These files.
        """
        self.names: Sequence[str] = ()
        self._proto = proto
        self._entries: dict[str, list[onnx.StringStringEntryProto]] = {
            path.name: [] for path in paths
        }
        for tensor in all_tensors(proto):
            for entry in tensor.external_data:
                if entry.key == "location" and entry.value in self._entries:
                    self._entries[entry.value].append(entry)

    def named(self, names: Sequence[str]) -> bytes:
        """Return the bytes of the model with these names, in the order of the files."""
        self.names = tuple(names)
        for entries, name in zip(self._entries.values(), names, strict=True):
            for entry in entries:
                entry.value = name
        return bytes(self._proto.SerializeToString())


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


_Tensors = dict[ir.Value, ir.TensorProtocol]


def _outside(plan: Plan, paths: Sequence[Path]) -> dict[ir.Value, ir.ExternalTensor]:
    """Return the initializers of data files, as tensors in these files."""
    return {
        value: _in_file(value.const_value, offset, path)
        for placed, path in zip(plan.files, paths, strict=True)
        for _, offset, values in placed
        for value in values
        if value.const_value is not None
    }


def _in_file(tensor: ir.TensorProtocol, offset: int, path: Path) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        path.name,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tuple(tensor.shape.numpy())),
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        base_dir=path.parent,
    )


@contextlib.contextmanager
def _exchanged(
    model: ir.Model, outside: Mapping[ir.Value, ir.TensorProtocol]
) -> Iterator[_Tensors]:
    """Exchange tensors of initializers for a while: all that are not outside are inside.

    Yields:
        Those that were outside before.
    """
    before: _Tensors = {}
    inside: _Tensors = {}
    try:
        for graph in graphs_of(model.graph):
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None:
                    continue
                if value in outside:
                    before[value], value.const_value = tensor, outside[value]
                elif isinstance(tensor, ir.ExternalTensor):
                    inside[value] = _inside(tensor)
                    before[value], value.const_value = tensor, inside[value]
        yield inside
    finally:
        for value, tensor in before.items():
            value.const_value = tensor


def _inside(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    """Return the same tensor with its bytes in a message, as they are."""
    proto = onnx.TensorProto(
        name=tensor.name,
        data_type=int(tensor.dtype),
        dims=tensor.shape.numpy(),
        raw_data=tensor.tobytes(),
    )
    if tensor.doc_string:
        proto.doc_string = tensor.doc_string
    for key, text in tensor.metadata_props.items():
        proto.metadata_props.add(key=key, value=text)
    return ir.serde.TensorProtoTensor(proto)


def _go_on(
    model: ir.Model, outside: Mapping[ir.Value, ir.ExternalTensor], inside: _Tensors
) -> None:
    """Let the model in memory read its weights where they are now."""
    files: dict[str, DataFile] = {}
    places: dict[str, Region] = {}
    for value, tensor in outside.items():
        if tensor.path not in files:
            files[tensor.path] = DataFile(Path(tensor.path))
        value.const_value = held_outside(tensor, files[tensor.path])
        places[value.name or ""] = Region(
            str(tensor.location), tensor.offset or 0, tensor.nbytes
        )
    for value, held in inside.items():
        value.const_value = held
    model.graph.meta[PLACES] = places
    model.graph.meta[INSIDE] = frozenset(
        value.name or ""
        for graph in graphs_of(model.graph)
        for value in graph.initializers.values()
        if value not in outside
    )


def _identities(model: ir.Model) -> frozenset[Identity]:
    """Return the files that the model is read from, as far as they are there."""
    found = set()
    for read in reads_of_model(model):
        with contextlib.suppress(OSError):
            found.add(identity_of(read.path))
    return frozenset(found)
