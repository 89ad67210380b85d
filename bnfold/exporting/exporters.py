"""Write a module with either of torch's exporters, so that BatchNormalization stays whole.

Chosen by what folds best (bnfold on the recipes of ``models/``, torch 2.13, onnxscript 0.7.2):

- *dynamo*: without its optimiser, which folds BatchNormalization in the type of the weights;
  then the same optimiser with BatchNormalization hidden from it, for the arithmetic of shapes.
- *TorchScript*: ``training=PRESERVE`` of a model in eval mode, and no folding of constants.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

import onnx
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.onnx import TrainingMode
from torch.utils import _pytree as pytree

from bnfold.errors import ModelError
from bnfold.exporting.axes import Axes
from bnfold.exporting.examples import Example, tensors_in
from bnfold.exporting.tidy import forget_the_machine, name_interface, optimized

_OPSET_OF_TORCHSCRIPT: Final = 18
_OPSET_OF_BFLOAT16: Final = 22
"""The first in which Conv, pooling and their kin know that type."""
_INSIDE_BYTES: Final = 1_900_000_000
_LOUD: Final = (
    *("torch.onnx", "torch.export", "torch._export", "torch.fx", "torch._dynamo"),
    *("onnxscript", "onnx_ir"),
)
_MOST_WORDS: Final = 300


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be exported, and how.

    Attributes:
        model: A module in eval mode that is ours to use.
        example: The call to trace.
        axes: Sizes that stay open.
        outputs: Names of the outputs.
        opset: Version of ONNX's operators; None for the exporter's own choice.
        output_axes: Open axes of every output, for the exporter that does not find them.
    """

    model: nn.Module
    example: Example
    axes: Axes
    outputs: tuple[str, ...]
    opset: int | None
    output_axes: tuple[Mapping[int, str], ...] = ()


class _Flat(nn.Module):
    """A module that takes and gives tensors only: what tracing can write."""

    def __init__(self, model: nn.Module, example: Example) -> None:
        super().__init__()
        self.model = model
        self._example = example

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Call the module with these in the places of its tensors."""
        args, kwargs = self._example.filled(tensors)
        return tensors_in(self.model(*args, **kwargs))


def written(request: Request, exporter: str, path: Path) -> tuple[str, ...]:
    """Write the module to ``path``, with a file of weights beside it if they are large.

    Returns:
        Warnings of what tracing cannot see.

    Raises:
        ModelError: If the exporter cannot, or what it wrote is no valid model.
    """
    export = _by_dynamo if exporter == "dynamo" else _by_torchscript
    try:
        with _quiet() as remarks, torch.no_grad():
            export(request, path)
    except Exception as error:
        bottom = _bottom(error)
        if isinstance(bottom, OSError):
            raise bottom from None  # the disk is no fault of module or exporter
        raise ModelError(
            f"torch's {exporter} exporter cannot write this module",
            where=type(request.model).__name__,
            why=_said(error),
            remedy=_remedy(error, exporter, request.opset),
        ) from error
    proto = onnx.load(path, load_external_data=False)
    _check_opset(proto, request.opset, exporter)
    forget_the_machine(proto)
    path.write_bytes(proto.SerializeToString())
    check_valid(path, f"the file of torch's {exporter} exporter")
    traced = [one for one in remarks if issubclass(one.category, TracerWarning)]
    return tuple(dict.fromkeys(_first_sentence(str(one.message)) for one in traced))


def _check_opset(proto: onnx.ModelProto, asked: int | None, exporter: str) -> None:
    """Refuse a file in another opset than was asked for: dynamo writes its own, in silence.

    Raises:
        ModelError: Naming both.
    """
    wrote = next((one.version for one in proto.opset_import if not one.domain), asked)
    if asked not in (None, wrote):
        raise ModelError(
            f"torch's {exporter} exporter does not write opset {asked}",
            why=f"it wrote opset {wrote}: it cannot convert this module to that one",
            remedy="ask for another opset, or for none; or try the other exporter",
        )


def _first_sentence(text: str) -> str:
    return f"the tracer says: {' '.join(text.split()).partition('. ')[0]}"


def check_valid(path: Path, what: str) -> None:
    """Have a file checked by the checker of ONNX.

    Raises:
        ModelError: If it finds fault with it.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        why, remedy = _said(error), "try the other exporter, or another opset"
        if "bfloat16" in why:
            remedy = f"take the dynamo exporter, and opset {_OPSET_OF_BFLOAT16} or a later one"
        raise ModelError(f"{what} is no valid model", why=why, remedy=remedy) from error


def _by_dynamo(request: Request, path: Path) -> None:
    request = _without_free_names(request)
    example = request.example
    program = torch.onnx.export(
        request.model,
        example.args,
        kwargs=example.kwargs or None,
        dynamo=True,
        optimize=False,
        verbose=False,
        opset_version=request.opset or _opset_for(request),
        input_names=list(example.names),
        output_names=list(request.outputs),
        dynamic_shapes=_dynamic_shapes(request),
    )
    if program is None:
        message = "it wrote nothing"
        raise RuntimeError(message)
    optimized(program.model)
    name_interface(program.model, example.names, request.axes.by_tensor)
    weights = program.model.graph.initializers.values()
    tensors = (value.const_value for value in weights)
    size_bytes = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    program.save(str(path), external_data=size_bytes > _INSIDE_BYTES)


def _opset_for(request: Request) -> int | None:
    """Return the opset that the types of a module ask for; None leaves it to the exporter."""
    model = request.model
    tensors = (*model.parameters(), *model.buffers(), *request.example.tensors)
    narrow = any(tensor.dtype is torch.bfloat16 for tensor in tensors)
    return _OPSET_OF_BFLOAT16 if narrow else None


def _without_free_names(request: Request) -> Request:
    """Give a module that takes ``**kwargs`` its tensors by position: open sizes need that."""
    kinds = {one.kind for one in inspect.signature(request.model.forward).parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return request
    example = request.example
    flat = Example(example.tensors, {}, example.names, spelled=True)
    return replace(request, model=_Flat(request.model, example).eval(), example=flat)


def _dynamic_shapes(request: Request) -> Any:
    """Open axes in the structure of the arguments; None where there are none."""
    example = request.example
    if not request.axes.symbols:
        return None
    axes = iter(request.axes.by_tensor)
    leaves, structure = pytree.tree_flatten((example.args, example.kwargs))
    found = [dict(next(axes)) if isinstance(leaf, Tensor) else None for leaf in leaves]
    args, kwargs = pytree.tree_unflatten(found, structure)
    return _by_parameter(request.model, args, kwargs)


def _by_parameter(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    return dict(bound.arguments)


def _by_torchscript(request: Request, path: Path) -> None:
    example = request.example
    model: nn.Module = request.model
    args: Sequence[Any] = example.args
    if not example.spelled:
        model, args = _Flat(model, example).eval(), example.tensors
    named = zip(example.names, request.axes.by_tensor, strict=True)
    given = zip(request.outputs, request.output_axes, strict=False)
    with _spelled_out_attention(), _no_dumps():
        torch.onnx.export(
            model,
            tuple(args),
            str(path),
            dynamo=False,
            verbose=False,
            training=TrainingMode.PRESERVE,
            do_constant_folding=False,
            opset_version=request.opset or _OPSET_OF_TORCHSCRIPT,
            input_names=list(example.names),
            output_names=list(request.outputs),
            dynamic_axes={name: dict(axes) for name, axes in (*named, *given) if axes},
        )


@contextmanager
def _spelled_out_attention() -> Iterator[None]:
    """Have attention use operators that ONNX has: in evaluation torch uses one of its own."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _no_dumps() -> Iterator[None]:
    """Keep TorchScript from printing the graph to stdout where it fails, `verbose` or not."""
    with mock.patch.object(torch._C, "_jit_onnx_log", create=True):  # noqa: SLF001  no switch
        yield


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Keep back what exporters say of their own future and of packages that they miss."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            yield remarks
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _bottom(error: BaseException) -> BaseException:
    """Return the error that the others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _said(error: BaseException) -> str:
    """Return the first lines that say something, of the error at the bottom."""
    error = _bottom(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else ""
    if said.endswith(":"):  # it announces what comes: that is what matters
        said = " ".join(lines[:2])
    return f"{type(error).__name__}: {said}"[:_MOST_WORDS]


def _remedy(error: BaseException, exporter: str, opset: int | None) -> str:
    """Return what helps against what an exporter says; another exporter is the last resort."""
    said = _said(error)
    if "inferred a static shape" in said:
        return "leave this size closed: the module takes no other"
    other = "torchscript" if exporter == "dynamo" else "dynamo"
    if "data-dependent" in said:
        return (
            "write the branch as torch.where or torch.cond; the torchscript exporter would"
            " write the way that the example takes, and the verification would find that"
        )
    asked = "" if opset is None else ", or another opset"
    return f"try the {other} exporter{asked}"
