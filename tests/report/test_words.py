"""Numbers and verdicts are said the same way everywhere, and without surprises."""

from __future__ import annotations

import dataclasses

import pytest

from bnfold.records import OutputCheck, Speed
from bnfold.report import words
from tests.report import made

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        *(
            (0.0, "0"),
            (3.826, "3.83"),
            (99.96, "100"),
            (12345.6, "12 346"),
            (0.0123, "0.0123"),
        ),
        *((3.1e-7, "3.10e-07"), (NAN, "–"), (INF, "∞"), (-INF, "−∞"), (-2.5, "-2.50")),
    ],
)
def test_digits(number, said):
    assert words.digits(number) == said


@pytest.mark.parametrize(
    ("fraction", "said"),
    [(0.13, "13.0 %"), (0.0084, "0.84 %"), (0.00999, "1.0 %"), (NAN, "–"), (INF, "–")],
)
def test_percent(fraction, said):
    assert words.percent(fraction) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(None, "–"), (12, "12 bytes"), (4096, "4.10 kB"), (98_000_000, "98.0 MB")],
)
def test_size(count, said):
    assert words.size(count) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.861, 0.879, "95 % interval 12.1 to 13.9 %"),
        (1.02, 1.05, "95 % interval 2.0 to 5.0 %"),
        (0.99, 1.02, "95 % interval 1.0 % less to 2.0 % more"),
        (0.0, INF, "no interval"),
        (NAN, NAN, "no interval"),
    ],
)
def test_intervals_are_said_as_time_saved_or_added(low, high, said):
    one = dataclasses.replace(made.comparison("folded", 0.87), low=low, high=high)
    assert words.change_interval(one) == said


def test_headlines():
    report = made.cpu_report((1,))
    case, one = words.main_comparisons(report)[0]

    def said(**changed):
        return words.headline(dataclasses.replace(one, **changed), report.base, case)

    faster = (
        "folded is 1.15× as fast as the original as the runtime runs it, at batch 1 (13.0 %"
    )
    assert said().startswith(faster)
    slower = {"ratio": 1.08, "low": 1.07, "high": 1.09, "verdict": Speed.SLOWER}
    assert said(**slower).startswith("folded takes 1.08× the time of the original")
    assert "(8.0 % more time, 95 % interval 7.0 to 9.0 %)" in said(**slower)
    assert said(verdict=Speed.NOT_MEASURED, processes=3).endswith("for an interval (3)")


def test_the_worst_output_counts_what_is_no_number_and_a_limit_of_nothing_as_worst():
    fine = OutputCheck("a", 1.0, 5.0, 0.0, 0.0, None, passed=True)
    odd = OutputCheck("b", NAN, 5.0, 0.0, 0.0, None, passed=False)
    none = OutputCheck("c", 0.0, 0.0, 0.0, 0.0, None, passed=False)
    assert words.worst_output((fine, odd)) is odd
    assert words.worst_output((fine, none)) is none
    assert words.worst_output(()) is None
