"""Accuracy that a fold clearly loses, though not so much that it is refused.

Behind a proof, twenty times the noise are allowed: a right fold may move a cancellation, and
is not to be refused for a digit. But measured errors of right folds stay below 2.7 times what
rounding explains, below 1.1 where storage makes the noise. So what the run by itself would not
allow is said, where the whole confidence interval lies beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bnfold.evidence.judge import leeway_of
from bnfold.evidence.readings import Readings
from bnfold.evidence.weigh import trials_of
from bnfold.records import OutputMetrics

_SAMPLES: Final = 2
"""There is no interval over one."""


def losses(readings: Readings, metrics: Sequence[OutputMetrics]) -> Iterator[str]:
    """Yield a warning for each output of which accuracy is lost.

    Args:
        readings: What was measured.
        metrics: The figures of it, in the order of the outputs.
    """
    places = {name: place for place, name in enumerate(readings.names)}
    for one in metrics:
        errors = one.reference
        trials = [trial for _, trial in trials_of(readings, places[one.name])]
        is_float = any(trial.scale.floor for trial in trials)
        if errors is None or not is_float or errors.samples < _SAMPLES:
            continue
        if min(errors.excess_low, errors.worst) > leeway_of(trials, readings.coarsest).plain:
            yield (
                f"accuracy is lost: the error of output {one.name!r} against float64 is"
                f" {errors.excess:.3g} times what rounding explains in the original"
                f" ({errors.excess_low:.3g} to {errors.excess_high:.3g})"
            )
