"""Scalar contractions of moments, generated from their definition for any even level.

A moment M_{μ,ν} is a symmetric tensor of rank ν and level 2 + 4μ + ν. A basis function is a product
of moments whose indices are contracted in pairs until none is left: a multigraph whose vertices are
moments and whose edges are contracted index pairs. Two basis functions are the same if their graphs
are isomorphic.

Source: Shapeev, Multiscale Model. Simul. 14, 1153 (2016), section 3; Novikov et al., Mach. Learn.:
Sci. Technol. 2, 025002 (2021), eqs. 2-5.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from hullscreen.potentials import basis_cache
from hullscreen.potentials.basis_products import carry_out
from hullscreen.potentials.basis_tensors import (
    Axes,
    Tensor,
    axes_of_rank,
    canonical,
    vertex_pairs,
)
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import IntArray

# Limits of the published templates; the last two matter from level 26 on.
MAX_FACTORS = 4
MAX_RADIAL_FUNCTIONS = 6
MAX_RANK = 10
# Published templates end at 28; the number of functions doubles every three levels.
HIGHEST_LEVEL = 32

Vertex: TypeAlias = tuple[int, Axes]
"""A moment: its radial function μ, and the axes of its indices that are not contracted."""

Contraction: TypeAlias = tuple[tuple[Vertex, ...], tuple[int, ...]]
"""Moments, and the number of index pairs contracted between each two of them (upper triangle)."""


@dataclass(frozen=True)
class Basis:
    """Scalar basis functions as a list of products to be carried out in order.

    Attributes
    ----------
    basic
        Basic moments (μ, a, b, c): Σ_j f_μ(r_j) x^a y^b z^c of unit vectors, shape (n_basic, 4).
    products
        Rows (left, right, coefficient, target): moment[target] += coefficient · moment[left] ·
        moment[right], in an order in which operands are complete, shape (n_products, 4).
    scalars
        Which moments are the basis functions, shape (n_scalars,).
    n_moments
        Basic moments and products' targets together.
    """

    basic: IntArray
    products: IntArray
    scalars: IntArray
    n_moments: int

    @property
    def n_radial(self) -> int:
        """Number of radial functions f_μ."""
        return int(self.basic[:, 0].max()) + 1


def contractions(level: int) -> Iterator[Contraction]:
    """Every scalar contraction up to ``level``, each isomorphism class once."""
    moments = sorted(
        (2 + 4 * mu + nu, mu, nu)
        for mu in range(MAX_RADIAL_FUNCTIONS)
        for nu in range(MAX_RANK + 1)
        if 2 + 4 * mu + nu <= level
    )
    for n_factors in range(1, MAX_FACTORS + 1):
        for factors in _factors(moments, n_factors, level):
            by_radial = sorted(factors, key=lambda factor: factor[1])
            vertices = tuple((mu, (0, 0, 0)) for _, mu, _ in by_radial)
            orders = _pair_orders(tuple(mu for _, mu, _ in by_radial))
            found = {
                min(tuple(edges[pair] for pair in order) for order in orders)
                for edges in _edge_counts([nu for _, _, nu in by_radial])
            }
            yield from ((vertices, edges) for edges in sorted(found))


def check_level(level: int) -> None:
    """Raise InputError unless there is a basis of this level, and time to generate it."""
    if not 2 <= level <= HIGHEST_LEVEL or level % 2:
        raise InputError(
            f"the level of an MTP is an even number from 2 to {HIGHEST_LEVEL}, got {level}"
        )


def generate_basis(level: int) -> Basis:
    """Basis of all scalar contractions up to an even ``level``.

    It is kept in the user's cache directory for the next process: see ``basis_cache``.

    Raises
    ------
    InputError
        The level is odd or smaller than two.

    Examples
    --------
    >>> generate_basis(8).scalars.size
    9
    """
    check_level(level)
    return _generate_or_read(level)


@lru_cache(maxsize=8)
def _generate_or_read(level: int) -> Basis:
    stored = basis_cache.read(level)
    if stored is not None:
        return Basis(**stored)
    basis = _generate(level)
    basis_cache.write(level, vars(basis))
    return basis


def _generate(level: int) -> Basis:
    scalars = sorted(contractions(level), key=_order)
    moments = dict.fromkeys(
        (mu, degree)
        for vertices, edges in scalars
        for (mu, _), degree in zip(vertices, _degrees(len(vertices), edges), strict=True)
    )
    # Basic moments are numbered in the order in which the scalars need them.
    basic = [(mu, *axes) for mu, rank in moments for axes in axes_of_rank(rank)]
    tensors = [_tensor(scalar) for scalar in scalars]
    products, numbers, n_moments = carry_out(tensors, list(moments))
    return Basis(
        np.array(basic, dtype=np.int32),
        products,
        np.array(numbers, dtype=np.int32),
        n_moments,
    )


def _tensor(scalar: Contraction) -> Tensor:
    vertices, edges = scalar
    radial = tuple(mu for mu, _ in vertices)
    return canonical(Tensor(radial, (0,) * len(radial), edges))[0]


def _factors(
    moments: list[tuple[int, int, int]], count: int, level: int, first: int = 0
) -> Iterator[tuple[tuple[int, int, int], ...]]:
    """Combinations of moments, sorted by level, whose levels add up to ``level`` at most."""
    if not count:
        yield ()
        return
    for i in range(first, len(moments)):
        if count * moments[i][0] > level:
            return
        for others in _factors(moments, count - 1, level - moments[i][0], i):
            yield (moments[i], *others)


@lru_cache(maxsize=1024)
def _pair_orders(radial: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Where each pair comes from when vertices of the same radial function change places."""
    n = len(radial)
    place = {pair: i for i, pair in enumerate(vertex_pairs(n))}
    return tuple(
        tuple(place[min(order[u], order[v]), max(order[u], order[v])] for u, v in place)
        for order in itertools.permutations(range(n))
        if all(radial[v] == mu for v, mu in zip(order, radial, strict=True))
    )


def _edge_counts(ranks: list[int]) -> Iterator[tuple[int, ...]]:
    """Multigraphs without loops whose vertices have the given degrees."""
    pairs = list(itertools.combinations(range(len(ranks)), 2))

    def extend(i_pair: int, left: list[int], counts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if i_pair == len(pairs):
            if not any(left):
                yield counts
            return
        u, v = pairs[i_pair]
        for count in range(min(left[u], left[v]) + 1):
            remaining = left.copy()
            remaining[u] -= count
            remaining[v] -= count
            yield from extend(i_pair + 1, remaining, (*counts, count))

    yield from extend(0, ranks, ())


def _degrees(n_vertices: int, edges: tuple[int, ...]) -> list[int]:
    """How many edges end at each vertex."""
    degrees = [0] * n_vertices
    for pair, count in zip(vertex_pairs(n_vertices), edges, strict=True):
        for vertex in pair:
            degrees[vertex] += count
    return degrees


def _order(scalar: Contraction) -> tuple[int, int, Contraction]:
    """Low levels first, so that the basis of a level begins with that of the level below."""
    vertices, edges = scalar
    level = sum(2 + 4 * mu for mu, _ in vertices) + 2 * sum(edges)
    return level, len(vertices), scalar
