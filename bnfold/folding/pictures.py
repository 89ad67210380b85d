"""Pictures of what moved where: the nodes around each fold, before and after it.

Steps know nodes by name. The same names are looked up in the original, and what became of the
nodes in the folded model; a name that leads nowhere is left out of a picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from bnfold.folding.atlas import Atlas, are_akin, reached
from bnfold.folding.patches import cut_out, ends_first
from bnfold.model.inlining import inline_calls
from bnfold.records import Patch, Picture, Role, Step
from bnfold.rules.base import name_of

_FUNCTION: Final = "function"
_MOST: Final = 1000
"""Pictures: a page draws a few dozen of them, and counts those that look alike."""
_MOST_VALUES: Final = 1 << 16
"""Inputs and outputs of the nodes that steps name, all pictures together. One picture goes
through those of a Concat several times, and a thousand maps may pass the same one."""
_ALIKE: Final = 64
"""So many nodes of one name are told apart."""
_DIGEST_BYTES: Final = 6

Roles = dict[ir.Node, Role]


def pictures_of(
    original: ir.Model, folded: ir.Model, steps: Sequence[Step]
) -> tuple[Picture, ...]:
    """Return a picture for each step of a fold, as far as they are not too many.

    Args:
        original: The model as it was; it is not changed.
        folded: The model that `bnfold.fold` returned for it.
        steps: The steps of its report.
    """
    if not steps:
        return ()
    written = _written_out(original, steps)
    before = Atlas(original)
    album = _Album(before if written is original else Atlas(written), Atlas(folded), steps)
    pictures: list[Picture] = []
    looked_at = 0
    for number, step in enumerate(steps[:_MOST]):
        looked_at += album.width(number)
        if pictures and looked_at > _MOST_VALUES:
            break
        if step.rule == _FUNCTION:
            patches = _of_function(before, album, step)
        else:
            patches = _of_step(album, number)
        pictures.append(Picture(*patches, number, _pattern(*patches)))
    return tuple(pictures)


def _written_out(model: ir.Model, steps: Sequence[Step]) -> ir.Model:
    """Return the model with the functions written out that a fold wrote out first.

    The steps behind that one speak of the nodes by the names that they have then.
    """
    names = {name for step in steps if step.rule == _FUNCTION for name in step.site}
    if not names:
        return model
    try:
        copy = model.clone()
        inline_calls(copy, lambda function: function.name in names)
    except (RuntimeError, ValueError):  # onnx_ir's: what it cannot write out has no pictures
        return model
    return copy


def _pattern(before: Patch, after: Patch) -> str:
    """Return a word for kinds, roles and wiring: equal if only names and shapes differ."""
    form = [
        (
            [(box.kind, box.role.value) for box in patch.boxes],
            [(wire.source, wire.target, wire.through) for wire in patch.wires],
            patch.hidden,
        )
        for patch in (before, after)
    ]
    return hashlib.blake2b(repr(form).encode(), digest_size=_DIGEST_BYTES).hexdigest()


@dataclass(frozen=True, slots=True)
class _Cast:
    """The nodes of the original that a step names, as far as they are there."""

    site: tuple[ir.Node, ...]
    absorbed: tuple[ir.Node, ...]
    adjusted: tuple[ir.Node, ...]
    passed: tuple[ir.Node, ...]


@dataclass(slots=True)
class _Album:
    """A fold as two maps of the graph, and the nodes that its steps name.

    Attributes:
        before: The original, functions written out.
        after: The folded model.
        steps: What was done.
        casts: The nodes of the steps.
        left_by: The steps whose sites a node belongs to.
    """

    before: Atlas
    after: Atlas
    steps: Sequence[Step]
    casts: list[_Cast] = field(default_factory=list)
    left_by: dict[ir.Node, list[int]] = field(default_factory=dict)
    _became: dict[ir.Node, ir.Node | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look up every name."""
        turns: dict[str, int] = {}
        for number, step in enumerate(self.steps):
            cast = self._cast(step, turns)
            self.casts.append(cast)
            for node in cast.site:
                self.left_by.setdefault(node, []).append(number)

    def _cast(self, step: Step, turns: dict[str, int]) -> _Cast:
        """Look up the names of a step; of equal names, each step means the next one."""
        first = step.site[0] if step.site else ""
        named = self.before.by_name.get(first, [])
        alike = [node for node in named[:_ALIKE] if node.op_type == step.rule] or named
        near = None
        if alike:
            near = alike[turns.get(first, 0) % len(alike)]
            turns[first] = turns.get(first, 0) + 1
        ways = (name for route in step.routes for name in _from_its_ends(route))
        site = self._all(step.site, near, ())
        others = site if step.routes else ()
        return _Cast(
            site,
            self._all(step.absorbed_by, near, others),
            self._all(step.adjusted, near, others),
            self._all(ways, near, others),
        )

    def _all(
        self, names: Iterable[str], near: ir.Node | None, others: Sequence[ir.Node]
    ) -> tuple[ir.Node, ...]:
        """Look up names; of several nodes, one near by that is none of ``others``."""
        found = (self.before.find(name, near, others) for name in dict.fromkeys(names))
        return tuple(dict.fromkeys(node for node in found if node is not None))

    def width(self, number: int) -> int:
        """Return how many inputs and outputs the nodes of a step have that is to be drawn."""
        cast = self.casts[number]
        nodes = (*cast.site, *cast.absorbed, *cast.adjusted, *cast.passed)
        return sum(len(node.inputs) + len(node.outputs) for node in nodes)

    def became(self, node: ir.Node) -> ir.Node | None:
        """Return the node of the folded model that a node of the original is, if any."""
        if node not in self._became:
            self._became[node] = self._find_again(node)
        return self._became[node]

    def _find_again(self, node: ir.Node) -> ir.Node | None:
        name = name_of(node)
        found = self.after.by_name.get(name, []) if node.name else []
        if found and len(self.before.by_name[name]) == 1:
            return found[0]
        home = self.before.home[node.graph]
        near = [other for other in found if self.after.home[other.graph] == home]
        alike = [n for n in self.before.by_name[name] if n.graph is node.graph]
        if near and len(alike) == 1:
            return near[0]
        return self._by_values(node)

    def _by_values(self, node: ir.Node) -> ir.Node | None:
        """Find a node whose name says nothing by what it writes, or maps behind it wrote."""
        behind = reached([node], self.before.takers, self.left_by.__contains__)
        for writer in (node, *behind):
            for value in writer.outputs:
                maker = self.after.maker.get(value.name or "")
                if maker is None or maker.name != node.name:
                    continue
                if are_akin(maker.op_type, node.op_type):
                    return maker
        return None

    def heirs(self, node: ir.Node, number: int) -> Iterator[ir.Node]:
        """Yield what is left of a node that took a map: itself, or what took it later on."""
        pending, seen = [(node, number)], {node}
        while pending:
            current, since = pending.pop(0)
            found = self.became(current)
            if found is not None:
                yield found
                continue
            for later in (n for n in self.left_by.get(current, ()) if n > since):
                takers = [n for n in self.casts[later].absorbed if n not in seen]
                seen.update(takers)
                pending.extend((taker, later) for taker in takers)

    def is_gone(self, node: ir.Node) -> bool:
        """Return whether a node of the original is no more."""
        return self.became(node) is None

    def is_orphan(self, node: ir.Node) -> bool:
        """Return whether a node is no more, though no step names it: it went with others."""
        return node not in self.left_by and self.is_gone(node)

    def is_new(self, node: ir.Node) -> bool:
        """Return whether a node of the folded model was made by the fold."""
        return bool(node.name) and node.name not in self.before.by_name


def _from_its_ends(route: Sequence[str]) -> list[str]:
    """Return the names of a route so that the middle of a long one comes last."""
    pairs = zip(route, reversed(route), strict=True)
    return list(dict.fromkeys(name for pair in pairs for name in pair))


def _of_step(album: _Album, number: int) -> tuple[Patch, Patch]:
    roles = _before(album, number)
    later = _after(album, number, roles)
    return cut_out(album.before, roles), cut_out(album.after, later)


def _before(album: _Album, number: int) -> Roles:
    """Return the nodes of the original around a fold."""
    step, cast = album.steps[number], album.casts[number]
    core = _roles(step, cast)
    between = _between(album, core)
    roles = core | dict.fromkeys(between, Role.GONE)
    for node in _neighbours(album.before, roles):
        roles[node] = Role.GONE if album.is_gone(node) else Role.BESIDE
    return roles


def _roles(step: Step, cast: _Cast) -> Roles:
    """Return what the nodes that a step names have to do with it."""
    # What took no constant was only put elsewhere, e.g. the nodes of a branch.
    took = bool(step.tensors or step.routes)
    absorbed = set(cast.absorbed)
    # Of maps that stood in a row, those that stay took the others in.
    remains = took and not absorbed.issuperset(cast.site)
    site = [node for node in cast.site if not (remains and node in absorbed)]
    roles = dict.fromkeys(ends_first(site), Role.SITE)
    for nodes, role in (
        (ends_first(cast.absorbed), Role.ABSORBED if took else Role.PASSED),
        (cast.adjusted, Role.CHANGED),
        (cast.passed, Role.PASSED),
    ):
        for node in nodes:
            roles.setdefault(node, role)
    return roles


def _between(album: _Album, core: Roles) -> list[ir.Node]:
    """Return nodes that are no more and join those of a step, or left with it."""
    atlas = album.before
    up = reached(core, atlas.makers, album.is_gone)
    down = reached(core, atlas.takers, album.is_gone)
    lost = reached(core, lambda n: (*atlas.makers(n), *atlas.takers(n)), album.is_orphan)
    return list(dict.fromkeys((*(node for node in up if node in down), *lost)))


def _neighbours(atlas: Atlas, roles: Roles) -> list[ir.Node]:
    """Return what stands right before and after nodes; the outermost ones first, in turn."""
    nodes = sorted(roles, key=atlas.place.__getitem__)
    ahead = dict.fromkeys(n for node in nodes for n in atlas.makers(node))
    behind = dict.fromkeys(n for node in reversed(nodes) for n in atlas.takers(node))
    turns = [node for pair in zip(ahead, behind, strict=False) for node in pair]
    return [n for n in dict.fromkeys((*turns, *ahead, *behind)) if n not in roles]


def _after(album: _Album, number: int, roles: Roles) -> Roles:
    """Return what became of the nodes around a fold, and what stands there now."""
    step, cast = album.steps[number], album.casts[number]
    later: Roles = {}
    for node, role in roles.items():
        if role in (Role.SITE, Role.ABSORBED):
            absorbed = role is Role.ABSORBED or node in cast.absorbed
            heirs = album.heirs(node, number) if absorbed else [album.became(node)]
            for heir in (h for h in heirs if h is not None):
                same = absorbed and role is Role.ABSORBED and heir.op_type == node.op_type
                later.setdefault(heir, Role.ABSORBED if same else Role.CHANGED)
        elif role is not Role.BESIDE:
            kept = album.became(node)
            if kept is not None:
                later.setdefault(kept, role)
    _add_strangers(album, step, later)
    _add_rewritten(album, number, later)
    beside = [album.became(node) for node, role in roles.items() if role is Role.BESIDE]
    if not later and not any(beside):
        beside = [heir for node in roles for heir in album.heirs(node, number)]
    for node in (*(n for n in beside if n is not None), *_neighbours(album.after, later)):
        later.setdefault(node, Role.CHANGED if album.is_new(node) else Role.BESIDE)
    return later


def _add_rewritten(album: _Album, number: int, roles: Roles) -> None:
    """Add the operators that nodes without a name became: they write the same values."""
    step, cast = album.steps[number], album.casts[number]
    for node in cast.site:
        for value in () if node.name else node.outputs:
            maker = album.after.maker.get(value.name or "")
            if maker and not maker.name and maker.op_type in (*step.left, step.rule):
                roles.setdefault(maker, Role.CHANGED)


def _add_strangers(album: _Album, step: Step, roles: Roles) -> None:
    """Add the nodes that a step names and that the original did not have."""
    named = (
        (step.absorbed_by, Role.ABSORBED),
        (step.adjusted, Role.CHANGED),
        ((name for route in step.routes for name in route), Role.PASSED),
    )
    for names, role in named:
        for name in names:
            if name not in album.before.by_name:
                for node in album.after.by_name.get(name, ())[:1]:
                    roles.setdefault(node, role)


def _of_function(calls: Atlas, album: _Album, step: Step) -> tuple[Patch, Patch]:
    """Return the first call of a function, and the nodes that it became."""
    names = set(step.site)
    call = next((node for node in calls.place if node.op_type in names), None)
    if call is None:
        return Patch((), ()), Patch((), ())
    roles: Roles = {call: Role.SITE}
    roles.update(dict.fromkeys(_neighbours(calls, roles), Role.BESIDE))
    ends = [album.before.maker.get(value.name or "") for value in call.outputs]
    known = calls.by_name
    inside = [end for end in ends if end is not None and name_of(end) not in known]
    rest = reached(inside, album.before.makers, lambda node: name_of(node) not in known)
    later: Roles = {}
    for node in (*inside, *rest):
        heir = album.became(node)
        if heir is not None:
            later[heir] = Role.CHANGED
    beside = [album.after.find(name_of(n)) for n, r in roles.items() if r is Role.BESIDE]
    for heir in (*beside, *_neighbours(album.after, later)):
        if heir is not None:
            later.setdefault(heir, Role.BESIDE)
    return cut_out(calls, roles), cut_out(album.after, later)
