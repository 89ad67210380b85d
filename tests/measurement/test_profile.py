"""The runtime's profile: time by node and call."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bnfold.measurement.lab import Lab
from bnfold.measurement.profile import NodeTime, read_profile
from bnfold.runtime import write_arrays
from bnfold.runtime.plans import SessionPlan
from tests.measurement.oddities import save
from tests.small import conv_bn

CPU = "CPUExecutionProvider"


def kernel(name, us, kind="Conv", index="0", provider=CPU):
    told = {"op_name": kind, "node_index": index, "provider": provider}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": told}


def call():
    return {"cat": "Session", "name": "model_run", "dur": 9, "args": {}}


def read(tmp_path, *events):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(list(events)), encoding="utf-8")
    return read_profile(path)


def test_the_first_call_is_left_out_and_the_rest_gives_a_median(tmp_path):
    events = [one for us in (9000, 10, 30, 20, 4000) for one in (kernel("conv", us), call())]
    assert read(tmp_path, *events) == (NodeTime("conv", "Conv", CPU, 0.025),)


def test_a_single_call_is_all_there_is(tmp_path):
    assert read(tmp_path, kernel("a", 40), call())[0].ms == 0.04


def test_a_node_in_a_loop_counts_as_often_as_it_runs_and_the_loop_does_not(tmp_path):
    events = []
    for us in (500, 10, 20):
        events += [kernel("inner", us, "Mul", "3"), kernel("inner", us + 1, "Mul", "3")]
        events += [kernel("loop", 10**6, kind, "1") for kind in ("Loop", "If", "Scan")]
        events.append(call())
    assert read(tmp_path, *events) == (NodeTime("inner", "Mul", CPU, (21 + 41) / 2 / 1000),)


def test_a_node_that_runs_in_some_calls_only_counts_as_it_is_on_average(tmp_path):
    events = [kernel("a", 30), call(), call(), kernel("a", 50), call(), call()]
    assert read(tmp_path, *events)[0].ms == pytest.approx(0.02)


def test_nodes_of_one_name_are_kept_apart_by_their_index(tmp_path):
    found = read(tmp_path, kernel("", 10, index="0"), kernel("", 30, index="1"), call())
    assert [one.ms for one in found] == [0.01, 0.03]


def test_providers_are_told_and_other_events_are_not_nodes(tmp_path):
    found = read(
        tmp_path,
        {"cat": "Session", "name": "model_loading_uri", "dur": 7, "args": {}},
        {"cat": "Node", "name": "conv_fence_before", "dur": 7, "args": {"op_name": "Conv"}},
        {"cat": "Node", "name": "x_kernel_time", "dur": 7},
        {"cat": "Node", "name": "y_kernel_time", "dur": 7, "args": {}},
        kernel("conv", 10, provider="CUDAExecutionProvider"),
        kernel("relu", 20, kind="Relu", index="1"),
        call(),
    )
    assert [(one.name, one.kind, one.provider) for one in found] == [
        ("conv", "Conv", "CUDAExecutionProvider"),
        ("relu", "Relu", CPU),
    ]


def test_an_empty_profile_has_no_nodes(tmp_path):
    assert read(tmp_path) == ()


def test_a_real_profile_has_every_node_of_the_graph_that_ran(tmp_path):
    model = save(conv_bn(), tmp_path / "m.onnx")
    inputs = tmp_path / "x.npz"
    write_arrays(inputs, {"x": np.ones((1, 3, 8, 8), np.float32)})
    plan = SessionPlan(str(model), level="disabled", profile_prefix=str(tmp_path / "times"))
    told = Lab(tmp_path).ask("look", {"original": plan}, 100, inputs=str(inputs))
    assert told.complete
    found = read_profile(next(tmp_path.glob("times*.json")))
    assert [(one.name, one.kind) for one in found] == [
        ("conv", "Conv"),
        ("bn", "BatchNormalization"),
        ("relu", "Relu"),
    ]
    assert all(one.provider == CPU for one in found)
    assert all(0 <= one.ms < 1000 for one in found)
    assert sum(one.ms for one in found) > 0
