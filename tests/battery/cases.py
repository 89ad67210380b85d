"""All graphs of the battery, in one list."""

from __future__ import annotations

from tests.battery import (
    axes,
    beyond,
    branches,
    carriers,
    constants,
    control,
    direct,
    functions,
    guards,
    linear,
    oddities,
    parallel,
    paths,
    ranges,
    traps,
)
from tests.battery.graphs import Case

ALL: tuple[Case, ...] = tuple(
    case
    for theme in (
        direct,
        linear,
        constants,
        control,
        functions,
        branches,
        carriers,
        guards,
        axes,
        ranges,
        oddities,
        parallel,
        paths,
        traps,
        beyond,
    )
    for case in theme.cases()
)
