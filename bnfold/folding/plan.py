"""Decide how one chain of maps leaves the graph: a `Plan`, or the refusals it met.

Nothing is written here, and a plan is all or nothing. The ways are tried from the one that
removes most; scale and shift may part, because a shift that zero padding or a MatMul cannot
take often goes the other way, and one that can go nowhere still costs less than both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bnfold.affine import Affine
from bnfold.folding.ranges import check_ranges
from bnfold.folding.selection import Selection
from bnfold.folding.sites import Chain
from bnfold.folding.walk import Journey, lift, lower
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How chains leave the graph.

    Attributes:
        chains: The chains that go; several only if they map one value by the same map.
        move: The way in words, for the report.
        up: Where the part that went up was taken.
        down: Where the part that went down was taken.
        left: The map that remains at the place of the chain; the identity if none does.
    """

    chains: tuple[Chain, ...]
    move: str
    up: Journey
    down: Journey
    left: Affine

    @property
    def edits(self) -> list[Edit]:
        """All edits of constants and attributes."""
        return [*self.up.edits, *self.down.edits]

    @property
    def went_up_whole(self) -> bool:
        """Whether the chain's input now carries what its output carried."""
        return not self.down.edits and not self.down.passed and self.left.is_identity


def draw_plan(
    chains: tuple[Chain, ...], facts: Facts, selection: Selection
) -> Plan | tuple[Refusal, ...]:
    """Return the plan that removes most of ``chains``, or why there is none.

    Args:
        chains: One chain, or several that all readers of one value bring with equal maps.
        facts: The model they stand in.
        selection: What may be touched.
    """
    refusals: list[Refusal] = []
    for attempt in _attempts(chains, facts, selection):
        outcome = attempt()
        if isinstance(outcome, Refusal):
            refusals.append(outcome)
            continue
        fault = _check_gain(outcome) or check_ranges(outcome.edits)
        if fault is None:
            return outcome
        refusals.append(fault)
    return tuple(dict.fromkeys(refusals))


Attempt = Callable[[], Plan | Refusal]


def _attempts(
    chains: tuple[Chain, ...], facts: Facts, selection: Selection
) -> Iterator[Attempt]:
    """Yield the ways out in order of what they leave behind: nothing, then one node."""
    trip = _Trip(chains, facts, selection)
    whole, none = trip.affine, Affine.uniform()
    if whole.is_identity:
        yield lambda: trip.plan("removed, it changes nothing", none, none, none)
        return
    yield lambda: trip.plan("up", whole, none, none)
    if len(chains) > 1:
        return
    yield lambda: trip.plan("down", none, whole, none)
    if not (whole.has_scale and whole.has_shift):
        return
    scale, shift = whole.scale_only(), whole.shift_only()
    yield lambda: trip.plan("scale up, shift down", scale, shift, none)
    if whole.is_invertible:
        early = whole.shift_before_scale()
        yield lambda: trip.plan("shift up, scale down", early, scale, none)
    yield lambda: trip.plan("scale up, shift stays", scale, none, shift)
    if len(chains[0].nodes) < 2:
        return
    yield lambda: trip.plan("shift down, scale stays", none, shift, scale)
    if whole.is_invertible:
        yield lambda: trip.plan("scale down, shift stays", none, scale, early)
        yield lambda: trip.plan("shift up, scale stays", early, none, scale)


@dataclass(frozen=True, slots=True)
class _Trip:
    """What all attempts for the same chains share."""

    chains: tuple[Chain, ...]
    facts: Facts
    selection: Selection

    @property
    def affine(self) -> Affine:
        return self.chains[0].affine

    def plan(self, move: str, up: Affine, down: Affine, left: Affine) -> Plan | Refusal:
        """Try one way: ``up`` to the producer, ``down`` to the readers, ``left`` stays."""
        blocked = self._guard(up, down, left)
        if blocked is not None:
            return blocked
        rising, sinking = Journey(), Journey()
        if not up.is_identity:
            demands = {(chain.nodes[0], chain.index): up for chain in self.chains}
            found = lift(self.chains[0].source, demands, self.facts, self.selection)
            if isinstance(found, Refusal):
                return found
            rising = found
        if not down.is_identity:
            found = lower(self.chains[0].result, down, self.facts, self.selection)
            if isinstance(found, Refusal):
                return found
            sinking = found
        return Plan(self.chains, move, rising, sinking, left)

    def _guard(self, up: Affine, down: Affine, left: Affine) -> Refusal | None:
        """Refuse what the interface forbids, before any walk."""
        if not (up.is_finite and down.is_finite and left.is_finite):
            why = "parting scale and shift gives a value that is not finite"
            return Refusal(Code.NOT_FINITE, self.chains[0].names[0], why)
        source = self.chains[0].source
        for chain in self.chains:
            if not left.is_identity or not chain.result.is_graph_output():
                continue
            fixed = source.is_graph_output() or source.producer() is None
            if fixed or source.graph is not chain.result.graph:
                why = (
                    f"{source.name!r} and {chain.result.name!r} are both part of the interface"
                )
                return Refusal(Code.GRAPH_OUTPUT, chain.result.name or "", why)
        outputs = [chain for chain in self.chains if chain.result.is_graph_output()]
        if len(outputs) > 1:
            why = "several graph outputs would become one value"
            return Refusal(Code.GRAPH_OUTPUT, outputs[0].result.name or "", why)
        return None


def _check_gain(plan: Plan) -> Refusal | None:
    """Refuse to leave an Add or Mul where a BatchNormalization would do as well.

    Both are one pass over the value, and runtimes keep a BatchNormalization in their blocked
    layouts. Only an Add right behind a MatMul is worth more: they run as one.
    """
    chain = plan.chains[0]
    if plan.left.is_identity or chain.rule != "BatchNormalization":
        return None
    takers = {node.op_type for node in (*plan.up.absorbed_by, *plan.down.absorbed_by)}
    if takers == {"MatMul"} and plan.up.absorbed_by and not plan.left.has_scale:
        return None
    why = "what would stay of it costs as much as a BatchNormalization"
    return Refusal(Code.NO_GAIN, chain.names[0], why)
