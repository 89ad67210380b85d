"""Read the forward of one module as a graph, where that is certain to mean the same.

torch.fx runs a forward once on stand-ins for its inputs. What Python decides during that run
is decided for ever, so a forward that looks at more than its inputs' values is not read.
"""

from __future__ import annotations

import dis
import inspect
import warnings
from types import CodeType, FunctionType
from typing import Final

from torch import fx, nn

# A stand-in is no tensor: what asks for the type of an input would be misled.
MISLED_BY_STAND_INS: Final = frozenset(
    {
        "isinstance",
        "type",
        "hasattr",
        "getattr",
        "callable",
        "print",
        "is_scripting",
        "is_tracing",
    }
)


class ShallowTracer(fx.Tracer):
    """Reads one forward; every module that it calls stays a call."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002  # fx's signature
        """Never look into a module."""
        return True


def read_forward(module: nn.Module) -> fx.Graph | None:
    """Return the graph of a module's own forward, or None where it cannot be trusted."""
    if "forward" in vars(module) or not is_plain(type(module).forward, type(module)):
        return None
    graphs = [trace_in_mode(module, training=mode) for mode in (True, False)]
    training, evaluating = graphs
    if training is None or evaluating is None:
        return None
    same = training.python_code("self").src == evaluating.python_code("self").src
    return training if same else None


def is_plain(forward: object, owner: type) -> bool:
    """The forward takes tensors by position, and asks nothing that misleads a stand-in."""
    if not isinstance(forward, FunctionType):
        return False
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    simple = all(
        p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty for p in parameters
    )
    if not simple or not parameters:
        return False
    codes = codes_of(forward, owner, set())
    if any(MISLED_BY_STAND_INS & set(code.co_names) for code in codes):
        return False
    # With one input, `is None` can only be about the module itself.
    return len(parameters) == 1 or not any(asks_for_none(code) for code in codes)


def codes_of(function: FunctionType, owner: type, seen: set[str]) -> list[CodeType]:
    """Return the code of a method and of the owner's methods that it names."""
    codes = [function.__code__]
    for name in function.__code__.co_names:
        called = inspect.getattr_static(owner, name, None)
        if name not in seen and isinstance(called, FunctionType):
            seen.add(name)
            codes += codes_of(called, owner, seen)
    return codes


def asks_for_none(code: CodeType) -> bool:
    """The code compares something with None."""
    return any(
        i.opname == "IS_OP" or i.opname.endswith("_NONE") for i in dis.get_instructions(code)
    )


def trace_in_mode(module: nn.Module, *, training: bool) -> fx.Graph | None:
    """Trace with every `training` flag set, and leave the module exactly as it was."""
    flags = [(part, part.training) for part in module.modules()]
    module.train(training)
    before = dict(vars(module))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = ShallowTracer().trace(module)
    except Exception:  # noqa: BLE001  # a forward may raise anything when it meets a stand-in
        graph = None
    after = vars(module)
    touched = before.keys() != after.keys() or any(after[k] is not before[k] for k in before)
    if touched:  # the forward has a memory: running it from a graph would lose it
        after.clear()
        after.update(before)
        graph = None
    for part, flag in flags:
        part.training = flag
    return graph
