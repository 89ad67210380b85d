from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gpu import turns


def test_arms_take_turns_from_left_to_right_and_back():
    order = []

    def arm(name):
        def work():
            order.append(name)
            return {"ms": 1.0}

        return work

    turns.in_turns({"a": arm("a"), "b": arm("b")}, 3, lambda *_: None)
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_an_arm_that_fails_takes_no_more_turns_and_the_others_go_on():
    calls, failed = [], {}

    def bad():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return {"ms": 1.0}

    samples = turns.in_turns(
        {"bad": bad, "good": lambda: {"ms": 2.0}}, 4, lambda arm, e: failed.update({arm: e})
    )
    assert samples == {"good": {"ms": [2.0] * 4}}
    assert len(calls) == 2
    assert str(failed["bad"]) == "out of memory"


def test_a_ratio_is_paired_by_turn_so_drift_does_not_count(rng):
    drift = np.linspace(1, 3, 24)
    below = drift * np.exp(rng.normal(0, 0.002, 24))
    found = turns.ratio(list(1.5 * drift), list(below))
    assert found["low"] < found["value"] < found["high"]
    assert found["value"] == pytest.approx(1.5, rel=0.005)
    assert found["high"] / found["low"] < 1.01


def test_an_interval_usually_holds_the_truth(rng):
    held = 0
    for _ in range(200):
        logs = rng.normal(0, 0.02, 24)
        found = turns.ratio(list(np.exp(logs)), [1.0] * 24)
        held += found["low"] <= 1 <= found["high"]
    assert held >= 180


def test_one_hiccup_does_not_move_a_ratio():
    above = [2.0] * 24
    above[5] = 200.0
    found = turns.ratio(above, [1.0] * 24)
    assert found == {"value": 2.0, "low": 2.0, "high": 2.0}


def test_too_few_turns_have_no_interval():
    assert turns.ratio([2.0], [1.0]) == {"value": 2.0, "low": None, "high": None}


def test_ratios_are_over_ours_and_the_null_run_is_over_torch():
    samples = {
        "eager": {"step": [2.0]},
        "again": {"step": [2.0]},
        "compiled": {"step": [3.0]},
        "ours": {"step": [1.0]},
    }
    found = {pair: one["step"]["value"] for pair, one in turns.ratios(samples).items()}
    assert found == {"eager / ours": 2.0, "compiled / ours": 3.0, "again / eager": 1.0}
    del samples["ours"]
    assert list(turns.ratios(samples)) == ["again / eager"]
    assert turns.ratios({}) == {}


def test_medians_are_of_each_quantity():
    assert turns.medians({"a": [1.0, 2.0, 9.0]}) == {"a": 2.0}
