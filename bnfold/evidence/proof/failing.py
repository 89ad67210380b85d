"""Why a piece of a graph has no value, in words: which operator, of which node, read what.

What Python, numpy or onnx say of it (`'list' object has no attribute 'dtype'`) is about code
that nobody who reads a verdict has seen, so it stays behind: as the cause of the error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from bnfold.errors import BnfoldError
from bnfold.evidence.clock import OutOfTimeError
from bnfold.evidence.reference.arrays import NoKernelError
from bnfold.evidence.reference.call import name_of

TOO_LATE: Final = "the time was up"


class CannotEvaluateError(Exception):
    """A piece of a graph has no value here; says why."""


class TooLateError(CannotEvaluateError):
    """It may have one, but there was no time: nothing follows from that."""

    def __init__(self) -> None:
        super().__init__(TOO_LATE)


def described(node: ir.Node) -> str:
    """Return a node as an operator with its name: ``Attention 'attn'``."""
    return f"{name_of(node)} {node.name!r}" if node.name else name_of(node)


def unevaluated(
    node: ir.Node, given: Sequence[Any], error: Exception | None = None
) -> CannotEvaluateError:
    """Return what to raise where a node gives no result.

    Args:
        node: The node.
        given: What it read.
        error: What stopped it; its text is for users only if it is one of ours.
    """
    if isinstance(error, BnfoldError):
        return CannotEvaluateError(f"{described(node)}: {error.what}")
    if isinstance(error, NoKernelError):
        said = str(error).removeprefix(f"{name_of(node)}: ")
        return CannotEvaluateError(f"{described(node)}: {said}")
    return CannotEvaluateError(f"{described(node)} cannot be evaluated{read_by(given)}")


def read_by(given: Sequence[Any]) -> str:
    """Return of which sizes the inputs of a node were: `` on inputs of 1×3 and 4``."""
    sizes = [_size(one) for one in given if one is not None]
    if not sizes:
        return ""
    *most, last = sizes
    return f" on inputs of {', '.join(most)}{' and ' if most else ''}{last}"


def not_computed(value: ir.Value, *, is_free: bool) -> CannotEvaluateError:
    """Return what to raise where a value is asked for that nothing has given.

    Args:
        value: The value.
        is_free: Whether it is one that every run gives anew.
    """
    node = value.producer()
    if node is not None:
        return CannotEvaluateError(f"{described(node)} gives no {value.name!r}")
    if is_free:
        return CannotEvaluateError(f"no numbers are known for the input {value.name!r}")
    return CannotEvaluateError(f"{value.name!r} is computed by no node")


def tensor_of(value: ir.Value, found: Any) -> np.ndarray[Any, Any]:
    """Return what a value holds; only tensors have numbers that can be compared.

    Raises:
        CannotEvaluateError: If it is a sequence, or an optional without a tensor.
    """
    if isinstance(found, np.ndarray | np.generic):
        return np.asarray(found)
    node = value.producer()
    by = "" if node is None else f" of {described(node)}"
    message = f"{value.name!r}{by} is no tensor: it has no numbers to compare"
    raise CannotEvaluateError(message)


@contextmanager
def looking_at(value: ir.Value) -> Iterator[None]:
    """Name the value that was looked at when something happened that nobody foresaw.

    Raises:
        CannotEvaluateError: In place of what Python says.
    """
    try:
        yield
    except (CannotEvaluateError, BnfoldError, OutOfTimeError, MemoryError):
        raise
    except Exception as error:
        node = value.producer()
        by = "" if node is None else f" of {described(node)}"
        message = f"{value.name!r}{by} has an unexpected value"
        raise CannotEvaluateError(message) from error


def _size(one: Any) -> str:
    if isinstance(one, list):
        return f"a sequence of {len(one)}"
    sizes = one.shape if hasattr(one, "shape") else np.shape(one)
    return "×".join(map(str, sizes)) if sizes else "one number"
