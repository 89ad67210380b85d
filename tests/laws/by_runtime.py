"""ONNX Runtime in a process of its own: a legal model can end the process that it runs in."""

from __future__ import annotations

import pickle
import select
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TIMEOUT_S: Final = 60.0
_ROOT: Final = Path(__file__).parents[2]
_CHILD: Final = (sys.executable, "-m", "tests.laws.runtime_child")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the runtime makes of a model: its outputs by name, or why there are none."""

    outputs: Mapping[str, Any] | None = None
    why: str = ""


class Runtime:
    """Runs models one after the other; begun again when one of them ends it.

    Attributes:
        deaths: How often that was.
    """

    def __init__(self) -> None:
        self.deaths = 0
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, model: bytes, feeds: Mapping[str, Any]) -> Answer:
        """Run a model on one set of inputs, without the runtime's own rewrites."""
        try:
            return self._asked(model, feeds)
        except (EOFError, OSError, pickle.UnpicklingError):
            self.deaths += 1
            self.close()
            return Answer(None, "it died")

    def _asked(self, model: bytes, feeds: Mapping[str, Any]) -> Answer:
        if self._child is None:
            pipe = subprocess.PIPE
            self._child = subprocess.Popen(
                _CHILD, cwd=_ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        pickle.dump((model, dict(feeds)), self._child.stdin)
        self._child.stdin.flush()
        ready, _, _ = select.select([self._child.stdout], [], [], TIMEOUT_S)
        if not ready:
            self.close()
            return Answer(None, "it takes too long")
        return Answer(*pickle.load(self._child.stdout))

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
        self._child = None

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
