"""The files that are measured: where they lie, how large they are, and in what type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final

import onnx
from onnx import AttributeProto, GraphProto, TensorProto

from bnfold import limits, process
from bnfold.errors import ModelError
from bnfold.measurement.arms import Subject
from bnfold.runtime import CPU
from bnfold.runtime.children import Fate, run_child
from bnfold.runtime.loading import check_loads
from bnfold.runtime.sessions import bound_of

_CONVERTER: Final = ("-m", "bnfold.runtime.float16")
_PATIENCE_S: Final = 60.0
_BYTES_PER_S: Final = 1e6


def subject(path: Path, shown: str) -> Subject:
    """A model file with its size, external data included."""
    return Subject(path, shown, size_bytes(path))


def size_bytes(path: Path) -> int:
    """Size of a model file and of the files that its external data lies in."""
    graph = onnx.load(path, load_external_data=False).graph
    names = {name for tensor in _tensors(graph) for name in _locations(tensor)}
    beside = [path.parent / name for name in sorted(names)]
    return path.stat().st_size + sum(file.stat().st_size for file in beside if file.exists())


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == AttributeProto.GRAPH:
                yield from _tensors(attribute.g)


def _locations(tensor: TensorProto) -> Iterator[str]:
    if tensor.data_location == TensorProto.EXTERNAL:
        yield from (one.value for one in tensor.external_data if one.key == "location")


def _bound(one: Subject) -> tuple[str, ...]:
    """What the converter may allocate, in a process that is ours alone."""
    if process.own() is None and limits.current().memory_bytes is None:
        return ()
    return (str(bound_of(CPU, one.size_bytes, 0)["memory_bytes"]),)


_numbers = count()


def in_float16(one: Subject, folder: Path) -> Subject:
    """The same model converted to float16 by ONNX Runtime's own tool.

    Raises:
        ModelError: If the tool cannot convert it.
    """
    target = folder / f"{one.path.stem}.float16-{next(_numbers)}.onnx"
    arguments = (*_CONVERTER, str(one.path), str(target), *_bound(one))
    end = run_child(arguments, _PATIENCE_S + one.size_bytes / _BYTES_PER_S)
    if end.fate in (Fate.FAILED, Fate.DIED):
        check_loads()
    if end.fate is not Fate.ENDED or not target.exists():
        raise ModelError(
            "cannot convert the model to float16",
            where=one.shown,
            why=end.message,
            remedy="convert it yourself and name the converted file, or leave --dtype out",
        )
    return replace(one, path=target, size_bytes=size_bytes(target))
