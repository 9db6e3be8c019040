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
from functools import cache, lru_cache
from math import factorial
from typing import TypeAlias

import numpy as np

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import IntArray

# Limits of the published templates; the last two matter from level 26 on.
MAX_FACTORS = 4
MAX_RADIAL_FUNCTIONS = 6
MAX_RANK = 10

Axes: TypeAlias = tuple[int, int, int]
"""How many indices point along x, y and z."""

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
        for factors in itertools.combinations_with_replacement(moments, n_factors):
            if sum(factor[0] for factor in factors) > level:
                continue
            vertices = tuple((mu, (0, 0, 0)) for _, mu, _ in factors)
            ranks = [nu for _, _, nu in factors]
            yield from {_canonical(vertices, edges) for edges in _edge_counts(ranks)}


def generate_basis(level: int) -> Basis:
    """Basis of all scalar contractions up to an even ``level``.

    Raises
    ------
    InputError
        The level is odd or smaller than two.

    Examples
    --------
    >>> generate_basis(8).scalars.size
    9
    """
    if level < 2 or level % 2:
        raise InputError(f"the level of an MTP is an even number from 2 on, got {level}")
    return _generate(level)


@lru_cache(maxsize=8)
def _generate(level: int) -> Basis:
    scalars = sorted(set(contractions(level)), key=_order)
    builder = _Builder()
    for scalar in scalars:
        builder.collect_basic(scalar)
    nodes = [builder.node(scalar) for scalar in scalars]
    return Basis(
        np.array([(mu, *axes) for mu, axes in builder.basic], dtype=np.int32),
        np.array(builder.products, dtype=np.int32).reshape(-1, 4),
        np.array(nodes, dtype=np.int32),
        builder.n_moments,
    )


class _Builder:
    """Turns contractions into products, every intermediate tensor component once."""

    def __init__(self) -> None:
        self.basic: list[Vertex] = []
        self.products: list[tuple[int, int, int, int]] = []
        self.n_moments = 0
        self._nodes: dict[Contraction, int] = {}

    def collect_basic(self, scalar: Contraction) -> None:
        """Number the components of the moments in a scalar: they precede all products."""
        vertices, edges = scalar
        for i_vertex, (mu, _) in enumerate(vertices):
            for axes in _axes_of_rank(_degree(len(vertices), edges, i_vertex)):
                key: Contraction = (((mu, axes),), ())
                if key not in self._nodes:
                    self._nodes[key] = self.n_moments
                    self.basic.append((mu, axes))
                    self.n_moments += 1

    def node(self, contraction: Contraction) -> int:
        """Index of the moment that holds a contraction's value; adds the products it needs."""
        if contraction in self._nodes:
            return self._nodes[contraction]
        n_vertices = len(contraction[0])
        terms = min(
            (_split(contraction, group) for group in _bipartitions(n_vertices)),
            key=self._new_products,
        )
        operands = [(self.node(left), self.node(right), c) for (left, right), c in terms.items()]
        target = self.n_moments
        self.n_moments += 1
        self._nodes[contraction] = target
        self.products += [(left, right, c, target) for left, right, c in operands]
        return target

    def _new_products(self, terms: dict[tuple[Contraction, Contraction], int]) -> int:
        """How many products a way of splitting costs, counting those of missing operands."""
        missing = {
            part for pair in terms for part in pair if part not in self._nodes and len(part[0]) > 1
        }
        return len(terms) + sum(self._cheapest(part) for part in missing)

    def _cheapest(self, contraction: Contraction) -> int:
        groups = _bipartitions(len(contraction[0]))
        return min(self._new_products(_split(contraction, group)) for group in groups)


def _split(
    contraction: Contraction, group: tuple[int, ...]
) -> dict[tuple[Contraction, Contraction], int]:
    """Write a contraction as a sum of products of two smaller ones, with integer coefficients.

    Each bundle of e edges between ``group`` and the rest becomes a sum over the ways (p, q, r) of
    letting its edges point along x, y and z, weighted with e! / (p! q! r!).
    """
    vertices, edges = contraction
    n = len(vertices)
    pairs = list(itertools.combinations(range(n), 2))
    rest = tuple(v for v in range(n) if v not in group)
    cut = [
        (u, v, e)
        for (u, v), e in zip(pairs, edges, strict=True)
        if e and (u in group) != (v in group)
    ]
    inner = dict(zip(pairs, edges, strict=True))
    terms: dict[tuple[Contraction, Contraction], int] = {}
    for choice in itertools.product(*(_axes_of_rank(e) for _, _, e in cut)):
        legs = [list(axes) for _, axes in vertices]
        coefficient = 1
        for (u, v, e), axes in zip(cut, choice, strict=True):
            coefficient *= factorial(e)
            for axis, count in enumerate(axes):
                coefficient //= factorial(count)
                legs[u][axis] += count
                legs[v][axis] += count
        left, right = sorted(
            _canonical(
                tuple((vertices[v][0], (legs[v][0], legs[v][1], legs[v][2])) for v in side),
                tuple(inner[pair] for pair in itertools.combinations(side, 2)),
            )
            for side in (group, rest)
        )
        terms[left, right] = terms.get((left, right), 0) + coefficient
    return terms


@cache
def _canonical(vertices: tuple[Vertex, ...], edges: tuple[int, ...]) -> Contraction:
    """The smallest of all orders of the vertices: equal for isomorphic contractions."""
    n = len(vertices)
    if n == 1:
        return vertices, edges
    pairs = dict(zip(itertools.combinations(range(n), 2), edges, strict=True))
    return min(
        (
            tuple(vertices[v] for v in order),
            tuple(
                pairs[min(order[i], order[j]), max(order[i], order[j])]
                for i, j in itertools.combinations(range(n), 2)
            ),
        )
        for order in itertools.permutations(range(n))
    )


@cache
def _axes_of_rank(rank: int) -> tuple[Axes, ...]:
    return tuple((a, b, rank - a - b) for a in range(rank, -1, -1) for b in range(rank - a, -1, -1))


@cache
def _bipartitions(n: int) -> tuple[tuple[int, ...], ...]:
    """Every way to cut n vertices in two, named by the half that holds vertex zero."""
    return tuple(
        (0, *others)
        for size in range(n - 1)
        for others in itertools.combinations(range(1, n), size)
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


def _degree(n_vertices: int, edges: tuple[int, ...], vertex: int) -> int:
    pairs = itertools.combinations(range(n_vertices), 2)
    return sum(e for pair, e in zip(pairs, edges, strict=True) if vertex in pair)


def _order(scalar: Contraction) -> tuple[int, int, Contraction]:
    """Low levels first, so that the basis of a level begins with that of the level below."""
    vertices, edges = scalar
    level = sum(2 + 4 * mu for mu, _ in vertices) + 2 * sum(edges)
    return level, len(vertices), scalar
