"""Describe each normalisation of a model: over which axes, by which statistics, what folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import onnx_ir as ir

from bnfold.folding.spelled_norms import grouped_by_reshape, spelled_at
from bnfold.model.attributes import int_attr, ints_attr
from bnfold.model.facts import Facts
from bnfold.records import Normalisation, Refusal
from bnfold.rules.base import name_of
from bnfold.rules.batch_norm import normalises_by_batch
from bnfold.rules.group_norm import groups_of, is_per_channel
from bnfold.rules.layer_norm import first_axis

_MVN_AXES: Final = (0, 2, 3)
_FROM_DATA: Final = (
    "The normalisation itself stays: its mean and variance are computed from the data, and a"
    " scale in front changes them by more than epsilon can make up for unless it is the same"
    " everywhere."
)
_TAIL: Final = (
    "Maps behind it go into its {own}, along {along}; {shift} in front cancels; its {own} can"
    " go into the layers behind it (--norms)."
)


def describe_normalisations(facts: Facts) -> tuple[Normalisation, ...]:
    """Return what is to be said of each normalisation, in graph order."""
    found = (
        _DESCRIBE[node.op_type](node, facts)
        for node in facts.nodes()
        if node.op_type in _DESCRIBE and facts.is_standard(node)
    )
    return tuple(entry for entry in found if entry is not None)


def _batch(node: ir.Node, facts: Facts) -> Normalisation:
    axes = _axes_but_channels(node, facts)
    unknown = [c for v in node.inputs[1:5] if isinstance(c := facts.constant(v), Refusal)]
    if unknown and not normalises_by_batch(node, facts):
        why = f"Its parameters are no constants of the model: {unknown[0].why}."
        return _norm(node, facts, axes, "Nothing as it stands.", why)
    if not normalises_by_batch(node, facts):
        return _norm(
            node,
            facts,
            axes,
            "All of it: with constant statistics it is one scale and one shift per channel. If"
            " it stays all the same, what stops it is listed with the maps.",
            "",
            constant=True,
        )
    return _norm(
        node,
        facts,
        axes,
        "Nothing as it stands; with --assume-inference all of it, read by its running"
        " statistics.",
        "It was exported in training mode: it normalises by the batch, so its scale and shift"
        " differ from batch to batch.",
    )


def _layer(node: ir.Node, facts: Facts) -> Normalisation:
    tail = _TAIL.format(
        own="scale and bias",
        along="the axes that scale has",
        shift="a shift that is the same over the normalised axes",
    )
    return _norm(node, facts, _trailing(node, facts), tail, _FROM_DATA)


def _rms(node: ir.Node, facts: Facts) -> Normalisation:
    tail = (
        "A scale behind it goes into its scale, along the axes that scale has; its scale can"
        " go into the layers behind it (--norms)."
    )
    without = (
        "No shift: it has no bias and subtracts no mean; the normalisation itself stays, its"
        " mean square is computed from the data."
    )
    return _norm(node, facts, _trailing(node, facts), tail, without)


def _instance(node: ir.Node, facts: Facts) -> Normalisation:
    grouped = grouped_by_reshape(node, facts)
    if grouped is not None:
        return _grouped_by_reshape(node, grouped, facts)
    tail = _TAIL.format(own="scale and bias", along="axis 1", shift="a shift per channel")
    return _norm(node, facts, _spatial(node, facts), tail, _FROM_DATA)


def _grouped_by_reshape(node: ir.Node, data: ir.Value, facts: Facts) -> Normalisation:
    """An InstanceNormalization between two Reshapes: exporters write GroupNormalization so."""
    rank = facts.rank(data)
    inner = None if node.inputs[0] is None else facts.dim(node.inputs[0], 1)
    return Normalisation(
        kind="GroupNormalization, spelled out",
        node=name_of(node),
        axes=() if rank is None else tuple(range(1, rank)),
        shape=facts.shape(data),
        groups=inner if isinstance(inner, int) else None,
        constant_statistics=False,
        can_fold="The Mul and Add behind it fold down into the layer behind, and up into its"
        " scale and bias if they are the same within each group; a shift in front that is the"
        " same within each group cancels.",
        cannot_fold="A map of the channels does not survive the Reshape into groups unless it"
        " is the same within each group; the statistics are computed from the data.",
    )


def _group(node: ir.Node, facts: Facts) -> Normalisation:
    along = "axis 1"
    if not is_per_channel(facts):
        along = "axis 1 if they are the same within each group (one entry per group)"
    shift = "a shift that is the same within each group"
    tail = _TAIL.format(own="scale and bias", along=along, shift=shift)
    axes = _spatial(node, facts)
    axes = (1, *axes) if axes else ()
    return _norm(node, facts, axes, tail, _FROM_DATA, groups=groups_of(node))


def _without_parameters(node: ir.Node, facts: Facts) -> Normalisation:
    rank = _rank(node, facts)
    if node.op_type == "LpNormalization":
        named: Sequence[int] = (int_attr(node, "axis", -1),)
    else:
        named = ints_attr(node, "axes", _MVN_AXES)
    axes = tuple(sorted(axis % rank for axis in named)) if rank else ()
    can = "Nothing: it has no scale or bias of its own, and bnfold has no rule for it."
    return _norm(node, facts, axes, can, "Its statistics are computed from the data.")


def _spelled(root: ir.Node, facts: Facts) -> Normalisation | None:
    spelled = spelled_at(root, facts)
    if spelled is None:
        return None
    kind = "RMSNormalization" if not spelled.centred else "LayerNormalization"
    rank = facts.rank(spelled.data)
    if rank is None or spelled.axes != tuple(range(rank - len(spelled.axes), rank)):
        kind = "normalisation by root mean square" if not spelled.centred else "normalisation"
    return Normalisation(
        kind=f"{kind}, spelled out",
        node=name_of(spelled.node),
        axes=spelled.axes,
        shape=facts.shape(spelled.data),
        groups=None,
        constant_statistics=False,
        can_fold="The Mul and Add behind it are maps like any other: they fold down into the"
        " layers behind where those can take them.",
        cannot_fold="The nodes that compute the statistics from the data stay, and no map goes"
        " up through them.",
    )


def _norm(
    node: ir.Node,
    facts: Facts,
    axes: tuple[int, ...],
    can: str,
    cannot: str,
    *,
    constant: bool = False,
    groups: int | None = None,
) -> Normalisation:
    shape = None if node.inputs[0] is None else facts.shape(node.inputs[0])
    return Normalisation(
        node.op_type, name_of(node), axes, shape, groups, constant, can, cannot
    )


def _rank(node: ir.Node, facts: Facts) -> int | None:
    return None if node.inputs[0] is None else facts.rank(node.inputs[0])


def _spatial(node: ir.Node, facts: Facts) -> tuple[int, ...]:
    rank = _rank(node, facts)
    return () if rank is None else tuple(range(2, rank))


def _axes_but_channels(node: ir.Node, facts: Facts) -> tuple[int, ...]:
    return () if _rank(node, facts) is None else (0, *_spatial(node, facts))


def _trailing(node: ir.Node, facts: Facts) -> tuple[int, ...]:
    first, rank = first_axis(node, facts), _rank(node, facts)
    return () if first is None or rank is None else tuple(range(first, rank))


_DESCRIBE: Final[Mapping[str, Callable[[ir.Node, Facts], Normalisation | None]]] = {
    "BatchNormalization": _batch,
    "GroupNormalization": _group,
    "InstanceNormalization": _instance,
    "LayerNormalization": _layer,
    "LpNormalization": _without_parameters,
    "MeanVarianceNormalization": _without_parameters,
    "RMSNormalization": _rms,
    "Sqrt": _spelled,
}
"""What describes each operator; a Sqrt may be the deviation of a spelled-out one."""
