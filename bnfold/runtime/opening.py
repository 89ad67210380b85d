"""Open a session of ONNX Runtime and make sure that it computes where it was asked to.

The runtime takes the CPU when a provider does not load, and says so only in its log. Here that
is an error which names the library that is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
from pathlib import Path
from typing import Final

import onnxruntime as ort

from bnfold.runtime.plans import SessionPlan

_QUIET: Final = 4
_LEVELS: Final = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_LIBRARIES: Final = {
    "CUDAExecutionProvider": "onnxruntime_providers_cuda",
    "TensorrtExecutionProvider": "onnxruntime_providers_tensorrt",
}
"""Providers that live in a library of their own, which needs libraries of others."""

_FALLBACKS: Final = {"TensorrtExecutionProvider": ("CUDAExecutionProvider",)}
"""What takes the operators that a provider does not have."""

_LIBRARY: Final = re.compile(r"(lib[\w.+-]+\.so[\w.]*|[\w.+-]+\.dll)")


class NoProviderError(RuntimeError):
    """The provider that was asked for is not there."""


def open_session(plan: SessionPlan) -> ort.InferenceSession:
    """Create the session that the plan asks for, with a quiet log.

    Raises:
        NoProviderError: If the runtime has no such provider, or took another one instead.
    """
    ort.set_default_logger_severity(_QUIET)
    there = ort.get_available_providers()
    if plan.provider not in there:
        raise NoProviderError(f"this ONNX Runtime has only {', '.join(there)}")
    if plan.provider in _LIBRARIES and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    wanted = (plan.provider, *_FALLBACKS.get(plan.provider, ()))
    providers = [
        (name, dict(plan.provider_options) if name == plan.provider else {}) for name in wanted
    ]
    session = ort.InferenceSession(
        plan.model,
        _options(plan),
        providers=providers,
        disabled_optimizers=list(plan.disabled_optimizers) or None,
    )
    if plan.provider not in session.get_providers():
        taken = ", ".join(session.get_providers())
        why = _why_not_loaded(plan.provider)
        raise NoProviderError(f"{why}; the session would run on {taken}")
    return session


def _options(plan: SessionPlan) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[plan.level]
    options.intra_op_num_threads = plan.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    for key, value in plan.config.items():
        options.add_session_config_entry(key, value)
    if plan.optimized_path:
        options.optimized_model_filepath = plan.optimized_path
    if plan.profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = plan.profile_prefix
    return options


def _why_not_loaded(provider: str) -> str:
    """Load the provider's library as the runtime would, and say what the system answers."""
    stem = _LIBRARIES.get(provider)
    folder = Path(ort.__file__).parent / "capi"
    found = [] if stem is None else sorted(folder.glob(f"*{stem}.*"))
    if not found:
        return "it could not be loaded"
    with contextlib.suppress(OSError):
        for shared in folder.glob("*onnxruntime_providers_shared.*"):
            ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)
    try:
        ctypes.CDLL(str(found[0]))
    except OSError as error:
        missing = _LIBRARY.search(str(error))
        if missing is not None and stem not in missing[1]:
            return f"the library {missing[1]} is missing or cannot be loaded"
        return f"it could not be loaded: {error}"
    return "its libraries load, but it found no device that it can use"
