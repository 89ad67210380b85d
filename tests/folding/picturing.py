"""Pictures of a fold, and what each must be whatever was folded."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

import bnfold
from bnfold.folding.api import fold_unchecked
from bnfold.folding.pictures import pictures_of
from bnfold.model.io import opened
from bnfold.records import Patch, Picture, Role, Step


def pictured(model: onnx.ModelProto, **options: bool) -> list[tuple[Step, Picture]]:
    """Fold a model; each step with its picture."""
    return with_pictures(model, fold_unchecked(model, **options))


def with_pictures(
    model: onnx.ModelProto, result: bnfold.FoldResult
) -> list[tuple[Step, Picture]]:
    """Each step of a fold with its picture."""
    pictures = pictures_of(opened(model), result.model, result.report.steps)
    assert [picture.step for picture in pictures] == list(range(len(result.report.steps)))
    return list(zip(result.report.steps, pictures, strict=True))


def check_form(patch: Patch) -> None:
    """A picture is small, and its wires lead forward between boxes that it has."""
    count = len(patch.boxes)
    assert count <= 12
    assert patch.hidden >= 0
    for wire in patch.wires:
        ends = [end for end in (wire.source, wire.target) if end is not None]
        assert ends
        assert all(0 <= end < count for end in ends)
        assert ends == sorted(set(ends)), "wires go forward"
    assert len(set(patch.wires)) == len(patch.wires)


def check_pictures(found: Iterable[tuple[Step, Picture]]) -> None:
    """Each shows its site, and says how many of the nodes that a step names it hides."""
    for step, picture in found:
        check_form(picture.before)
        check_form(picture.after)
        if step.rule != "function":
            shown = {(box.name, box.role) for box in picture.before.boxes}
            assert shown & {(step.site[0], Role.SITE), (step.site[0], Role.ABSORBED)}
            named = {*step.site, *step.absorbed_by}
            assert len(named - {name for name, _ in shown}) <= picture.before.hidden
