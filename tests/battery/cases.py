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
    norms,
    oddities,
    parallel,
    paths,
    quantised,
    ranges,
    signs,
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
        control,
        functions,
        branches,
        carriers,
        guards,
        axes,
        ranges,
        signs,
        oddities,
        parallel,
        paths,
        quantised,
        traps,
        beyond,
    )
    for case in theme.cases()
)
