"""The published templates' own list of products and order of basis functions, for any even level.

MLIP's files of level 2, 4, ..., 28 all follow one construction, found from the files themselves and
equal to them number by number (levels 6-12, 16, 20 and 22 are tested). Moments are grouped as
tensors: a contraction of up to four moments in which some indices stay open.

- A tensor's *key* is its μ's, then for each of its moments the rank and how many indices it shares
  with each later moment. Of all orders of the moments the one with the smallest key counts.
- A tensor is a product of two smaller ones, cut where the fewest indices are contracted: one moment
  from the rest, the first in order if there are several, or else two from two.
- Tensors are listed by their number of moments, of four those cut in halves first, then by key;
  their components by the axes of their open indices, x before y before z. Components with the same
  products are listed once.

The order of the basis functions is that of their numbers of moments and keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from math import factorial, prod
from random import Random
from typing import NamedTuple, TypeAlias

import numpy as np

from hullscreen.potentials.basis import Basis, check_level, contractions, generate_basis
from hullscreen.potentials.structures import IndexArray

Axes: TypeAlias = tuple[int, int, int]
"""How many open indices point along x, y and z."""

# In whole numbers modulo a prime, two different polynomials of degree four agree at a random point
# with a probability of at most 4 / prime.
PRIME = 2**61 - 1


class Tensor(NamedTuple):
    """A contraction whose moments are in their order; tuples sort as the published list does."""

    radial: tuple[int, ...]
    """μ of each moment."""
    key: tuple[int, ...]
    """For each moment its rank and the numbers of indices it shares with each later one."""


class Cut(NamedTuple):
    """How a tensor is made of two; positions are those of its moments."""

    left: Tensor
    left_moments: tuple[int, ...]
    right: Tensor
    right_moments: tuple[int, ...]
    bonds: tuple[tuple[int, int, int], ...]
    """(moment on the left, moment on the right, indices contracted)."""


@dataclass
class _Table:
    """The lists of a template while they grow."""

    basic: list[tuple[int, int, int, int]] = field(default_factory=list)
    products: list[tuple[int, int, int, int]] = field(default_factory=list)
    number: dict[tuple[Tensor, tuple[Axes, ...]], int] = field(default_factory=dict)
    seen: dict[tuple[tuple[int, int, int], ...], int] = field(default_factory=dict)
    n_moments: int = 0

    def add_basic(self, tensor: Tensor) -> None:
        for axes in _axes_of_rank(tensor.key[0]):
            self.number[tensor, (axes,)] = self.n_moments
            self.basic.append((tensor.radial[0], *axes))
            self.n_moments += 1

    def add_products(self, tensor: Tensor) -> None:
        cut = _cut(tensor)
        _, open_indices = _matrix(tensor)
        for axes in itertools.product(*(_axes_of_rank(count) for count in open_indices)):
            terms = self._terms(cut, axes)
            if terms not in self.seen:
                self.seen[terms] = self.n_moments
                self.products += [(*term, self.n_moments) for term in terms]
                self.n_moments += 1
            self.number[tensor, axes] = self.seen[terms]

    def _terms(self, cut: Cut, axes: tuple[Axes, ...]) -> tuple[tuple[int, int, int], ...]:
        """(left, right, coefficient) of each product, in rising order."""
        terms: dict[tuple[int, int], int] = {}
        for choice in itertools.product(*(_axes_of_rank(bond[2]) for bond in cut.bonds)):
            filled = list(axes)
            ways = 1
            for (i, j, n_indices), along in zip(cut.bonds, choice, strict=True):
                filled[i], filled[j] = _sum(filled[i], along), _sum(filled[j], along)
                ways *= factorial(n_indices) // prod(map(factorial, along))
            left = self.number[cut.left, tuple(filled[i] for i in cut.left_moments)]
            right = self.number[cut.right, tuple(filled[i] for i in cut.right_moments)]
            pair = (min(left, right), max(left, right))
            terms[pair] = terms.get(pair, 0) + ways
        return tuple((left, right, ways) for (left, right), ways in sorted(terms.items()))


@lru_cache(maxsize=8)
def published_basis(level: int) -> Basis:
    """The basis of the published template of an even ``level``, products and order included.

    Raises
    ------
    InputError
        The level is odd or smaller than two.

    Examples
    --------
    >>> published_basis(8).scalars.tolist()
    [0, 10, 11, 12, 13, 14, 15, 16, 17]
    """
    check_level(level)
    scalars = sorted(
        {_tensor([mu for mu, _ in vertices], edges) for vertices, edges in contractions(level)},
        key=lambda scalar: (len(scalar.radial), scalar),
    )
    table = _Table()
    for tensor in sorted(_needed(scalars), key=_place):
        if len(tensor.radial) == 1:
            table.add_basic(tensor)
        else:
            table.add_products(tensor)
    mapping = [table.number[scalar, ((0, 0, 0),) * len(scalar.radial)] for scalar in scalars]
    return Basis(
        np.array(table.basic, dtype=np.int32),
        np.array(table.products, dtype=np.int32).reshape(-1, 4),
        np.array(mapping, dtype=np.int32),
        table.n_moments,
    )


def published_places(basis: Basis) -> tuple[Basis, IndexArray] | None:
    """The published basis of the same functions, if ``basis`` has the products that we generate.

    Returns
    -------
    The published basis, and for each of its functions the number of the same function in
    ``basis``, shape (n_scalars,). None if ``basis`` has other products, those of a file for one,
    or its functions are neither in our order nor in the published one.
    """
    level = level_of(basis)
    if level % 2:
        return None
    published = published_basis(level)
    if basis.scalars.size != published.scalars.size or same_basis(basis, published):
        return None
    generated = generate_basis(level)
    ordered = Basis(basis.basic, basis.products, np.sort(basis.scalars), basis.n_moments)
    if not same_basis(ordered, replace(generated, scalars=np.sort(generated.scalars))):
        return None
    places = _places(published, basis)
    in_order = np.array_equal(places, np.arange(places.size))
    return (published, places) if in_order or same_basis(basis, generated) else None


def generated_places(basis: Basis) -> tuple[Basis, IndexArray] | None:
    """The basis of the same functions that we generate, if ``basis`` is published.

    Returns
    -------
    The generated basis, and for each of its functions the number of the same function in
    ``basis``, shape (n_scalars,). None if ``basis`` is not that of a published template.
    """
    level = level_of(basis)
    if level % 2 or not same_basis(basis, published_basis(level)):
        return None
    generated = generate_basis(level)
    return generated, _places(generated, basis)


def level_of(basis: Basis) -> int:
    """Highest level of a basis function."""
    levels = [2 + 4 * mu + a + b + c for mu, a, b, c in basis.basic.tolist()]
    levels += [0] * (basis.n_moments - len(levels))
    for left, right, _, target in basis.products.tolist():
        levels[target] = levels[left] + levels[right]
    return max((levels[i] for i in basis.scalars.tolist()), default=1)


def same_basis(one: Basis, other: Basis) -> bool:
    """Whether both have the same moments, products and functions in the same places."""
    return one.n_moments == other.n_moments and all(
        np.array_equal(a, b)
        for a, b in (
            (one.basic, other.basic),
            (one.products, other.products),
            (one.scalars, other.scalars),
        )
    )


def _places(wanted: Basis, given: Basis) -> IndexArray:
    """For each function of one basis its number in another of the same functions."""
    number = {value: i for i, value in enumerate(_values(given))}
    return np.array([number[value] for value in _values(wanted)], dtype=np.int64)


def _values(basis: Basis) -> list[int]:
    """Each basis function at one random point of a finite field: equal functions, equal values.

    Basis functions are polynomials in the basic moments with integer coefficients, so that the
    arithmetic is exact.
    """
    values = [Random(str(moment)).randrange(PRIME) for moment in basis.basic.tolist()]
    values += [0] * (basis.n_moments - len(values))
    for left, right, coefficient, target in basis.products.tolist():
        values[target] = (values[target] + coefficient * values[left] * values[right]) % PRIME
    return [values[i] for i in basis.scalars.tolist()]


def _tensor(
    radial: Sequence[int], edges: Sequence[int], open_indices: Sequence[int] | None = None
) -> Tensor:
    """The tensor of moments in any order, which share ``edges`` (upper triangle) indices."""
    n = len(radial)
    shared = [[0] * n for _ in range(n)]
    for (i, j), count in zip(itertools.combinations(range(n), 2), edges, strict=True):
        shared[i][j] = shared[j][i] = count
    return _in_order(radial, shared, open_indices or [0] * n)[0]


def _in_order(
    radial: Sequence[int], shared: Sequence[Sequence[int]], open_indices: Sequence[int]
) -> tuple[Tensor, tuple[int, ...]]:
    """The tensor, and which of the given moments is each of its."""
    ranks = [sum(row) + count for row, count in zip(shared, open_indices, strict=True)]
    return min(
        (
            Tensor(
                tuple(radial[i] for i in order),
                tuple(
                    number
                    for place, i in enumerate(order)
                    for number in (ranks[i], *(shared[i][j] for j in order[place + 1 :]))
                ),
            ),
            order,
        )
        for order in itertools.permutations(range(len(radial)))
    )


@cache
def _matrix(tensor: Tensor) -> tuple[list[list[int]], list[int]]:
    """Numbers of indices shared by each two moments, and open ones of each."""
    n = len(tensor.radial)
    shared = [[0] * n for _ in range(n)]
    numbers = iter(tensor.key)
    ranks = []
    for i in range(n):
        ranks.append(next(numbers))
        for j in range(i + 1, n):
            shared[i][j] = shared[j][i] = next(numbers)
    return shared, [rank - sum(row) for rank, row in zip(ranks, shared, strict=True)]


@cache
def _cut(tensor: Tensor) -> Cut:
    """Where a tensor is cut in two."""
    shared, open_indices = _matrix(tensor)
    n = len(shared)
    moments = range(n)
    groups = [(i,) for i in moments] + [(0, i) for i in range(1, n)] * (n == 4)

    def bonds(group: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
        return tuple(
            (i, j, shared[i][j]) for i in group for j in moments if j not in group and shared[i][j]
        )

    group = min(groups, key=lambda group: sum(bond[2] for bond in bonds(group)))
    rest = tuple(j for j in moments if j not in group)
    parts: list[tuple[Tensor, tuple[int, ...]]] = []
    for side, other in ((group, rest), (rest, group)):
        part, order = _in_order(
            [tensor.radial[i] for i in side],
            [[shared[i][j] for j in side] for i in side],
            [open_indices[i] + sum(shared[i][j] for j in other) for i in side],
        )
        parts.append((part, tuple(side[k] for k in order)))
    (left, left_moments), (right, right_moments) = parts
    return Cut(left, left_moments, right, right_moments, bonds(group))


def _needed(scalars: Sequence[Tensor]) -> set[Tensor]:
    """The scalars and every tensor that they are made of."""
    found: set[Tensor] = set()
    waiting = list(scalars)
    while waiting:
        tensor = waiting.pop()
        if tensor not in found:
            found.add(tensor)
            if len(tensor.radial) > 1:
                cut = _cut(tensor)
                waiting += [cut.left, cut.right]
    return found


def _place(tensor: Tensor) -> tuple[int, int, Tensor]:
    n = len(tensor.radial)
    # Halves of four come before one and three.
    return n, -len(_cut(tensor).left_moments) if n > 1 else 0, tensor


@cache
def _axes_of_rank(rank: int) -> tuple[Axes, ...]:
    return tuple((a, b, rank - a - b) for a in range(rank, -1, -1) for b in range(rank - a, -1, -1))


def _sum(one: Axes, other: Axes) -> Axes:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
