"""Judge an exported model by what the torch module computes on the same inputs.

The measure is the module's own error: both are compared with the module in float64, and the
exported model's error must be explained by the module's and by what half-ulp changes of its
numbers do to its outputs. Where a module does not run in float64, that noise alone decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bnfold.errors import ModelError
from bnfold.evidence.compare import Deviation, deviation, is_float, scale_of
from bnfold.evidence.judge import Trial, judge
from bnfold.evidence.noise import Draw, first_draws, further_draws
from bnfold.evidence.reference.arrays import NoKernelError
from bnfold.evidence.reference.evaluator import Evaluator
from bnfold.evidence.verification.against import Exhibit, errors_of
from bnfold.evidence.verification.metrics import metrics_of
from bnfold.exporting.examples import Example
from bnfold.exporting.running import (
    Outputs,
    Runs,
    coarsest,
    run,
    run_nudged,
    run_wide,
)
from bnfold.exporting.tensors import to_array
from bnfold.model.io import load
from bnfold.records import OutputCheck, OutputMetrics, ReferenceErrors, Verdict, VerifyReport
from bnfold.runtime import Arrays, Job, Level, run_all, write_arrays

_NO_KERNEL: Final = ("NOT_IMPLEMENTED", "Could not find an implementation")
_BLIND: Final = "no output reacted to its inputs or to rounding noise: equality says nothing"
_RANDOM: Final = "the module gives something else for the same input: there is chance in it"
_THREADS: Final = 1000
_MOST_LETTERS: Final = 400
_OWN: Final = "bnfold's own float64 evaluator"
_LEVELS: Final = (Level.DISABLED, Level.ALL)
"""As the file says, and as the runtime does by its default."""


@dataclass(frozen=True, slots=True)
class Witness:
    """What the module computes, and everything its outputs are measured by.

    Attributes:
        model: The module.
        example: The call, with the places of the tensors.
        names: Of the outputs.
        sets: The inputs, one entry for each call.
        outputs: What the module gives, in its own types.
        reference: The same in float64.
        noise: With every number nudged, one entry per draw.
        coarsest: Largest unit roundoff among the numbers of module and inputs.
        is_random: Whether the module gives something else for the same input.
    """

    model: nn.Module
    example: Example
    names: tuple[str, ...]
    sets: tuple[tuple[Tensor, ...], ...]
    outputs: tuple[Outputs, ...]
    reference: Runs
    noise: tuple[Runs, ...]
    coarsest: float
    is_random: bool


def heard(
    model: nn.Module,
    example: Example,
    names: Sequence[str],
    sets: Sequence[tuple[Tensor, ...]],
    seed: int,
) -> Witness:
    """Run a module on every set of inputs, in its own types, in float64, and nudged.

    Args:
        model: A module in eval mode.
        example: The call.
        names: Of the outputs.
        sets: The inputs; the module runs on all of them.
        seed: Of the noise.
    """
    outputs = tuple(run(model, example, tensors) for tensors in sets)
    again = run(model, example, sets[0])
    return Witness(
        model,
        example,
        tuple(names),
        tuple(sets),
        outputs,
        run_wide(model, example, sets),
        _noise(model, example, sets, first_draws(seed)),
        coarsest(model, example.tensors),
        not all(_is_the_same(*pair) for pair in zip(outputs[0], again, strict=True)),
    )


def _noise(
    model: nn.Module,
    example: Example,
    sets: Sequence[tuple[Tensor, ...]],
    draws: Sequence[Draw],
) -> tuple[Runs, ...]:
    nudged = (run_nudged(model, example, sets, draw) for draw in draws)
    return tuple(one for one in nudged if not one.stopped)


def _is_the_same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two runs agree, but for what the order of threads may do to a sum."""
    far = deviation(one, other)
    if far is None or not is_float(one):
        return far is not None and not far.flipped
    scale = scale_of(one)
    return far.largest <= _THREADS * scale.floor * scale.largest and not far.flipped


def judged(witness: Witness, path: Path, folder: Path, seed: int) -> VerifyReport:
    """Run an exported model on the same inputs and judge it.

    More noise is drawn before it is convicted: few draws may happen to be quiet.

    Args:
        witness: What the module computes.
        path: The model.
        folder: For inputs and outputs.
        seed: Of the noise that is drawn before it is convicted.

    Raises:
        MissingDependencyError: If ONNX Runtime is not installed.
    """
    files = _input_files(witness, path, folder)
    jobs = [Job(path, files, _made(folder / level), level) for level in _LEVELS]
    warnings: list[str] = []
    found: dict[str, list[Outputs]] = {}
    for job, runs in zip(jobs, run_all(jobs), strict=True):
        failed = next((one.message for one in runs if not one.ran), "")
        if not failed:
            found[job.level] = [tuple(one.outputs().values()) for one in runs]
        elif any(word in failed for word in _NO_KERNEL):
            warnings.append(f"not run with optimisation {job.level}: {_short(failed)}")
        else:
            why = f"the exported model fails with optimisation {job.level}: {_short(failed)}"
            return VerifyReport(Verdict.FAILED, cases=_cases(witness), why=why)
    if not found:
        try:
            found[_OWN] = _evaluated(witness, path)
        except NoKernelError:
            return VerifyReport(Verdict.NOT_JUDGED, cases=_cases(witness), why=warnings[0])
        warnings = [f"judged by {_OWN}, for there is no other: {warnings[0]}"]
    report = _report(witness, found, tuple(warnings))
    if report.verdict is Verdict.FAILED:
        more = _noise(witness.model, witness.example, witness.sets, further_draws(seed))
        report = _report(
            replace(witness, noise=(*witness.noise, *more)), found, tuple(warnings)
        )
    return report


def _evaluated(witness: Witness, path: Path) -> list[Outputs]:
    """Run a model that ONNX Runtime has no kernels for, in float64, and round its outputs.

    Raises:
        NoKernelError: If there is no float64 kernel either.
    """
    evaluator = Evaluator(load(path))
    found: list[Outputs] = []
    for tensors, own in zip(witness.sets, witness.outputs, strict=True):
        feeds = {n: to_array(t) for n, t in zip(witness.example.names, tensors, strict=True)}
        wide = evaluator.run(feeds).values()
        found.append(tuple(y.astype(o.dtype) for y, o in zip(wide, own, strict=False)))
    return found


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _short(message: str) -> str:
    return " ".join(message.split())[:_MOST_LETTERS]


def _input_files(witness: Witness, path: Path, folder: Path) -> tuple[Path, ...]:
    """Write every set of inputs under the names that the exported model has for them."""
    graph = onnx.load(path, load_external_data=False).graph
    stored = {one.name for one in graph.initializer}
    asked = [one.name for one in graph.input if one.name not in stored]
    names = witness.example.names
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise ModelError(
            "the exported model asks for inputs that the module does not have",
            where=", ".join(unknown),
            why=f"the module was called with {', '.join(names)}",
            remedy="try the other exporter",
        )
    files = []
    for index, tensors in enumerate(witness.sets):
        arrays: Arrays = {
            name: to_array(tensor)
            for name, tensor in zip(names, tensors, strict=True)
            if name in asked
        }
        files.append(folder / f"inputs{index}")
        write_arrays(files[-1], arrays)
    return tuple(files)


def _cases(witness: Witness) -> tuple[Mapping[str, tuple[int, ...]], ...]:
    names = witness.example.names
    return tuple(
        {name: tuple(t.shape) for name, t in zip(names, tensors, strict=True)}
        for tensors in witness.sets
    )


def _report(
    witness: Witness, found: Mapping[str, list[Outputs]], warnings: tuple[str, ...]
) -> VerifyReport:
    checks: list[OutputCheck] = []
    metrics: list[OutputMetrics] = []
    for place, name in enumerate(witness.names):
        accused = {level: [_at(one, place) for one in runs] for level, runs in found.items()}
        weighed = [_weighed(witness, place, name, runs) for runs in accused.values()]
        check, figures = max(weighed, key=lambda pair: (not pair[0].passed, pair[0].ratio))
        checks.append(check)
        metrics.append(figures)
    if witness.reference.stopped:
        warnings = (*warnings, f"{witness.reference.stopped}; judged by rounding noise alone")
    wrong = [_told(check) for check in checks if not check.passed]
    verdict = Verdict.FAILED if wrong else Verdict.PASSED
    if witness.is_random:
        wrong, verdict = [_RANDOM], Verdict.NOT_JUDGED
    elif not wrong and all(_is_blind(witness, place) for place in range(len(witness.names))):
        wrong, verdict = [_BLIND], Verdict.NOT_JUDGED
    return VerifyReport(
        verdict,
        tuple(checks),
        _cases(witness),
        why="; ".join(wrong),
        warnings=warnings,
        metrics=tuple(metrics),
        referenced=len(witness.reference.outputs),
        settings=(f"torch {torch.__version__}", ", ".join(found)),
    )


def _at(outputs: Outputs, place: int) -> NDArray[Any] | None:
    return outputs[place] if place < len(outputs) else None


def _told(check: OutputCheck) -> str:
    where = "" if check.channel is None else f", channel {check.channel}"
    said = f"; {check.note}" if check.note else ""
    return (
        f"output {check.name!r}{where}: the error is {check.ratio:.3g} times what the module's"
        f" own error and its rounding explain, {check.limit:g} is allowed{said}"
    )


def _weighed(
    witness: Witness, place: int, name: str, accused: Sequence[NDArray[Any] | None]
) -> tuple[OutputCheck, OutputMetrics]:
    """One output of one run of all inputs: the verdict, and the figures of it."""
    own = [outputs[place] for outputs in witness.outputs]
    for before, after in zip(own, accused, strict=True):
        if after is None or before.shape != after.shape or before.dtype != after.dtype:
            return _unlike(name, before, after), metrics_of(name, [])
    known = [one for one in accused if one is not None]
    figures = metrics_of(name, zip(own, known, strict=True))
    exhibits = _exhibits(witness, place, own, known)
    if not exhibits:
        trials = _by_noise(witness, place, own, known)
        if not trials:
            note = "its shape depends on rounding: not compared"
            return OutputCheck(name, 0.0, 1.0, 0.0, 0.0, None, passed=True, note=note), figures
        return judge(name, trials, witness.coarsest), figures
    errors = errors_of(exhibits, witness.coarsest)
    check = judge(name, [one.trial for one in exhibits], witness.coarsest)
    return check, _with(figures, errors)


def _with(figures: OutputMetrics, errors: ReferenceErrors) -> OutputMetrics:
    return replace(figures, reference=errors)


def _unlike(name: str, before: NDArray[Any], after: NDArray[Any] | None) -> OutputCheck:
    is_ = "is missing" if after is None else f"is {after.dtype}{list(after.shape)}"
    note = f"torch gives {before.dtype}{list(before.shape)}, and it {is_}"
    infinite = float("inf")
    return OutputCheck(name, infinite, 5.0, infinite, 0.0, None, passed=False, note=note)


def _noise_at(witness: Witness, case: int, place: int, own: NDArray[Any]) -> list[Deviation]:
    seen = (deviation(own, runs.outputs[case][place]) for runs in witness.noise)
    return [one for one in seen if one is not None]


def _exhibits(
    witness: Witness,
    place: int,
    own: Sequence[NDArray[Any]],
    accused: Sequence[NDArray[Any]],
) -> list[Exhibit]:
    """Both errors against float64, where there is such a reference."""
    found: list[Exhibit] = []
    for case, outputs in enumerate(witness.reference.outputs):
        reference, before, after = outputs[place], own[case], accused[case]
        if reference.shape != before.shape or is_float(reference) != is_float(before):
            return []
        noise = _noise_at(witness, case, place, before)
        error = deviation(reference, before.astype(reference.dtype))
        far = deviation(reference, after.astype(reference.dtype))
        if not noise or error is None or far is None or not before.size:
            continue
        trial = Trial(scale_of(before), tuple(noise), (error,), far)
        samples = _samples(witness.sets[case], before)
        found.append(Exhibit(trial, reference, before, after, samples))
    return found


def _by_noise(
    witness: Witness,
    place: int,
    own: Sequence[NDArray[Any]],
    accused: Sequence[NDArray[Any]],
) -> list[Trial]:
    noise = [_noise_at(witness, case, place, one) for case, one in enumerate(own)]
    far = [deviation(*pair) for pair in zip(own, accused, strict=True)]
    usable = [bool(seen) and one is not None for seen, one in zip(noise, far, strict=True)]
    return [
        Trial(scale_of(one), tuple(seen), (), distance)
        for one, seen, distance in compress(zip(own, noise, far, strict=True), usable)
        if distance is not None
    ]


def _samples(tensors: Sequence[Tensor], output: NDArray[Any]) -> int:
    """The batch, if inputs and output have one; they are one sample otherwise."""
    firsts = {tensor.shape[0] if tensor.dim() else 1 for tensor in tensors}
    if output.ndim < 2 or firsts != {output.shape[0]}:
        return 1
    return max(int(output.shape[0]), 1)


def _is_blind(witness: Witness, place: int) -> bool:
    """Whether noise never moved the output, and equal shapes always held equal numbers."""
    for case, outputs in enumerate(witness.outputs):
        for one in _noise_at(witness, case, place, outputs[place]):
            if one.largest > 0 or one.flipped:
                return False
    seen = [outputs[place] for outputs in witness.outputs]
    return len({(one.shape, one.tobytes()) for one in seen}) == len({o.shape for o in seen})
