"""Certificates forged to acquit a spoiled fold: everything in them fits the spoiled file."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

import bnfold
from benchmarks.campaign.subject import Mutant
from bnfold.evidence.proof.certificate import Certificate, Relation, TensorChange
from bnfold.evidence.proof.changes import changed_nodes, changed_tensors
from bnfold.evidence.proof.contents import contents_of
from bnfold.folding.recipes import recipes_of
from bnfold.model.io import opened
from bnfold.records import CONSTANT_INPUTS, INFERENCE, REQUANTIZED
from tests.mutants.tampering import packed, sealed

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Accused:
    """A spoiled fold that a certificate is forged for.

    Attributes:
        original: The model before.
        mutant: The spoiled fold.
        result: The right fold.
        relations: What its certificate says of values that are not the same.
    """

    original: onnx.ModelProto
    mutant: Mutant
    result: bnfold.FoldResult
    relations: tuple[Relation, ...] = ()


def rewritten(accused: Accused) -> str:
    """Return what a dishonest folder hands out: digests and changes are those of the spoiled.

    Of wrong tensors nothing is told, as an honest recipe would not give them.
    """
    return silence(accused)


def _recipes(accused: Accused) -> dict[str, Mapping[str, Any]]:
    return dict(recipes_of(accused.result.model))


def _written(accused: Accused, recipes: Mapping[str, Mapping[str, Any]]) -> str:
    """Write down what changed, as a folder that lies would: only the recipes are claims."""
    before = contents_of(opened(accused.original))
    after = contents_of(opened(accused.mutant.model))
    changes = changed_tensors(before, after)
    return Certificate(
        original=before.digest,
        folded=after.digest,
        header=(before.header, after.header),
        assumptions=(),
        folds=accused.result.report.steps,
        nodes=changed_nodes(before, after),
        tensors=tuple(TensorChange(one, recipes.get(one.name)) for one in changes),
        values=accused.relations,
    ).to_json()


def _stored(accused: Accused) -> dict[str, np.ndarray[Any, Any]]:
    return {
        one.name: numpy_helper.to_array(one).astype(np.float64)
        for one in accused.mutant.model.graph.initializer
        if numpy_helper.to_array(one).dtype.kind in "fV"
    }


def honest(accused: Accused) -> str:
    """Return a certificate with the recipes of the right fold, which do not hold."""
    return _written(accused, _recipes(accused))


def lies(accused: Accused) -> str:
    """Return a certificate whose recipes are the wrong numbers themselves."""
    stored = _stored(accused)
    names = accused.mutant.tensors or tuple(stored)
    told = {name: {"numbers": stored[name]} for name in names if name in stored}
    return _written(accused, {**_recipes(accused), **told})


def silence(accused: Accused) -> str:
    """Return a certificate that tells no recipe of the wrong tensors."""
    told = _recipes(accused)
    for name in accused.mutant.tensors:
        told.pop(name, None)
    return _written(accused, told)


def muteness(accused: Accused) -> str:
    """Return a certificate without any recipe."""
    return _written(accused, {})


def scaled(accused: Accused) -> str:
    """Return a certificate whose recipes are products of original and a made-up factor."""
    stored, told = _stored(accused), _recipes(accused)
    before = {
        one.name: numpy_helper.to_array(one).astype(np.float64)
        for one in accused.original.graph.initializer
        if numpy_helper.to_array(one).dtype.kind in "fV"
    }
    for name in accused.mutant.tensors:
        source = before.get(name)
        if source is not None and name in stored and source.shape == stored[name].shape:
            with np.errstate(all="ignore"):
                factor = np.where(source == 0, 0.0, stored[name] / source)
            told[name] = {"product": {"value": name}, "factors": [factor]}
    return _written(accused, told)


def mapped(accused: Accused) -> str:
    """Return a certificate whose recipes are a map of nothing: 0·x + the wrong numbers."""
    stored, told = _stored(accused), _recipes(accused)
    for name in accused.mutant.tensors:
        if name in stored:
            settings = {"scale": np.array(0.0), "shift": stored[name]}
            source = {"numbers": np.zeros_like(stored[name])}
            told[name] = {"made": "map", "settings": settings, "of": [source]}
    return _written(accused, told)


# ------------------------------------------------------------- edits of what was written

Edit = Callable[[Body, np.random.Generator], None]


def _no_folds(body: Body, _: np.random.Generator) -> None:
    body["folds"] = []


def _no_values(body: Body, _: np.random.Generator) -> None:
    body["values"] = []


def _all_lost(body: Body, _: np.random.Generator) -> None:
    names = {one["name"] for one in body["values"]} | {one["name"] for one in body["nodes"]}
    body["values"] = [
        {"name": name, "axis": None, "scale": None, "shift": None} for name in names
    ]


def _all_mapped(body: Body, rng: np.random.Generator) -> None:
    for one in body["values"]:
        number = packed(np.array([float(rng.choice([3.0, -1.0, 0.0]))]))
        zero = packed(np.array([0.0]))
        one |= {
            "axis": None,
            "scale": {"shape": [1], "float64": number},
            "shift": {"shape": [1], "float64": zero},
        }


def _assumed(*words: str) -> Edit:
    def edit(body: Body, _: np.random.Generator) -> None:
        body["assumptions"] = [*body["assumptions"], *words]

    return edit


def _twice(key: str) -> Edit:
    def edit(body: Body, _: np.random.Generator) -> None:
        body[key] = [*body[key], *deepcopy(body[key])]

    return edit


def _emptied(key: str) -> Edit:
    def edit(body: Body, _: np.random.Generator) -> None:
        body[key] = []

    return edit


def _poisoned(number: float) -> Edit:
    """Every array of every recipe holds one number that is none, or is out of all ranges."""

    def edit(body: Body, _: np.random.Generator) -> None:
        for one in body["tensors"]:
            for array in _arrays(one["recipe"]):
                raw = np.frombuffer(base64.b64decode(array["float64"]), "<f8").copy()
                raw[:1] = number
                array["float64"] = packed(raw)

    return edit


def _arrays(part: Any) -> Iterator[Body]:
    if isinstance(part, dict):
        if part.keys() == {"shape", "float64"}:
            yield part
            return
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from _arrays(inner)


def _misshapen(body: Body, _: np.random.Generator) -> None:
    for one in body["tensors"]:
        for array in _arrays(one["recipe"]):
            array["shape"] = [1, *array["shape"], 1]


def _retyped(body: Body, _: np.random.Generator) -> None:
    for one in body["tensors"]:
        one["recipe"] = {"value": one["name"]}


def _swapped(body: Body, rng: np.random.Generator) -> None:
    recipes = [one["recipe"] for one in body["tensors"]]
    order = np.roll(np.arange(len(recipes)), 1) if len(recipes) > 1 else []
    for one, place in zip(body["tensors"], order, strict=False):
        one["recipe"] = recipes[int(place)]
    _no_values(body, rng)


def _declared_kept(body: Body, _: np.random.Generator) -> None:
    for one in body["tensors"]:
        one["before"] = one["after"]


def _schema(body: Body, _: np.random.Generator) -> None:
    body["schema"] = "bnfold/certificate/99"


EDITS: Final[Mapping[str, Edit]] = {
    "folds emptied": _no_folds,
    "values emptied": _no_values,
    "all values claimed lost": _all_lost,
    "all values claimed mapped": _all_mapped,
    "inference assumed": _assumed(INFERENCE),
    "constant inputs assumed": _assumed(CONSTANT_INPUTS),
    "requantised assumed": _assumed(REQUANTIZED),
    "everything assumed": _assumed(INFERENCE, CONSTANT_INPUTS, REQUANTIZED, "anything"),
    "tensors told twice": _twice("tensors"),
    "nodes told twice": _twice("nodes"),
    "values told twice": _twice("values"),
    "tensors emptied": _emptied("tensors"),
    "nodes emptied": _emptied("nodes"),
    "NaN in recipes": _poisoned(np.nan),
    "inf in recipes": _poisoned(np.inf),
    "huge numbers in recipes": _poisoned(1e300),
    "arrays of another shape": _misshapen,
    "recipes name the tensor itself": _retyped,
    "recipes swapped": _swapped,
    "changes declared as none": _declared_kept,
    "another schema": _schema,
}
WRITERS: Final[Mapping[str, Callable[[Accused], str]]] = {
    "rewritten": rewritten,
    "recipes are the wrong numbers": lies,
    "honest recipes": honest,
    "no recipes": muteness,
    "made-up factors": scaled,
    "a map of nothing": mapped,
}


def dressed(accused: Accused, other: str) -> str:
    """Return another network's certificate with the digests and changes of this one."""
    mine, theirs = json.loads(rewritten(accused)), json.loads(other)
    for key in ("original", "folded", "header", "nodes"):
        theirs[key] = mine[key]
    recipes = {one["name"]: one["recipe"] for one in theirs["tensors"]}
    for one in mine["tensors"]:
        one["recipe"] = recipes.get(one["name"], one["recipe"])
    theirs["tensors"] = mine["tensors"]
    return sealed(theirs)


def forged(accused: Accused, writer: str, edit: str | None, rng: np.random.Generator) -> str:
    """Return a forged certificate: written for the spoiled file, edited, sealed anew."""
    text = WRITERS[writer](accused)
    if edit is None:
        return text
    if edit == "truncated":
        return text[: int(rng.integers(1, len(text) - 1))]
    body = json.loads(text)
    EDITS[edit](body, rng)
    return sealed(body)
