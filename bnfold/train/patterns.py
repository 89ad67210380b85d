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
WRITING: Final = WRITING_ADDITIONS | {
    *(operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.ipow),
    *(operator.iand, operator.ior, operator.ixor, operator.imatmul, operator.setitem),
}
FUNCTIONS: Final[dict[Callable[..., Any], str]] = {
    torch.relu: "relu",
    torch.relu_: "relu",
    nn.functional.relu: "relu",
    nn.functional.relu_: "relu",
    nn.functional.leaky_relu: "leaky_relu",
    nn.functional.leaky_relu_: "leaky_relu",
    nn.functional.relu6: "relu6",
    nn.functional.silu: "silu",
    nn.functional.gelu: "gelu",
    nn.functional.hardswish: "hardswish",
    nn.functional.mish: "mish",
}
MODULES: Final[dict[type[nn.Module], str]] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
    nn.Mish: "mish",
}
GELUS: Final = {"none": "gelu", "tanh": "gelu_tanh"}
NOT_TENSORS: Final = frozenset({"size", "dim", "numel", "shape"})


def activation_of_module(module: nn.Module) -> Activation | None:
    """Return the activation that a module of torch's is, or None."""
    if type(module) is nn.LeakyReLU:
        return Activation("leaky_relu", float(module.negative_slope))
    if type(module) is nn.GELU:
        return Activation(GELUS[str(module.approximate)])
    name = MODULES.get(type(module))
    return None if name is None else Activation(name)


def has_hooks(module: nn.Module) -> bool:
    """Somebody looks at what goes into this module, or comes out of it."""
    return bool(
        module._forward_hooks  # noqa: SLF001  # torch has no public name for them
        or module._forward_pre_hooks  # noqa: SLF001  # as above
        or module._backward_hooks  # noqa: SLF001  # as above
        or module._backward_pre_hooks  # noqa: SLF001  # as above
        or "forward" in vars(module)  # put in place of its class's
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A call that ends in a BatchNorm, in a graph, with what follows it."""

    call: fx.Node
    addition: fx.Node | None
    behind: tuple[fx.Node, ...]  # what becomes part of it, first first; the last is read on
    activation: Activation

    @property
    def said(self) -> str:
        """What is fused, in words."""
        name = self.activation.name
        words = ["addition"] if self.addition is not None else []
        return " + ".join([*words, *([name] if name else [])])


def find(graph: fx.Graph, root: nn.Module, takers: set[nn.Module]) -> list[Found]:
    """Return what can be fused into calls of these modules.

    An addition of two belongs to the one that is computed last: it need not move.
    """
    calls = [node for node in graph.nodes if node.op == "call_module"]
    modules = [root.get_submodule(str(node.target)) for node in calls]
    found: list[Found] = []
    taken: set[fx.Node] = set()
    for node, module in reversed(list(zip(calls, modules, strict=True))):
        if module in takers and is_plain_call(node):
            match = follow(node, root, takers)
            if match.behind and taken.isdisjoint(match.behind):
                taken.update(match.behind)
                found.append(match)
    return found


def is_plain_call(node: fx.Node) -> bool:
    """A module is called with one value."""
    return len(node.args) == 1 and not node.kwargs


def follow(call: fx.Node, root: nn.Module, takers: set[nn.Module]) -> Found:
    """Go down from a BatchNorm as far as one kernel can."""
    behind = identities(call, root)
    end = behind[-1] if behind else call
    addition = only_reader(end)
    if addition is None or moves(call, addition) or not adds(addition, end, root, takers):
        addition = None
    else:
        behind += [addition, *identities(addition, root)]
        end = behind[-1]
    reader = only_reader(end)
    activation = None if reader is None else activation_of(reader, end, root)
    if reader is not None and activation is not None:
        return Found(call, addition, (*behind, reader), activation)
    if addition is None:
        return Found(call, None, (), Activation())
    return Found(call, addition, tuple(behind[: behind.index(addition) + 1]), Activation())


def only_reader(node: fx.Node) -> fx.Node | None:
    """Return the one node that reads this one, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def identities(node: fx.Node, root: nn.Module) -> list[fx.Node]:
    """Return the modules behind a node that return what they get, if nobody else reads."""
    passed: list[fx.Node] = []
    reader = only_reader(node)
    while reader is not None and reader.op == "call_module":
        module = root.get_submodule(str(reader.target))
        if type(module) is not nn.Identity or has_hooks(module):
            break
        passed.append(reader)
        reader = only_reader(reader)
    return passed


def moves(call: fx.Node, addition: fx.Node) -> bool:
    """Whether calling the BatchNorm as late as the addition could read something else."""
    between = call.next
    while between is not addition:
        if call.args[0] in between.all_input_nodes or writes(between):
            return True
        between = between.next
    return False


def writes(node: fx.Node) -> bool:
    """Whether a function or method writes into its operand."""
    if node.kwargs.get("inplace") or node.kwargs.get("out") is not None:
        return True
    if node.op == "call_method":
        return str(node.target).endswith("_")
    name = getattr(node.target, "__name__", "")
    return node.op == "call_function" and (node.target in WRITING or name.endswith("_"))


def adds(node: fx.Node, end: fx.Node, root: nn.Module, takers: set[nn.Module]) -> bool:
    """A node adds another value to that of the BatchNorm, and writes to nothing that stays."""
    if node.kwargs or len(node.args) != 2:
        return False
    left, right = node.args
    in_place = node.target in WRITING_ADDITIONS or (
        node.op == "call_method" and node.target == "add_"
    )
    plain = node.target in ADDITIONS or (node.op == "call_method" and node.target == "add")
    other = right if left is end else left
    if not isinstance(other, fx.Node) or other is end or other.target in NOT_TENSORS:
        return False
    return plain or (in_place and (left is end or is_new(other, root, takers)))


def is_new(value: fx.Node, root: nn.Module, takers: set[nn.Module]) -> bool:
    """Nobody else can see what is written to a value: it was made for its one reader."""
    if only_reader(value) is None:
        return False
    if value.op == "call_module":
        return root.get_submodule(str(value.target)) in takers
    if value.target in WRITING_ADDITIONS:
        return isinstance(value.args[0], fx.Node) and is_new(value.args[0], root, takers)
    return value.target in ADDITIONS


def activation_of(node: fx.Node, end: fx.Node, root: nn.Module) -> Activation | None:
    """Return the activation of a value that a node computes, or None."""
    if node.args[:1] != (end,):
        return None
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
    if name == "gelu":
        approximate = settings.get("approximate", "none")
        return Activation(GELUS[str(approximate)]) if approximate in GELUS else None
    return Activation(name)


def fuse(graph: fx.Graph, found: list[Found]) -> None:
    """Let each BatchNorm be called with its residual, in place of what followed it."""
    for match in found:
        told: dict[str, Any] = {}
        if match.addition is not None:
            # Asked again: it may be what another BatchNorm has just been fused into.
            told["residual"] = next(
                a for a in match.addition.args if a not in (match.call, *match.behind)
            )
        if match.activation.name is not None:
            told["activation"] = match.activation.name
        if match.activation.name == "leaky_relu":
            told["negative_slope"] = match.activation.negative_slope
        # Where the addition was, its other operand is read: not sooner, not later.
        with graph.inserting_before(match.addition or match.call):
            fused = graph.call_module(str(match.call.target), match.call.args, told)
        match.behind[-1].replace_all_uses_with(fused)
        for node in (*reversed(match.behind), match.call):
            graph.erase_node(node)
    graph.lint()
