"""Which sizes the inputs of a model have when a fold of it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class InputSizes:
    """The shape of one input that a check would begin with, and where it comes from.

    Attributes:
        name: The input.
        shape: Its shape; null if no numbers can be drawn for it.
        decided: For axes that the interface leaves open, the node that decides their size, by
            the number of the axis.
        assumed: Axes that nothing decides: the size is the first that is tried.
        use: What its numbers are: any numbers, an index, a mask, a length …
        why: Why no numbers can be drawn; empty where they can.
    """

    name: str
    shape: tuple[int, ...] | None
    decided: Mapping[str, str] = field(default_factory=dict)
    assumed: tuple[int, ...] = ()
    use: str = ""
    why: str = ""
