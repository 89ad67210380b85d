"""What a comparison of two models found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


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
        ratio: The ratio of difference to the original's own rounding noise that is furthest
            up to, or beyond, what it may be.
        limit: The ratio that would still pass: it knows how many comparisons were made.
        max_abs: Largest absolute difference seen, in the unit of the output.
        noise_abs: Largest absolute difference that rounding noise alone made.
        channel: Index on axis 1 where ``ratio`` was found; None when judged as a whole.
        passed: Whether ``ratio`` is within ``limit``.
        note: A remark, e.g. that the output did not react to small input changes.
        values: Numbers in one channel, over all inputs.
        draws: How many nudged runs the noise was measured by.
    """

    name: str
    ratio: float
    limit: float
    max_abs: float
    noise_abs: float
    channel: int | None
    passed: bool
    note: str = ""
    values: int = 0
    draws: int = 0


@dataclass(frozen=True, slots=True)
class RuntimeEffect:
    """What the runtime's own optimisation does to one output of both models.

    Each model is compared with itself: optimised, against as it is. That says nothing of
    whether both compute the same function.

    Attributes:
        output: Name of the graph output.
        level: How much the runtime optimised.
        size_original: How far the original moves, as a root mean square, in units of its own
            rounding noise.
        size_folded: The same of the folded model.
        max_abs_original: Largest absolute difference that it makes to the original.
        max_abs_folded: The same of the folded model.
        new_not_finite: Elements of the folded model that are finite only without it.
        limit: The size up to which rounding explains it.
    """

    output: str
    level: str
    size_original: float
    size_folded: float
    max_abs_original: float
    max_abs_folded: float
    new_not_finite: int
    limit: float

    @property
    def is_large(self) -> bool:
        """Whether rounding does not explain what happens to the folded model."""
        return self.size_folded > self.limit or self.new_not_finite > 0


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
        refolded: Whether the fold that bnfold makes of the original itself did, because the
            folded model is that fold.
        untold: Changed tensors that the certificate does not tell the making of; these are
            judged within the rounding of their type only.
        assumptions: What the user allowed, without which the proof does not hold.
        why: Why nothing was shown, where that is so.
        channels: How many channels the constants have that are new in the folded model.
        shown: How many of them the comparison was seen to notice when they were changed.
        elements: How many elements of results were compared on both sides.
        unshown: Constants some of whose channels were never seen to matter, in words; the
            verdict is NOT_JUDGED if there are any.
    """

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    tensors: int = 0
    same_nodes: int = 0
    windows: int = 0
    impulses: int = 0
    certified: bool = False
    refolded: bool = False
    untold: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    why: str = ""
    channels: int = 0
    shown: int = 0
    elements: int = 0
    unshown: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of the channels of new constants that were shown to be compared."""
        return self.shown / self.channels if self.channels else 1.0

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
        runtime: What the runtime's optimisation does to both models: never a reason to call
            the folded one another function.
        comparisons: How many comparisons were made of all outputs, channels and inputs.
        false_alarms: The share of right folds that they may call wrong, all together.
        only_accuracy: Whether the verdict is about accuracy alone, because the function was
            shown to be the same before anything was run.
        contradicts: Whether the run shows another function though that had been shown.
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
    runtime: tuple[RuntimeEffect, ...] = ()
    comparisons: int = 0
    false_alarms: float = 0.0
    only_accuracy: bool = False
    contradicts: bool = False

    @property
    def passed(self) -> bool:
        """Whether the models were judged and found to compute the same function."""
        return self.verdict is Verdict.PASSED
