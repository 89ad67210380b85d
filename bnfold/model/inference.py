"""onnx's own shape inference, kept from ending this process.

It is C++ built with assertions: what it takes for granted ends in an abort, which no caller
can catch. Where a graph may hold what is known to do that, it is asked in a child process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Final

import onnx
from onnx import onnx_cpp2py_export

from bnfold.model import met_sizes

_PATIENCE_S: Final = 60.0
_REFUSED, _NO_MEMORY = 2, 3
_PROGRAM: Final = f"""
import importlib.machinery, importlib.util, sys
path, *options, most_bytes = sys.argv[1:]
if sys.platform == "linux":
    import ctypes, resource, signal
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with its parent
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = int(most_bytes)
    if soft and (hard == resource.RLIM_INFINITY or soft < hard):
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
name = "onnx.onnx_cpp2py_export"
loader = importlib.machinery.ExtensionFileLoader(name, path)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
loader.exec_module(module)
try:
    found = module.shape_inference.infer_shapes(
        sys.stdin.buffer.read(), *(word == "1" for word in options)
    )
except MemoryError:
    sys.exit({_NO_MEMORY})
except Exception as error:
    sys.stderr.buffer.write(str(error).encode())
    sys.exit({_REFUSED})
sys.stdout.buffer.write(found)
"""
"""Of onnx it loads the extension alone, which takes a tenth of the time of the package."""
_FAULTS = (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError)


class RefusedError(Exception):
    """Shape inference found something wrong; the message is its own."""


def inferred(
    proto: onnx.ModelProto, *, data_prop: bool, strict: bool = False, most_bytes: int = 0
) -> onnx.GraphProto:
    """Infer types and shapes; a node on which onnx would end the process has none.

    That process is this one only where no node can end it.

    ``std::clamp(start, 0, size - 1)`` in Slice aborts on a negative step along a negative size
    (github.com/onnx/onnx/issues/8481, onnx 1.21 to 1.23). Exporters write -1 for an open size,
    and inference gets to negative ones by itself behind a window that is larger than what it
    slides over, as in a branch that is never taken.

    Args:
        proto: Changed: negative sizes are taken out of it, and nodes may be hidden.
        data_prop: Compute sizes too.
        strict: Raise whatever is found to be wrong, and compare types.
        most_bytes: Bound what a child process allocates; 0 for no bound.

    Raises:
        RefusedError: If onnx gives up.
        MemoryError: Where memory does not suffice.
    """
    _open_negative_sizes(proto)
    slices = list(_slices(proto))
    risky = slices and not met_sizes.all_positive(
        proto, slices, lambda shown: _leniently(shown, data_prop=data_prop)
    )
    if risky:
        found = _asked(proto, (strict, strict, data_prop), most_bytes)
        if found is not None:
            return found
        met_sizes.hide(proto, slices)
    return _here(proto, data_prop=data_prop, check_type=strict, strict=strict and not risky)


def _here(
    proto: onnx.ModelProto, *, data_prop: bool, check_type: bool, strict: bool
) -> onnx.GraphProto:
    try:
        return onnx.shape_inference.infer_shapes(
            proto, check_type=check_type, strict_mode=strict, data_prop=data_prop
        ).graph
    except MemoryError:
        raise
    except _FAULTS as error:
        raise RefusedError(str(error)) from error


def _leniently(proto: onnx.ModelProto, *, data_prop: bool) -> onnx.GraphProto | None:
    try:
        return _here(proto, data_prop=data_prop, check_type=False, strict=False)
    except RefusedError:
        return None


def _asked(
    proto: onnx.ModelProto, flags: tuple[bool, bool, bool], most_bytes: int
) -> onnx.GraphProto | None:
    """Ask in a child process; None where that died, or none could be asked.

    Args:
        proto: The model.
        flags: Compare types, be strict, and compute sizes.
        most_bytes: What the child may allocate; 0 for no bound.
    """
    words = (onnx_cpp2py_export.__file__, *(str(int(flag)) for flag in flags), str(most_bytes))
    if not sys.executable:
        return None  # embedded in a program that names no interpreter
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, *words],
            input=proto.SerializeToString(),
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == _REFUSED:
        raise RefusedError(done.stderr.decode("utf-8", "replace"))
    if done.returncode == _NO_MEMORY:
        raise MemoryError
    return onnx.ModelProto.FromString(done.stdout).graph if done.returncode == 0 else None


def _slices(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for node in _nodes(proto) if node.op_type == "Slice" and not node.domain)


def _open_negative_sizes(proto: onnx.ModelProto) -> None:
    for graph in _graphs(proto):
        for info in (*graph.input, *graph.value_info, *graph.output):
            for dim in info.type.tensor_type.shape.dim if _has_shape(info) else ():
                if dim.HasField("dim_value") and dim.dim_value < 0:
                    dim.Clear()


def _has_shape(info: onnx.ValueInfoProto) -> bool:
    return bool(info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape"))


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    pending = [proto.graph]
    for function in proto.functions:
        pending.extend(_inner(function.node))
    while pending:
        graph = pending.pop()
        yield graph
        pending.extend(_inner(graph.node))


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _graphs(proto):
        yield from graph.node
    for function in proto.functions:
        yield from function.node


def _inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs
