"""The arms of a benchmark: which file, and what the runtime may do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bnfold.errors import UsageError
from bnfold.measurement.lab import ArmPlan
from bnfold.records import Arm
from bnfold.runtime import CPU
from bnfold.runtime.plans import SessionPlan

BASE: Final = "original"
NULL: Final = "again"
DEFAULT_ARMS: Final = (BASE, "folded", "unfused")
FUSIONS: Final = (
    "ConvBNFusion",
    "ConvMulFusion",
    "ConvAddFusion",
    "MatMul_BatchNormalization_Fusion",
)
"""What folds BatchNormalization, or the Mul and Add it may be spelled as, in ONNX Runtime."""

_CONFIG: Final = {"session.force_spinning_stop": "1"}
"""Idle threads of one arm must not spin into the time of the next one."""

_CUDA: Final = "CUDAExecutionProvider"
_TENSORRT: Final = "TensorrtExecutionProvider"
_GRAPH_OPTION: Final = {_CUDA: "enable_cuda_graph", _TENSORRT: "trt_cuda_graph_enable"}


@dataclass(frozen=True, slots=True)
class How:
    """What is the same for all arms.

    Attributes:
        provider: The runtime's own name of what computes.
        provider_options: Its options.
        threads: Threads inside an operator; 0 leaves it to the runtime.
        cuda_graph: Whether calls replay a captured CUDA graph.
        prefer_nhwc: Whether the CUDA provider is to run in NHWC.
    """

    provider: str = CPU
    provider_options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0
    cuda_graph: bool = False
    prefer_nhwc: bool = False

    def options(self) -> dict[str, str]:
        """All options of the provider.

        Raises:
            UsageError: If the provider has no such option.
        """
        found = dict(self.provider_options)
        if found and self.provider == CPU:
            raise UsageError(
                f"the CPU provider has no option {next(iter(found))!r}",
                why="the runtime would ignore it silently",
                remedy="leave --provider-option out",
            )
        if self.cuda_graph:
            if self.provider not in _GRAPH_OPTION:
                raise _not_there("CUDA graphs", self.provider, "cuda or tensorrt")
            found[_GRAPH_OPTION[self.provider]] = "1"
        if self.prefer_nhwc:
            if self.provider != _CUDA:
                raise _not_there("prefer_nhwc", self.provider, "cuda")
            found["prefer_nhwc"] = "1"
        return found


def _not_there(what: str, provider: str, where: str) -> UsageError:
    return UsageError(
        f"there are no {what} on {provider}" if what[0].isupper() else f"no {what} there",
        where=provider,
        why="that provider has no such option",
        remedy=f"choose --provider {where}, or leave the option out",
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """A model file: where it lies, how the user calls it, and its size with external data."""

    path: Path
    shown: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Kind:
    """What makes an arm of one of the two models."""

    label: str
    folded: bool = False
    level: str = "all"
    disabled: tuple[str, ...] = ()


_KINDS: Final = {
    BASE: _Kind("original as the runtime runs it"),
    "folded": _Kind("folded as the runtime runs it", folded=True),
    "unfused": _Kind("original, the runtime's own BatchNorm fusions off", disabled=FUSIONS),
    "plain": _Kind("original, no optimisation by the runtime", level="disabled"),
    "folded-plain": _Kind("folded, no optimisation", folded=True, level="disabled"),
}
ARM_NAMES: Final = tuple(_KINDS)


def plan_arms(
    original: Subject,
    folded: Subject,
    more: Mapping[str, Subject],
    chosen: Sequence[str],
    how: How,
) -> tuple[ArmPlan, ...]:
    """The base, its null run, the chosen arms, and one for each further model.

    Args:
        original: The model that the others are compared with.
        folded: The folded model.
        more: Further models by name, each as the runtime runs it.
        chosen: Of `ARM_NAMES`; the base is always there.
        how: What is the same for all.

    Raises:
        UsageError: If there is no such arm, or a name is taken twice.
    """
    unknown = [name for name in chosen if name not in _KINDS]
    if unknown:
        raise UsageError(
            f"there is no arm {unknown[0]!r}", remedy=f"choose of {', '.join(ARM_NAMES)}"
        )
    taken = [name for name in more if name in {*_KINDS, NULL}]
    if taken:
        raise UsageError(
            f"{taken[0]!r} is the name of an arm", remedy="rename the file of that model"
        )
    names = list(dict.fromkeys((BASE, *chosen)))
    plans = [
        _plan(name, _KINDS[name], folded if _KINDS[name].folded else original, how)
        for name in names
    ]
    null = _Kind("original once more (null run)")
    plans.insert(1, _plan(NULL, null, original, how))
    as_it_is = [(name, subject, _Kind(subject.shown)) for name, subject in more.items()]
    plans += [_plan(name, kind, subject, how) for name, subject, kind in as_it_is]
    return tuple(plans)


def _plan(name: str, kind: _Kind, subject: Subject, how: How) -> ArmPlan:
    options = how.options()
    arm = Arm(
        name=name,
        label=kind.label,
        model=subject.shown,
        size_bytes=subject.size_bytes,
        level=kind.level,
        disabled_optimizers=kind.disabled,
        provider=how.provider,
        provider_options=options,
        null=name == NULL,
    )
    plan = SessionPlan(
        model=str(subject.path),
        level=kind.level,
        provider=how.provider,
        provider_options=options,
        threads=how.threads,
        disabled_optimizers=kind.disabled,
        config=_CONFIG,
    )
    return ArmPlan(arm, plan)
