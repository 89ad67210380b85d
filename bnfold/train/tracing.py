"""Read the forward of one module as a graph, where that is certain to mean the same.

torch.fx runs a forward once on stand-ins for its inputs. What Python decides during that run
is decided for ever, so a forward that looks at more than its inputs' values is not read. What
it finds in the module itself is written down: a rewritten forward asks whether it still holds.
"""

from __future__ import annotations

import dis
import inspect
import operator
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partialmethod
from types import CodeType, FunctionType
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

# What these say can change from call to call.
ASKS_THE_WORLD: Final = frozenset(
    {
        *("type", "callable", "print", "is_tracing", "is_compiling", "is_exporting"),
        *("is_grad_enabled", "is_autocast_enabled", "is_in_onnx_export", "is_inference"),
        *("rand", "randn", "randint", "random", "bernoulli", "uniform", "choice", "environ"),
    }
)
# A graph has no `with`; and what a forward stores somewhere would be stored once.
LEAVES_A_TRACE: Final = frozenset(
    {
        *("BEFORE_WITH", "BEFORE_ASYNC_WITH", "LOAD_SPECIAL", "STORE_ATTR", "STORE_GLOBAL"),
        *("DELETE_ATTR", "DELETE_GLOBAL"),
    }
)
SIMPLE: Final = (type(None), bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Reading:
    """One way through a forward: these optional inputs are tensors, all others are absent.

    `training` says in which mode of the module it is taken; None in both.
    """

    graph: fx.Graph
    given: tuple[str, ...] = ()
    training: bool | None = None


class StandIn(fx.Proxy):
    """A stand-in that stops the run where a tensor would have answered otherwise."""

    def __getattr__(self, name: str) -> Any:
        """Return what torch.fx makes of an attribute that tensors have."""
        if not hasattr(Tensor, name):
            raise fx.proxy.TraceError(f"a tensor may have no {name}")
        return super().__getattr__(name)

    def _written(self, operation: Any, other: Any) -> fx.Proxy:
        """Record that a value is written to; torch.fx takes `x += y` for a new value."""
        return self.tracer.create_proxy("call_function", operation, (self, other), {})

    __iadd__ = partialmethod(_written, operator.iadd)
    __isub__ = partialmethod(_written, operator.isub)
    __imul__ = partialmethod(_written, operator.imul)
    __itruediv__ = partialmethod(_written, operator.itruediv)
    __ifloordiv__ = partialmethod(_written, operator.ifloordiv)
    __ipow__ = partialmethod(_written, operator.ipow)
    __imod__ = partialmethod(_written, operator.imod)
    __iand__ = partialmethod(_written, operator.iand)
    __ior__ = partialmethod(_written, operator.ior)
    __ixor__ = partialmethod(_written, operator.ixor)

    @property  # type: ignore[misc]  # as below
    def __class__(self) -> type:  # type: ignore[override]  # what isinstance asks for
        """An input is a tensor: a rewritten forward makes sure of it."""
        asking = sys._getframe(1).f_globals.get("__name__", "")  # noqa: SLF001  # no other way
        if asking.startswith("torch."):
            return StandIn
        if self.node.op == "placeholder":
            return Tensor
        raise fx.proxy.TraceError("asks for the type of a value")


class ShallowTracer(fx.Tracer):
    """Reads one forward; every module that it calls stays a call."""

    proxy_buffer_attributes = True  # written to while it is read, a buffer would change

    def __init__(self) -> None:
        super().__init__()
        self._surroundings = surroundings()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Record a node, unless a checkpoint or a decorator has changed what it would do."""
        if surroundings() != self._surroundings:
            raise fx.proxy.TraceError("runs without gradients, or saves tensors another way")
        return super().create_node(*args, **kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002  # fx's signature
        """Never look into a module."""
        return True

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return our own stand-in."""
        return StandIn(node, self)


def surroundings() -> tuple[bool, bool, bool]:
    """Return what a graph does not tell: gradients, autocast, hooks on saved tensors."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # noqa: FBT003, SLF001  # torch's
    return torch.is_grad_enabled(), torch.is_autocast_enabled(), hooks is not None


def read_forward(module: nn.Module) -> list[Reading]:
    """Return the graphs of a module's own forward; none where they cannot be trusted."""
    forward = type(module).forward
    own = vars(module)
    if "forward" in own or any(isinstance(value, Tensor) for value in own.values()):
        return []
    if not is_plain(module):
        return []
    needed, optional = inputs_of(forward)
    ways = [(), *((name,) for name, default in optional.items() if default is None)]
    if not needed:
        return []
    return [
        Reading(graph, given, mode)
        for given in ways
        for mode, graph in trace(module, (*needed, *given)).items()
    ]


def inputs_of(forward: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the inputs that a forward needs, and the defaults of the others."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    needed = [p.name for p in parameters if p.default is p.empty]
    return needed, {p.name: p.default for p in parameters if p.default is not p.empty}


def is_plain(module: nn.Module) -> bool:
    """The forward names its inputs, and does nothing that a graph cannot say."""
    forward: object = type(module).forward
    if not isinstance(forward, FunctionType) or hasattr(forward, "__wrapped__"):
        return False
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    simple = all(
        p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and (p.default is p.empty or type(p.default) in SIMPLE)
        for p in parameters
    )
    return simple and not any(
        ASKS_THE_WORLD & set(code.co_names)
        or any(i.opname in LEAVES_A_TRACE for i in dis.get_instructions(code))
        for code in codes_of(module)
    )


def codes_of(module: nn.Module) -> list[CodeType]:
    """Return the code of a forward, and of the methods and functions that it names."""
    forward = type(module).forward
    kinds = dict.fromkeys(base for part in module.modules() for base in type(part).__mro__)
    own = set(type(module).__mro__)
    found, waiting = {forward}, [forward]
    while waiting:
        function = waiting.pop()
        for name in function.__code__.co_names:
            named = [
                vars(kind).get(name) for kind in kinds if name != "forward" or kind in own
            ]
            for called in (function.__globals__.get(name), *named):
                if (
                    isinstance(called, FunctionType)
                    and called not in found
                    and not is_torchs(called)
                ):
                    found.add(called)
                    waiting.append(called)
    return [function.__code__ for function in found]


def is_torchs(function: FunctionType) -> bool:
    """The function is torch's own."""
    return function.__module__.partition(".")[0] == "torch"


def settings_of(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    """Return the plain attributes that a module's forward names: what it decides by."""
    named = {name for code in codes_of(module) for name in code.co_names}
    own = vars(module)
    return tuple(
        (name, own[name])
        for name in sorted(named & own.keys() - {"training"})
        if type(own[name]) in SIMPLE
    )


def trace(module: nn.Module, names: tuple[str, ...]) -> dict[bool | None, fx.Graph]:
    """Return the graph by the module's mode, under None if it is the same in both.

    Nothing is returned where the mode of another module decides.
    """
    found: dict[bool, fx.Graph] = {}
    for own in (True, False):
        graphs = [
            trace_in_mode(module, names, own=own, others=others) for others in (own, not own)
        ]
        texts = {g.python_code("self").src for g in graphs if g is not None}
        if graphs[0] is None or None in graphs or len(texts) != 1:
            return {}
        found[own] = graphs[0]
    same = len({graph.python_code("self").src for graph in found.values()}) == 1
    return {None: found[True]} if same else {True: found[True], False: found[False]}


def trace_in_mode(
    module: nn.Module,
    names: tuple[str, ...],
    *,
    own: bool,
    others: bool,
) -> fx.Graph | None:
    """Trace with `training` flags set for it, and leave the module exactly as it was."""
    kind = type(module)
    with as_it_was(module) as is_untouched:
        for part in module.modules():
            part.training = others
        module.training = own
        module.__class__ = with_inputs(kind, names)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                graph = ShallowTracer().trace(module)
        except Exception:  # noqa: BLE001  # a forward may raise anything when it meets a stand-in
            return None
        finally:
            module.__class__ = kind
        return graph if is_untouched() else None


def with_inputs(kind: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """Return a class whose forward takes these inputs alone, so that others are absent."""
    given = ", ".join(f"{name}={name}" for name in names)
    text = f"def forward(self, {', '.join(names)}): return original(self, {given})"
    made: dict[str, Any] = {"original": kind.forward}
    exec(text, made)
    return type(kind.__name__, (kind,), {"forward": made["forward"]})


@contextmanager
def as_it_was(module: nn.Module) -> Iterator[Any]:
    """Undo what running a forward does to the module and to random numbers.

    Yields:
        A function that says whether nothing was done.
    """
    flags = [(part, part.training) for part in module.modules()]
    before = dict(vars(module))
    kept = {k: copied(v) for k, v in before.items() if isinstance(v, (list, dict, set))}
    chance, torchs_chance = random.getstate(), torch.get_rng_state()

    def is_untouched() -> bool:
        after = vars(module)
        return (
            before.keys() == after.keys()
            and all(after[k] is before[k] for k in before if k != "training")
            and all(are_same(before[k], kept[k]) for k in kept)
            and random.getstate() == chance
            and torch.equal(torch.get_rng_state(), torchs_chance)
        )

    try:
        yield is_untouched
    finally:
        untouched = is_untouched()
        for part, flag in flags:
            part.training = flag
        if not untouched:
            vars(module).clear()
            vars(module).update(before)
            for name, content in kept.items():
                refill(before[name], content)
            random.setstate(chance)
            torch.set_rng_state(torchs_chance)


def copied(container: Any) -> Any:
    """Return a container with the same members."""
    return container.copy()


def are_same(one: Any, other: Any) -> bool:
    """Two containers hold the very same members."""
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(k in one and one[k] is v for k, v in other.items())
    if isinstance(one, set):
        return bool(one == other)
    return all(a is b for a, b in zip(one, other, strict=True))


def refill(container: Any, content: Any) -> None:
    """Give a container the members that it had."""
    if are_same(container, content):
        return
    container.clear()
    if isinstance(container, list):
        container.extend(content)
    else:
        container.update(content)
