"""Run a model in a child process and say what became of it.

ONNX Runtime can die on legal models (a BatchNormalization of opset 9 with empty optional
outputs ends it with a segmentation fault when optimisation is off). A child process turns that
into an answer. Models are passed as paths, so that files beyond 2 GB and external data work.
"""

from __future__ import annotations

import errno
import importlib.util
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from bnfold import limits, process
from bnfold.errors import MissingDependencyError, refused_by_disk
from bnfold.files.scratch import scratch_folder
from bnfold.runtime.arrays import Arrays, read_arrays
from bnfold.runtime.children import Fate, run_child
from bnfold.runtime.loading import check_loads
from bnfold.runtime.telling import NO_SPACE

CPU: Final = "CPUExecutionProvider"
_PROVIDERS: Final = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_MODULE: Final = ("-m", "bnfold.runtime.child")


class Level(StrEnum):
    """How much the runtime may rewrite the graph before it runs it."""

    DISABLED = "disabled"
    BASIC = "basic"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is run: what the runtime may rewrite, and where it computes."""

    level: Level = Level.DISABLED
    provider: str = CPU

    def __str__(self) -> str:
        return str(self.level) if self.provider == CPU else f"{self.level} on {self.provider}"


class Outcome(StrEnum):
    """What became of one set of inputs."""

    RAN = "ran"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
    DIED = "died"
    TIMED_OUT = "timed-out"
    SKIPPED = "skipped"


_BROKEN: Final = (Outcome.FAILED, Outcome.DIED)


@dataclass(frozen=True, slots=True)
class Job:
    """One model, several sets of inputs, one child process.

    Attributes:
        model: The ``.onnx`` file; external data is looked for beside it.
        inputs: Files written by ``write_arrays``, one per set of inputs.
        folder: Where the outputs go; must exist.
        level: How much the runtime may optimise.
        stop_after: Leave out the remaining sets once so many have run; 0 runs all.
        timeout_s: The child is ended after so many seconds.
        threads: Threads inside an operator; fixed, because sums depend on it.
        provider: The runtime's own name of what computes.
    """

    model: Path
    inputs: tuple[Path, ...]
    folder: Path
    level: Level = Level.DISABLED
    stop_after: int = 0
    timeout_s: float = 600.0
    threads: int = 2
    provider: str = CPU


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one set of inputs: its outputs, or why there are none."""

    outcome: Outcome
    message: str = ""
    seconds: float = 0.0
    file: Path | None = None

    @property
    def ran(self) -> bool:
        """Whether there are outputs to read."""
        return self.outcome is Outcome.RAN

    def outputs(self) -> Arrays:
        """Read the outputs; empty when it did not run."""
        return {} if self.file is None else read_arrays(self.file)


def available() -> bool:
    """Whether ONNX Runtime is installed; does not import it."""
    return importlib.util.find_spec("onnxruntime") is not None


def require(purpose: str) -> None:
    """Stop with the name of the extra when ONNX Runtime is not installed."""
    if not available():
        raise MissingDependencyError(
            f"cannot {purpose}",
            why="ONNX Runtime is not installed",
            remedy="pip install 'bnfold[cpu]', or 'bnfold[gpu]' where CUDA is",
        )


def provider_named(word: str) -> str:
    """The runtime's own name of an execution provider, from a short word or from itself."""
    return _PROVIDERS.get(word.lower(), word)


def run(job: Job) -> tuple[Run, ...]:
    """Run every set of inputs of the job; one answer per set, in order."""
    return run_all((job,))[0]


def run_all(jobs: Sequence[Job]) -> list[tuple[Run, ...]]:
    """Run several jobs in as few child processes as possible: one more for each that dies.

    Raises:
        MissingDependencyError: If no runtime is installed, or it has no such provider.
    """
    require("run a model")
    answers: list[tuple[Run, ...]] = []
    while len(answers) < len(jobs):
        answers.extend(_run_together(jobs[len(answers) :]))
    for job, runs in zip(jobs, answers, strict=True):
        for one in runs:
            if one.outcome is Outcome.UNAVAILABLE:
                raise no_provider(job.provider, one.message)
    return answers


def no_provider(provider: str, why: str) -> MissingDependencyError:
    """The error that says what is missing for a provider, and what to do about it."""
    gpu = "install the GPU build and its drivers (pip install 'bnfold[gpu]'), or "
    return MissingDependencyError(
        f"cannot run on {provider}",
        why=why,
        remedy=f"{gpu if provider in _PROVIDERS.values() else ''}choose another --provider",
    )


def _run_together(jobs: Sequence[Job]) -> list[tuple[Run, ...]]:
    """Answers up to the job that ended the child: all of them if nothing went wrong."""
    with scratch_folder("job") as folder:
        journals = [folder / f"journal{index}.jsonl" for index in range(len(jobs))]
        request = folder / "jobs.json"
        asked = [_request(*pair) for pair in zip(jobs, journals, strict=True)]
        request.write_text(json.dumps(asked), encoding="utf-8")
        end = _run_child(request, sum(job.timeout_s for job in jobs))
        if end.outcome in _BROKEN and not any(map(_lines, journals)):
            check_loads()
        answers: list[tuple[Run, ...]] = []
        for job, journal in zip(jobs, journals, strict=True):
            lines = _lines(journal)
            complete = bool(lines) and "end" in lines[-1]
            answers.append(_answers(job, lines[:-1]) if complete else _cut(job, lines, end))
            if not complete:
                break
    return answers


def _request(job: Job, journal: Path) -> dict[str, Any]:
    return {
        "model": str(job.model),
        "inputs": [str(path) for path in job.inputs],
        "folder": str(job.folder),
        "level": job.level.value,
        "stop_after": job.stop_after,
        "threads": job.threads,
        "provider": job.provider,
        "journal": str(journal),
        **bound_of(job.provider, _bytes_of(job.model.parent.glob("*")), _bytes_of(job.inputs)),
    }


def bound_of(provider: str, file_bytes: int, input_bytes: int) -> dict[str, int]:
    """Return what a child process may allocate that runs a model, and what it will map.

    Memory of a device is bounded by the device; its drivers take what they like of ours.
    """
    own = process.own()
    files = max(file_bytes, 0 if own is None else own.file_bytes)
    most = limits.current().process_bytes(files, input_bytes)
    return {"memory_bytes": most if provider == CPU else 1 << 62, "mapped_bytes": files}


def _bytes_of(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())


def _run_child(request: Path, timeout_s: float) -> Run:
    """Start the child and describe its end; one that ended by itself wrote too few lines."""
    end = run_child((*_MODULE, str(request)), timeout_s)
    if end.exit_code == NO_SPACE:
        raise refused_by_disk(OSError(errno.ENOSPC, end.message, str(request.parent)))
    outcomes = {Fate.TIMED_OUT: Outcome.TIMED_OUT, Fate.DIED: Outcome.DIED}
    return Run(outcomes.get(end.fate, Outcome.FAILED), end.message)


def _lines(journal: Path) -> list[dict[str, Any]]:
    """The lines that were written completely."""
    text = journal.read_text(encoding="utf-8") if journal.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _answers(job: Job, lines: list[dict[str, Any]]) -> tuple[Run, ...]:
    """One answer per set; those without a line were not needed, or not possible."""
    behind = Run(Outcome.SKIPPED, "enough sets had run, or the model did not load")
    answered = [_answer(line) for line in lines]
    return (*answered, *[behind] * (len(job.inputs) - len(answered)))


def _cut(job: Job, lines: list[dict[str, Any]], end: Run) -> tuple[Run, ...]:
    """The set under way met the child's end; those behind it were never tried."""
    behind = Run(Outcome.SKIPPED, f"not tried: an earlier set ended the child ({end.message})")
    answered = [_answer(line) for line in lines]
    return (*answered, end, *[behind] * len(job.inputs))[: max(len(job.inputs), 1)]


def _answer(line: dict[str, Any]) -> Run:
    file = Path(line["file"]) if line["file"] else None
    return Run(Outcome(line["outcome"]), line["message"], line["seconds"], file)
