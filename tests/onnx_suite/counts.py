"""What the lines of the suite add up to, and what they must add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from tests.onnx_suite.trial import AS_IT_IS, ENDS, WRAPPED, Line, refuses

VERSIONS: Final = {"onnx": "1.23.2", "onnxruntime": "1.32.0"}
"""What the numbers below were counted with: the versions of constraints.txt."""
MODELS: Final = 2024
REFUSED: Final = {AS_IT_IS: 5, WRAPPED: 108}
"""Folded models without a second opinion, as the runtime refuses their originals."""


def words(lines: Sequence[Line]) -> str:
    """Return the counts as text."""
    rows = []
    for way in (AS_IT_IS, WRAPPED):
        own = [line for line in lines if line.way == way]
        ends = Counter(line.end for line in own)
        said = Counter(line.runtime for line in own if line.runtime)
        compared = sum(line.compared > 0 for line in own)
        faults = sum(bool(line.faults) for line in own)
        rows.append(f"{way}: {len(own)} models, {faults} with a fault")
        rows.append("  " + ", ".join(f"{ends[end]} {end}" for end in ENDS))
        rows.append(f"  {compared} compared in float64; runtime: {dict(said)}")
        whys = Counter(line.why for line in own if line.why)
        rows.extend(f"  {count} {why}" for why, count in whys.most_common())
    return "\n".join(rows)


def comparable() -> bool:
    """Return whether the versions at hand are those that were counted with."""
    try:
        return {name: version(name) for name in VERSIONS} == VERSIONS
    except PackageNotFoundError:  # another build of the runtime
        return False


def unexpected(lines: Sequence[Line]) -> list[str]:
    """Return which counts of all models are not what they were; none for other versions."""
    if not comparable():
        return []
    found = []
    for way, wanted in REFUSED.items():
        own = [line for line in lines if line.way == way]
        if len(own) != MODELS:
            found.append(f"{way}: {len(own)} models, not {MODELS}")
        count = sum(map(refuses, own))
        if count != wanted:
            found.append(f"{way}: the runtime refuses {count} originals, not {wanted}")
    return found
