"""Give a module a class whose forward calls its BatchNorms fused, and can be undone.

Nothing about the parts of the module changes: what is fused is said in the call. So whoever
calls a part by another way gets what it always gave. And the rewritten forward first asks
whether the module is still what was read; if not, it runs the original one.
"""

from __future__ import annotations

import inspect
import linecache
from abc import ABCMeta
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.graph_module import _format_import_block
from torch.package.importer import sys_importer

from bnfold.train.kernels.reference import Activation
from bnfold.train.patterns import has_hooks
from bnfold.train.tracing import inputs_of

ASKED = "residual=None, activation=None, negative_slope=0.01"
TOLD = "residual=residual, activation=activation, negative_slope=negative_slope"


@dataclass(frozen=True, slots=True)
class Part:
    """A module that a rewritten forward calls otherwise than the original, or leaves out."""

    path: tuple[str, ...]
    kind: type[nn.Module]
    takes_more: bool

    def is_in(self, module: nn.Module) -> bool:
        """The part is still there, of the same kind, and nobody looks at it."""
        found: Any = module
        for name in self.path:
            found = found._modules.get(name)  # noqa: SLF001  # getattr is slower
            if found is None:
                return False
        kind = type(found)
        return (
            (kind is self.kind or getattr(kind, "fused_from", None) is self.kind)
            and getattr(kind, "takes_more", False) is self.takes_more
            and not has_hooks(found)
        )


@dataclass(frozen=True, slots=True)
class Way:
    """One way through a forward, fused: its source, and when it is taken."""

    source: str
    given: tuple[str, ...]
    training: bool | None


@dataclass(frozen=True, slots=True)
class Rewriting:
    """All that makes a rewritten class of an original: what is pickled."""

    ways: tuple[Way, ...]
    parts: tuple[Part, ...]
    settings: tuple[tuple[str, Any], ...]
    children: tuple[str, ...]
    takes_more: bool
    fused: tuple[tuple[str, str], ...]


def still_holds(module: nn.Module, plan: Rewriting) -> bool:
    """The module is what was read: its settings, the names of its children, their kinds."""
    if tuple(module._modules) != plan.children:  # noqa: SLF001  # named_children is slower
        return False
    for name, value in plan.settings:
        found = getattr(module, name, None)
        if type(found) is not type(value) or found != value:
            return False
    return all(part.is_in(module) for part in plan.parts)


def finish(
    y: Tensor, residual: Tensor | None, activation: str | None, negative_slope: float
) -> Tensor:
    """Do behind a forward what a fused one does inside."""
    return Activation(activation, negative_slope)(y if residual is None else y + residual)


def source_of(graph: fx.Graph) -> str:
    """Return the graph as a Python module that defines `forward`."""
    code = graph.python_code("self")
    return f"{_format_import_block(code.globals, sys_importer)}\n{code.src}"


def wrapper_of(original: type[nn.Module], plan: Rewriting) -> str:
    """Return the text of a forward that chooses between the fused ways and the original."""
    needed, optional = inputs_of(original.forward)
    parameters = list(inspect.signature(original.forward).parameters.values())[1:]
    said = [
        str(p.replace(annotation=p.empty)) for p in parameters if p.kind is not p.KEYWORD_ONLY
    ]
    alone = [
        str(p.replace(annotation=p.empty)) for p in parameters if p.kind is p.KEYWORD_ONLY
    ]
    more = f", {TOLD}" if plan.takes_more else ""
    alone += [ASKED] if plan.takes_more else []
    text = [f"def forward({', '.join(['self', *said, *(['*'] if alone else []), *alone])}):"]
    text.append(f"    if {are_tensors(needed)} and still_holds(self, plan):")
    for index, way in enumerate(plan.ways):
        absent = [is_default(k, v) for k, v in optional.items() if k not in way.given]
        mode = [] if way.training is None else [f"self.training is {way.training}"]
        chosen = " and ".join([*mode, *map(is_tensor, way.given), *absent]) or "True"
        given = "".join(f", {name}={name}" for name in (*needed, *way.given))
        text.append(f"        if {chosen}:")
        text.append(f"            return way{index}(self{given}{more})")
    given = "".join(f", {name}={name}" for name in (*needed, *optional))
    text.append(f"    y = original(self{given})")
    text.append(f"    return finish(y{more})" if plan.takes_more else "    return y")
    return "\n".join(text) + "\n"


def are_tensors(names: list[str]) -> str:
    """Return an expression: these are all tensors."""
    return " and ".join(map(is_tensor, names))


def is_tensor(name: str) -> str:
    """Return an expression: this is a tensor."""
    return f"isinstance({name}, Tensor)"


def is_default(name: str, default: Any) -> str:
    """Return an expression: an optional input has its default."""
    if default is None:
        return f"{name} is None"
    return f"type({name}) is {type(default).__name__} and {name} == {default!r}"


_classes: dict[tuple[type[nn.Module], Rewriting], type[nn.Module]] = {}


def rewritten_class(original: type[nn.Module], plan: Rewriting) -> type[nn.Module]:
    """Return a subclass of a module's class with another forward; equal plans, equal class."""
    known = _classes.get((original, plan))
    if known is not None:
        return known
    names: dict[str, Any] = {
        "Tensor": Tensor, "finish": finish, "plan": plan,
        "still_holds": still_holds, "original": original.forward,
    }  # fmt: skip
    for index, way in enumerate(plan.ways):
        names[f"way{index}"] = defined(way.source, f"{original.__qualname__} {index}", {})
    forward = defined(wrapper_of(original, plan), original.__qualname__, names)
    forward.__annotations__ = dict(original.forward.__annotations__)
    forward.__qualname__ = original.forward.__qualname__
    made = subclass(original, {"forward": forward, "fused_plan": plan})
    made.takes_more = plan.takes_more  # type: ignore[attr-defined]  # read by whoever calls it
    _classes[original, plan] = made
    return made


def defined(source: str, title: str, names: dict[str, Any]) -> Any:
    """Run a text that defines `forward`, and return what it defines."""
    file = f"<bnfold fused {title} {len(linecache.cache)}>"
    exec(compile(source, file, "exec"), names)
    # Tracebacks and compilers look for the text here.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    return names["forward"]


def subclass(
    original: type[nn.Module], content: dict[str, Any], *before: type[nn.Module]
) -> type[nn.Module]:
    """Return a class that looks like another, and knows of which it was made."""
    known = {
        "__reduce_ex__": reduce_rewritten,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "fused_from": original,
    }
    return type(original.__name__, (*before, original), {**known, **content})


def is_rewritten(kind: type[nn.Module]) -> bool:
    """The class itself is made here, not one that was derived from it later."""
    return "fused_from" in vars(kind)


def can_be_derived(kind: type) -> bool:
    """The class leaves copying, pickling and subclassing to Python, as almost all do."""
    own: Any = kind
    return (
        own.__reduce_ex__ is object.__reduce_ex__
        and own.__reduce__ is object.__reduce__
        and not hasattr(kind, "__deepcopy__")
        and type(kind) in (type, ABCMeta)
        and not any("__init_subclass__" in vars(k) for k in kind.__mro__ if k is not object)
    )


def reduce_rewritten(module: nn.Module, protocol: Any) -> Any:
    """Pickle a module by its own class and how that was rewritten: ours has no address."""
    described: Any = object.__reduce_ex__(module, protocol)
    cls: Any = type(module)
    return (new_rewritten, (cls.fused_from, cls.fused_plan), *described[2:])


def new_rewritten(original: type[nn.Module], plan: Rewriting) -> nn.Module:
    """Return an empty module of a rewritten class: unpickling fills it."""
    cls = rewritten_class(original, plan)
    return cls.__new__(cls)
