"""Where processes are started that measure, and what they told."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Final

from bnfold import limits, process
from bnfold.errors import refused_by_disk
from bnfold.records import Arm
from bnfold.runtime import CPU, no_provider
from bnfold.runtime.children import End, Fate, run_child
from bnfold.runtime.loading import check_loads
from bnfold.runtime.plans import SessionPlan
from bnfold.runtime.sessions import bound_of
from bnfold.runtime.telling import NO_SPACE

_MODULE: Final = ("-m", "bnfold.measurement.worker")
_BLOCKING: Final = {"CUDA_LAUNCH_BLOCKING": "1"}
"""Launches return when the kernel is done, so a node's time is that of its kernels."""


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """An arm, and how its session is opened."""

    arm: Arm
    plan: SessionPlan


@dataclass(frozen=True, slots=True)
class CasePlan:
    """What is run at one batch size: a file of inputs, and their shapes."""

    batch: int | None
    inputs: Path
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Told:
    """What a process told.

    Attributes:
        lines: Its journal.
        complete: Whether it came to its end.
        end: How it ended.
        interrupted: Whether the user ended it.
    """

    lines: tuple[Mapping[str, Any], ...]
    complete: bool
    end: End
    interrupted: bool = False

    def about(self, case: int) -> Told:
        """The same with the lines that are about one case, or about all."""
        kept = tuple(one for one in self.lines if one.get("case", case) == case)
        return replace(self, lines=kept)

    def failures(self) -> dict[str, str]:
        """Why arms could not be run, by name."""
        return {one["failed"]: one["message"] for one in self.lines if "failed" in one}


@dataclass(frozen=True, slots=True)
class Lab:
    """A folder for requests and journals, and a number for every process."""

    folder: Path
    numbers: count[int] = field(default_factory=count)

    def ask(
        self,
        task: str,
        arms: Mapping[str, SessionPlan],
        timeout_s: float,
        **asked: Any,
    ) -> Told:
        """Start a process for a task and wait for its end, however it ends.

        Args:
            task: A task of `bnfold.measurement.worker`.
            arms: How to open the session of each arm.
            timeout_s: The process is ended after so many seconds.
            asked: What else the task wants to know.

        Raises:
            MissingDependencyError: If the provider is not there.
        """
        stem = self.folder / f"process{next(self.numbers)}"
        journal, request = stem.with_suffix(".jsonl"), stem.with_suffix(".json")
        plans = {name: plan.to_data() for name, plan in arms.items()}
        entry = {
            "task": task,
            "arms": plans,
            "journal": str(journal),
            **_bound(arms, asked),
            **asked,
        }
        request.write_text(json.dumps(entry), encoding="utf-8")
        end, interrupted = End(Fate.ENDED), False
        variables = _BLOCKING if task == "look" else {}
        try:
            end = run_child(
                (*_MODULE, str(request)), timeout_s, variables=variables, own_group=True
            )
        except KeyboardInterrupt:
            interrupted = True
        lines = _read(journal)
        if end.exit_code == NO_SPACE:
            raise refused_by_disk(OSError(errno.ENOSPC, end.message, str(self.folder)))
        if not lines and end.fate in (Fate.FAILED, Fate.DIED):
            check_loads()
        for line in lines:
            if "unavailable" in line:
                raise no_provider(line["provider"], line["unavailable"])
        complete = bool(lines) and "end" in lines[-1]
        return Told(tuple(lines), complete, end, interrupted)


def _bound(arms: Mapping[str, SessionPlan], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker may allocate; of a process that is not ours alone, the user decides."""
    given = [case["inputs"] for case in asked.get("cases", ())] or [asked.get("inputs")]
    sizes = [Path(one).stat().st_size for one in given if one]
    provider = next((plan.provider for plan in arms.values()), CPU)
    found = bound_of(provider, 0, max(sizes, default=0))
    bounded = process.own() is not None or limits.current().memory_bytes is not None
    return found if bounded else {**found, "memory_bytes": None}


def _read(journal: Path) -> list[dict[str, Any]]:
    """The lines that were written completely."""
    text = journal.read_text(encoding="utf-8") if journal.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
