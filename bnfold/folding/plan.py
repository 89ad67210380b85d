"""Decide how one chain of maps leaves the graph: the cheapest `Plan`, or the refusals it met.

Nothing is written here, and a plan is all or nothing. Scale and shift may part, because a
shift that zero padding or a MatMul cannot take often goes the other way, and one that can go
nowhere still costs less than both. The ways are tried from the one that could be cheapest,
until none that is left could be cheaper than the best one found.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bnfold.affine import Affine
from bnfold.folding.cost import Cost, cost_of_nodes, growth, refuse_copies
from bnfold.folding.downwards import lower
from bnfold.folding.journey import Journey
from bnfold.folding.ranges import check_ranges
from bnfold.folding.selection import Selection
from bnfold.folding.sites import Chain
from bnfold.folding.upwards import lift
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit

_IDENTITY = Affine.uniform()


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How chains leave the graph.

    Attributes:
        chains: The chains that go; several only if they map one value by the same map.
        move: The way in words, for the report.
        up: Where the part that went up was taken.
        down: Where the part that went down was taken.
        left: The map that remains at the place of the chain; the identity if none does.
        cost: What all that leaves behind.
    """

    chains: tuple[Chain, ...]
    move: str
    up: Journey
    down: Journey
    left: Affine
    cost: Cost

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
    """Return the cheapest plan that removes ``chains``, or why there is none.

    Args:
        chains: One chain, or several that all readers of one value bring with equal maps.
        facts: The model they stand in.
        selection: What may be touched.
    """
    trip = _Trip(chains, facts, selection)
    before = trip.cost_now()
    refusals: list[Refusal] = []
    best: Plan | None = None
    for way in _ways(chains):
        if best is not None and best.cost <= trip.least_cost(way):
            continue
        outcome = trip.plan(way)
        if not isinstance(outcome, Refusal):
            fault = _check_gain(outcome, before) or refuse_copies(outcome.edits, facts)
            outcome = fault or check_ranges(outcome.edits) or outcome
        if isinstance(outcome, Refusal):
            refusals.append(outcome)
        elif best is None or outcome.cost < best.cost:
            best = outcome
    return best or tuple(dict.fromkeys(refusals))


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    """A map parted in three: what goes up, what goes down, what stays."""

    move: str
    up: Affine = _IDENTITY
    down: Affine = _IDENTITY
    left: Affine = field(default=_IDENTITY)


def _ways(chains: tuple[Chain, ...]) -> list[_Way]:
    """Return the ways out in order of what they leave behind: nothing, then one node."""
    whole = chains[0].affine
    if whole.is_identity:
        return [_Way("removed, it changes nothing")]
    ways = [_Way("up", up=whole)]
    if len(chains) > 1:
        return ways
    ways.append(_Way("down", down=whole))
    if not (whole.has_scale and whole.has_shift):
        return ways
    scale, shift = whole.scale_only(), whole.shift_only()
    early = whole.shift_before_scale() if whole.is_invertible else None
    ways.append(_Way("scale up, shift down", up=scale, down=shift))
    if early is not None:
        ways.append(_Way("shift up, scale down", up=early, down=scale))
    ways.append(_Way("scale up, shift stays", up=scale, left=shift))
    if len(chains[0].nodes) < 2:
        return ways
    ways.append(_Way("shift down, scale stays", down=shift, left=scale))
    if early is not None:
        ways.append(_Way("scale down, shift stays", down=scale, left=early))
        ways.append(_Way("shift up, scale stays", up=early, left=scale))
    return ways


@dataclass(frozen=True, slots=True)
class _Trip:
    """What all ways of the same chains share."""

    chains: tuple[Chain, ...]
    facts: Facts
    selection: Selection

    def cost_now(self) -> Cost:
        """Return what the chains cost where they stand."""
        kinds = [node.op_type for chain in self.chains for node in chain.nodes]
        return cost_of_nodes(kinds, self.chains[0].result, self.facts)

    def least_cost(self, way: _Way) -> Cost:
        """Return what a way leaves behind at its place."""
        if way.left.is_identity:
            return Cost()
        return cost_of_nodes(["Mul"], self.chains[0].result, self.facts)

    def plan(self, way: _Way) -> Plan | Refusal:
        """Try one way."""
        blocked = self._guard(way)
        if blocked is not None:
            return blocked
        rising = sinking = Journey()
        if not way.up.is_identity:
            demands = {(chain.nodes[0], chain.index): way.up for chain in self.chains}
            whole = way.down.is_identity and way.left.is_identity
            source = self.chains[0].source
            found = lift(source, demands, self.facts, self.selection, whole=whole)
            if isinstance(found, Refusal):
                return found
            rising = found
        if not way.down.is_identity:
            whole = way.up.is_identity and way.left.is_identity
            stays = self._goes_down if whole else None
            result = self.chains[0].result
            found = lower(result, way.down, self.facts, self.selection, stays)
            if isinstance(found, Refusal):
                return found
            sinking = found
        return self._check_apart(rising, sinking) or self._joined(way, rising, sinking)

    def _goes_down(self, chain: Chain) -> bool:
        """Return whether the map of another chain cannot go up, which would be tried first."""
        if chain.affine.is_identity:
            return False
        demands = {(chain.nodes[0], chain.index): chain.affine}
        return isinstance(lift(chain.source, demands, self.facts, self.selection), Refusal)

    def _joined(self, way: _Way, rising: Journey, sinking: Journey) -> Plan:
        least = self.least_cost(way)
        takers = {node.op_type for node in (*rising.absorbed_by, *sinking.absorbed_by)}
        if takers == {"MatMul"} and rising.absorbed_by and not way.left.has_scale:
            least = Cost()  # an Add right behind a MatMul runs as one with it
        cost = Cost(
            least.activation_bytes,
            least.arithmetic,
            growth((*rising.edits, *sinking.edits), self.facts),
            len(rising.adjusted),
        )
        chains = (*self.chains, *rising.recruits, *sinking.recruits)
        return Plan(chains, way.move, rising, sinking, way.left, cost)

    def _check_apart(self, rising: Journey, sinking: Journey) -> Refusal | None:
        """Refuse to write a constant twice, each time as if it were still the old one."""
        for node in rising.undone:
            if node in sinking:
                why = "it would take the inverse of one part and the other part itself"
                return Refusal(Code.SHARED_VALUE, self.chains[0].names[0], why)
        for chain in (*self.chains, *rising.recruits, *sinking.recruits):
            if not rising.undone.isdisjoint(chain.nodes):
                why = "its own constant would take the inverse, and it leaves the graph"
                return Refusal(Code.SHARED_VALUE, chain.names[0], why)
        return None

    def _guard(self, way: _Way) -> Refusal | None:
        """Refuse what the interface forbids, before any walk."""
        if not (way.up.is_finite and way.down.is_finite and way.left.is_finite):
            why = "parting scale and shift gives a value that is not finite"
            return Refusal(Code.NOT_FINITE, self.chains[0].names[0], why)
        source = self.chains[0].source
        for chain in self.chains:
            if not way.left.is_identity or not chain.result.is_graph_output():
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


def _check_gain(plan: Plan, before: Cost) -> Refusal | None:
    """Refuse a plan that leaves as many passes over the value as there were.

    An Add or Mul is no less than a BatchNormalization: both are one pass, and runtimes keep a
    BatchNormalization in their blocked layouts.
    """
    if plan.left.is_identity or plan.cost.activation_bytes < before.activation_bytes:
        return None
    chain = plan.chains[0]
    why = f"what would stay of it costs as much as the {chain.rule}"
    return Refusal(Code.NO_GAIN, chain.names[0], why)
