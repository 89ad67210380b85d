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

COMMAND: Final = [sys.executable, "-m", "benchmarks.gpu.worker"]
_START_S: Final = 120.0
_JOIN_S: Final = 5.0
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
    listener: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        """Pass on every line; an empty one when there are no more."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put("")

    def ask(self, asked: Mapping[str, Any]) -> None:
        """Send a task.

        Raises:
            WorkerLostError: If the process has ended.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerLostError("start", "its process has ended") from None

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
        self.listener.join(_JOIN_S)
        for pipe in (self.process.stdin, self.process.stdout, self.said):
            if pipe is not None:
                with suppress(OSError):  # what was not sent is not wanted any more
                    pipe.close()


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

    def do(self, task: Mapping[str, Any], attempt_s: float, limit_s: float) -> dict[str, Any]:
        """Return the row of a task, without the arms that cost a worker.

        Args:
            task: As `training_plan.described` gives it.
            attempt_s: How long one attempt may take.
            limit_s: How long all of them may take.
        """
        lacking: dict[str, str] = {}
        until_s = time.monotonic() + limit_s
        for _ in range(_MOST_LOSSES):
            try:
                return self._ask({"task": task, "lacking": lacking}, attempt_s, until_s)
            except WorkerLostError as lost:
                self.retire()
                self.lost += 1
                last = f"{lost.arm}: {lost}"
                if lost.arm not in task["arms"] or time.monotonic() >= until_s:
                    break
                lacking[lost.arm] = str(lost)
        return {"error": last, "failures": lacking}

    def _ask(
        self, asked: Mapping[str, Any], attempt_s: float, latest_s: float
    ) -> dict[str, Any]:
        worker = self._worker or self._start()
        until_s = min(latest_s, time.monotonic() + attempt_s)
        worker.ask(asked)
        arm = "start"
        while True:
            found = worker.answer(until_s, arm)
            if "row" in found:
                row: dict[str, Any] = found["row"]
                return row
            arm = found["doing"]

    def _start(self) -> Worker:
        said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # the worker's, to its end
        process = subprocess.Popen(
            [*COMMAND, self.device],
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
        self.ready = worker.answer(time.monotonic() + _START_S, "start")["ready"]
        return worker

    def _variables(self) -> dict[str, str]:
        folders = (str(ROOT), os.environ.get("PYTHONPATH", ""))
        found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
        if self.device == "cpu" and importlib.util.find_spec("triton") is not None:
            found["TRITON_INTERPRET"] = "1"
        return found
