"""Processes that measure: what they tell, however they end."""

from __future__ import annotations

import itertools
import json

import numpy as np
import onnx
import pytest

from bnfold.errors import MissingDependencyError
from bnfold.measurement import lab as under_test
from bnfold.measurement.lab import Lab
from bnfold.measurement.subjects import size_bytes
from bnfold.measurement.worker import _difference
from bnfold.runtime import write_arrays
from bnfold.runtime.children import Fate
from bnfold.runtime.plans import SessionPlan
from tests.measurement import oddities
from tests.small import conv_bn

ASKED = {"seed": 1, "base": "a", "warm_s": 0.02, "budget_s": 0.0, "fewest_turns": 3}


def case(file, *arms, index=0):
    return {"index": index, "inputs": str(file), "arms": list(arms)}


def interleaved(lab, arms, file, seed=1, timeout_s=99, cases=1):
    wanted = [{"index": n, "inputs": str(file), "arms": list(arms)} for n in range(cases)]
    return lab.ask("interleave", arms, timeout_s, cases=wanted, **{**ASKED, "seed": seed})


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def plan(tmp_path, model, **more):
    return SessionPlan(str(oddities.save(model, tmp_path / "m.onnx")), **more)


def inputs(tmp_path, **arrays):
    write_arrays(tmp_path / "in.npz", arrays)
    return tmp_path / "in.npz"


def picture(tmp_path):
    return inputs(tmp_path, x=np.ones((1, 3, 8, 8), np.float32))


def test_arms_take_turns_in_one_process_and_every_call_is_told(tmp_path, lab):
    one = plan(tmp_path, conv_bn())
    told = interleaved(lab, {"a": one, "b": one, "c": one}, picture(tmp_path))
    assert told.complete
    assert told.end.fate is Fate.ENDED
    assert told.failures() == {}
    turns = [line for line in told.lines if "turn" in line]
    assert [line["turn"] for line in turns] == [0, 1, 2]
    for line in turns:
        assert sorted(line["arms"]) == ["a", "b", "c"]
        assert sorted(place for place, *_ in line["arms"].values()) == [0, 1, 2]
        assert all(ns > 0 for _, *calls in line["arms"].values() for ns in calls)
    (differ,) = [line["differ"] for line in told.lines if "differ" in line]
    assert differ == {"a": 0.0, "b": 0.0, "c": 0.0}


def test_batch_sizes_share_a_process_and_each_has_all_turns(tmp_path, lab):
    one = plan(tmp_path, conv_bn())
    told = interleaved(lab, {"a": one, "b": one}, picture(tmp_path), cases=3)
    for case in range(3):
        about = told.about(case)
        assert [line["turn"] for line in about.lines if "turn" in line] == [0, 1, 2]
        assert [line["warmed"] for line in about.lines if "warmed" in line] == ["a", "b"]
    assert len([line for line in told.lines if "differ" in line]) == 3


def test_the_order_of_arms_follows_the_seed(tmp_path, lab):
    arms = dict.fromkeys("abc", plan(tmp_path, conv_bn()))
    file = picture(tmp_path)

    def places(seed):
        cases = [case(file, *arms)]
        told = lab.ask("interleave", arms, 99, cases=cases, **{**ASKED, "seed": seed})
        return [
            {name: place for name, (place, *_) in line["arms"].items()}
            for line in told.lines
            if "turn" in line
        ]

    assert places(3) == places(3)


def test_an_arm_that_does_not_load_fails_alone(tmp_path, lab):
    good = plan(tmp_path, oddities.negation())
    bad = SessionPlan(str(oddities.save(oddities.foreign(), tmp_path / "bad.onnx")))
    file = inputs(tmp_path, x=np.ones((1, 3), np.float32))
    cases = [case(file, "a", "b")]
    told = lab.ask("interleave", {"a": good, "b": bad}, 99, cases=cases, **ASKED)
    assert told.complete
    assert "nowhere.else:Wonder" in told.failures()["b"]
    assert str(tmp_path) not in told.failures()["b"]
    assert all(list(line["arms"]) == ["a"] for line in told.lines if "turn" in line)


def test_one_process_measures_several_cases_and_tells_them_apart(tmp_path, lab):
    arms = dict.fromkeys("abc", plan(tmp_path, conv_bn()))
    files = []
    for size in (1, 2):
        files.append(tmp_path / f"in{size}.npz")
        write_arrays(files[-1], {"x": np.ones((size, 3, 8, 8), np.float32)})
    bad = inputs(tmp_path, x=np.ones((1, 4, 8, 8), np.float32))
    cases = [
        case(files[0], "a", "b", index=4),
        case(files[1], "a", "b", "c", index=7),
        case(bad, "a", "b", index=9),
    ]
    told = lab.ask("interleave", arms, 99, cases=cases, **ASKED)
    assert told.complete
    ran = {
        index: [sorted(one["arms"]) for one in told.about(index).lines if "turn" in one]
        for index in (4, 7, 9)
    }
    assert ran == {4: [["a", "b"]] * 3, 7: [["a", "b", "c"]] * 3, 9: []}
    assert [told.about(index).failures().keys() for index in (4, 7)] == [set(), set()]
    assert "Got: 4 Expected: 3" in told.about(9).failures()["a"]


def test_alone_tells_session_first_run_and_memory(tmp_path, lab):
    file = picture(tmp_path)
    told = lab.ask("alone", {"a": plan(tmp_path, conv_bn())}, 99, inputs=str(file), calls=2)
    (line,) = [line for line in told.lines if "alone" in line]
    assert told.complete
    assert line["session_ns"] > 0
    assert line["first_run_ns"] > 0
    assert line["peak_host_bytes"] > line["added_host_bytes"] >= 0
    assert line["device_bytes"] is None


def test_an_absent_provider_names_what_this_runtime_has(tmp_path, lab):
    away = plan(tmp_path, conv_bn(), provider="CUDAExecutionProvider")
    file = picture(tmp_path)
    with pytest.raises(MissingDependencyError) as error:
        lab.ask("alone", {"a": away}, 99, inputs=str(file), calls=1)
    assert "this ONNX Runtime has only" in error.value.why
    assert "bnfold[gpu]" in error.value.remedy


@pytest.mark.parametrize(
    ("program", "fate", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", Fate.DIED, "signal 9 (SIGKILL)"),
        ("import sys; sys.exit('no memory')", Fate.FAILED, "no memory"),
        ("import time; time.sleep(60)", Fate.TIMED_OUT, "no answer after 1 s"),
    ],
)
def test_what_was_told_before_a_bad_end_is_kept(lab, monkeypatch, program, fate, words):
    writes = (
        "import json, sys\n"
        "file = open(json.load(open(sys.argv[1]))['journal'], 'w')\n"
        'file.write(\'{"turn": 0, "arms": {}}\\n{"turn": 1, "ar\')\n'
        "file.flush()\n"
    )
    monkeypatch.setattr(under_test, "_MODULE", ("-c", writes + program))
    told = lab.ask("interleave", {}, 1, **ASKED)
    assert told.lines == ({"turn": 0, "arms": {}},)
    assert not told.complete
    assert told.end.fate is fate
    assert words in told.end.message


def test_a_request_is_plain_data_with_a_number_of_its_own(tmp_path, lab, monkeypatch):
    monkeypatch.setattr(under_test, "_MODULE", ("-c", ""))
    for _ in range(2):
        lab.ask("alone", {"a": SessionPlan("m.onnx", threads=3)}, 9, calls=7)
    requests = [json.loads((tmp_path / f"process{n}.json").read_text()) for n in (0, 1)]
    assert [one["calls"] for one in requests] == [7, 7]
    assert requests[0]["journal"] != requests[1]["journal"]
    assert SessionPlan.from_data(requests[1]["arms"]["a"]).threads == 3
    assert next(lab.numbers) == 2
    assert next(itertools.count()) == 0


@pytest.mark.parametrize(
    ("expected", "found", "far"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([3.0, 4.0], [3.0, 4.5], 0.1),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.inf, 1.0], [np.inf, 1.0], 0.0),
        ([1.0, 1.0], [np.nan, 1.0], np.inf),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
        ([1.0, 1.0], [np.inf, 1.0], np.inf),
        ([0.0, 0.0], [0.0, 0.1], np.inf),
        ([0.0, 0.0], [0.0, -0.0], 0.0),
        ([1.0, 2.0], [[1.0, 2.0]], np.inf),
        ([1, 2], [1, 2], 0.0),
        ([True, False], [True, True], 1.0),
        (["a", "b"], ["a", "c"], 0.5),
        ([], [], 0.0),
    ],
)
def test_how_far_outputs_are_apart(expected, found, far):
    assert _difference({"y": np.array(expected)}, {"y": np.array(found)}) == pytest.approx(far)


def test_the_largest_of_all_outputs_counts_and_names_do_not():
    one = {"y": np.ones(2), "z": np.ones(2)}
    assert _difference(one, {"b": np.ones(2), "a": np.array([1.0, 2.0])}) == pytest.approx(
        np.sqrt(0.5)
    )
    assert _difference(one, {"y": np.ones(2)}) == np.inf
    assert _difference({}, {}) == 0


def test_the_size_of_a_model_is_that_of_all_its_files(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(conv_bn(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    both = path.stat().st_size + (tmp_path / "m.data").stat().st_size
    assert size_bytes(path) == both
    (tmp_path / "m.data").unlink()
    assert size_bytes(path) == path.stat().st_size
