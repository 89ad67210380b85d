"""What a benchmark measured, with every sample it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bnfold.records.folds import FoldReport
from bnfold.records.pictures import Picture


class Speed(StrEnum):
    """What a comparison of times shows."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no-detectable-difference"
    NOT_MEASURED = "not-measured"


class Ending(StrEnum):
    """Why measuring ended."""

    PRECISE = "precision-reached"
    OUT_OF_TIME = "max-time"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of running one model.

    Attributes:
        name: A short word, e.g. ``"original"``, ``"folded"``, ``"unfused"``; unique.
        label: The same in words, e.g. ``"original as the runtime runs it"``.
        model: The file as the user named it; of a model in memory, a word for it.
        size_bytes: Size of the file and of its external data.
        level: The runtime's optimisation level: ``"disabled"``, ``"basic"`` or ``"all"``.
        disabled_optimizers: Optimisers of the runtime that were switched off.
        provider: The execution provider that was asked for, e.g.
            ``"CUDAExecutionProvider"``.
        provider_options: Its options.
        null: Whether this is a second session of the base, which must show no difference.
    """

    name: str
    label: str
    model: str
    size_bytes: int
    level: str
    disabled_optimizers: tuple[str, ...]
    provider: str
    provider_options: Mapping[str, str]
    null: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one arm in one process: calls made one after the other.

    Attributes:
        turn: Which turn of its process; arms of one turn are compared with each other.
        place: Which arm's turn it was within that, from 0; drawn at random.
        calls_ns: Wall time of each call, in nanoseconds, copies to and from the device left
            out, its end awaited.
    """

    turn: int
    place: int
    calls_ns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Everything that one process measured of one arm.

    Attributes:
        arm: Name of the arm.
        process: Which process, from 0.
        warm_up_calls: Calls until the running median had settled; not counted.
        settled: Whether it did before the time for it was over.
        turns: The turns.
    """

    arm: str
    process: int
    warm_up_calls: int
    settled: bool
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Latency:
    """The distribution of the time of a call, over all processes.

    Attributes:
        arm: Name of the arm.
        calls: How many calls were timed.
        p50_ms: Median, in milliseconds.
        p90_ms: 90 % of the calls took no longer.
        p99_ms: 99 % of the calls took no longer.
        mean_ms: Mean.
        items_per_s: Throughput: batch size over the mean time of a call.
    """

    arm: str
    calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    items_per_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The time of one arm divided by the time of the base, from paired turns.

    Attributes:
        arm: Name of the arm.
        base: Name of the arm that it is compared with.
        ratio: Time of the arm over time of the base: 0.8 means a fifth less time.
        low: Lower end of the interval.
        high: Upper end of the interval.
        confidence: Of the interval, e.g. 0.95.
        verdict: What this shows. A difference counts when the interval excludes 1, and the
            one against the null run (a second session of the base) does so too.
        detectable: The smallest difference, as a fraction, that would have been found in
            four of five such runs.
        processes: How many processes it rests on.
        turns: How many paired turns.
    """

    arm: str
    base: str
    ratio: float
    low: float
    high: float
    confidence: float
    verdict: Speed
    detectable: float
    processes: int
    turns: int


@dataclass(frozen=True, slots=True)
class Case:
    """All arms at one batch size.

    Attributes:
        batch: The batch size; None where the model has no batch axis that could be told.
        shapes: Shape of every input.
        latencies: By arm.
        comparisons: Every other arm against the base.
        series: Every sample.
        ending: Why measuring ended.
        outputs_differ: By arm, how far its outputs are from the base's: root mean square of
            the difference over that of the base's outputs, the largest of all outputs.
        failures: By arm, why it could not be run at this batch size.
    """

    batch: int | None
    shapes: Mapping[str, tuple[int, ...]]
    latencies: tuple[Latency, ...]
    comparisons: tuple[Comparison, ...]
    series: tuple[Series, ...]
    ending: Ending
    outputs_differ: Mapping[str, float]
    failures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Start:
    """What it takes to get going: one arm alone in a fresh process.

    The runtime is loaded, and has run a tiny model on the provider, before the clock starts.

    Attributes:
        arm: Name of the arm.
        batch: The batch size.
        session_ms: Time to create the session, in milliseconds.
        first_run_ms: Time of the first call.
        peak_host_bytes: Peak resident memory of the process; None where the system does not
            tell.
        added_host_bytes: How much of that came after the runtime itself was loaded.
        device_bytes: Device memory taken by session and calls; None on a CPU, or where the
            driver does not tell.
    """

    arm: str
    batch: int | None
    session_ms: float
    first_run_ms: float
    peak_host_bytes: int | None
    added_host_bytes: int | None
    device_bytes: int | None


@dataclass(frozen=True, slots=True)
class AffineNode:
    """An affine node that the runtime still runs.

    Attributes:
        name: Its name in the graph that the runtime ran.
        kind: Its operator; ``"depthwise Conv"`` for one of a single tap, which is what the
            CPU provider makes of a BatchNormalization that it cannot fold.
        along: ``"channel"`` if its constant varies along one axis, ``"scalar"`` if it is one
            number.
        share: Its share of the time of all nodes; None where the profiler did not tell.
    """

    name: str
    kind: str
    along: str
    share: float | None


@dataclass(frozen=True, slots=True)
class RunGraph:
    """The graph that the runtime really ran in one arm, after its own optimisation.

    Attributes:
        arm: Name of the arm.
        file_nodes: Nodes of the model file by operator, subgraphs included, constants not.
        nodes: Nodes of the graph that ran, by operator; those of other domains than ONNX's
            own with the domain in front, e.g. ``"com.microsoft.nchwc:Conv"``.
        affine: Affine nodes that are left in it.
        node_time_ms: Time by operator of one call, in milliseconds, of the runtime's own
            profiler; empty if it was not to be had.
        elsewhere: Nodes that another provider ran, as ``"name (operator) on provider"``.
    """

    arm: str
    file_nodes: Mapping[str, int]
    nodes: Mapping[str, int]
    affine: tuple[AffineNode, ...]
    node_time_ms: Mapping[str, float]
    elsewhere: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One reading of a GPU; whatever the driver does not tell is None.

    Attributes:
        when_s: Seconds since the benchmark began.
        sm_clock_mhz: Clock of the multiprocessors.
        memory_clock_mhz: Clock of the memory.
        temperature_c: In degrees Celsius.
        power_w: Power drawn.
        throttled: Why the clocks were held back, in the driver's words; empty if not so.
        used_bytes: Memory in use by all processes.
        processes: Other processes that compute on the device.
    """

    when_s: float
    sm_clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    throttled: tuple[str, ...]
    used_bytes: int | None
    processes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured.

    Attributes:
        system: Operating system and its release.
        processor: Name of the CPU.
        cores: How many of them the process may use.
        memory_bytes: Main memory; None if unknown.
        device: Name of the GPU, its driver included; empty without one.
        versions: Of Python, the runtime, bnfold and what matters beside.
        load_before: Processes that wanted to run (one minute's average) before; None if
            unknown.
        load_after: The same afterwards.
        stolen: Share of CPU time that the host took away meanwhile; None if unknown.
        readings: Of the GPU, over time.
    """

    system: str
    processor: str
    cores: int
    memory_bytes: int | None
    device: str
    versions: Mapping[str, str]
    load_before: float | None
    load_after: float | None
    stolen: float | None
    readings: tuple[DeviceState, ...] = ()


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """How it was measured.

    Attributes:
        threads: Threads inside an operator; 0 is the runtime's own choice.
        dtype: ``"model"``, or ``"float16"`` where both models were converted first.
        cuda_graph: Whether calls replayed a captured CUDA graph.
        precision: Half the width of the interval at which measuring ends, as a fraction.
        max_time_s: Seconds after which it ends anyway.
        confidence: Of the intervals.
        seed: Of inputs and turns.
    """

    threads: int
    dtype: str
    cuda_graph: bool
    precision: float
    max_time_s: float
    confidence: float
    seed: int


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A benchmark of several arms.

    Attributes:
        arms: The arms, the base first.
        cases: One for each batch size.
        starts: Session creation, first run and memory, from processes of their own.
        graphs: What the runtime ran, by arm.
        why: What explains the figures, in sentences.
        machine: Where it was measured.
        settings: How.
        warnings: What the reader should know.
        elapsed_s: How long it took.
        fold: What the fold did, where the folded model was made for this.
        pictures: The graph around its steps, before and after.
    """

    arms: tuple[Arm, ...]
    cases: tuple[Case, ...]
    starts: tuple[Start, ...]
    graphs: tuple[RunGraph, ...]
    why: tuple[str, ...]
    machine: Machine
    settings: BenchSettings
    warnings: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    fold: FoldReport | None = None
    pictures: tuple[Picture, ...] = ()

    @property
    def base(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def complete(self) -> bool:
        """Whether nothing was cut short by the user or a failure."""
        cut = {Ending.INTERRUPTED, Ending.FAILED}
        return not any(case.ending in cut for case in self.cases)

    def comparison(self, arm: str = "folded", batch: int | None = None) -> Comparison | None:
        """Return the comparison of an arm with the base at a batch size.

        Args:
            arm: Name of the arm.
            batch: The batch size; None takes the first one measured.
        """
        for case in self.cases:
            if batch in (None, case.batch):
                found = [one for one in case.comparisons if one.arm == arm]
                return found[0] if found else None
        return None

    def slower(self, limit: float, arm: str = "folded") -> tuple[Case, ...]:
        """Return the cases in which an arm is slower than the base by more than a limit.

        It is when the verdict is SLOWER and the ratio exceeds ``1 + limit``, so that noise
        alone fails no pipeline.

        Args:
            limit: As a fraction: 0.02 allows two percent more time.
            arm: Name of the arm.
        """
        return tuple(
            case
            for case in self.cases
            for one in case.comparisons
            if one.arm == arm and one.verdict is Speed.SLOWER and one.ratio > 1 + limit
        )
