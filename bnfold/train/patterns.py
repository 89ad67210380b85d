"""Find BN + activation and BN + addition + activation in a traced forward, and fuse them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx, nn

from bnfold.train.kernels.reference import Activation

ADDITIONS: Final = frozenset({operator.add, torch.add})
# These write into their first operand.
WRITING_ADDITIONS: Final = frozenset({operator.iadd})
FUNCTIONS: Final[dict[Callable[..., Any], str]] = {
    torch.relu: "relu",
    torch.relu_: "relu",
    nn.functional.relu: "relu",
    nn.functional.leaky_relu: "leaky_relu",
    nn.functional.silu: "silu",
    nn.functional.gelu: "gelu",
}
NOT_TENSORS: Final = frozenset({"size", "dim", "numel", "shape"})


def activation_of_module(module: nn.Module) -> Activation | None:
    """Return the activation that a module of torch's is, or None."""
    if type(module) is nn.ReLU:
        return Activation("relu")
    if type(module) is nn.LeakyReLU:
        return Activation("leaky_relu", float(module.negative_slope))
    if type(module) is nn.SiLU:
        return Activation("silu")
    if type(module) is nn.GELU and module.approximate == "none":
        return Activation("gelu")
    return None


def has_hooks(module: nn.Module) -> bool:
    """Somebody looks at what goes into this module, or comes out of it."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)


@dataclass(frozen=True, slots=True)
class Found:
    """A BatchNorm in a graph, with what follows it."""

    bn: fx.Node
    addition: fx.Node | None
    last: fx.Node  # whose readers will read the BatchNorm
    activation: Activation

    @property
    def swallowed(self) -> list[fx.Node]:
        """The nodes behind the BatchNorm that become part of it, last first."""
        behind = [self.last, self.addition]
        nodes = [node for node in behind if node is not None and node is not self.bn]
        return list(dict.fromkeys(nodes))


def find(graph: fx.Graph, root: nn.Module, candidates: set[nn.Module]) -> list[Found]:
    """Return what can be fused: BatchNorms among the candidates that are called once."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    modules = [root.get_submodule(str(node.target)) for node in calls]
    found: list[Found] = []
    taken: set[fx.Node] = set()  # an addition of two BatchNorms belongs to the first
    for node, module in zip(calls, modules, strict=True):
        alone = sum(other is module for other in modules) == 1
        if module in candidates and alone and len(node.args) == 1 and not node.kwargs:
            match = follow(node, root)
            if match.last is not node and taken.isdisjoint(match.swallowed):
                taken.update(match.swallowed)
                found.append(match)
    return found


def follow(bn: fx.Node, root: nn.Module) -> Found:
    """Go down from a BatchNorm as far as one kernel can."""
    addition = only_reader(bn)
    if addition is not None and other_operand(addition, bn) is None:
        addition = None
    end = bn if addition is None else addition
    reader = only_reader(end)
    activation = None if reader is None else activation_of(reader, root)
    if reader is None or activation is None:
        return Found(bn, addition, end, Activation())
    return Found(bn, addition, reader, activation)


def only_reader(node: fx.Node) -> fx.Node | None:
    """Return the one node that reads this one, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def other_operand(node: fx.Node, bn: fx.Node) -> fx.Node | None:
    """Return what a node adds to the BatchNorm, or None where it is not such an addition."""
    if node.kwargs or len(node.args) != 2:
        return None
    left, right = node.args
    writes = node.target in WRITING_ADDITIONS or (
        node.op == "call_method" and node.target == "add_"
    )
    adds = node.target in ADDITIONS or (node.op == "call_method" and node.target == "add")
    if not (writes or adds) or (writes and left is not bn):
        return None
    other = right if left is bn else left
    if not isinstance(other, fx.Node) or other is bn or other.target in NOT_TENSORS:
        return None
    return other


def activation_of(node: fx.Node, root: nn.Module) -> Activation | None:
    """Return the activation that a node computes, or None."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return None if has_hooks(module) else activation_of_module(module)
    if node.op == "call_method":
        plain = node.target in ("relu", "relu_") and len(node.args) == 1
        return Activation("relu") if plain else None
    if node.op != "call_function" or node.target not in FUNCTIONS:
        return None
    name = FUNCTIONS[node.target]
    settings = {k: v for k, v in node.kwargs.items() if k != "inplace"}
    if name == "leaky_relu":
        slope = node.args[1] if len(node.args) > 1 else settings.get("negative_slope", 0.01)
        return Activation(name, slope) if isinstance(slope, float) else None
    exact = settings.get("approximate", "none") == "none"
    return Activation(name) if exact else None


def fuse(graph: fx.Graph, found: list[Found]) -> None:
    """Let each BatchNorm be called with its residual, in place of what followed it."""
    for match in found:
        arguments = match.bn.args
        if match.addition is not None:
            # Asked again: it may be what another BatchNorm has just been fused into.
            arguments = (*arguments, other_operand(match.addition, match.bn))
        # Where the addition was, its other operand is read: not sooner, not later.
        with graph.inserting_before(match.addition or match.bn):
            fused = graph.call_module(str(match.bn.target), arguments)
        match.last.replace_all_uses_with(fused)
        for node in (*match.swallowed, match.bn):
            graph.erase_node(node)
    graph.lint()
