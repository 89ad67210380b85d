"""Run a command of bnfold on a hostile file, and see what it takes and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
MOST_BYTES = 1_500_000_000
"""What no command may take on a small file, all its processes together."""
MOST_S = 30.0
_ROOT = Path(__file__).parents[2]
_UNHANDLED = "does not know how to handle"


@dataclass(frozen=True, slots=True)
class Seen:
    """How a command ended, what it said, and what it took."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int
    timed_out: bool

    @property
    def text(self) -> str:
        """All that it said."""
        return self.stdout + self.stderr


class Watcher:
    """A server of forks, see `tests.attacks.server`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.server"],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "2"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        *argv: str | Path,
        seconds: float = 60.0,
        address_space: int = 6 * GIB,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
        file_size: int | None = None,
    ) -> Seen:
        """Run a command line in a fork with so much address space; end it after so long.

        No file may grow beyond ``file_size``: what a full disk does, at a moment of choice.
        """
        self._count += 1
        folder = self._folder / f"run{self._count}"
        folder.mkdir()
        request = {
            "argv": [str(one) for one in argv],
            "folder": str(folder),
            "seconds": seconds,
            "address_space": address_space,
            "cwd": None if cwd is None else str(cwd),
            "variables": dict(variables or {}),
            "file_size": file_size,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        said = [(folder / name).read_text("utf-8", "replace") for name in ("stdout", "stderr")]
        return Seen(
            answer["exit_code"],
            *said,
            answer["seconds"],
            answer["peak_bytes"],
            answer["timed_out"],
        )

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def faults_of(seen: Seen, most_bytes: int = MOST_BYTES, most_s: float = MOST_S) -> list[str]:
    """What a command must not do whatever it is given; empty if it did not."""
    found = []
    if seen.timed_out or seen.seconds > most_s:
        found.append(f"took {seen.seconds:.1f} s")
    if seen.peak_bytes > most_bytes:
        found.append(f"took {seen.peak_bytes / 1e9:.2f} GB")
    if seen.exit_code not in (0, 1, 2, 3, 4):
        found.append(f"exit code {seen.exit_code}")
    if "Traceback" in seen.text:
        found.append("a traceback")
    if _UNHANDLED in seen.text:
        found.append(_UNHANDLED)
    return found
