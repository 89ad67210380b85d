"""Turn the BatchNorm of a torch model into ours, with what follows it, and back.

Modules stay the objects that they are: only their classes change. So parameters, buffers,
hooks, flags, optimizer references and names are untouched, and the way back is to restore the
classes.
"""

from __future__ import annotations

import linecache
from collections import Counter
from itertools import pairwise
from typing import Any, Final, TypeVar

from torch import Tensor, fx, nn
from torch.fx.graph_module import _format_import_block
from torch.package.importer import sys_importer

from bnfold.train import modules, patterns
from bnfold.train.patterns import Found, has_hooks
from bnfold.train.tracing import read_forward

Model = TypeVar("Model", bound=nn.Module)

OURS: Final[dict[type[nn.Module], type[nn.Module]]] = {
    nn.BatchNorm1d: modules.BatchNorm1d,
    nn.BatchNorm2d: modules.BatchNorm2d,
    nn.BatchNorm3d: modules.BatchNorm3d,
}
TORCHS: Final = {ours: torchs for torchs, ours in OURS.items()}
MARK: Final = "converted"  # an attribute of what convert changed; revert leaves all else alone


class AbsorbedReLU(nn.ReLU):
    """A ReLU that the BatchNorm before it computes."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


class AbsorbedLeakyReLU(nn.LeakyReLU):
    """A LeakyReLU that the BatchNorm before it computes."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


class AbsorbedSiLU(nn.SiLU):
    """A SiLU that the BatchNorm before it computes."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


class AbsorbedGELU(nn.GELU):
    """A GELU that the BatchNorm before it computes."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


ABSORBED: Final[dict[type[nn.Module], type[nn.Module]]] = {
    nn.ReLU: AbsorbedReLU,
    nn.LeakyReLU: AbsorbedLeakyReLU,
    nn.SiLU: AbsorbedSiLU,
    nn.GELU: AbsorbedGELU,
}
RELEASED: Final = {absorbed: plain for plain, absorbed in ABSORBED.items()}


def convert(model: Model) -> Model:
    """Make every BatchNorm of the model ours, in place, and return the model.

    What follows a BatchNorm becomes part of it: an activation (ReLU, LeakyReLU, SiLU, GELU),
    or the addition of another value and then an activation. In an `nn.Sequential` the next
    module is looked at; elsewhere the forward is read by torch.fx, and left as it is where
    that could change its meaning. A BatchNorm or an activation with hooks keeps its output.
    """
    registered = Counter(m for _, m in model.named_modules(remove_duplicate=False))
    everything = list(model.modules())
    changed = [m for m in everything if type(m) in OURS]
    for bn in changed:
        bn.__class__ = OURS[type(bn)]
        setattr(bn, MARK, True)
    once = {m for m, count in registered.items() if count == 1 and not has_hooks(m)}
    candidates = {bn for bn in changed if bn in once}
    for module in everything:
        if type(module) is nn.Sequential:
            absorb_in_sequence(module, candidates, once)
        elif candidates & set(module.modules()) and module not in changed:
            rewrite(module, candidates)
    return model


def absorb_in_sequence(
    sequence: nn.Sequential, candidates: set[nn.Module], once: set[nn.Module]
) -> None:
    """Let each BatchNorm of a sequence compute the activation that comes next."""
    for bn, following in pairwise(sequence):
        activation = patterns.activation_of_module(following)
        if bn in candidates and following in once and activation is not None:
            set_activation(bn, activation.name, activation.negative_slope)
            following.__class__ = ABSORBED[type(following)]
            candidates.discard(bn)


def set_activation(bn: nn.Module, name: str | None, negative_slope: float) -> None:
    """Set what a converted BatchNorm computes besides its own."""
    if name is not None:
        bn.activation = name  # type: ignore[assignment]  # nn.Module's stub knows tensors and modules only
    if name == "leaky_relu":
        bn.negative_slope = negative_slope  # type: ignore[assignment]  # nn.Module's stub knows tensors and modules only


def rewrite(module: nn.Module, candidates: set[nn.Module]) -> None:
    """Give a module a class whose forward calls its BatchNorms fused, where there are any."""
    graph = read_forward(module) if pickles_plainly(type(module)) else None
    found = [] if graph is None else patterns.find(graph, module, candidates)
    if graph is None or not found:
        return
    for match in found:
        note(module, match)
        candidates.discard(module.get_submodule(str(match.bn.target)))
    patterns.fuse(graph, found)
    module.__class__ = rewritten_class(type(module), source_of(graph))


def pickles_plainly(kind: type) -> bool:
    """The class leaves copying and pickling to Python, as almost every module does."""
    own: Any = kind
    return (
        own.__reduce_ex__ is object.__reduce_ex__
        and own.__reduce__ is object.__reduce__
        and not hasattr(kind, "__deepcopy__")
    )


def note(module: nn.Module, match: Found) -> None:
    """Tell a BatchNorm its activation."""
    bn = module.get_submodule(str(match.bn.target))
    set_activation(bn, match.activation.name, match.activation.negative_slope)


def source_of(graph: fx.Graph) -> str:
    """Return the graph as a Python module that defines `forward`."""
    code = graph.python_code("self")
    return f"{_format_import_block(code.globals, sys_importer)}\n{code.src}"


_classes: dict[tuple[type[nn.Module], str], type[nn.Module]] = {}


def rewritten_class(original: type[nn.Module], source: str) -> type[nn.Module]:
    """Return a subclass of a module's class with another forward; equal calls, equal class."""
    known = _classes.get((original, source))
    if known is not None:
        return known
    file = f"<bnfold fused {original.__qualname__} {len(_classes)}>"
    names: dict[str, Any] = {}
    exec(compile(source, file, "exec"), names)
    # Tracebacks and compilers look for the text here.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    made = type(
        original.__name__,
        (original,),
        {
            "forward": names["forward"],
            "__reduce_ex__": reduce_rewritten,
            "__module__": original.__module__,
            "__doc__": original.__doc__,
            "fused_from": original,
            "fused_source": source,
        },
    )
    _classes[original, source] = made
    return made


def reduce_rewritten(module: nn.Module, protocol: Any) -> Any:
    """Pickle a module by its own class and the text of its forward: ours has no address."""
    described: Any = object.__reduce_ex__(module, protocol)
    cls: Any = type(module)
    return (new_rewritten, (cls.fused_from, cls.fused_source), *described[2:])


def new_rewritten(original: type[nn.Module], source: str) -> nn.Module:
    """Return an empty module of a rewritten class: unpickling fills it."""
    cls = rewritten_class(original, source)
    return cls.__new__(cls)


def revert(model: Model) -> Model:
    """Undo `convert`, in place, and return the model; what it did not change stays."""
    for module in list(model.modules()):
        kind: Any = type(module)
        if kind in TORCHS and vars(module).pop(MARK, False):
            for name in ("activation", "negative_slope"):
                vars(module).pop(name, None)
            module.__class__ = TORCHS[kind]
        elif kind in RELEASED:
            module.__class__ = RELEASED[kind]
        elif "fused_from" in vars(kind):
            module.__class__ = kind.fused_from
    return model
