"""Made-up reports with realistic numbers: what a page has to cope with, without measuring."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from bnfold.records import (
    AffineNode,
    Arm,
    BenchReport,
    BenchSettings,
    Box,
    Case,
    Charge,
    Code,
    Comparison,
    DeviceState,
    Ending,
    Finding,
    FoldReport,
    LabelReport,
    Latency,
    Machine,
    Normalisation,
    OutputCheck,
    OutputMetrics,
    Patch,
    Picture,
    ProofReport,
    ReferenceErrors,
    Refusal,
    Role,
    RunGraph,
    SearchReport,
    Series,
    Speed,
    Start,
    Stay,
    Step,
    Turn,
    Verdict,
    VerifyReport,
    Wire,
)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
FACTORS = {"original": 1.0, "folded": 0.87, "unfused": 1.16, "again": 1.002}
MIB = 1 << 20


def arms(provider: str = CPU) -> tuple[Arm, ...]:
    """The original, the folded model, the original without folding, a null run."""
    off = ("ConvBNFusion", "MatMul_BatchNormalization_Fusion")
    size = 98_000_000
    given = ("model.onnx", "all", provider, {})
    name, level, where, options = given
    return (
        Arm(
            "original",
            "original as the runtime runs it",
            name,
            size,
            level,
            (),
            where,
            options,
        ),
        Arm(
            "folded", "folded model", "folded.onnx", size - 212_000, level, (), where, options
        ),
        Arm(
            "unfused",
            "original without the runtime's own folding",
            *(name, size, level, off, where, options),
        ),
        Arm(
            "again",
            "original a second time (null run)",
            *(name, size, level, (), where, options),
            null=True,
        ),
    )


def series(
    names: Sequence[str],
    base_ms: float,
    rng: np.random.Generator,
    factors: Mapping[str, float],
    processes: int = 8,
) -> tuple[Series, ...]:
    """Samples as a machine gives them: processes differ, a few calls are late."""
    found = []
    for process in range(processes):
        shared = rng.normal(1, 0.006)
        for place, name in enumerate(names):
            own = base_ms * factors.get(name, 1.0) * shared * rng.normal(1, 0.003)
            turns = []
            for turn in range(12):
                calls = own * (1 + rng.gamma(1.5, 0.006, 5))
                calls = np.where(rng.random(5) < 0.02, calls * rng.uniform(1.1, 1.6), calls)
                turns.append(Turn(turn, place, tuple(int(one * 1e6) for one in calls)))
            found.append(Series(name, process, 14, settled=True, turns=tuple(turns)))
    return tuple(found)


def latency(arm: str, samples: Sequence[Series], batch: int) -> Latency:
    """The distribution of what was sampled of one arm."""
    calls = [
        call
        for one in samples
        if one.arm == arm
        for turn in one.turns
        for call in turn.calls_ns
    ]
    ms = np.array(calls) / 1e6
    p50, p90, p99 = (float(one) for one in np.quantile(ms, (0.5, 0.9, 0.99)))
    mean = float(ms.mean())
    return Latency(arm, len(calls), p50, p90, p99, mean, batch / mean * 1e3)


def comparison(arm: str, ratio: float, processes: int = 8) -> Comparison:
    """A comparison that fits its ratio."""
    verdict = Speed.NO_DIFFERENCE
    if abs(ratio - 1) > 0.012:
        verdict = Speed.FASTER if ratio < 1 else Speed.SLOWER
    return Comparison(
        *(arm, "original", ratio, ratio * 0.991, ratio * 1.0085, 0.95, verdict, 0.0084),
        processes,
        12 * processes,
    )


def case(
    batch: int | None, base_ms: float, rng: np.random.Generator, ratio: float = 0.87
) -> Case:
    """All four arms at one batch size."""
    names = tuple(FACTORS)
    samples = series(names, base_ms, rng, FACTORS | {"folded": ratio})
    count = batch or 1
    ratios = {"folded": ratio, "unfused": 1.16, "again": 1.002}
    return Case(
        batch=batch,
        shapes={"input": (count, 3, 224, 224)},
        latencies=tuple(latency(name, samples, count) for name in names),
        comparisons=tuple(comparison(name, one) for name, one in ratios.items()),
        series=samples,
        ending=Ending.PRECISE,
        outputs_differ={"folded": 3.1e-7, "unfused": 2.8e-7, "again": 0.0},
        failures={},
    )


def machine(readings: tuple[DeviceState, ...] = (), device: str = "") -> Machine:
    """A small server."""
    return Machine(
        system="Linux 6.8.0-45-generic",
        processor="AMD EPYC 9354 32-Core Processor",
        cores=16,
        memory_bytes=128 << 30,
        device=device,
        versions={
            "bnfold": "0.1.0",
            "python": "3.11.9",
            "onnxruntime": "1.32.0",
            "onnx": "1.23.2",
            "numpy": "2.4.6",
        },
        load_before=0.31,
        load_after=1.94,
        stolen=0.002,
        readings=readings,
    )


def graphs() -> tuple[RunGraph, ...]:
    """What ran: the runtime folds the convolutions, but not what follows a MatMul."""
    file_nodes = {"Conv": 53, "BatchNormalization": 65, "Relu": 49, "MatMul": 12, "Add": 28}
    ran = {"com.microsoft:FusedConv": 53, "BatchNormalization": 12, "MatMul": 12, "Add": 16}
    ran |= {"MaxPool": 1, "GlobalAveragePool": 1, "Reshape": 2}
    times = {"com.microsoft:FusedConv": 2.61, "BatchNormalization": 0.48, "MatMul": 0.31}
    times |= {"Add": 0.22, "MaxPool": 0.05, "GlobalAveragePool": 0.03, "Reshape": 0.004}
    times |= {
        "Transpose": 0.02,
        "Softmax": 0.011,
        "Concat": 0.009,
        "Split": 0.008,
        "Mul": 0.01,
    }
    left = tuple(
        AffineNode(
            f"/layers.{index}/norm/BatchNormalization", "BatchNormalization", "channel", 0.01
        )
        for index in range(12)
    )
    gone = {"BatchNormalization", "com.microsoft:FusedConv"}
    folded = {kind: count for kind, count in ran.items() if kind != "BatchNormalization"}
    faster = {kind: one for kind, one in times.items() if kind != "BatchNormalization"}
    apart = {kind: count for kind, count in ran.items() if kind not in gone}
    apart |= {"Conv": 53, "BatchNormalization": 65, "Relu": 49}
    slower = {kind: one for kind, one in times.items() if kind not in gone}
    slower |= {"Conv": 2.6, "BatchNormalization": 1.02, "Relu": 0.3}
    bare = {kind: count for kind, count in file_nodes.items() if kind != "BatchNormalization"}
    return (
        RunGraph("original", file_nodes, ran, left, times, ()),
        RunGraph("folded", bare, folded, (), faster, ("/head/Shape (Shape) on CPU",)),
        RunGraph("unfused", file_nodes, apart, left[:3], slower, ()),
    )


def starts(
    batches: Sequence[int | None], device_bytes: int | None = None
) -> tuple[Start, ...]:
    """What it takes to get going."""
    session = {"original": 412.0, "folded": 371.0, "unfused": 398.0, "again": 415.0}
    return tuple(
        Start(
            *(arm, batch, took, took / 9 + (batch or 1)),
            *(611 * MIB, 312 * MIB + (batch or 1) * 4 * MIB),
            device_bytes,
        )
        for arm, took in session.items()
        for batch in batches
    )


WHY = (
    "the runtime removed 53 of 65 BatchNormalization nodes of the original by itself; it still"
    " runs 12 of them, behind MatMul, which take 11.9 % of the time of its nodes",
    "in the folded model none is left",
)


def settings(**changed: object) -> BenchSettings:
    """How it was measured."""
    usual = BenchSettings(
        threads=4,
        dtype="model",
        cuda_graph=False,
        precision=0.01,
        max_time_s=120.0,
        confidence=0.95,
        seed=0,
    )
    return dataclasses.replace(usual, **changed)


def cpu_report(batches: Sequence[int | None] = (1, 8, 32)) -> BenchReport:
    """A clear gain on a CPU at three batch sizes."""
    rng = np.random.default_rng(7)
    ratios = {1: 0.87, 8: 0.93, 32: 0.998}
    base = {1: 3.8, 8: 26.1, 32: 104.0}
    return BenchReport(
        arms=arms(),
        cases=tuple(
            case(one, base.get(one or 1, 3.8), rng, ratios.get(one or 1, 0.87))
            for one in batches
        ),
        starts=starts(batches),
        graphs=graphs(),
        why=WHY,
        machine=machine(),
        settings=settings(),
        elapsed_s=214.0,
    )


def readings(count: int = 40) -> tuple[DeviceState, ...]:
    """Readings of a GPU that warms up and is held back once."""
    found = []
    for index in range(count):
        held = ("SW power cap",) if 24 <= index < 29 else ()
        clock = 1980.0 if not held else 1755.0
        warm = 34 + 22 * (1 - np.exp(-index / 9))
        found.append(
            DeviceState(
                *(index * 2.5, clock, 2619.0, float(warm), 310.0 + index % 7 * 9, held),
                21 * 1024 * MIB,
                (),
            )
        )
    return tuple(found)


def cuda_report() -> BenchReport:
    """On a GPU, with readings of it."""
    usual = cpu_report()
    device = "NVIDIA H100 80GB HBM3, driver 570.133"
    return dataclasses.replace(
        usual,
        arms=arms(CUDA),
        starts=starts((1, 8, 32), device_bytes=1180 * MIB),
        machine=machine(readings(), device),
        settings=settings(dtype="float16", cuda_graph=True),
        warnings=(
            "the device's clocks were held back (SW power cap) in 5 of 40 readings: let it"
            " cool, or raise the limit, and measure again",
        ),
    )


def partial_report() -> BenchReport:
    """Interrupted: one arm failed, another has no comparison, numbers are missing."""
    usual = cpu_report((1, 8))
    first, second = usual.cases
    nothing = Comparison(
        *("folded", "original", float("nan"), float("nan"), float("inf"), 0.95),
        *(Speed.NOT_MEASURED, float("inf"), 2, 7),
    )
    cut = dataclasses.replace(
        second,
        latencies=(*second.latencies[:1], Latency("folded", 0, *[float("nan")] * 5)),
        comparisons=(nothing,),
        series=tuple(one for one in second.series if one.process < 2)[:3],
        ending=Ending.INTERRUPTED,
        outputs_differ={"folded": float("inf")},
        failures={"unfused": "out of memory: 4096 MiB were asked for", "again": "not reached"},
    )
    return dataclasses.replace(
        usual,
        cases=(first, cut),
        starts=usual.starts[:2],
        graphs=usual.graphs[:1],
        why=(),
        warnings=("interrupted after 31 s: batch 8 rests on 2 processes",),
    )


def empty_report() -> BenchReport:
    """Nothing was measured at all."""
    nothing = Case(None, {}, (), (), (), Ending.FAILED, {}, {"folded": "the process died"})
    return dataclasses.replace(
        cpu_report((None,)), cases=(nothing,), starts=(), graphs=(), why=(), warnings=()
    )


def single_process_report() -> BenchReport:
    """One process: no interval can be given."""
    usual = cpu_report((None,))
    only = usual.cases[0]
    comparisons = tuple(
        dataclasses.replace(
            one,
            low=0.0,
            high=float("inf"),
            verdict=Speed.NOT_MEASURED,
            detectable=float("inf"),
            processes=1,
            turns=12,
        )
        for one in only.comparisons
    )
    series_of_one = tuple(one for one in only.series if one.process == 0)
    cut = dataclasses.replace(
        only, comparisons=comparisons, series=series_of_one, ending=Ending.OUT_OF_TIME
    )
    return dataclasses.replace(usual, cases=(cut,))


def hostile_report() -> BenchReport:
    """Names that would break a page, a table or a drawing that trusts them."""
    evil = '<script>alert("x")</script> & | $x^2$ `y` </svg>'
    usual = cpu_report((1,))
    renamed = tuple(
        dataclasses.replace(one, label=f"{one.label} {evil}", model=f"{evil}.onnx")
        for one in usual.arms
    )
    ran = tuple(
        dataclasses.replace(
            one,
            nodes={**one.nodes, evil: index + 1},
            node_time_ms={**one.node_time_ms, evil: 1.0},
            affine=(AffineNode(evil, evil, "channel", None),),
        )
        for index, one in enumerate(usual.graphs)
    )
    return dataclasses.replace(
        usual, arms=renamed, graphs=ran, why=(evil,), warnings=(evil,), fold=fold_report(evil)
    )


def fold_report(name: str = "/layer1/conv") -> FoldReport:
    """Folds of two kinds, two refusals, a normalisation."""
    steps = tuple(
        Step(
            *("BatchNormalization", (f"{name}_{index}/bn",), "up"),
            ((f"{name}_{index}",),),
            *((f"{name}_{index}",), (f"{name}_{index}.weight", f"{name}_{index}.bias")),
        )
        for index in range(17)
    )
    down = Step(
        *("Mul", (f"{name}/scale", f"{name}/shift"), "scale up, shift down"),
        ((f"{name}/relu", f"{name}/next"), (f"{name}/pool", f"{name}/next")),
        *((f"{name}/next",), (f"{name}/next.weight",)),
        *(("Add",), 4096, (f"{name}/other",)),
    )
    refusal = Refusal(
        Code.SHIFT_MEETS_PADDING,
        f"{name}/padded",
        "zeros are padded after the shift; a folded bias would shift them too",
        "export the network with explicit padding behind the normalisation",
        (f"{name}/relu",),
    )
    output = Refusal(Code.GRAPH_OUTPUT, "features", "its value is an output of the model")
    stays = (
        Stay("BatchNormalization", (f"{name}/bn_in",), (refusal, output)),
        Stay("BatchNormalization", (f"{name}/bn_in2",), (refusal,)),
        Stay("Mul", (f"{name}/gate",), (output,)),
    )
    norm = Normalisation(
        *("LayerNormalization", f"{name}/ln", (2,), (None, "tokens", 384), None, False),
        "its scale and bias fold into the linear layer behind, with --norms",
        "mean and variance are computed from the data",
    )
    before = {"Conv": 19, "BatchNormalization": 19, "Relu": 17, "Mul": 2, "Add": 1}
    after = {"Conv": 19, "BatchNormalization": 2, "Relu": 17, "Mul": 1, "Add": 1}
    warned = ("initializers that are also graph inputs were left alone",)
    return FoldReport((*steps, down), stays, before, after, warned, (norm,))


def pictures(report: FoldReport) -> tuple[Picture, ...]:
    """A picture for every step."""
    return tuple(_picture(step, index) for index, step in enumerate(report.steps))


def _picture(step: Step, index: int) -> Picture:
    above, site = step.absorbed_by[0], step.site[0]
    conv, relu = Box(above, "Conv", Role.ABSORBED), Box(f"{above}/relu", "Relu", Role.BESIDE)
    shape = "N×64×56×56"
    before = Patch(
        (conv, Box(site, step.rule, Role.SITE), relu),
        (
            *(Wire(None, 0, "x", "N×64×56×56"), Wire(0, 1, "c", shape)),
            *(Wire(1, 2, "b", shape), Wire(2, None, "y", shape)),
        ),
    )
    after = Patch(
        (conv, relu),
        (Wire(None, 0, "x", shape), Wire(0, 1, "b", shape), Wire(1, None, "y", shape)),
    )
    return Picture(before, after, index, f"{step.rule} {step.move}")


def _metrics(name: str, worse: float, rng: np.random.Generator) -> OutputMetrics:
    originals = np.exp(rng.normal(-11, 0.4, 64))
    folded = originals * worse * np.exp(rng.normal(-0.02, 0.12, 64))
    pairs = tuple((float(a), float(b)) for a, b in zip(originals, folded, strict=True))
    errors = ReferenceErrors(
        error_original=3.71e-5,
        error_folded=3.71e-5 * worse,
        ratio=0.967 * worse,
        low=0.845 * worse,
        high=1.1 * worse,
        excess=0.58 * worse,
        excess_low=0.525 * worse,
        excess_high=0.638 * worse,
        worst=0.91 * worse,
        limit=5.0,
        samples=36,
        channels=pairs,
        channel=17,
    )
    return OutputMetrics(
        *(name, 3.87e-4 * worse, 5.01e-5 * worse, 502.0 * worse, 125.8, 0.999999999),
        *(2.27e-5 * worse, 0, errors),
    )


def passed_check() -> VerifyReport:
    """The same function, by running and by proof, with labels and a search."""
    rng = np.random.default_rng(3)
    return VerifyReport(
        Verdict.PASSED,
        outputs=(
            OutputCheck("logits", 1.57, 5.0, 3.87e-4, 2.4e-4, 17, passed=True),
            OutputCheck("features", 0.83, 5.0, 1.1e-5, 1.3e-5, None, passed=True),
        ),
        cases=({"input": (1, 3, 224, 224)},) * 12 + ({"input": (8, 3, 224, 224)},) * 6,
        metrics=(_metrics("logits", 1.0, rng), _metrics("features", 0.9, rng)),
        referenced=18,
        settings=("disabled", "disabled, all"),
        labels=LabelReport("logits", 500, 0.982, 0.982, 1.0, 0, 0, 1.0),
        search=SearchReport(4096, 1.57, 2.2, 1.9, 5.0),
        proof=ProofReport(
            Verdict.PASSED, tensors=38, same_nodes=104, windows=19, impulses=17, certified=True
        ),
    )


def failed_check() -> VerifyReport:
    """Another function: one channel is off, and the proof names the node."""
    rng = np.random.default_rng(4)
    finding = Finding(
        *(Charge.VALUE, "/layer3/conv2", "/layer3/conv2_output"),
        "differs by 1.2e-02 where rounding allows 1e-9",
        *(17, "fold 12: BatchNormalization /layer3/bn2"),
    )
    return VerifyReport(
        Verdict.FAILED,
        outputs=(
            OutputCheck("logits", 41_300.0, 5.0, 1.7, 2.4e-4, 17, passed=False),
            OutputCheck("features", float("inf"), 5.0, 0.4, 0.0, None, passed=False, note="-"),
            OutputCheck("mask", 0.0, 5.0, 0.0, 0.0, None, passed=True),
        ),
        cases=({"input": (1, 3, 224, 224)},) * 2,
        why="output logits differs by 41300 times its noise; node /layer3/conv2 is the first",
        warnings=("the runtime's float16 kernels compute in float32 on a CPU",),
        metrics=(_metrics("logits", 900.0, rng),),
        fell_back=("Resize",),
        settings=("disabled", "disabled, all"),
        proof=ProofReport(Verdict.FAILED, findings=(finding,), same_nodes=87, windows=12),
    )


def unjudged_check() -> VerifyReport:
    """Nothing could be said."""
    return VerifyReport(Verdict.NOT_JUDGED, why="ONNX Runtime is not installed")
