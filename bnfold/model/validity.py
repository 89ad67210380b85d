"""Where something unexpected happens, onnx is asked what it thinks of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import onnx
import onnx_ir as ir

from bnfold import process
from bnfold.errors import BnfoldError, ModelError
from bnfold.model.inference import inferred
from bnfold.model.io import Openable, opened
from bnfold.model.shapes import light_proto

_SPARED_BYTES = 1 << 28


@contextmanager
def models_blamed(*models: Openable) -> Iterator[None]:
    """Blame what goes wrong in a block on a model that onnx finds invalid.

    Checking every model for everything that could be wrong with it would take longer than
    folding it. So that is done afterwards, where something unexpected has happened.

    Raises:
        ModelError: Naming the model, and what onnx finds wrong with it.
    """
    try:
        yield
    except (BnfoldError, MemoryError, OSError):
        raise
    except Exception as error:
        for model in models:
            why = fault_of(model)
            if why:
                where = str(model) if isinstance(model, str | Path) else type(model).__name__
                raise ModelError(
                    "the model is not valid ONNX",
                    where=where,
                    why=why,
                    remedy="export it again; onnx.checker.check_model(…, full_check=True) says"
                    " the same",
                ) from error
        raise


def fault_of(model: Openable) -> str:
    """Return what onnx's checker, or its strict inference, finds wrong; empty for nothing."""
    try:
        read = opened(model)
    except BnfoldError as error:
        return error.why or error.what
    with suppress(MemoryError), process.spared(_SPARED_BYTES):
        return _said(read)
    return ""


def _said(model: ir.Model) -> str:
    proto = light_proto(model)
    try:
        onnx.checker.check_model(proto)
        inferred(proto, data_prop=False, strict=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  whatever onnx raises, it is what it thinks
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return " ".join(lines[:2])[:400] or type(error).__name__
    return ""
