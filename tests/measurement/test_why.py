"""The sentences that explain figures and doubt them, on made-up findings."""

from __future__ import annotations

import math

import pytest

from bnfold.measurement.why import doubts, explain
from bnfold.records import (
    AffineNode,
    Arm,
    BenchSettings,
    Case,
    Comparison,
    DeviceState,
    Ending,
    Machine,
    RunGraph,
    Series,
    Speed,
    Turn,
)

BN = "BatchNormalization"
CPU = "CPUExecutionProvider"
ORIGINAL = {"Conv": 3, BN: 3, "Relu": 3}


def graph(arm="original", file=None, nodes=None, affine=(), times=None, elsewhere=()):
    return RunGraph(arm, file or {}, nodes or {}, tuple(affine), times or {}, tuple(elsewhere))


def bns(*shares):
    return [AffineNode(f"bn{i}", BN, "channel", share) for i, share in enumerate(shares)]


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ((), "The runtime folds all 3 BatchNormalization nodes of the original itself"),
        ((0.1,), "The runtime folds 2 of the 3 BatchNormalization nodes"),
        ((0.1, 0.1, 0.1), "The runtime folds none of the 3 BatchNormalization nodes"),
    ],
)
def test_it_says_what_the_runtime_folds_itself(left, said):
    (found,) = explain([graph(file=ORIGINAL, nodes={"Conv": 3}, affine=bns(*left))])
    assert found.startswith(said)


def test_nothing_is_said_of_what_is_not_there():
    assert explain([]) == ()
    assert explain([graph(file=ORIGINAL)]) == ()
    assert explain([graph("folded", ORIGINAL, {"Conv": 3})]) == ()
    assert explain([graph(file={"Conv": 1}, nodes={"Conv": 1})]) == ()


def test_it_says_what_only_the_fold_removed_and_what_that_cost():
    left = [*bns(0.125, 0.125), AffineNode("scale", "Mul", "scalar", 0.05)]
    found = explain(
        [
            graph(file=ORIGINAL, nodes={"Conv": 3, BN: 2, "Mul": 1}, affine=left),
            graph("folded", {"Conv": 3}, {"Conv": 3, "Mul": 1}, left[2:]),
        ]
    )
    assert (
        "Only the fold removed 2 BatchNormalization, which the runtime leaves in place; they"
        " were 25.0% of the time of the original's nodes." in found
    )
    assert "The runtime runs 6 operators of the original, 4 of the folded model." in found


@pytest.mark.parametrize(("shares", "words"), [((0.5,), "it was 50.0%"), ((None,), "place.")])
def test_a_cost_that_is_not_known_is_not_told(shares, words):
    found = explain(
        [
            graph(file=ORIGINAL, nodes={"Conv": 3, BN: 1}, affine=bns(*shares)),
            graph("folded", {"Conv": 3}, {"Conv": 3}),
        ]
    )
    assert words in found[1]


def test_the_fold_is_not_given_what_it_only_moved():
    """As many affine nodes under other names: nothing was removed."""
    moved = [AffineNode("new", "Mul", "channel", 0.1)]
    found = explain(
        [
            graph(file=ORIGINAL, nodes={"Conv": 3, BN: 1}, affine=bns(0.1)),
            graph("folded", {"Conv": 3}, {"Conv": 3, "Mul": 1}, moved),
        ]
    )
    assert not any("Only the fold removed" in said for said in found)


def test_nodes_without_names_are_counted_by_kind_and_what_replaced_them_is_told():
    left = [AffineNode("", BN, "channel", None) for _ in range(3)]
    found = explain(
        [
            graph(file=ORIGINAL, nodes={"Conv": 3, BN: 3}, affine=left),
            graph("folded", {}, {"Conv": 3, "Mul": 1}, [AffineNode("", "Mul", "scalar", 0.1)]),
        ]
    )
    assert (
        "Only the fold removed 3 BatchNormalization, which the runtime leaves in place; 1 Mul"
        " came in their place." in found
    )


def test_the_same_operators_promise_no_speedup():
    nodes = {"Conv": 3, "Relu": 3}
    found = explain([graph(file=ORIGINAL, nodes=nodes), graph("folded", {}, nodes)])
    assert "Of both models the runtime runs the same 6 operators" in found[1]
    assert not any("profiler" in said for said in found)


def test_the_profiler_names_the_operators_that_changed_and_no_trifles():
    found = explain(
        [
            graph(nodes={"Conv": 2}, times={"Conv": 5.0, "Mul": 2.0, "Relu": 1.0}),
            graph("folded", {}, {"Conv": 1}, times={"Conv": 4.0, "Relu": 1.001}),
        ]
    )
    said = found[-1]
    assert "Mul 2 → 0 ms, Conv 5 → 4 ms" in said
    assert "Relu" not in said


def test_switching_the_runtimes_fusions_off_is_explained():
    original = graph(file=ORIGINAL, nodes={"Conv": 3})
    unfused = graph("unfused", ORIGINAL, {"Conv": 3, BN: 3}, bns(0.1, 0.1, 0.1))
    assert (
        "With its own fusions off it runs 6 operators instead of 3, 3 of them"
        " BatchNormalization, 30.0% of the time of all nodes." in explain([original, unfused])
    )
    same = graph("unfused", ORIGINAL, {"Conv": 3})
    assert (
        "Switching the runtime's own BatchNorm fusions off changes nothing here."
        in explain([original, same])
    )
    bare = {"Conv": 3}
    without = [graph(file=bare, nodes=bare), graph("unfused", bare, {"Conv": 9})]
    assert not any("fusions" in said for said in explain(without))


def arms(provider=CPU):
    return [Arm("original", "", "m.onnx", 1, "all", (), provider, {})]


def comparison(arm, verdict, ratio=1.0):
    return Comparison(arm, "original", ratio, ratio, ratio, 0.95, verdict, 0.01, 6, 60)


def case(**told):
    usual = {
        "batch": None,
        "shapes": {},
        "latencies": (),
        "comparisons": (comparison("folded", Speed.FASTER),),
        "series": (),
        "ending": Ending.PRECISE,
        "outputs_differ": {},
        "failures": {},
    }
    return Case(**{**usual, **told})


def machine(**told):
    usual = {
        "system": "",
        "processor": "",
        "cores": 4,
        "memory_bytes": None,
        "device": "",
        "versions": {},
        "load_before": 0.1,
        "load_after": 9.0,
        "stolen": 0.0,
    }
    return Machine(**{**usual, **told})


def settings(dtype="model"):
    return BenchSettings(0, dtype, cuda_graph=False, precision=0.01, max_time_s=9,
                         confidence=0.95, seed=0)  # fmt: skip


def said(cases=(), graphs=(), where=None, provider=CPU, dtype="model"):
    return doubts(arms(provider), cases, graphs, where or machine(), settings(dtype))


def test_a_quiet_benchmark_is_not_doubted():
    calm = Series("folded", 0, 10, settled=True, turns=(Turn(0, 0, (1,)),))
    fine = case(series=(calm,) * 9, outputs_differ={"folded": 0.001})
    assert said([fine], [graph()]) == ()
    assert said(where=machine(load_before=None, stolen=None)) == ()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"failures": {"folded": "no kernel"}}, "folded could not be run: no kernel"),
        ({"failures": {"process 3": "died"}}, "process 3 did not come to its end: died"),
        (
            {"ending": Ending.INTERRUPTED},
            "interrupted: these figures are what there was by then",
        ),
        (
            {"ending": Ending.OUT_OF_TIME},
            "stopped by time, before the interval was within ±0.01: more --max-time narrows",
        ),
        (
            {"comparisons": (comparison("folded", Speed.NOT_MEASURED),)},
            "the time was too short for an interval: give more --max-time",
        ),
        (
            {"comparisons": (comparison("again", Speed.SLOWER, 1.04),)},
            "the null run differs from its own copy by 4.0%",
        ),
        (
            {"comparisons": (comparison("again", Speed.FASTER, 0.97),)},
            "the null run differs from its own copy by 3.0%",
        ),
        (
            {"outputs_differ": {"folded": 0.33}},
            "outputs of folded are 0.33 of their size away from the original's",
        ),
        (
            {"outputs_differ": {"folded": math.inf}},
            "outputs of folded cannot be compared with the original's",
        ),
    ],
)
def test_what_went_wrong_in_a_case_is_said_with_its_batch_size(told, words):
    (alone,) = said([case(**told)])
    assert alone.startswith(words)
    (found,) = said([case(batch=8, **told)])
    assert found == f"batch 8: {alone}"


def test_the_same_doubt_at_several_batch_sizes_is_said_once():
    late = [case(batch=size, ending=Ending.INTERRUPTED) for size in (1, 2, 3, 4, 5)]
    other = case(batch=9, failures={"folded": "no kernel"})
    assert said([*late, other]) == (
        "batch 1, 2, 3 and 2 more: interrupted: these figures are what there was by then",
        "batch 9: folded could not be run: no kernel",
    )
    assert said(late[:2])[0].startswith("batch 1, 2: interrupted")


def test_warm_ups_that_did_not_settle_are_told_when_they_are_many():
    def calm(settled):
        return Series("folded", 0, 10, settled=settled, turns=())

    few = case(series=(calm(False), *[calm(True)] * 3))  # noqa: FBT003
    many = case(series=(*[calm(False)] * 2, *[calm(True)] * 3))  # noqa: FBT003
    assert said([few]) == ()
    (found,) = said([many])
    assert found.startswith("2 of 5 warm-ups did not settle")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"load_before": 2.5}, "the machine was busy before (load 2.5 on 4 cores)"),
        ({"stolen": 0.07}, "the host took away 7% of the CPU time meanwhile"),
    ],
)
def test_a_machine_that_was_not_ours_alone_is_told(told, words):
    assert said(where=machine(**told)) == (words,)
    assert said(where=machine(load_before=1.9, stolen=0.01)) == ()


def state(throttled=(), processes=()):
    return DeviceState(0.0, None, None, None, None, tuple(throttled), None, tuple(processes))


def test_a_gpu_that_was_held_back_or_shared_is_told_once():
    readings = (
        state(["power cap"], ["train (7)"]),
        state(["heat", "power cap"], ["ours (8)"]),
    )
    assert said(where=machine(readings=readings)) == (
        "the GPU held its clocks back: heat, power cap",
        "other processes compute on the GPU: train (7)",
    )


def test_nodes_that_another_provider_ran_are_named():
    other = graph("folded", elsewhere=[f"n{i} (Foo) on CPU" for i in range(5)])
    (found,) = said(graphs=[other])
    assert found == (
        "folded: 5 nodes ran on another provider: n0 (Foo) on CPU, n1 (Foo) on CPU,"
        " n2 (Foo) on CPU and 2 more"
    )


def test_float16_on_a_cpu_is_told():
    assert "casts" in said(dtype="float16")[0]
    assert said(provider="CUDAExecutionProvider", dtype="float16") == ()
