"""Run two models on ONNX Runtime: answers, the graph that really ran, and ratios of time.

Only ratios of interleaved measurements are returned. Times of one machine say little about
another, and on a busy machine they drift; what is measured in turns drifts alike.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

try:
    import onnxruntime as ort
except ImportError as missing:
    message = "this needs ONNX Runtime: install bnfold with its extra cpu or gpu"
    raise SystemExit(message) from missing

#: The optimizers with which ONNX Runtime itself folds BatchNormalization while it loads a
#: model. It does not say when it does not know a name, so look at ``nodes_run`` too.
FUSIONS: Final = ("ConvBNFusion", "MatMul_BatchNormalization_Fusion")
_OPTIMIZED: Final = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
_AS_WRITTEN: Final = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
_ERRORS_ONLY: Final = 3
_SAMPLE_NS: Final = 2_000_000
_RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time of one arm divided by the time of another, with a 95 % bootstrap interval."""

    median: float
    low: float
    high: float

    @property
    def is_detectable(self) -> bool:
        """Whether the interval excludes 1, that is, no difference."""
        return not self.low <= 1.0 <= self.high


def open_session(
    model: Path, *, level: Any = _OPTIMIZED, without: tuple[str, ...] = (), saved: str = ""
) -> ort.InferenceSession:
    """Load a model for one CPU thread; ``saved`` names a file for the optimised graph."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.optimized_model_filepath = saved
    return ort.InferenceSession(
        str(model),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(without),
    )


def answers_as_written(model: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the outputs of a model with every optimisation of the runtime switched off."""
    session = open_session(model, level=_AS_WRITTEN)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def nodes_run(model: Path, without: tuple[str, ...] = ()) -> Counter[str]:
    """Return how often each operator runs once the runtime has optimised the model."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "optimized.onnx"
        open_session(model, without=without, saved=str(saved))
        return count_nodes(saved)


def count_nodes(model: Path) -> Counter[str]:
    """Return how often each operator stands in a file's main graph."""
    nodes = onnx.load(model, load_external_data=False).graph.node
    return Counter(node.op_type for node in nodes)


def inference(
    model: Path, images: NDArray[np.float32], without: tuple[str, ...] = ()
) -> Callable[[], object]:
    """Return a call that runs ``images`` through a model that is loaded already."""
    session = open_session(model, without=without)
    feed = {session.get_inputs()[0].name: images}
    return lambda: session.run(None, feed)


def compare_times(
    arms: Mapping[str, Callable[[], object]], base: str, rounds: int, seed: int
) -> dict[str, Ratio]:
    """Return, for every other arm, its time divided by that of ``base``.

    In each round every arm is timed once, in random order; ratios are taken within a round.
    """
    rng = np.random.default_rng(seed)
    names = list(arms)
    calls = {name: _calls_per_sample(arms[name]) for name in names}
    samples = np.empty((rounds, len(names)))
    for turn in range(rounds):
        for index in rng.permutation(len(names)):
            name = names[index]
            samples[turn, index] = _time_ns(arms[name], calls[name]) / calls[name]
    ratios = samples / samples[:, [names.index(base)]]
    return {
        name: _bootstrap(ratios[:, index], rng)
        for index, name in enumerate(names)
        if name != base
    }


def _calls_per_sample(work: Callable[[], object]) -> int:
    """Warm up, and return how many calls make a sample long enough for the clock."""
    _time_ns(work, 3)
    once = max(1, _time_ns(work, 3) // 3)
    return max(1, _SAMPLE_NS // once)


def _time_ns(work: Callable[[], object], calls: int) -> int:
    start = time.perf_counter_ns()
    for _ in range(calls):
        work()
    return time.perf_counter_ns() - start


def _bootstrap(ratios: NDArray[np.float64], rng: np.random.Generator) -> Ratio:
    """Return the median of paired ratios with its percentile bootstrap interval."""
    drawn = rng.choice(ratios, size=(_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return Ratio(float(np.median(ratios)), float(low), float(high))
