from __future__ import annotations

import itertools
import json

import pytest

from benchmarks.gpu import training_plan
from benchmarks.gpu.training_plan import (
    BATCHES,
    KINDS,
    LAYERS,
    Kernels,
    Layer,
    Net,
    described,
    guess_s,
    needed_s,
    plan,
    task_of,
)

_LAYER = Layer(16, 64, 112, "bfloat16", channels_last=True, kind="bn+relu")


def test_every_shape_type_layout_and_kind_is_planned_once():
    keys = [task.key for task in plan(dry_run=False)]
    assert len(keys) == len(set(keys))
    wanted = itertools.product(
        BATCHES, LAYERS, ("bfloat16", "float16", "float32"), (True, False), KINDS
    )
    missing = {
        Layer(batch, *layer, dtype, last, kind).key
        for batch, layer, dtype, last, kind in wanted
    } - set(keys)
    assert missing == set()
    assert {task.batch for task in plan(dry_run=False) if isinstance(task, Net)} == set(
        BATCHES
    )


def test_what_decides_a_target_comes_first():
    _, *tasks = plan(dry_run=False)
    first = tasks[:15]
    assert all(task.batch == 256 and task.dtype == "bfloat16" for task in first)
    assert {task.kind for task in first} == set(KINDS)
    at = next(i for i, task in enumerate(tasks) if isinstance(task, Net))
    assert sum(guess_s(task) for task in tasks[: at + 1]) < 400


def test_kernels_are_looked_at_where_torch_is_said_to_run_cudnn():
    kernels, *tasks = plan(dry_run=False)
    assert isinstance(kernels, Kernels)
    plain = [task for task in tasks if isinstance(task, Layer) and task.kind == "bn"]
    halves = [task for task in plain if task.channels_last and task.dtype == "float16"]
    assert set(halves) < set(kernels.layers) < set(plain)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_task_survives_the_way_through_json(dry_run):
    for task in plan(dry_run=dry_run):
        assert task_of(json.loads(json.dumps(described(task)))) == task


def test_compilers_are_asked_where_a_target_is_about_them():
    assert "compiled" in _LAYER.arms
    assert "ours compiled" in _LAYER.arms
    plain = Layer(16, 64, 112, "bfloat16", channels_last=True, kind="bn")
    assert not any("compiled" in arm for arm in plain.arms)


def test_passes_count_a_residual():
    assert _LAYER.passes == {"forward": 3, "backward": 5, "step": 8}
    added = Layer(16, 64, 112, "bfloat16", channels_last=True, kind="bn+add+relu")
    assert added.passes == {"forward": 4, "backward": 6, "step": 10}


def test_what_a_task_takes_is_learned_from_those_of_its_sort():
    guess = needed_s(_LAYER, [])
    assert guess == pytest.approx(1.1 * guess_s(_LAYER))
    twice = [(_LAYER, 2 * guess_s(_LAYER)), (Net("resnet50", 16, "a"), 1.0)]
    assert needed_s(_LAYER, twice) == pytest.approx(2 * guess)
    assert training_plan.guess_s(Kernels(())) > 0
