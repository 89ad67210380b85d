"""What a fold did, and what it had to leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

CONSTANT_INPUTS: Final = "initializers that are graph inputs are constants"
INFERENCE: Final = "normalisations exported in training mode are read as inference"
REQUANTIZED: Final = "integers may be rounded anew"
"""What a user may have allowed, as a certificate says it."""


class Code(StrEnum):
    """Why a map stayed where it was, as a stable word for scripts."""

    NOT_AFFINE = "not-affine"
    BATCH_STATISTICS = "batch-statistics"
    DYNAMIC_CONSTANT = "dynamic-constant"
    UNDECIDED_CONSTANT = "undecided-constant"
    TOO_LARGE = "too-large"
    OVERRIDABLE = "overridable"
    SEVERAL_AXES = "several-axes"
    CHANGES_SHAPE = "changes-shape"
    UNKNOWN_SHAPE = "unknown-shape"
    NOT_FINITE = "not-finite"
    NOT_FLOAT = "not-float"
    GRAPH_INPUT = "graph-input"
    GRAPH_OUTPUT = "graph-output"
    SHARED_VALUE = "shared-value"
    OUTER_SCOPE = "outer-scope"
    UNKNOWN_OPERATOR = "unknown-operator"
    DYNAMIC_WEIGHT = "dynamic-weight"
    WRONG_AXIS = "wrong-axis"
    SHIFT_MEETS_PADDING = "shift-meets-padding"
    SHIFT_NOT_CONSTANT = "shift-not-constant"
    NEEDS_SCALE_ONLY = "needs-scale-only"
    WRONG_SHAPE = "wrong-shape"
    TOO_FAR = "too-far"
    OUT_OF_RANGE = "out-of-range"
    CAST_RANGE = "cast-range"
    NEGATIVE_SCALE = "negative-scale"
    PAD_VALUE = "pad-value"
    MAPS_DIFFER = "maps-differ"
    EPSILON = "epsilon"
    FEEDS_BACK = "feeds-back"
    NO_GAIN = "no-gain"
    IDIOM = "idiom"
    NOT_SELECTED = "not-selected"


NOT_EVALUATED: Final = frozenset({Code.UNDECIDED_CONSTANT, Code.TOO_LARGE})
"""Why a constant is not known though it is one: runtimes may differ, or it is too large."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a user allows beyond what a model guarantees by itself.

    Attributes:
        constant_inputs: Initializers that are also graph inputs (from IR version 4 on) count
            as constants.
        inference: A normalisation exported in training mode is read by its running
            statistics.
        norms: The affine tails of layer, RMS, group and instance normalisations move too,
            though the normalisation stays and no operator is saved.
        requantized_bias: A bias stored as integers may be rounded to new integers.
        strict: Parameters that give no number are an error; otherwise their node stays.
    """

    constant_inputs: bool = False
    inference: bool = False
    norms: bool = False
    requantized_bias: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a map was not moved: a code, the node that stopped it, the reason and a remedy.

    Attributes:
        code: A stable word for scripts.
        node: Name of the node, or the value, that stopped the map.
        why: The reason, in a sentence.
        remedy: What can be done about it; empty when nothing can.
        path: Names of the nodes that the map passed on its way to ``node``.
    """

    code: Code
    node: str
    why: str
    remedy: str = ""
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelMap:
    """``y = scale · x + shift`` along one axis, in float64.

    Attributes:
        axis: Axis of the value, from the front; None for one scale and shift for all of it.
        scale: One number for each channel, or one for all.
        shift: The same.
    """

    axis: int | None
    scale: tuple[float, ...]
    shift: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One fold that was carried out (or would be, in a dry run).

    Attributes:
        rule: Operator kind of the first site node, e.g. ``"BatchNormalization"``.
        site: Names of the nodes whose map moved, in graph order.
        move: How it moved: ``"up"``, ``"down"``, ``"scale up, shift down"``, ``"compose"`` …
        routes: For each node that took a part of the map into its constants: the names of the
            nodes from the site to it.
        absorbed_by: Names of the nodes whose constants took it.
        tensors: Names of the tensors that were written.
        left: Operator kinds of the nodes that remain of the site, if any.
        cloned_bytes: Growth by weights written anew because other nodes read them, or because
            nodes computed them, in bytes; less than 0 where more was stored before.
        adjusted: Names of other readers of a value that changed under way: their constants
            took the inverse.
        map: The map of the site in float64; None where nothing of that kind was moved.
    """

    rule: str
    site: tuple[str, ...]
    move: str
    routes: tuple[tuple[str, ...], ...]
    absorbed_by: tuple[str, ...]
    tensors: tuple[str, ...]
    left: tuple[str, ...] = ()
    cloned_bytes: int = 0
    adjusted: tuple[str, ...] = ()
    map: ChannelMap | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Stay:
    """A site that stayed: its nodes and every refusal met, the most telling first."""

    rule: str
    site: tuple[str, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """One normalisation of a model: over what it normalises, and what can move around it.

    Attributes:
        kind: The operator, or what several nodes spell out, e.g. ``"GroupNormalization,
            spelled out"``.
        node: Name of the operator; of the node that takes the root where it is spelled out.
        axes: The axes whose elements are normalised together, counted from the front; of
            constant statistics, the axes they were taken over. Empty if unknown.
        shape: The shape of the value that is normalised, unknown sizes as None or a name;
            None if not even the rank is known.
        groups: In how many groups the channels of axis 1 are normalised; None where they are
            not cut into groups.
        constant_statistics: Whether mean and variance are constants of the model.
        can_fold: What can be folded, in one sentence.
        cannot_fold: What cannot, and why, in one sentence.
    """

    kind: str
    node: str
    axes: tuple[int, ...]
    shape: tuple[int | str | None, ...] | None
    groups: int | None
    constant_statistics: bool
    can_fold: str
    cannot_fold: str


@dataclass(frozen=True, slots=True)
class FoldReport:
    """What folded where, what stayed and why, and operator counts before and after.

    ``normalisations`` describes the model as it was before the fold.
    """

    steps: tuple[Step, ...]
    stays: tuple[Stay, ...]
    counts_before: Mapping[str, int]
    counts_after: Mapping[str, int]
    warnings: tuple[str, ...] = ()
    normalisations: tuple[Normalisation, ...] = ()

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The first refusal of every site that stayed."""
        return tuple(stay.refusals[0] for stay in self.stays if stay.refusals)

    @property
    def cloned_bytes(self) -> int:
        """Growth of the model by weights written anew, in bytes; 0 where it shrinks."""
        return max(sum(step.cloned_bytes for step in self.steps), 0)
