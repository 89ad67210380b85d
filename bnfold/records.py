"""Frozen results that cross a border between the parts of bnfold."""

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
    NO_GAIN = "no-gain"
    IDIOM = "idiom"
    NOT_SELECTED = "not-selected"


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
    """

    constant_inputs: bool = False
    inference: bool = False
    norms: bool = False
    requantized_bias: bool = False


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
            nodes computed them, in bytes.
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
        """Growth of the model by cloned weights, in bytes."""
        return sum(step.cloned_bytes for step in self.steps)


class Verdict(StrEnum):
    """The answer of a check: the function is the same, is another, or could not be judged."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_JUDGED = "not-judged"


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """How far one output of the folded model is from the original's, in units of its noise.

    Attributes:
        name: Name of the graph output.
        ratio: Largest ratio of difference to the original's own rounding noise.
        limit: The ratio that would still pass.
        max_abs: Largest absolute difference seen, in the unit of the output.
        noise_abs: Largest absolute difference that rounding noise alone made.
        channel: Index on axis 1 where ``ratio`` was found; None when judged as a whole.
        passed: Whether ``ratio`` is within ``limit``.
        note: A remark, e.g. that the output did not react to small input changes.
    """

    name: str
    ratio: float
    limit: float
    max_abs: float
    noise_abs: float
    channel: int | None
    passed: bool
    note: str = ""


class Charge(StrEnum):
    """What a proof found wrong, as a stable word for scripts."""

    INTERFACE = "interface"
    TAMPERED = "tampered"
    OTHER_FILES = "other-files"
    TENSOR = "tensor"
    UNRECORDED = "unrecorded-change"
    NOT_DONE = "recorded-change-not-done"
    VALUE = "value"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a proof found wrong.

    Attributes:
        charge: A stable word for scripts.
        node: Name of the node of the folded model in which it lies; empty if in none.
        where: Name of the tensor or value.
        why: What was expected and what was found, in a sentence.
        channel: The channel that is furthest off; None where it is all of it, or none.
        fold: The fold that made it, if a certificate names one.
    """

    charge: Charge
    node: str
    where: str
    why: str
    channel: int | None = None
    fold: str = ""


@dataclass(frozen=True, slots=True)
class ProofReport:
    """What a segment by segment comparison of two graphs in float64 showed.

    Attributes:
        verdict: PASSED when every output was shown to be the same function.
        findings: What is wrong, the first to meet on the way from the inputs first.
        tensors: How many tensors changed and were derived anew from the original's.
        same_nodes: How many nodes are the same, byte for byte.
        windows: How many changed segments were evaluated on both sides.
        impulses: How many of them are affine, and were probed by every impulse.
        certified: Whether a certificate said what to expect.
        untold: Changed tensors that the certificate does not tell the making of; these are
            judged within the rounding of their type only.
        assumptions: What the user allowed, without which the proof does not hold.
        why: Why nothing was shown, where that is so.
    """

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    tensors: int = 0
    same_nodes: int = 0
    windows: int = 0
    impulses: int = 0
    certified: bool = False
    untold: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    why: str = ""

    @property
    def passed(self) -> bool:
        """Whether the graphs were shown to compute the same function."""
        return self.verdict is Verdict.PASSED


@dataclass(frozen=True, slots=True)
class ReferenceErrors:
    """How far both models are from the original in float64, on one output.

    Errors are root mean squares over all inputs; of integers, of the share that differs.

    Attributes:
        error_original: Of the original as it ran.
        error_folded: Of the folded model.
        ratio: The second over the first, inputs weighted alike; ``low`` and ``high`` bound it
            with 95 % confidence over the inputs.
        excess: ``error_folded`` over what is allowed: the original's error and its storage
            noise together; bounded in the same way.
        worst: The largest such excess of all inputs, elements and channels.
        limit: What ``excess_high`` and ``worst`` may be.
        samples: Over how many inputs the bounds go; there are none over one.
        channels: Both errors for each channel (axis 1).
        channel: The channel that ``worst`` was found in; None when judged as a whole.
    """

    error_original: float
    error_folded: float
    ratio: float
    low: float
    high: float
    excess: float
    excess_low: float
    excess_high: float
    worst: float
    limit: float
    samples: int
    channels: tuple[tuple[float, float], ...] = ()
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class OutputMetrics:
    """Plain figures of one output, folded model against original, over all inputs.

    Attributes:
        name: Name of the graph output.
        max_abs: Largest absolute difference.
        max_rel: Largest difference relative to the original's number.
        max_ulp: Largest difference in units in the last place; 0 for what is not a float.
        snr_db: Signal to noise ratio in decibels.
        cosine: Cosine of the angle between both outputs.
        tolerance: The smallest ``rtol = atol`` with which numpy.allclose would have passed.
        changed: Elements that differ and cannot be subtracted: text, booleans, new NaN.
        reference: Errors against float64; None where no reference ran.
    """

    name: str
    max_abs: float
    max_rel: float
    max_ulp: float
    snr_db: float
    cosine: float
    tolerance: float
    changed: int
    reference: ReferenceErrors | None = None


@dataclass(frozen=True, slots=True)
class LabelReport:
    """How both models classify labelled samples.

    Attributes:
        output: The output whose largest entry is the answer.
        samples: How many.
        accuracy_original: Share that the original classifies as labelled.
        accuracy_folded: The same of the folded model.
        agreement: Share that both classify alike.
        only_original: How many only the original gets right.
        only_folded: How many only the folded model gets right.
        p_value: Exact two-sided McNemar test of those two being alike.
    """

    output: str
    samples: int
    accuracy_original: float
    accuracy_folded: float
    agreement: float
    only_original: int
    only_folded: int
    p_value: float


@dataclass(frozen=True, slots=True)
class SearchReport:
    """What a search for the worst input found.

    Attributes:
        tried: How many inputs were run.
        start: Largest difference over noise among the inputs it began with.
        worst: The largest it found.
        control: What the same search finds for the original with half-ulp changes.
        limit: How many times ``control`` the worst may be.
    """

    tried: int
    start: float
    worst: float
    control: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the folded model is no worse than rounding."""
        return self.worst <= self.limit * max(self.control, 1.0)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Outcome of comparing two models with the same interface.

    Attributes:
        verdict: The answer.
        outputs: Each output's difference in units of the original's noise.
        cases: Shapes of the inputs.
        why: The reason of any other verdict than PASSED.
        warnings: What the user should know.
        metrics: Plain figures and reference errors, by output; of ``verify`` only.
        referenced: On how many inputs the float64 reference ran.
        fell_back: Operators that the reference left to the runtime, in their own types.
        settings: How the original and the folded model ran.
        labels: Accuracy before and after, where labels were given.
        search: What the search for the worst input found, where it was asked for.
        proof: The comparison segment by segment.
    """

    verdict: Verdict
    outputs: tuple[OutputCheck, ...] = ()
    cases: tuple[Mapping[str, tuple[int, ...]], ...] = ()
    why: str = ""
    warnings: tuple[str, ...] = field(default_factory=tuple)
    metrics: tuple[OutputMetrics, ...] = ()
    referenced: int = 0
    fell_back: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    labels: LabelReport | None = None
    search: SearchReport | None = None
    proof: ProofReport | None = None

    @property
    def passed(self) -> bool:
        """Whether the models were judged and found to compute the same function."""
        return self.verdict is Verdict.PASSED
