"""In words: at which sizes a fold is checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnfold.records import InputSizes


def sizes_said(found: Sequence[InputSizes]) -> Iterator[str]:
    """Yield a line for the sizes of a check, or one for each input that has none."""
    lacking = [one for one in found if one.shape is None]
    for one in lacking:
        yield f"no check by drawn inputs: {one.why}; bnfold verify --inputs takes yours"
    if found and not lacking:
        yield f"sizes for a check: {', '.join(map(_shape, found))}"


def _shape(one: InputSizes) -> str:
    sizes = "x".join(map(str, one.shape or ())) or "a single number"
    notes = [f"axis {axis} from {who}" for axis, who in one.decided.items()]
    if one.assumed:
        several, verb = ("axes", "are") if len(one.assumed) > 1 else ("axis", "is")
        axes = ", ".join(map(str, one.assumed))
        notes.append(f"{several} {axes} {verb} open: --shape sets them")
    return f"{one.name}={sizes}" + (f" ({'; '.join(notes)})" if notes else "")
