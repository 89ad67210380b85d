"""The planner: the cheapest way of several, alternatives, routes, and how much is asked."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import bnfold
from bnfold.folding.cost import Cost
from bnfold.folding.journey import Crossroads
from bnfold.records import Code
from bnfold.rules import RULES
from bnfold.rules.base import Taken
from tests.battery import judge
from tests.battery.graphs import Net
from tests.battery.paths import adjusted_reader, deep_operand, equal_readers, meeting


def _folded(net_or_model):
    model = net_or_model.model() if isinstance(net_or_model, Net) else net_or_model
    result = bnfold.fold(model, verify=False)
    assert judge.wrong_outputs(model, result.to_proto()) == []
    return model, result


def _only_step(result):
    (step,) = result.report.steps
    return step


# -------------------------------------------------------------------- what is cheapest


def test_a_weight_that_others_read_is_not_copied_where_the_other_way_is_free():
    net = Net("shared weight")
    weight = net.const(net.weight(6, 4, 1, 1))
    x = net.input(["N", 4, 5, 5])
    net.output(net.node("Tanh", [net.conv(x, 4, 6, weight=weight, bias=False)]))
    y = net.mul(net.conv(net.node("Sigmoid", [x]), 4, 6, weight=weight, bias=False), 6)
    net.output(net.conv(y, 6, 3))
    _, result = _folded(net)
    step = _only_step(result)
    assert step.move == "down"
    assert step.cloned_bytes == 0


def test_a_weight_is_copied_where_that_is_the_only_way():
    net = Net("only way")
    weight = net.const(net.weight(6, 4, 1, 1))
    x = net.input(["N", 4, 5, 5])
    net.output(net.node("Tanh", [net.conv(x, 4, 6, weight=weight, bias=False)]))
    y = net.mul(net.conv(net.node("Sigmoid", [x]), 4, 6, weight=weight, bias=False), 6)
    net.output(net.node("Tanh", [y]))
    _, result = _folded(net)
    step = _only_step(result)
    assert step.move == "up"
    assert step.cloned_bytes == 6 * 4 * 4


def test_costs_are_compared_by_passes_over_activations_first():
    passes = Cost(activation_bytes=8.0)
    copies = Cost(grown_bytes=1 << 30, adjusted=9)
    assert Cost() < copies < passes
    assert Cost(activation_bytes=8.0, arithmetic=1) < Cost(activation_bytes=8.0, arithmetic=2)


def test_a_batch_norm_is_not_turned_into_an_add():
    net = Net("no gain")
    y = net.bn(net.conv(net.input(["N", 4, 5, 5]), 4, 6), 6)
    z = net.node("Relu", [net.node("Mul", [y, y])])
    y = net.bn(net.node("Relu", [net.conv(z, 6, 6, pads=[1] * 4)]), 6)
    net.output(net.node("Tanh", [y]))
    _, result = _folded(net)
    (stay,) = result.report.stays
    assert stay.rule == "BatchNormalization"
    assert judge.affine_count(result.to_proto()) == 1


# ------------------------------------------------------------------- several ways to go


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_shift_finds_the_one_summand_that_takes_it(where):
    _, result = _folded(deep_operand(where))
    step = _only_step(result)
    assert [name.split("_")[1] for name in step.absorbed_by] == ["Conv"]
    assert judge.affine_count(result.to_proto()) == 0


def test_ways_are_tried_depth_first_and_each_once():
    taken = Taken(otherwise=(Taken(), Taken()))
    crossroads, seen = Crossroads(), []
    while True:
        seen.append(tuple(_which(taken, crossroads.choose(taken)) for _ in range(2)))
        if not crossroads.turn():
            break
    assert seen == [(i, j) for i in range(3) for j in range(3)]


def _which(taken, chosen):
    return 0 if chosen is taken else 1 + [id(t) for t in taken.otherwise].index(id(chosen))


def test_equal_maps_of_one_value_leave_together():
    _, result = _folded(equal_readers(3, "mul"))
    assert [step.move for step in result.report.steps] == ["up"] * 3


@pytest.mark.parametrize("op", ["Add", "Sub", "Max", "Where"])
def test_maps_that_meet_leave_together(op):
    _, result = _folded(meeting(op))
    first, second = result.report.steps
    assert first.routes == second.routes
    assert first.site != second.site


def test_another_reader_undoes_a_scale_and_is_named():
    model = adjusted_reader(lambda net, y: net.conv(y, 6, 3, pads=[1] * 4), "mul")
    _, result = _folded(model)
    step = _only_step(result)
    (adjusted,) = step.adjusted
    assert adjusted.startswith("node_Conv")
    assert adjusted not in step.absorbed_by


def test_another_reader_does_not_undo_a_shift():
    """x + t at 6e4 has lost digits that subtracting t again would not bring back."""
    net = Net("cancellation")
    y = net.conv(net.input(["N", 4, 5, 5]), 4, 6)
    far = net.node(
        "Add", [y, net.const(np.full((6, 1, 1), 6e4) + net.shift(6).reshape(-1, 1, 1))]
    )
    net.output(net.node("Tanh", [far]), net.conv(y, 6, 3))
    _, result = _folded(net)
    (stay,) = result.report.stays
    assert stay.refusals[0].code is Code.SHARED_VALUE
    shifted = np.float32(0.3) + np.float32(1e6)
    assert abs((shifted - np.float32(1e6)) - 0.3) > 1e-3


# ------------------------------------------------------------------------ what is said


def test_routes_name_every_node_from_the_site_to_the_weights():
    net = Net("routes")
    x = net.input(["N", 4, 6, 6])
    a, b = (net.conv(x, 4, 3) for _ in range(2))
    y = net.node("Concat", [a, net.node("Relu", [b])], axis=1)
    scale = np.abs(net.scale(6)).reshape(-1, 1, 1)
    net.output(
        net.node("Mul", [net.node("MaxPool", [y], kernel_shape=[2, 2]), net.const(scale)])
    )
    model, result = _folded(net)
    names = {node.op_type: node.name for node in model.graph.node}
    conv_a, conv_b = (n.name for n in model.graph.node if n.op_type == "Conv")
    start = (names["MaxPool"], names["Concat"])
    assert sorted(_only_step(result).routes) == sorted(
        [(*start, conv_a), (*start, names["Relu"], conv_b)]
    )


def test_a_refusal_names_the_route_to_the_node_that_stopped_the_map():
    net = Net("route of a refusal")
    y = net.node("Tanh", [net.input(["N", 4, 6, 6])])
    y = net.node("MaxPool", [y], "pooled", kernel_shape=[2, 2])
    y = net.node("Mul", [y, net.const(np.abs(net.scale(4)).reshape(-1, 1, 1))])
    net.output(net.node("Sigmoid", [net.node("Relu", [y])]))
    model, result = _folded(net)
    names = {node.op_type: node.name for node in model.graph.node}
    (stay,) = result.report.stays
    found = {refusal.path: refusal.node for refusal in stay.refusals}
    assert found == {(names["MaxPool"],): names["Tanh"], (names["Relu"],): names["Sigmoid"]}


# ------------------------------------------------------------------ how much is asked


def _chain(net, blocks):
    y = net.input([1, 4, 4, 4])
    for _ in range(blocks):
        y = net.node("Relu", [net.bn(net.conv(y, 4, 4, pads=[1] * 4), 4)])
    net.output(y)


def _pre_activation(net, blocks):
    y = net.conv(net.input([1, 4, 4, 4]), 4, 4, pads=[1] * 4)
    for _ in range(blocks):
        z = net.conv(net.node("Relu", [net.bn(y, 4)]), 4, 4, pads=[1] * 4)
        y = net.node("Add", [y, z])
    net.output(y)


def _dense(net, blocks):
    found = [net.input([1, 4, 4, 4])]
    for count in range(1, blocks + 1):
        y = net.node("Concat", found, axis=1) if count > 1 else found[0]
        y = net.node("Relu", [net.bn(y, 4 * count)])
        found.append(net.conv(y, 4 * count, 4, kernel=(1, 1)))
    net.output(found[-1])


def _twelve_branches(net, blocks):
    x = net.input([1, 4, 4, 4])
    for _ in range(max(blocks // 12, 1)):
        ends = [
            net.node("Sigmoid", [net.bn(net.conv(x, 4, 4, pads=[1] * 4), 4)])
            for _ in range(12)
        ]
        x = net.node("Max", ends)
    net.output(x)


def _stuck(net, blocks):
    y = net.input([1, 4, 4, 4])
    for _ in range(blocks):
        z = net.node("Sigmoid", [net.add(y, 4)])
        y = net.mul(net.node("Add", [y, z]), 4)
    net.output(y)


def _questions(build, blocks, monkeypatch):
    """How often rules are asked while a net of so many blocks is folded, by node."""
    net = Net(f"{build.__name__}{blocks}")
    build(net, blocks)
    asked = Counter()
    with monkeypatch.context() as patch:
        for kind in {type(rule) for rule in RULES.values()}:
            for method in ("take_after", "take_before"):
                patch.setattr(kind, method, _counted(getattr(kind, method), asked))
        bnfold.fold(net.model(), verify=False)
    return asked.total() / len(net.nodes)


def _counted(method, asked):
    def ask(self, node, maps, facts):
        asked[node.op_type] += 1
        return method(self, node, maps, facts)

    return ask


@pytest.mark.parametrize("build", [_chain, _pre_activation, _dense, _twelve_branches, _stuck])
def test_as_many_questions_a_node_in_a_large_net_as_in_a_small_one(build, monkeypatch):
    small, large = (_questions(build, blocks, monkeypatch) for blocks in (24, 240))
    assert large <= 1.5 * small


def test_a_map_is_not_carried_through_the_whole_of_a_long_graph():
    net = Net("too far")
    y = net.conv(net.input([1, 4, 4, 4]), 4, 4)
    for _ in range(300):
        y = net.node("Relu", [y])
    net.output(net.node("Mul", [y, net.const(np.abs(net.scale(4)).reshape(-1, 1, 1))]))
    _, result = _folded(net)
    (stay,) = result.report.stays
    assert stay.refusals[0].code is Code.TOO_FAR
