"""Turn the BatchNorm of a torch model into ours, with what follows it, and back.

Modules stay the objects that they are: only their classes change. So parameters, buffers,
hooks, flags, optimizer references and names are untouched, and the way back is to restore the
classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from torch import fx, nn

from bnfold.train import patterns
from bnfold.train.patterns import Found, has_hooks
from bnfold.train.rewriting import (
    Part,
    Rewriting,
    Way,
    can_be_derived,
    is_rewritten,
    rewritten_class,
    source_of,
    still_holds,
)
from bnfold.train.subclasses import TORCHS, our_class, own_activation, takes_more
from bnfold.train.tracing import Reading, inputs_of, read_forward, settings_of

Model = TypeVar("Model", bound=nn.Module)

MARK: Final = "converted"  # an attribute of what convert changed; revert leaves all else alone
ASKED: Final = {"residual": None, "activation": None, "negative_slope": 0.01}


@dataclass
class Draft:
    """What was read of a module, and what can be fused in it."""

    readings: list[Reading]
    found: list[list[Found]]
    tail: fx.Node | None  # the call whose result the forward returns, if that takes more


def convert(model: Model) -> Model:
    """Make every BatchNorm of the model ours, in place, and return the model.

    What follows a BatchNorm becomes part of it: an activation (ReLU, ReLU6, LeakyReLU, SiLU,
    GELU, Hardswish, Mish), or the addition of another value and then an activation. The
    forward of each module is read by torch.fx, and left as it is where another could change
    its meaning. A BatchNorm or an activation with hooks keeps its output; so does one that
    gets hooks, or is replaced, later.
    """
    everything = list(inner_first(model, set()))
    for module in everything:
        ours = our_class(type(module))
        if ours is not None:
            module.__class__ = ours
            setattr(module, MARK, True)
    takers = {m for m in everything if MARK in vars(m) and takes_more(m) and not has_hooks(m)}
    drafts = drafted(everything, takers)
    claimed = claims(reversed(everything), drafts)
    for module in everything:
        if module in drafts and (any(drafts[module].found) or module in claimed):
            rewrite(module, drafts, takes_more=module in claimed)
    return model


def inner_first(module: nn.Module, seen: set[nn.Module]) -> Iterator[nn.Module]:
    """Yield all modules, each behind its parts: one part may be of several modules."""
    seen.add(module)
    for child in module.children():
        if child not in seen:
            yield from inner_first(child, seen)
    yield module


def drafted(everything: list[nn.Module], takers: set[nn.Module]) -> dict[nn.Module, Draft]:
    """Read modules, the inner ones first; what ends in a taker is one, and joins them."""
    drafts: dict[nn.Module, Draft] = {}
    inside: dict[nn.Module, bool] = {}
    for module in everything:
        within = any(child in takers or inside[child] for child in module.children())
        inside[module] = within
        if not within or MARK in vars(module) or not can_be_derived(type(module)):
            continue
        readings = read_forward(module)
        found = [patterns.find(reading.graph, module, takers) for reading in readings]
        drafts[module] = Draft(readings, found, tail_of(module, readings, takers))
        if drafts[module].tail is not None and not has_hooks(module):
            takers.add(module)
    return drafts


def tail_of(
    module: nn.Module, readings: list[Reading], takers: set[nn.Module]
) -> fx.Node | None:
    """Return the call of a taker whose result a forward returns, and nobody else reads."""
    if len(readings) != 1 or readings[0].training is not None:
        return None
    needed, optional = inputs_of(type(module).forward)
    if optional or not ASKED.keys().isdisjoint(needed):
        return None
    nodes: list[fx.Node] = list(readings[0].graph.nodes)
    for node in nodes:
        if node.op == "call_module" and module.get_submodule(str(node.target)) in takers:
            last = [node, *patterns.identities(node, module)][-1]
            reader = patterns.only_reader(last)
            returned = reader is not None and reader.op == "output" and reader.args == (last,)
            if returned and patterns.is_plain_call(node):
                return node
    return None


def claims(outer_first: Iterable[nn.Module], drafts: dict[nn.Module, Draft]) -> set[nn.Module]:
    """Return which modules will be called with a residual or an activation."""
    claimed: set[nn.Module] = set()
    for module in outer_first:
        draft = drafts.get(module)
        if draft is None:
            continue
        calls = [match.call for found in draft.found for match in found]
        if module in claimed and draft.tail is not None:
            calls.append(draft.tail)
        claimed.update(module.get_submodule(str(call.target)) for call in calls)
    return claimed


def rewrite(module: nn.Module, drafts: dict[nn.Module, Draft], *, takes_more: bool) -> None:
    """Give a module a class whose forward calls its BatchNorms fused."""
    draft = drafts[module]
    fused = said(module, drafts)
    parts: dict[Part, None] = {}
    for reading, found in zip(draft.readings, draft.found, strict=True):
        parts |= dict.fromkeys(parts_of(module, found))
        patterns.fuse(reading.graph, found)
    if takes_more and draft.tail is not None:
        passed = patterns.identities(draft.tail, module)
        parts |= dict.fromkeys(part_of(module, node) for node in (draft.tail, *passed))
        pass_on(draft.readings[0].graph, draft.tail)
    plan = Rewriting(
        tuple(Way(source_of(r.graph), r.given, r.training) for r in draft.readings),
        tuple(parts),
        settings_of(module),
        tuple(module._modules),  # noqa: SLF001  # named_children leaves out what is there twice
        takes_more,
        fused,
    )
    module.__class__ = rewritten_class(type(module), plan)


def said(module: nn.Module, drafts: dict[nn.Module, Draft]) -> tuple[tuple[str, str], ...]:
    """Return the BatchNorms that are called fused, and what becomes part of them."""
    return tuple(
        (full_name(module, str(match.call.target), drafts), match.said)
        for found in drafts[module].found
        for match in found
    )


def full_name(module: nn.Module, target: str, drafts: dict[nn.Module, Draft]) -> str:
    """Return the name of the BatchNorm that a call ends in."""
    called = module.get_submodule(target)
    tail = drafts[called].tail if called in drafts else None
    return (
        target if tail is None else f"{target}.{full_name(called, str(tail.target), drafts)}"
    )


def parts_of(module: nn.Module, found: list[Found]) -> list[Part]:
    """Return what must stay as it is for a fused call to mean the same."""
    nodes = [node for match in found for node in (match.call, *match.behind)]
    return [part_of(module, node) for node in nodes if node.op == "call_module"]


def part_of(module: nn.Module, node: fx.Node) -> Part:
    """Return the module that a node calls."""
    kind: Any = type(module.get_submodule(str(node.target)))
    more = getattr(kind, "takes_more", False)
    return Part(tuple(str(node.target).split(".")), getattr(kind, "fused_from", kind), more)


def pass_on(graph: fx.Graph, tail: fx.Node) -> None:
    """Give a graph the inputs of a fused BatchNorm, for the call that it ends in."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    told: dict[str, Any] = {}
    for name, default in reversed(ASKED.items()):
        with graph.inserting_after(inputs[-1]):
            told[name] = graph.placeholder(name, default_value=default)
    tail.kwargs = told
    graph.lint()


def revert(model: Model) -> Model:
    """Undo `convert`, in place, and return the model; what it did not change stays."""
    for module in list(model.modules()):
        kind: Any = type(module)
        if is_rewritten(kind):
            vars(module).pop(MARK, None)
            module.__class__ = kind.fused_from
        elif kind in TORCHS and vars(module).pop(MARK, False):
            module.__class__ = TORCHS[kind]
    return model


def fusions(model: nn.Module) -> dict[str, str]:
    """Return what is part of which BatchNorm now: "relu", "addition + relu", …."""
    found: dict[str, dict[str, None]] = {}
    for name, module in model.named_modules():
        kind: Any = type(module)
        inside = f"{name}." if name else ""
        for target, words in kind.fused_plan.fused if hasattr(kind, "fused_plan") else ():
            if hold(module, target):
                found.setdefault(inside + target, {})[words] = None
        own = (
            own_activation(module) if MARK in vars(module) and not takes_more(module) else None
        )
        if own is not None and own.name is not None:
            found.setdefault(name, {})[own.name] = None
    return {name: " or ".join(ways) for name, ways in found.items()}


def hold(module: nn.Module, target: str) -> bool:
    """A rewritten module, and those through which it calls a BatchNorm, are as they were."""
    names = target.split(".")
    paths = (".".join(names[:i]) for i in range(len(names)))
    return all(is_as_read(module.get_submodule(path)) for path in paths)


def is_as_read(module: nn.Module) -> bool:
    """If a module is rewritten, its new forward runs."""
    plan = getattr(type(module), "fused_plan", None)
    return plan is None or still_holds(module, plan)
