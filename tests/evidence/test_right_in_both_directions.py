"""Right folds pass and wrong ones fail where the worst channel, or a baseline, misleads."""

import time

import numpy as np
import pytest

import bnfold.evidence.court as court
import bnfold.evidence.noise as noise
from bnfold.evidence import check_fold
from bnfold.evidence.noise import Draw
from bnfold.evidence.verification import Wishes, judge_end_to_end
from bnfold.records import Verdict
from tests.evidence.nets import SPOILED, conv_bn, fans, honest
from tests.evidence.runs import features, masked, quantised

LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize("act", ["Relu", "Gelu"])
def test_feature_vectors_of_thousands_of_channels_pass_and_one_channel_fails(act: str) -> None:
    """Elements next to zero have real noise, whatever their size: 6 of 6 were refused."""
    report = check_fold(*features(1024, act, 7))
    assert report.verdict is Verdict.PASSED, report.why
    spoiled = check_fold(*features(1024, act, 7, 1.01))
    assert spoiled.verdict is Verdict.FAILED
    assert spoiled.outputs[0].channel in (1, None)
    assert report.comparisons > 1024
    assert report.false_alarms == 1e-4


@pytest.mark.parametrize("low", [LOWEST, -1e4])
def test_a_mask_does_not_hide_one_percent(low: float) -> None:
    """A 1.0 nudged by half an ulp opens the mask, and hid everything behind its noise."""
    assert check_fold(*masked(low)).verdict is Verdict.PASSED
    report = check_fold(*masked(low, 1.01))
    assert report.verdict is Verdict.FAILED
    assert report.outputs[0].ratio > 1000


def test_a_baseline_that_is_inflated_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: nudges 10⁴ times too large are noticed, and hide nothing."""
    own = noise.nudge
    monkeypatch.setattr(noise, "nudge", lambda a, k, p, unit: own(a, k, p, unit * 1e4))
    pair = fans({"y": conv_bn("y", "float32", honest, 1)}, "float32")
    report = check_fold(*pair)
    assert report.passed, report.why
    assert any("which is no rounding" in warning for warning in report.warnings)
    spoiled = fans({"y": conv_bn("y", "float32", SPOILED["one_channel_off"], 1)}, "float32")
    assert check_fold(*spoiled).verdict is Verdict.FAILED


def test_quantised_layers_are_compared_in_front_of_the_quantiser() -> None:
    report = check_fold(*quantised())
    assert report.passed, report.why
    assert [check.name for check in report.outputs] == ["y", "yq", "n"]

    def one_percent(held: dict) -> None:
        held["sw"][1] *= np.float32(1.01)

    def shifted(held: dict) -> None:
        held["zy"] = np.uint8(127)

    for spoil in (one_percent, shifted):
        assert check_fold(*quantised(spoil)).verdict is Verdict.FAILED, spoil


def test_what_the_runtime_does_to_a_folded_file_is_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Injected: optimised runs of the folded model move by 1 %. That convicts nobody."""
    own = court._outputs
    pair = fans({"y": conv_bn("y", "float32", honest, 1)}, "float32")

    def moved(model, runs):
        """Without further outputs the models run for this comparison only."""
        found = own(model, runs)
        if model is pair[1]:
            return [{p: a * np.float32(1.01) for p, a in one.items()} for one in found]
        return found

    monkeypatch.setattr(court, "_outputs", moved)
    report = check_fold(*pair)
    assert report.passed, report.why
    (effect,) = report.runtime
    assert effect.is_large
    assert effect.size_folded > 100 * effect.size_original
    assert any("the runtime's doing" in warning for warning in report.warnings)


def test_a_proved_fold_fails_only_where_accuracy_is_lost() -> None:
    right = fans({"y": conv_bn("y", "float32", honest, 1)}, "float32")
    report = check_fold(*right, proved=True)
    assert report.passed, report.why
    assert report.only_accuracy
    wrong = fans({"y": conv_bn("y", "float32", SPOILED["wrong_axis"], 1)}, "float32")
    report = check_fold(*wrong, proved=True)
    assert report.verdict is Verdict.FAILED
    assert report.contradicts
    assert "another function: the run contradicts the proof" in report.why


def test_verdict_reason_and_outputs_never_contradict_each_other() -> None:
    pairs = {name: conv_bn(name, "float32", fold, 4) for name, fold in SPOILED.items()}
    pairs["honest"] = conv_bn("honest", "float32", honest, 4)
    report = judge_end_to_end(*fans(pairs, "float32"), Wishes(shapes=["2x4x9x8"]), print)
    for check in report.outputs:
        assert check.passed == (check.ratio <= check.limit)
        assert (repr(check.name) in report.why) == (not check.passed)
    for one in report.metrics:
        (check,) = [check for check in report.outputs if check.name == one.name]
        assert (one.reference.worst, one.reference.limit) == (check.ratio, check.limit)


def test_a_short_budget_is_kept_and_what_it_left_out_is_said() -> None:
    pair = fans({"y": conv_bn("y", "float32", honest, 1)}, "float32")
    start = time.monotonic()
    report = check_fold(*pair, max_time=0.02)
    assert time.monotonic() - start < 20
    assert report.verdict is not Verdict.FAILED
    assert any("no time for" in warning for warning in report.warnings) or report.why


def test_nudges_for_quantisers_are_larger() -> None:
    fine, coarse = Draw(1, noise.Pattern.EACH), Draw(1, noise.Pattern.EACH)
    (coarse,) = noise.for_quantisers([coarse])
    array = {"x": np.linspace(0.1, 0.9, 50, dtype=np.float32)}
    near, far = (noise.nudge_inputs(array, draw, frozenset())["x"] for draw in (fine, coarse))
    assert np.abs(far - array["x"]).max() > 1000 * np.abs(near - array["x"]).max()
