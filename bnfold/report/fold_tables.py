"""The tables of a fold, for page and pull request alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bnfold.records import FoldReport, Normalisation, Refusal, Stay, Step
from bnfold.report import words
from bnfold.report.blocks import Cell, Entry, Table

ARROW = " → "


def operators_table(report: FoldReport) -> Table:
    """Operators whose number changed, then all of them together."""
    before, after = report.counts_before, report.counts_after
    changed = [
        kind for kind in sorted({*before, *after}) if before.get(kind, 0) != after.get(kind, 0)
    ]
    rows = [_count_row(kind, before.get(kind, 0), after.get(kind, 0)) for kind in changed]
    rows.append(_count_row("all nodes", sum(before.values()), sum(after.values())))
    head = ("operator", "#before", "#after", "#change")
    return Table("Nodes, before and after", head, tuple(rows))


def _count_row(kind: str, before: int, after: int) -> tuple[Entry, ...]:
    sign = "+" if after > before else "−" if after < before else "±"
    tone = "good" if after < before else "warn" if after > before else ""
    return (kind, str(before), str(after), Cell(f"{sign}{abs(after - before)}", tone))


def all_operators_table(report: FoldReport) -> Table:
    """Every operator, before and after."""
    before, after = report.counts_before, report.counts_after
    rows = [
        (kind, str(before.get(kind, 0)), str(after.get(kind, 0)))
        for kind in sorted({*before, *after})
    ]
    return Table("Every operator", ("operator", "#before", "#after"), tuple(rows))


def steps_table(steps: Sequence[Step]) -> Table:
    """Every fold: what went, how and where to."""
    rows = [
        (
            f"{step.rule}: {words.listed(step.site, ARROW)}",
            step.move + (f" (leaves {words.listed(step.left)})" if step.left else ""),
            words.listed((words.listed(route, ARROW) for route in step.routes), "; ")
            or words.NOTHING,
            words.listed(step.tensors) or words.NOTHING,
        )
        for step in steps
    ]
    head = ("map", "moved", "route to what took it", "tensors written")
    return Table("Every fold", head, tuple(rows))


def step_said(step: Step) -> str:
    """Say what a fold did in a sentence."""
    into = words.listed(step.absorbed_by) or "nothing else"
    left = f"; of it {words.listed(step.left)} stays" if step.left else ""
    cloned = (
        f"; {words.size(step.cloned_bytes)} of weights were copied"
        if step.cloned_bytes > 0
        else ""
    )
    also = f"; {words.listed(step.adjusted)} took the inverse" if step.adjusted else ""
    return f"{_moved(step, into)}{left}{also}{cloned}."


def _moved(step: Step, into: str) -> str:
    """A direction reads as one; of what else can happen to a map, its name does."""
    site = f"{step.rule} {words.listed(step.site, ARROW)}"
    if any(way in step.move.split() for way in ("up", "down")):
        return f"{site} moved {step.move} into {into}"
    took = f" ({into})" if step.absorbed_by else ""
    return f"{site}: {step.move}{took}"


def refusals_by_code(report: FoldReport) -> Mapping[str, list[tuple[Stay, Refusal]]]:
    """Maps that stayed, by the most telling refusal's code, the most frequent first."""
    groups: dict[str, list[tuple[Stay, Refusal]]] = {}
    for stay in report.stays:
        if stay.refusals:
            groups.setdefault(str(stay.refusals[0].code), []).append((stay, stay.refusals[0]))
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def refusal_table(title: str, found: Sequence[tuple[Stay, Refusal]]) -> Table:
    """Maps that one kind of reason stopped."""
    rows = [
        (
            f"{stay.rule}: {words.listed(stay.site, ARROW)}",
            words.listed((*refusal.path, f"✗ {refusal.node}"), ARROW),
            refusal.why,
            refusal.remedy or words.NOTHING,
            _others(stay),
        )
        for stay, refusal in found
    ]
    head = ("map", "route to what stopped it", "why", "what you can do", "also refused")
    return Table(title, head, tuple(rows))


def _others(stay: Stay) -> str:
    told = [f"{one.code} at {one.node}" for one in stay.refusals[1:]]
    return words.listed(told, "; ") or words.NOTHING


def reasons_table(report: FoldReport) -> Table:
    """Why maps stayed, a row for each reason."""
    rows = [
        (code, str(len(found)), found[0][1].why, found[0][1].remedy or words.NOTHING)
        for code, found in refusals_by_code(report).items()
    ]
    return Table(
        "What stays", ("reason", "#maps", "for instance", "what you can do"), tuple(rows)
    )


def normalisations_table(report: FoldReport) -> Table:
    """Every normalisation: over what, by which statistics, what can be folded."""
    rows = [
        (
            f"{norm.kind}: {norm.node}",
            _over(norm),
            "constants" if norm.constant_statistics else "computed from the data",
            norm.can_fold,
            norm.cannot_fold,
        )
        for norm in report.normalisations
    ]
    head = ("normalisation", "over", "mean and variance", "can be folded", "cannot be folded")
    return Table("Normalisations", head, tuple(rows))


def _over(norm: Normalisation) -> str:
    axes = ", ".join(str(axis) for axis in norm.axes) or "unknown"
    shape = "?" if norm.shape is None else ", ".join(str(dim or "?") for dim in norm.shape)
    groups = "" if norm.groups is None else f", axis 1 in {norm.groups} groups"
    return f"axes {axes} of [{shape}]{groups}"


def batch_norms(report: FoldReport) -> tuple[int, int]:
    """How many BatchNormalization nodes there are before and after."""
    kind = "BatchNormalization"
    return report.counts_before.get(kind, 0), report.counts_after.get(kind, 0)


def fold_said(report: FoldReport) -> str:
    """Say in a sentence what went and what stayed."""
    went = words.counted(len(report.steps), "map")
    stays = len(report.stays)
    rest = "none stays" if not stays else f"{stays} {'stays' if stays == 1 else 'stay'}"
    before, after = batch_norms(report)
    counted = f"; BatchNormalization {before} → {after}" if before else ""
    return f"{went} folded into neighbouring weights, {rest}{counted}"
