"""A short form of benchmarks/false_alarms.py: right folds pass, faults in one channel fail."""

from dataclasses import replace

import pytest

from benchmarks.false_alarms import Scene, count, scenes, upper_bound

QUICK = [one for one in scenes() if one.channels * one.width * one.sets <= 6000]


@pytest.mark.parametrize("scene", QUICK, ids=lambda scene: scene.name)
def test_right_folds_pass_whatever_their_errors_look_like(scene: Scene) -> None:
    assert count(scene, 20, 3).failed == 0


def test_one_channel_that_is_wrong_is_seen() -> None:
    """One percent of a channel is 50 to 40,000 times its noise in float32."""
    scene = Scene("", 256, 9)
    assert count(replace(scene, fault=50.0), 10, 3).failed == 10
    assert count(replace(scene, channels=1024, width=1, fault=1000.0), 10, 3).failed == 10


def test_a_limit_that_does_not_know_how_often_it_was_looked_convicts_right_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control: with chance left out, heavy tails are refused."""
    monkeypatch.setattr("bnfold.evidence.judge._worst_of_noise", lambda *_: 0.0)
    monkeypatch.setattr("bnfold.evidence.judge.by_chance", lambda *_: 0.0)
    assert count(Scene("", 1024, 1, sets=1, heavy=5), 20, 3).failed > 0


def test_the_bound_of_a_rate_is_that_of_the_rule_of_three() -> None:
    assert upper_bound(0, 30_000) == pytest.approx(1e-4, rel=0.01)
