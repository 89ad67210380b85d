"""How numbers and verdicts are said: one place for terminal, page and pull request."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from bnfold.records import (
    Arm,
    BenchReport,
    Case,
    Comparison,
    Ending,
    FoldReport,
    OutputCheck,
    Speed,
    Verdict,
    VerifyReport,
)

_ENDS: Final = 8
"""So many names of a long list are shown at each end: a site may be 10⁵ nodes."""

NOTHING: Final = "–"
"""Stands where there is no number."""

SPEED: Final = {
    Speed.FASTER: "faster",
    Speed.SLOWER: "slower",
    Speed.NO_DIFFERENCE: "no detectable difference",
    Speed.NOT_MEASURED: "not measured",
}
TONE: Final = {
    Speed.FASTER: "good",
    Speed.SLOWER: "bad",
    Speed.NO_DIFFERENCE: "quiet",
    Speed.NOT_MEASURED: "warn",
}
VERDICT: Final = {
    Verdict.PASSED: "the same function",
    Verdict.FAILED: "NOT the same function",
    Verdict.NOT_JUDGED: "could not be judged",
}
VERDICT_TONE: Final = {
    Verdict.PASSED: "good",
    Verdict.FAILED: "bad",
    Verdict.NOT_JUDGED: "warn",
}
ENDING: Final = {
    Ending.PRECISE: "ended when the interval was narrow enough",
    Ending.OUT_OF_TIME: "ended when the time was over",
    Ending.INTERRUPTED: "interrupted",
    Ending.FAILED: "failed",
}

MEASURED: Final = (
    "All arms take turns in random order in the same process, so what disturbs the machine"
    " disturbs them alike; a turn is a few calls, and the median of its calls counts.",
    "Several fresh processes do this, because the placement of memory and threads differs from"
    " process to process. The ratio is the mean over processes of the median over turns, each"
    " turn compared with the base's turn next to it.",
    "The interval is a bootstrap over processes and the turns within them, widened for few"
    " processes as Student's t is.",
    "A null run times the same file a second time as if it were another model; it must show no"
    " difference.",
    "A difference counts when its interval excludes 1, and the interval against the null run"
    " does so too. Otherwise the answer is “no detectable difference”, with the smallest one"
    " that would have been found in four of five such benchmarks.",
    "Session creation, first call and memory come from processes of their own. Copies to and"
    " from the device are not timed.",
)


def digits(number: float, count: int = 3) -> str:
    """Write a number with so many significant digits, without an exponent where it can be."""
    if math.isnan(number):
        return NOTHING
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    if number and not 1e-4 <= abs(number) < 1e9:
        return f"{number:.{count - 1}e}"
    size = int(f"{number:.{count - 1}e}".partition("e")[2])
    after = max(count - 1 - size, 0) if number else 0
    return f"{number:,.{after}f}".replace(",", " ")


def percent(fraction: float) -> str:
    """Write a fraction as a percentage: one decimal, two below 1 %."""
    if not math.isfinite(fraction):
        return NOTHING
    places = 2 if abs(fraction) < 0.00995 else 1
    return f"{100 * fraction:.{places}f} %"


def milliseconds(ms: float) -> str:
    """Write a time in milliseconds."""
    return NOTHING if math.isnan(ms) else f"{digits(ms)} ms"


def size(count: int | None) -> str:
    """Write a number of bytes in decimal units."""
    if count is None:
        return NOTHING
    for unit, worth in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= worth:
            return f"{digits(count / worth)} {unit}"
    return f"{count} bytes"


def seconds(count: float) -> str:
    """Write how long something took."""
    if count < 90:
        return f"{count:.0f} s"
    return f"{count / 60:.0f} min" if count < 5400 else f"{count / 3600:.1f} h"


def counted(count: int, one: str, many: str = "") -> str:
    """Write a count with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def folds_said(report: FoldReport) -> str:
    """Say how many folds were made, and how many maps stay."""
    stays = "map stays" if len(report.stays) == 1 else "maps stay"
    return f"{counted(len(report.steps), 'fold')}, {len(report.stays)} {stays}"


def listed(names: Iterable[str], between: str = ", ") -> str:
    """Join names; of very many, the first and the last ones, and how many lie between."""
    held = tuple(names)
    if len(held) > 2 * _ENDS:
        more = f"… {len(held) - 2 * _ENDS} more …"
        held = (*held[:_ENDS], more, *held[-_ENDS:])
    return between.join(held)


def first_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines; of very many, the first ones, and how many are left out."""
    if len(lines) <= 2 * _ENDS:
        return list(lines)
    return [*lines[: 2 * _ENDS], f"… {len(lines) - 2 * _ENDS} more: --json lists all"]


def speedup(ratio: float) -> str:
    """Write a ratio of times as how many times as fast that is."""
    if not math.isfinite(ratio) or ratio <= 0:
        return NOTHING
    return f"{1 / ratio:.2f}×"


def interval(one: Comparison) -> str:
    """Write the interval of a ratio of times."""
    if not _bounded(one):
        return NOTHING
    return f"{one.low:.3f} to {one.high:.3f}"


def change(ratio: float) -> str:
    """Write a ratio of times as less or more time."""
    if not math.isfinite(ratio):
        return NOTHING
    return f"{percent(abs(1 - ratio))} {'less' if ratio <= 1 else 'more'} time"


def change_interval(one: Comparison) -> str:
    """Write an interval as less or more time: the words only where its ends differ in them."""
    if not _bounded(one):
        return "no interval"
    share = f"{100 * one.confidence:g} % interval"
    low, high = one.low - 1, one.high - 1
    if high <= 0 or low >= 0:
        near, far = sorted((abs(low), abs(high)))
        return f"{share} {percent(near).removesuffix(' %')} to {percent(far)}"
    return f"{share} {percent(-low)} less to {percent(high)} more"


def _bounded(one: Comparison) -> bool:
    return math.isfinite(one.low) and math.isfinite(one.high) and one.low > 0


def at_batch(batch: int | None) -> str:
    """Write at which batch size; nothing where the model has none."""
    return "" if batch is None else f"batch {batch}"


def would_be_found(one: Comparison) -> str:
    """Say which difference would not have been overlooked."""
    if not math.isfinite(one.detectable):
        return "how small a difference would have been found is unknown"
    return f"a difference of {percent(one.detectable)} or more would have been found"


def headline(one: Comparison, base: Arm, at: Case) -> str:
    """Say in one sentence what a comparison shows."""
    where = f", at {at_batch(at.batch)}" if at.batch is not None else ""
    found = f"{change(one.ratio)}, {change_interval(one)}"
    match one.verdict:
        case Speed.FASTER:
            said = f"{speedup(one.ratio)} as fast as the {base.label}"
            return f"{one.arm} is {said}{where} ({found})"
        case Speed.SLOWER:
            said = f"{one.ratio:.2f}× the time of the {base.label}"
            return f"{one.arm} takes {said}{where} ({found})"
        case Speed.NO_DIFFERENCE:
            said = f"no detectable difference between {one.arm} and the {base.label}"
            return f"{said}{where} ({found}; {would_be_found(one)})"
        case Speed.NOT_MEASURED:
            said = f"{one.arm} was not compared with the {base.label}{where}"
            return f"{said}: {_why_not(one, at)}"


def _why_not(one: Comparison, case: Case) -> str:
    if one.arm in case.failures:
        return case.failures[one.arm]
    return f"too few processes for an interval ({one.processes})"


def null_said(one: Comparison) -> str:
    """Say what the null run shows, and whether it should."""
    found = f"{change(one.ratio)}, {change_interval(one)}"
    if one.verdict is Speed.NO_DIFFERENCE:
        return f"The null run, the same file a second time, shows no difference ({found})."
    if one.verdict is Speed.NOT_MEASURED:
        return "The null run, the same file a second time, was not measured."
    return (
        f"The null run, the same file a second time, shows a difference too ({found}): only"
        " what differs from it as well counts."
    )


def main_arm(report: BenchReport) -> str:
    """Return the arm that the reader came for: the folded model, or the first one besides."""
    others = [arm.name for arm in report.arms[1:] if not arm.null]
    return "folded" if "folded" in others or not others else others[0]


def main_comparisons(report: BenchReport) -> list[tuple[Case, Comparison]]:
    """Return that arm's comparison at every batch size that has one."""
    name = main_arm(report)
    return [
        (case, one) for case in report.cases for one in case.comparisons if one.arm == name
    ]


def bench_verdict(report: BenchReport) -> tuple[str, str]:
    """Return the answer of a whole benchmark in a few words, and its tone."""
    found = main_comparisons(report)
    shown = {one.verdict for _, one in found} or {Speed.NOT_MEASURED}
    if len(shown) > 1:
        return _mixed([one.verdict for _, one in found])
    verdict = shown.pop()
    if verdict is Speed.FASTER:
        gains = sorted(1 / one.ratio for _, one in found)
        ends = list(dict.fromkeys((f"{gains[0]:.2f}", f"{gains[-1]:.2f}")))
        return f"{' to '.join(ends)}× as fast", TONE[verdict]
    return SPEED[verdict], TONE[verdict]


def _mixed(verdicts: list[Speed]) -> tuple[str, str]:
    """Say at how many batch sizes it is faster, and at how many slower."""
    parts = [
        f"{SPEED[kind]} at {verdicts.count(kind)}"
        for kind in (Speed.FASTER, Speed.SLOWER)
        if kind in verdicts
    ]
    if not parts:
        return "partly measured", "warn"
    tone = "bad" if Speed.SLOWER in verdicts else "good"
    return f"{' and '.join(parts)} of {len(verdicts)} batch sizes", tone


def share_of_limit(one: OutputCheck) -> float:
    """Return how much of its limit an output uses; what is no number counts as all of it."""
    share = one.ratio / one.limit if one.limit else math.inf
    return math.inf if math.isnan(share) else share


def worst_output(outputs: Sequence[OutputCheck]) -> OutputCheck | None:
    """Return the output that uses most of its limit."""
    return max(outputs, key=share_of_limit, default=None)


def check_said(check: VerifyReport | None) -> str:
    """Say in a clause what a check found."""
    if check is None:
        return "not checked"
    if check.verdict is Verdict.NOT_JUDGED:
        return f"could not be judged: {check.why}"
    said = VERDICT[check.verdict]
    named = worst_output(check.outputs)
    if named is None:
        return said
    return (
        f"{said}; the largest difference is {digits(named.ratio, 2)} times the original's own"
        f" rounding noise (limit {named.limit:g}), over"
        f" {counted(len(check.cases), 'set', 'sets')} of inputs"
    )


def sentence(clause: str) -> str:
    """Make a clause of our own a sentence."""
    begun = clause[:1].upper() + clause[1:]
    return begun if begun.endswith((".", "!", "?")) else f"{begun}."
