"""Workers that measure training, one at a time, and what to do when one of them is lost.

A kernel at fault poisons the whole process: every later call fails, or never returns. So a
process of its own measures; when it is lost, another one does the same task again without the
arm that was at work.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, Final

from benchmarks.arms import ROOT

_START_S: Final = 120.0
_TAIL: Final = 400
_MOST_LOSSES: Final = 3


class WorkerLostError(Exception):
    """A worker died, or took too long.

    Args:
        arm: What was at work.
        why: What is known of it.
    """

    def __init__(self, arm: str, why: str) -> None:
        super().__init__(why)
        self.arm = arm


@dataclass(slots=True)
class Worker:
    """A process, its answers, and a file with what it says besides."""

    process: subprocess.Popen[str]
    said: IO[str]
    answers: queue.Queue[str] = field(default_factory=queue.Queue)

    def listen(self) -> None:
        """Pass on every line; an empty one when there are no more."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put("")

    def answer(self, until_s: float, arm: str) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            WorkerLostError: If none comes in time, or the process has ended.
        """
        try:
            line = self.answers.get(timeout=max(until_s - time.monotonic(), 0.1))
        except queue.Empty:
            raise WorkerLostError(arm, "took too long, and was ended") from None
        if not line:
            code = self.process.wait()
            self.said.seek(0)
            tail = " ".join(self.said.read()[-_TAIL:].split())
            raise WorkerLostError(arm, f"its process ended with {code}: {tail}")
        found: dict[str, Any] = json.loads(line)
        if "lost" in found:
            raise WorkerLostError(found["arm"], found["lost"])
        return found

    def end(self) -> None:
        """End it, and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.said.close()


class Crew:
    """Does tasks in a worker, and starts another one when that is lost.

    Args:
        device: "cuda", or "cpu" for a dry run, where triton's interpreter runs our kernels.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.ready: dict[str, Any] = {}
        self.lost = 0
        self._worker: Worker | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.retire()

    def retire(self) -> None:
        """End the worker; the next task gets a new one."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def do(self, task: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Return the row of a task, without the arms that cost a worker.

        Args:
            task: As `training_plan.described` gives it.
            limit_s: How long it may take, all attempts together.
        """
        lacking: dict[str, str] = {}
        until_s = time.monotonic() + limit_s
        for _ in range(_MOST_LOSSES):
            try:
                return self._ask({"task": task, "lacking": lacking}, until_s)
            except WorkerLostError as lost:
                self.retire()
                self.lost += 1
                last = f"{lost.arm}: {lost}"
                if lost.arm not in task["arms"] or time.monotonic() >= until_s:
                    break
                lacking[lost.arm] = str(lost)
        return {"error": last, "failures": lacking}

    def _ask(self, asked: Mapping[str, Any], until_s: float) -> dict[str, Any]:
        worker = self._worker or self._start()
        assert worker.process.stdin is not None
        try:
            worker.process.stdin.write(json.dumps(asked) + "\n")
            worker.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerLostError("", "its process has ended") from None
        arm = ""
        while True:
            found = worker.answer(until_s, arm)
            if "row" in found:
                row: dict[str, Any] = found["row"]
                return row
            arm = found["doing"]

    def _start(self) -> Worker:
        said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # the worker's, to its end
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.worker", self.device],
            cwd=ROOT,
            env=self._variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        worker = self._worker = Worker(process, said)
        threading.Thread(target=worker.listen, daemon=True).start()
        self.ready = worker.answer(time.monotonic() + _START_S, "start")["ready"]
        return worker

    def _variables(self) -> dict[str, str]:
        others = os.environ.get("PYTHONPATH", "")
        found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), others)))}
        if self.device == "cpu" and importlib.util.find_spec("triton") is not None:
            found["TRITON_INTERPRET"] = "1"
        return found
