"""Many graphs in a process of their own, and another one where a graph ends it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]


@dataclass
class Progress:
    """How far a process has come: kept in a file, as it may end at any moment.

    Attributes:
        number: Of the graph under way, or of the last one.
        stage: What is done with it.
        counts: What became of the graphs before.
        kinds: How often each kind of fault was found.
    """

    number: int = 0
    stage: str = "drawing"
    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    def write(self, path: Path) -> None:
        """Write it down; it is small."""
        counts, kinds = dict(self.counts), dict(self.kinds)
        entry = {"number": self.number, "stage": self.stage, "counts": counts, "kinds": kinds}
        path.write_text(json.dumps(entry), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Progress:
        """Read what was written last."""
        data = json.loads(path.read_text(encoding="utf-8"))
        counts, kinds = Counter(data["counts"]), Counter(data["kinds"])
        return cls(data["number"], data["stage"], counts, kinds)


def supervised(arguments: Sequence[str], path: Path) -> Progress:
    """Run graphs in processes of their own; one that ends with a signal is a fault.

    A graph whose drawing ends the process is no graph: onnx's own inference died on a node.

    Args:
        arguments: Of the process; it goes on from what is in the file.
        path: Of the file.
    """
    while True:
        command = [sys.executable, "-m", "tests.fuzz", *arguments, "--progress", str(path)]
        code = subprocess.run(command, cwd=_ROOT, check=False).returncode
        found = Progress.read(path)
        if code in (0, 1):
            return found
        found.counts[f"process ended while {found.stage}"] += 1
        if found.stage != "drawing":
            found.kinds[f"process ended while {found.stage}"] += 1
        print(f"DIED {found.number} while {found.stage}: exit code {code}", flush=True)
        found.number += 1
        found.write(path)
