"""Sizes that may be open: polynomials with whole coefficients over symbols, in normal form.

Two sizes that are equal as polynomials are equal whatever number each symbol stands for. What
is no polynomial, such as ``⌊h / 2⌋``, is a symbol of its own, the same for equal operands.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final

_Monomial = tuple[int, ...]
"""Symbols with repetition, in order; () is one."""

_MOST_TERMS: Final = 32
_MOST_FACTORS: Final = 16
_MOST: Final = 1 << 63
"""Bounds on a polynomial, so that it costs no more in a large graph; beyond, it is unknown."""


@dataclass(frozen=True, slots=True)
class Size:
    """A sum of products: monomials and their coefficients, ordered, none of them zero."""

    terms: tuple[tuple[_Monomial, int], ...]

    @staticmethod
    def of(number: int) -> Size:
        """Return a size that is known."""
        return Size((((), number),) if number else ())

    @staticmethod
    def symbol(index: int) -> Size:
        """Return the size that a symbol stands for."""
        return Size((((index,), 1),))

    @property
    def number(self) -> int | None:
        """The size where it is known, None where it is open."""
        if not self.terms:
            return 0
        return self.constant if self.terms[-1][0] == () else None

    @property
    def constant(self) -> int:
        """The coefficient that stands alone."""
        return next((factor for monomial, factor in self.terms if not monomial), 0)

    @property
    def only_symbol(self) -> int | None:
        """The symbol that the size is, None where it is anything else."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            return self.terms[0][0][0]
        return None

    def residue(self, divisor: int) -> int | None:
        """Return the remainder of a division, None where it depends on a symbol."""
        if any(monomial and factor % divisor for monomial, factor in self.terms):
            return None
        return self.constant % divisor


Maybe = Size | None
"""A size, or None where nothing is known of it."""


def _normal(terms: Counter[_Monomial]) -> Maybe:
    kept = tuple(sorted((m, factor) for m, factor in terms.items() if factor))
    fits = len(kept) <= _MOST_TERMS and all(
        len(monomial) <= _MOST_FACTORS and abs(factor) < _MOST for monomial, factor in kept
    )
    return Size(kept) if fits else None


def add(left: Maybe, right: Maybe) -> Maybe:
    """Return the sum of two sizes."""
    if left is None or right is None:
        return None
    terms = Counter(dict(left.terms))
    for monomial, factor in right.terms:
        terms[monomial] += factor
    return _normal(terms)


def multiply(left: Maybe, right: Maybe) -> Maybe:
    """Return the product of two sizes; zero times what is unknown is unknown."""
    if left is None or right is None:
        return None
    terms: Counter[_Monomial] = Counter()
    for first, factor in left.terms:
        for second, other in right.terms:
            terms[tuple(sorted(first + second))] += factor * other
    return _normal(terms)


def times(size: Maybe, number: int) -> Maybe:
    """Return a size ``number`` times."""
    return multiply(size, Size.of(number))


def plus(size: Maybe, number: int) -> Maybe:
    """Return a size and ``number`` more."""
    return add(size, Size.of(number))


def product(sizes: Iterable[Maybe]) -> Maybe:
    """Return how many elements a block of these sizes has."""
    total: Maybe = Size.of(1)
    for size in sizes:
        total = multiply(total, size)
    return total


def quotient(whole: Maybe, part: Maybe) -> Maybe:
    """Return ``whole / part`` where that is a polynomial, for a part that is one product."""
    if whole is None or part is None or len(part.terms) != 1:
        return None
    (monomial, factor), terms = part.terms[0], Counter[_Monomial]()
    for of_whole, coefficient in whole.terms:
        left = Counter(of_whole)
        left.subtract(monomial)
        if coefficient % factor or any(count < 0 for count in left.values()):
            return None
        terms[tuple(sorted(left.elements()))] = coefficient // factor
    return _normal(terms)


class Symbols:
    """The symbols of one model: what each stands for, the same one for the same meaning."""

    def __init__(self) -> None:
        self._index: dict[Hashable, int] = {}
        self._names: dict[int, str] = {}
        self._quotients: dict[int, tuple[Size, int]] = {}
        self._signed: set[int] = set()

    def named(self, name: str) -> Size:
        """Return the size that a model calls ``name``."""
        index = self._of(name)
        self._names[index] = name
        return Size.symbol(index)

    def unknown(self, value: Hashable, axis: int) -> Size:
        """Return the size of a value along an axis, of which nothing else is known."""
        return Size.symbol(self._of((value, axis)))

    def name(self, size: Size) -> str | None:
        """Return what the model calls a size, None where it has no name for it."""
        index = size.only_symbol
        return None if index is None else self._names.get(index)

    def floor_divided(self, size: Maybe, divisor: int) -> Maybe:
        """Return ``⌊size / divisor⌋`` for a divisor > 0, in one form however it is written.

        Multiples of the divisor stand outside, common factors are gone, and a quotient of a
        quotient is one: ``⌊(h − 1) / 2⌋ + 1 = ⌊(h + 1) / 2⌋``.
        """
        if size is None or not 0 < divisor < _MOST:
            return None
        whole = {m: factor // divisor for m, factor in size.terms}
        rest = {m: factor % divisor for m, factor in size.terms if factor % divisor}
        outside, inside = _normal(Counter(whole)), _normal(Counter(rest))
        if inside is None or inside.number is not None:
            return outside
        return add(outside, self._proper_quotient(inside, divisor))

    def _proper_quotient(self, size: Size, divisor: int) -> Maybe:
        inner = self._of_quotient(size)
        if inner is not None:
            (dividend, first), shift = inner, size.constant
            return self.floor_divided(plus(dividend, shift * first), first * divisor)
        common = math.gcd(divisor, *(factor for monomial, factor in size.terms if monomial))
        if common > 1:
            terms = {monomial: factor // common for monomial, factor in size.terms}
            return self.floor_divided(_normal(Counter(terms)), divisor // common)
        index = self._of(("quotient", size, divisor))
        self._quotients[index] = (size, divisor)
        if not self.is_never_negative(size):
            self._signed.add(index)
        return Size.symbol(index)

    def _of_quotient(self, size: Size) -> tuple[Size, int] | None:
        """Return what is divided by what in ``⌊… / …⌋ + constant``."""
        open_terms = [(monomial, factor) for monomial, factor in size.terms if monomial]
        if len(open_terms) != 1 or open_terms[0][1] != 1 or len(open_terms[0][0]) != 1:
            return None
        return self._quotients.get(open_terms[0][0][0])

    def computed(self, operator: str, left: Maybe, right: Maybe) -> Maybe:
        """Return what an operator of no form of its own gives for two sizes."""
        if left is None or right is None:
            return None
        index = self._of((operator, left, right))
        if not (self.is_never_negative(left) and self.is_never_negative(right)):
            self._signed.add(index)
        return Size.symbol(index)

    def is_never_negative(self, size: Size) -> bool:
        """Return whether a size is zero or more for sure."""
        return all(
            factor > 0 and self._signed.isdisjoint(monomial) for monomial, factor in size.terms
        )

    def _of(self, meaning: Hashable) -> int:
        return self._index.setdefault(meaning, len(self._index))
