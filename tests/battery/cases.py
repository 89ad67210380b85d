"""All graphs of the battery, in one list."""

from __future__ import annotations

from tests.battery import (
    axes,
    beyond,
    branches,
    carriers,
    constants,
    direct,
    guards,
    linear,
    norms,
    oddities,
    ranges,
    traps,
)
from tests.battery.graphs import Case

ALL: tuple[Case, ...] = tuple(
    case
    for theme in (
        direct,
        linear,
        norms,
        constants,
        branches,
        carriers,
        guards,
        axes,
        ranges,
        oddities,
        traps,
        beyond,
    )
    for case in theme.cases()
)
