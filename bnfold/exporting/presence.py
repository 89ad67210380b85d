"""What an export needs to be installed, asked for before any work is done."""

from __future__ import annotations

import importlib.util

from bnfold.errors import MissingDependencyError, UsageError

EXPORTERS = ("dynamo", "torchscript")
"""What `torch.onnx.export` offers: through torch.export, and through tracing."""


def require_torch(exporter: str) -> None:
    """Stop with the name of the extra when torch, or what its exporter needs, is missing.

    Raises:
        UsageError: If there is no such exporter.
        MissingDependencyError: If a package is not installed.
    """
    if exporter not in EXPORTERS:
        words = ", ".join(EXPORTERS)
        raise UsageError(f"there is no exporter {exporter!r}", remedy=f"choose of {words}")
    needed = ("torch", "onnxscript") if exporter == "dynamo" else ("torch",)
    for package in needed:
        if not _is_there(package):
            raise MissingDependencyError(
                "cannot export a torch module",
                why=f"{package} is not installed",
                remedy="pip install 'bnfold[train]'",
            )


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # it was put into sys.modules as None: not to be had
        return False
