"""The part of a graph around a fold, before and after, as plain data for a drawing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a node has to do with a fold."""

    SITE = "site"
    """It was the map."""
    ABSORBED = "absorbed"
    """Its constants took (a part of) the map."""
    PASSED = "passed"
    """The map went through it and left it as it was."""
    CHANGED = "changed"
    """It was written anew, or is new: the rest of a site, an adjusted reader."""
    GONE = "gone"
    """It left too: with the map, or by another fold."""
    BESIDE = "beside"
    """It stands next to these."""


@dataclass(frozen=True, slots=True)
class Box:
    """One node of the picture.

    Attributes:
        name: Name of the node, as in the steps of the report.
        kind: Its operator.
        role: What it has to do with the fold.
    """

    name: str
    kind: str
    role: Role


@dataclass(frozen=True, slots=True)
class Wire:
    """A value that goes from one node to another.

    Attributes:
        source: Index of the box that makes it; None where it comes from outside the picture.
        target: Index of the box that reads it; None where it goes outside the picture.
        value: Its name.
        shape: As text, e.g. ``N×64×56×56``; empty if unknown.
        through: How many nodes that the picture leaves out lie on the way.
    """

    source: int | None
    target: int | None
    value: str
    shape: str = ""
    through: int = 0


@dataclass(frozen=True, slots=True)
class Patch:
    """The nodes around a fold on one side of it; boxes in graph order.

    Attributes:
        boxes: The nodes.
        wires: The values between them, and to and from the rest of the graph.
        hidden: How many more nodes belong to it that the picture leaves out.
    """

    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """The graph around one fold, before and after.

    Attributes:
        before: In the original.
        after: In the folded model.
        step: Index of the step in `FoldReport.steps`.
        pattern: A word that is the same for folds whose pictures differ in names only.
    """

    before: Patch
    after: Patch
    step: int
    pattern: str
