"""The page of a benchmark: the answer first, then what it rests on."""

from __future__ import annotations

import math

from bnfold.records import BenchReport, Case
from bnfold.report import bench_plots, bench_tables, resource_plots, words
from bnfold.report.blocks import (
    Block,
    Code,
    Details,
    Grid,
    Page,
    Section,
    Tile,
    folded_away,
    without_empty,
)
from bnfold.report.documents import BenchDocument
from bnfold.report.fold_page import fold_sections, made_said
from bnfold.report.fold_tables import fold_said


def bench_page(document: BenchDocument) -> Page:
    """Lay out a benchmark."""
    report = document.report
    answer, tone = words.bench_verdict(report)
    models = list(dict.fromkeys(arm.model for arm in report.arms))
    fold = document.fold
    sections = (
        _speed(report),
        _latencies(report),
        _batches(report),
        _ran(report),
        _starts(report),
        *(() if fold is None else fold_sections(fold)),
        _conditions(document),
    )
    return Page(
        title=f"{answer}: {models[0]}",
        what="Benchmark",
        about=_about(models),
        answer=answer,
        tone=tone,
        sentences=tuple(_sentences(document)),
        tiles=tuple(_tiles(report)),
        why=report.why,
        warnings=report.warnings,
        sections=tuple(one for one in sections if one.blocks),
        measured=words.MEASURED,
        made=made_said(document.made),
    )


def _about(models: list[str]) -> str:
    """Name the folded model and what it is compared with, each once."""
    if len(models) == 1:
        return models[0]
    original, folded = models[:2]
    return folded if folded.startswith(original) else f"{folded} against {original}"


def _sentences(document: BenchDocument) -> list[str]:
    """The answer at every batch size, what else there is to compare, and the null run."""
    report = document.report
    told = [
        words.sentence(words.headline(one, report.base, case))
        for case, one in words.main_comparisons(report)
    ]
    if not told:
        name = words.main_arm(report)
        told = [f"{name} was not compared with the {report.base.label}."]
    nulls = [arm.name for arm in report.arms if arm.null]
    told += [
        words.null_said(one)
        for case in report.cases[:1]
        for one in case.comparisons
        if one.arm in nulls
    ]
    if not report.complete:
        told.append("The benchmark was cut short: what is here rests on what there was.")
    if document.fold is not None:
        told.append(words.sentence(fold_said(document.fold.report)))
    return told


def _tiles(report: BenchReport) -> list[Tile]:
    """The first batch size in numbers."""
    found = words.main_comparisons(report)
    if not found:
        return []
    case, one = found[0]
    times = {latency.arm: latency.p50_ms for latency in case.latencies}
    medians = [times.get(arm, math.nan) for arm in (report.base.name, one.arm)]
    return [
        Tile("speed", words.speedup(one.ratio), f"of {report.base.name} {_where(case)}"),
        Tile(
            "time", words.change(one.ratio).removesuffix(" time"), words.change_interval(one)
        ),
        Tile(
            "median of a call",
            " → ".join(words.digits(ms) for ms in medians) + " ms",
            f"{report.base.name} → {one.arm}",
        ),
        Tile("smallest difference", words.percent(one.detectable), "that would be found"),
    ]


def _where(case: Case) -> str:
    return "" if case.batch is None else f"at {words.at_batch(case.batch)}"


def _speed(report: BenchReport) -> Section:
    tables = [bench_tables.case_table(report, case) for case in report.cases]
    agree = [
        bench_plots.processes(report, case, f"processes-{index}")
        for index, case in enumerate(report.cases)
    ]
    first: list[Block | None] = [bench_plots.forest(report), *agree[:1]]
    others: list[Block | None] = [*tables[1:], Grid(without_empty(agree[1:]))]
    rest = without_empty(others)
    blocks: tuple[Block | None, ...] = (
        bench_tables.summary_table(report),
        Grid(without_empty(first)),
        *tables[:1],
        Details("The other batch sizes", rest, str(len(tables) - 1)),
        bench_tables.differences_table(report),
    )
    lead = (
        f"Every arm is compared with {report.base.name}, turn by turn. A ratio of 0.80 means a"
        " fifth less time."
    )
    return Section("speed", "Which is faster?", without_empty(blocks), lead)


def _latencies(report: BenchReport) -> Section:
    hills = [
        bench_plots.distributions(report, case, f"calls-{index}")
        for index, case in enumerate(report.cases)
    ]
    lead = "Every timed call of every process."
    blocks = without_empty([Grid(without_empty(hills))])
    return Section("calls", "How are the times spread?", blocks, lead)


def _batches(report: BenchReport) -> Section:
    grid = Grid(bench_plots.curves(report))
    return Section("batches", "Over batch sizes", without_empty([grid]))


def _starts(report: BenchReport) -> Section:
    if not report.starts:
        return Section("start", "", ())
    at = words.at_batch(report.starts[0].batch)
    lead = "Each arm alone in a fresh process" + (f", at {at}." if at else ".")
    blocks = (
        Grid(resource_plots.starts(report)),
        folded_away(bench_tables.starts_table(report)),
    )
    return Section("start", "What does it take to get going?", without_empty(blocks), lead)


def _ran(report: BenchReport) -> Section:
    if not report.graphs:
        return Section("graphs", "", ())
    differ: tuple[Block | None, ...] = (
        resource_plots.node_times(report),
        bench_tables.operators_table(report.graphs),
    )
    blocks: tuple[Block | None, ...] = (
        bench_tables.graphs_table(report),
        Grid(without_empty(differ)),
        folded_away(bench_tables.affine_table(report.graphs)),
        folded_away(bench_tables.elsewhere_table(report.graphs)),
    )
    lead = (
        "The runtime rewrites a model before it runs it. This is what was left after that: an"
        " affine node still there is work that a fold can save."
    )
    return Section("graphs", "What did the runtime really run?", without_empty(blocks), lead)


def _conditions(document: BenchDocument) -> Section:
    report = document.report
    where, how = bench_tables.machine_table(report), bench_tables.settings_table(report)
    command = None
    if document.command:
        command = Details("The command that measures it again", (Code(document.command),))
    blocks = (
        bench_tables.arms_table(report),
        Grid((where, how)),
        resource_plots.readings(report),
        command,
    )
    return Section("conditions", "Where and how was it measured?", without_empty(blocks))
