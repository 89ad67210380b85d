"""RNN, GRU and LSTM: both directions, both layouts, sequences of different lengths.

onnx's reference implementation knows one direction, and leaves out sequence lengths, clips and
activations. The formulas are those of the schemas (RNN-22, GRU-22, LSTM-22; the versions
before differ in types, and in what they leave out).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from bnfold.evidence import clock
from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel

_Function: TypeAlias = Callable[[Array], Array]
_State: TypeAlias = tuple[Array, ...]
"""The hidden state, and the cell state of an LSTM, [batch, hidden] each."""
_Step: TypeAlias = Callable[["_Direction", Array, _State], _State]


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0.0, 1.0)


_PLAIN: Final[dict[str, _Function]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softsign": lambda x: x / (1.0 + np.abs(x)),
    "softplus": lambda x: np.logaddexp(0.0, x),
}
_WITH_ALPHA: Final[dict[str, tuple[Callable[[Array, float], Array], float]]] = {
    "leakyrelu": (lambda x, a: np.where(x >= 0, x, a * x), 0.01),
    "thresholdedrelu": (lambda x, a: np.where(x >= a, x, 0.0), 1.0),
    "elu": (lambda x, a: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0.0))), 1.0),
}
_WITH_BOTH: Final[dict[str, tuple[Callable[[Array, float, float], Array], float, float]]] = {
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), 1.0, 1.0),
    "hardsigmoid": (_hard_sigmoid, 0.2, 0.5),
}
"""Activations by their name in small letters, with the defaults of their numbers."""


@dataclass(frozen=True, slots=True)
class _Direction:
    """The weights of one direction.

    Attributes:
        call: The node.
        w: [gates · hidden, inputs]
        r: [gates · hidden, hidden]
        wb: [gates · hidden], added to what the inputs give.
        rb: The same for what the state gives.
        p: Peepholes [3, hidden] of an LSTM, zeros if there are none.
        functions: The activations f, g, h, as many as the operator has.
    """

    call: Call
    w: Array
    r: Array
    wb: Array
    rb: Array
    p: Array
    functions: tuple[_Function, ...]

    def gates(self, parts: Array) -> list[Array]:
        """Part what was computed for all gates at once."""
        hidden = self.r.shape[-1]
        return np.split(parts, parts.shape[-1] // hidden, axis=-1)

    def clipped(self, x: Array) -> Array:
        """Bound what goes into an activation."""
        most = self.call.number("clip", 0.0)
        return np.clip(x, -most, most) if most > 0.0 else x


def _rnn_step(at: _Direction, fed: Array, state: _State) -> _State:
    (f,) = at.functions
    return (f(at.clipped(fed + state[0] @ at.r.T + at.rb)),)


def _gru_step(at: _Direction, fed: Array, state: _State) -> _State:
    """``H = (1 − z) · h + z · H``; the reset gate stands behind or in front of R."""
    f, g = at.functions
    h = state[0]
    fed_z, fed_r, fed_h = at.gates(fed)
    r_z, r_r, r_h = np.split(at.r, 3, axis=0)
    b_z, b_r, b_h = at.gates(at.rb)
    z = f(at.clipped(fed_z + h @ r_z.T + b_z))
    r = f(at.clipped(fed_r + h @ r_r.T + b_r))
    if at.call.integer("linear_before_reset", 0):
        new = g(at.clipped(fed_h + r * (h @ r_h.T + b_h)))
    else:
        new = g(at.clipped(fed_h + (r * h) @ r_h.T + b_h))
    return ((1.0 - z) * new + z * h,)


def _lstm_step(at: _Direction, fed: Array, state: _State) -> _State:
    """``C = f · C + i · c``, ``H = o · h(C)``; the gates stand in the order i, o, f, c."""
    f, g, h = at.functions
    hidden, cell = state
    i, o, forget, c = at.gates(fed + hidden @ at.r.T + at.rb)
    p_i, p_o, p_f = at.p
    i = f(at.clipped(i + p_i * cell))
    kept = f(at.clipped(forget + p_f * cell))
    if at.call.integer("input_forget", 0):
        kept = 1.0 - i
    cell = kept * cell + i * g(at.clipped(c))
    o = f(at.clipped(o + p_o * cell))
    return o * h(cell), cell


@dataclass(frozen=True, slots=True)
class _Kind:
    """What sets the operators apart: gates, states, activations of a direction, a step."""

    gates: int
    states: int
    activations: tuple[str, ...]
    step: _Step


_KINDS: Final = {
    "RNN": _Kind(1, 1, ("tanh",), _rnn_step),
    "GRU": _Kind(3, 1, ("sigmoid", "tanh"), _gru_step),
    "LSTM": _Kind(4, 2, ("sigmoid", "tanh", "tanh"), _lstm_step),
}


def _recurrent(kind: _Kind, call: Call) -> tuple[Array, ...]:
    """Return Y, Y_h and, of an LSTM, Y_c."""
    batch_first = bool(call.integer("layout", 0))
    x = np.swapaxes(call.x[0], 0, 1) if batch_first else call.x[0]
    steps, batch, _ = x.shape
    lengths = call.maybe(4)
    if lengths is None:
        lengths = np.full(batch, steps, np.int64)
    first = [_initial(call, 5 + place, batch, batch_first) for place in range(kind.states)]
    order = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    turned = order[call.text("direction", "forward").lower()]
    directions = _directions(kind, call, len(turned))
    rows, last = [], []
    for place, (at, backwards) in enumerate(zip(directions, turned, strict=True)):
        state = tuple(one[place] for one in first)
        y, state = _run(kind, at, x, np.asarray(lengths), state, backwards=backwards)
        rows.append(y)
        last.append(state)
    whole = np.stack(rows, axis=1)
    ends = [np.stack(states) for states in zip(*last, strict=True)]
    if batch_first:
        whole = whole.transpose(2, 0, 1, 3)
        ends = [np.swapaxes(end, 0, 1) for end in ends]
    return call.outputs(whole, *ends)


def _initial(call: Call, index: int, batch: int, batch_first: bool) -> Array:  # noqa: FBT001  of the node
    """Return the states that the directions start from, [directions, batch, hidden]."""
    given = call.maybe(index)
    if given is None:
        return np.zeros((call.x[2].shape[0], batch, call.x[2].shape[-1]))
    return np.swapaxes(given, 0, 1) if batch_first else given


def _directions(kind: _Kind, call: Call, count: int) -> Iterator[_Direction]:
    w, r, b, p = call.x[1], call.x[2], call.maybe(3), call.maybe(7)
    wide, hidden = r.shape[1:]
    functions = _functions(kind, call, count)
    if w.shape[0] != count or len(functions) != count * len(kind.activations):
        raise call.no_kernel("its weights or activations are those of another direction")
    for place in range(count):
        wb, rb = np.split(np.zeros(2 * wide) if b is None else b[place], 2)
        peepholes = np.zeros(3 * hidden) if p is None else p[place]
        per = len(kind.activations)
        yield _Direction(
            call,
            w[place],
            r[place],
            wb,
            rb,
            peepholes.reshape(3, hidden),
            tuple(functions[place * per : (place + 1) * per]),
        )


def _functions(kind: _Kind, call: Call, count: int) -> list[_Function]:
    """Return the activations; those that take a number take the next one that is given."""
    attribute = call.node.attributes.get("activations")
    names = kind.activations * count if attribute is None else attribute.as_strings()
    alphas, betas = (
        iter(() if attribute is None else attribute.as_floats())
        for attribute in map(call.node.attributes.get, ("activation_alpha", "activation_beta"))
    )
    found: list[_Function] = []
    for name in (str(name).lower() for name in names):
        if name in _PLAIN:
            found.append(_PLAIN[name])
        elif name in _WITH_ALPHA:
            one, alpha = _WITH_ALPHA[name]
            found.append(partial(_of_one, one, next(alphas, alpha)))
        elif name in _WITH_BOTH:
            two, alpha, beta = _WITH_BOTH[name]
            found.append(partial(_of_two, two, next(alphas, alpha), next(betas, beta)))
        else:
            raise call.no_kernel(f"its activation {name!r} is unknown")
    return found


def _of_one(function: Callable[[Array, float], Array], alpha: float, x: Array) -> Array:
    return function(x, alpha)


def _of_two(
    function: Callable[[Array, float, float], Array], alpha: float, beta: float, x: Array
) -> Array:
    return function(x, alpha, beta)


def _run(
    kind: _Kind,
    at: _Direction,
    x: Array,
    lengths: Array,
    state: _State,
    *,
    backwards: bool,
) -> tuple[Array, _State]:
    """Go over a sequence; behind the end of one nothing changes, and zeros are written.

    Backwards, each sequence of the batch starts at its own end. A sequence without steps ends
    in zeros: so ONNX Runtime has it, the schemas do not say.
    """
    steps, batch, _ = x.shape
    y = np.zeros((steps, batch, at.r.shape[-1]))
    fed = x @ at.w.T + at.wb
    for step in reversed(range(steps)) if backwards else range(steps):
        clock.check()
        runs = (step < lengths)[:, None]
        moved = kind.step(at, fed[step], state)
        state = tuple(np.where(runs, new, old) for new, old in zip(moved, state, strict=True))
        y[step] = np.where(runs, state[0], 0.0)
    started = (lengths > 0)[:, None]
    return y, tuple(np.where(started, one, 0.0) for one in state)


KERNELS: Final[dict[str, Kernel]] = {
    name: partial(_recurrent, kind) for name, kind in _KINDS.items()
}
