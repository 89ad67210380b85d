"""Plan how terms of one sum that are linear in one value become one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.folding.compose import Remainder, write_as
from bnfold.folding.merging import convolutions, products, rows
from bnfold.folding.merging.convolutions import Convolution
from bnfold.folding.merging.products import Product, Summand
from bnfold.folding.merging.sums import Reader, Removal, Sum, Term, removal
from bnfold.folding.ranges import check_ranges
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, SetConstant, name_of
from bnfold.storable import shrinks

_TRIED: Final = 4
"""So many terms are tried as the one that stays: bounded work for every sum."""


@dataclass(frozen=True, slots=True, eq=False)
class Merge:
    """Terms of a sum that become one term.

    Attributes:
        found: The sum.
        kept: The term that stays; its operator or map becomes the sum of all.
        gone: The terms that leave.
        removal: What that does to the nodes of the sum.
        edits: The constants and attributes that say so.
        remainder: What becomes of the map of the term that stays; None: it leaves.
    """

    found: Sum
    kept: Term
    gone: tuple[Term, ...]
    removal: Removal
    edits: tuple[Edit, ...] = ()
    remainder: Remainder | None = None


def plan_sum(found: Sum, reader: Reader, facts: Facts) -> Merge | Refusal:
    """Return the first merge that a sum allows, or why there is none.

    Terms of one operator come first; then those of several in a row join what stands beside
    them: the row as one operator may be dearer, and the sum of both is not.
    """
    terms = reader.terms(found)
    plan = _plan(found, terms, (), facts)
    if isinstance(plan, Refusal):
        deeper = [longer for term in terms for longer in reader.longer(term)]
        plan = _plan(found, terms, deeper, facts) if deeper else plan
    return plan


def _plan(
    found: Sum, terms: Sequence[Term], deeper: Sequence[Term], facts: Facts
) -> Merge | Refusal:
    by_source: dict[ir.Value, list[Term]] = {}
    for term in (*terms, *deeper):
        by_source.setdefault(term.source, []).append(term)
    refusal = Refusal(Code.NO_GAIN, name_of(found.root), "its terms have no value in common")
    for alike in by_source.values():
        if deeper and not any(term.front for term in alike):
            continue  # what these allow is known
        for plan in (_convolutions, _products, _maps) if len(alike) > 1 else ():
            outcome = plan(found, alike, facts)
            if isinstance(outcome, Merge):
                return outcome
            refusal = outcome
    return refusal


def _others(kept: Term, terms: Iterable[Term]) -> list[Term]:
    return [term for term in terms if term is not kept]


def _leave(
    found: Sum, kept: Term, gone: Sequence[Term], facts: Facts
) -> tuple[Removal, list[Term]] | Refusal:
    """Return how terms leave the sum: all of them, or else those that can one by one."""
    whole = removal(found, [term.place for term in gone], facts, kept.place)
    if whole is not None and gone:
        return whole, list(gone)
    chosen: list[Term] = []
    last: Removal | None = None
    for term in sorted(gone, key=lambda term: term.place.sign):
        places = [*(one.place for one in chosen), term.place]
        outcome = removal(found, places, facts, kept.place)
        if outcome is not None:
            last = outcome
            chosen.append(term)
    if last is None:
        why = "what is left of the sum would need another operator"
        return Refusal(Code.NO_GAIN, name_of(found.root), why)
    return last, chosen


# ---------------------------------------------------------------------- convolutions


def _convolutions(found: Sum, terms: Sequence[Term], facts: Facts) -> Merge | Refusal:
    """Write the terms of a value into one of its convolutions."""
    read = dict(_read_convolutions(terms, facts))
    order = sorted(read, key=lambda term: -read[term].work)
    refusal = Refusal(Code.NO_GAIN, name_of(found.root), "no term is a convolution")
    for kept in [term for term in order if not (term.chain or term.front)][:_TRIED]:
        outcome = _into_convolution(found, kept, read, terms, facts)
        if isinstance(outcome, Merge):
            return outcome
        refusal = outcome
    return refusal


def _read_convolutions(
    terms: Iterable[Term], facts: Facts
) -> Iterator[tuple[Term, Convolution]]:
    for term in terms:
        if term.operator is None or term.operator.op_type != "Conv":
            continue
        conv = rows.read_convolutions(term.row, facts)
        if isinstance(conv, Refusal) or term.affine.axis not in (None, 1):
            continue
        yield term, conv.mapped(term.affine)


def _into_convolution(
    found: Sum,
    kept: Term,
    read: dict[Term, Convolution],
    terms: Sequence[Term],
    facts: Facts,
) -> Merge | Refusal:
    own, node = read[kept], kept.operator
    if node is None:
        return Refusal(Code.NO_GAIN, name_of(found.root), "a map cannot take a convolution")
    rank = len(own.form.windows)
    parts = dict(_as_convolutions(own, rank, read, _others(kept, terms)))
    sizes = convolutions.input_sizes(node, rank, facts)
    chosen = _affordable(own, parts, sizes)
    if isinstance(chosen, Refusal):
        return chosen
    leaving = _leave(found, kept, chosen, facts)
    if isinstance(leaving, Refusal):
        return leaving
    out, gone = leaving
    again = _affordable(own, {term: parts[term] for term in gone}, sizes)
    if isinstance(again, Refusal) or len(again) < len(gone):
        why = "the terms that can leave are dearer as one convolution"
        return Refusal(Code.NO_GAIN, name_of(found.root), why)
    form = own.form
    for term in gone:
        form = form.joined(parts[term].form)
    signed = [(kept.place.sign * term.place.sign, parts[term]) for term in gone]
    edits = convolutions.sum_edits(node, own, [(1.0, own), *signed], form)
    fault = check_ranges(edits) or _check_size(node, edits, own)
    return fault or Merge(found, kept, tuple(gone), out, tuple(edits))


def _as_convolutions(
    own: Convolution, rank: int, read: dict[Term, Convolution], terms: Iterable[Term]
) -> Iterator[tuple[Term, Convolution]]:
    """Yield terms as convolutions of the same type, those with most work first."""
    found: list[tuple[Term, Convolution]] = []
    for term in terms:
        conv: Convolution | Refusal | None = read.get(term)
        if term.operator is None and own.form.inputs == own.form.outputs:
            conv = convolutions.map_as_convolution(term.affine, own.form.inputs, rank)
        if isinstance(conv, Convolution) and conv.dtype in (None, own.dtype):
            found.append((term, conv))
    yield from sorted(found, key=lambda pair: -pair[1].work)


def _affordable(
    own: Convolution, parts: dict[Term, Convolution], sizes: Sequence[int | None]
) -> list[Term] | Refusal:
    """Return the terms that one convolution can take without more work than they are."""
    form, work = own.form, own.work
    chosen: list[Term] = []
    refusal = Refusal(Code.NO_GAIN, "", "no other term fits")
    for term, conv in parts.items():
        joined = convolutions.joined_form(form, work, conv, sizes)
        if isinstance(joined, Refusal):
            refusal = joined
            continue
        form, work = joined, joined.work
        chosen.append(term)
    return chosen or refusal


def _check_size(
    node: ir.Node, edits: Iterable[Edit], own: Convolution | Product
) -> Refusal | None:
    """Refuse a sum whose terms cancel so far that its type cannot hold the rest."""
    for edit in edits:
        if isinstance(edit, SetConstant) and edit.channels is not None:
            dtype = edit.dtype.numpy()
            if shrinks(edit.expression, own.weight, dtype):
                why = f"the sum is below the normal range of {dtype.name}"
                return Refusal(Code.OUT_OF_RANGE, name_of(node), why)
    return None


# -------------------------------------------------------------------------- products


def _products(found: Sum, terms: Sequence[Term], facts: Facts) -> Merge | Refusal:
    """Write the terms of a value into one of its products with a matrix."""
    read: dict[Term, Product] = {}
    for term in terms:
        if term.operator is not None and term.operator.op_type in ("MatMul", "Gemm"):
            product = rows.read_products(term.row, facts)
            if isinstance(product, Product):
                read[term] = product
    refusal = Refusal(Code.NO_GAIN, name_of(found.root), "no term is a product")
    direct = [term for term in read if not term.front]
    for kept in sorted(direct, key=_taking_shifts)[:_TRIED]:
        for shifts in (True, False):
            outcome = _into_product(found, kept, read, terms, facts, shifts=shifts)
            if isinstance(outcome, Merge):
                return outcome
            refusal = outcome
    return refusal


def _taking_shifts(term: Term) -> int:
    """Order terms by how easily they take a shift: a Gemm, a product with its own, others."""
    is_gemm = term.operator is not None and term.operator.op_type == "Gemm"
    return (0 if not term.chain else 1) if is_gemm else (1 if term.chain else 2)


def _into_product(
    found: Sum,
    kept: Term,
    read: dict[Term, Product],
    terms: Sequence[Term],
    facts: Facts,
    *,
    shifts: bool,
) -> Merge | Refusal:
    own = read[kept]
    parts = _summands(kept, read, [kept, *_others(kept, terms)], facts)
    if isinstance(parts, Refusal):
        return parts
    fitting = [t for t in parts if t is not kept and (shifts or not parts[t].added().any())]
    leaving = _leave(found, kept, fitting, facts)
    if isinstance(leaving, Refusal):
        return leaving
    out, gone = leaving
    signed = [parts[kept], *(parts[term] for term in gone)]
    added = np.sum([part.added() for part in signed], axis=0)
    return _written(Merge(found, kept, tuple(gone), out), own, signed, added, facts)


def _summands(
    kept: Term, read: dict[Term, Product], terms: Iterable[Term], facts: Facts
) -> dict[Term, Summand] | Refusal:
    own = read[kept]
    rank = facts.rank(kept.source)
    axis = None if rank is None else max(rank - (1 if own.index else 2), 0)
    parts: dict[Term, Summand] = {}
    for term in terms:
        product = read.get(term)
        if product is None and term.operator is not None:
            continue
        if product is not None and not product.fits(own):
            continue
        sign = term.place.sign * kept.place.sign
        part = products.summand(sign, product, term.affine, own, axis)
        if isinstance(part, Summand):
            parts[term] = part
    if kept not in parts:
        return Refusal(Code.WRONG_AXIS, "", "its own map is not one of its outputs")
    return parts


def _written(
    merge: Merge, own: Product, parts: Sequence[Summand], added: np.ndarray, facts: Facts
) -> Merge | Refusal:
    """Say where the shift goes: into the map behind the product, or its addend."""
    kept, node = merge.kept, merge.kept.operator
    if node is None:
        return Refusal(Code.NO_GAIN, "", "a map cannot take a product")
    remainder: Remainder | Refusal | None = None
    inside: np.ndarray | None = added
    if kept.chain and added.any() and not _takes_addend(kept, own, facts):
        rank = facts.rank(node.outputs[0])
        if rank is None:
            return Refusal(
                Code.UNKNOWN_SHAPE, name_of(node), "the rank of its result is unknown"
            )
        left = Affine.per_channel(rank - (1 if own.index else 2), 1.0, added)
        remainder, inside = write_as(kept.chain_as_site(), left, facts), None
    elif added.any() and not _takes_addend(kept, own, facts):
        why = "a product of stacked matrices has no addend that could take the shift"
        return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
    if isinstance(remainder, Refusal):
        return remainder
    edits = products.sum_edits(node, own, parts, inside)
    behind = () if remainder is None else remainder.edits
    fault = check_ranges([*edits, *behind]) or _check_size(node, edits, own)
    return fault or Merge(
        merge.found, kept, merge.gone, merge.removal, tuple(edits), remainder
    )


def _takes_addend(kept: Term, own: Product, facts: Facts) -> bool:
    """Return whether the product is a Gemm or computes what one does: matrices, W behind."""
    if kept.operator is not None and kept.operator.op_type == "Gemm":
        return True
    return own.index == 1 and len(own.shape) == 2 and facts.rank(kept.source) == 2


# ------------------------------------------------------------------------------ maps


def _maps(found: Sum, terms: Sequence[Term], facts: Facts) -> Merge | Refusal:
    """Write maps of one value as one map of it."""
    maps = [term for term in terms if term.operator is None]
    order = sorted((term for term in maps if term.chain), key=lambda t: -len(t.chain))
    refusal = Refusal(Code.NO_GAIN, name_of(found.root), "no two terms map the value")
    for kept in order[:_TRIED] if len(maps) > 1 else ():
        outcome = _into_map(found, kept, _others(kept, maps), facts)
        if isinstance(outcome, Merge):
            return outcome
        refusal = outcome
    return refusal


def _into_map(found: Sum, kept: Term, others: Sequence[Term], facts: Facts) -> Merge | Refusal:
    fitting: list[Term] = []
    whole = kept.affine
    for term in others:
        if whole.composes_with(term.affine):
            fitting.append(term)
            whole = _plus(whole, term.affine, 1.0)
    leaving = _leave(found, kept, fitting, facts)
    if isinstance(leaving, Refusal):
        return leaving
    out, gone = leaving
    whole = kept.affine
    for term in gone:
        whole = _plus(whole, term.affine, kept.place.sign * term.place.sign)
    remainder = write_as(kept.chain_as_site(), whole, facts)
    if isinstance(remainder, Refusal):
        return remainder
    fault = check_ranges(remainder.edits)
    return fault or Merge(found, kept, tuple(gone), out, (), remainder)


def _plus(one: Affine, other: Affine, sign: float) -> Affine:
    axis = one.axis if other.axis is None else other.axis
    return Affine.per_channel(
        axis, one.scale + sign * other.scale, one.shift + sign * other.shift
    )
