"""How a session is to be opened crosses to a child process, and is obeyed there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.errors import MissingDependencyError
from bnfold.measurement.arms import ARM_NAMES, FUSIONS, How, Subject, plan_arms
from bnfold.measurement.graphs import read_graph
from bnfold.measurement.lab import Lab
from bnfold.runtime import Job, no_provider, provider_named, run, write_arrays
from bnfold.runtime.plans import SessionPlan
from tests.small import conv_bn

ROOT = Path(__file__).parents[2]
TEXTS = st.text(max_size=8)
WORDS = st.dictionaries(TEXTS, TEXTS, max_size=3)


@given(
    st.builds(
        SessionPlan,
        model=TEXTS,
        level=st.sampled_from(["disabled", "basic", "all"]),
        provider=TEXTS,
        provider_options=WORDS,
        threads=st.integers(0, 64),
        disabled_optimizers=st.lists(TEXTS, max_size=3).map(tuple),
        config=WORDS,
        optimized_path=TEXTS,
        profile_prefix=TEXTS,
    )
)
def test_a_plan_goes_through_json_and_comes_back(plan):
    crossed = json.loads(json.dumps(plan.to_data()))
    assert SessionPlan.from_data(crossed) == plan


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("cpu", "CPUExecutionProvider"),
        ("CUDA", "CUDAExecutionProvider"),
        ("tensorrt", "TensorrtExecutionProvider"),
        ("DmlExecutionProvider", "DmlExecutionProvider"),
    ],
)
def test_providers_have_short_names(word, name):
    assert provider_named(word) == name


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_a_missing_gpu_provider_says_what_to_install(provider):
    error = no_provider(provider, "libfoo.so is missing")
    assert isinstance(error, MissingDependencyError)
    assert (error.what, error.why) == (f"cannot run on {provider}", "libfoo.so is missing")
    assert "bnfold[gpu]" in error.remedy
    assert "bnfold[gpu]" not in no_provider("DmlExecutionProvider", "").remedy


@pytest.fixture
def inputs(tmp_path):
    path = tmp_path / "x.npz"
    write_arrays(path, {"x": np.ones((1, 3, 8, 8), np.float32)})
    return path


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(conv_bn(), path)
    return path


def test_a_model_is_never_run_elsewhere_than_asked(model, inputs, tmp_path):
    job = Job(model, (inputs,), tmp_path, provider="NonsenseExecutionProvider")
    with pytest.raises(MissingDependencyError) as error:
        run(job)
    assert "this ONNX Runtime has only" in error.value.why
    assert "CPUExecutionProvider" in error.value.why


def ran(model, inputs, folder, **asked):
    """Operators of the graph that the runtime wrote after its optimisation."""
    plan = SessionPlan(str(model), optimized_path=str(folder / "ran.onnx"), **asked)
    told = Lab(folder).ask("alone", {"a": plan}, 99, inputs=str(inputs), calls=1)
    assert told.complete
    assert told.failures() == {}
    return set(read_graph(folder / "ran.onnx").kinds)


def test_levels_and_switched_off_optimisers_reach_the_runtime(model, inputs, tmp_path):
    bn = "BatchNormalization"
    assert ran(model, inputs, tmp_path, level="disabled") == {"Conv", bn, "Relu"}
    assert bn not in ran(model, inputs, tmp_path, level="all")
    assert bn in ran(
        model, inputs, tmp_path, level="basic", disabled_optimizers=tuple(FUSIONS)
    )
    assert bn not in ran(model, inputs, tmp_path, level="basic")


@pytest.mark.parametrize("kind", ["fused", "unfused"])
def test_the_optimisers_that_are_switched_off_are_those_that_fold(
    model, inputs, tmp_path, kind
):
    """Should a release of the runtime rename them, the arm `unfused` would say nothing."""
    one = Subject(model, "m", 1)
    arms = {plan.arm.name: plan.plan for plan in plan_arms(one, one, {}, ("unfused",), How())}
    chosen = arms["unfused" if kind == "unfused" else "original"]
    found = ran(
        model, inputs, tmp_path, level="basic", disabled_optimizers=chosen.disabled_optimizers
    )
    assert ("BatchNormalization" in found) is (kind == "unfused")


def test_arms_are_what_their_names_say(model):
    original, folded = Subject(model, "original", 1), Subject(Path("f"), "folded", 2)
    more = {"extra": Subject(Path("e"), "e.onnx", 3)}
    arms = plan_arms(original, folded, more, ARM_NAMES, How(threads=3))
    found = {one.arm.name: one for one in arms}
    assert list(found) == [
        "original", "again", "folded", "unfused", "plain", "folded-plain", "extra"
    ]  # fmt: skip
    assert [one.plan.model for one in arms] == [
        str(model), str(model), "f", str(model), str(model), "f", "e"
    ]  # fmt: skip
    assert [one.plan.level for one in arms] == [
        "all", "all", "all", "all", "disabled", "disabled", "all"
    ]  # fmt: skip
    assert found["again"].plan == found["original"].plan
    assert [one.arm.null for one in arms] == [False, True, *[False] * 5]
    assert {one.plan.threads for one in arms} == {3}
    assert [bool(one.plan.disabled_optimizers) for one in arms] == [
        name == "unfused" for name in found
    ]
    for one in arms:
        assert one.arm.level == one.plan.level
        assert one.arm.disabled_optimizers == one.plan.disabled_optimizers


@pytest.mark.parametrize(
    ("how", "options"),
    [
        (How(provider="CUDAExecutionProvider"), {}),
        (
            How(provider="CUDAExecutionProvider", cuda_graph=True, prefer_nhwc=True),
            {"enable_cuda_graph": "1", "prefer_nhwc": "1"},
        ),
        (
            How("TensorrtExecutionProvider", {"device_id": "1"}, cuda_graph=True),
            {"device_id": "1", "trt_cuda_graph_enable": "1"},
        ),
        (How(), {}),
    ],
)
def test_options_are_spelled_as_the_provider_spells_them(how, options):
    assert how.options() == options


def test_measuring_in_the_parent_does_not_load_the_runtime():
    program = (
        "import sys, bnfold.benchmarked, bnfold.cli.bench, bnfold.measurement.measure\n"
        "assert 'onnxruntime' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr.decode()
