"""Ways of writing a tensor as a sum of products of components of two smaller ones.

Vertices are cut in two groups. The edges between them are gathered in *stars*: edges that share a
vertex, whose moment is symmetric, so that one sum over the axes of the whole star does. The other
end of a star is a port if it has several vertices. An edge within a group may be contracted here
instead of in the operand: an operand with more open indices that others need as well is then used
in place of one more.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from math import prod
from typing import NamedTuple, TypeAlias

import numpy as np

from hullscreen.potentials.basis_tensors import (
    Incidence,
    Tensor,
    arrangements,
    axes_counts,
    canonical,
    representatives,
    symmetries,
    vertex_pairs,
)
from hullscreen.potentials.structures import IndexArray

Pair: TypeAlias = tuple[int, int]

# Limits that keep the number of ways down. One more of either saved nothing at levels 20 and 24.
# Edges within a group that are contracted late:
MAX_DEFERRED = 2
# Open indices of an operand of three vertices, which then has no ports either:
MAX_OPEN_OF_THREE = 3


class Split(NamedTuple):
    """A way of cutting a tensor in two.

    Attributes
    ----------
    group
        Vertices of the left operand.
    stars
        Edges between the groups, each gathered with those that share a sum.
    deferred
        (vertex, vertex, number) of edges within a group that are contracted by this product.
    """

    group: tuple[int, ...]
    stars: tuple[tuple[Pair, ...], ...]
    deferred: tuple[tuple[int, int, int], ...] = ()


_Place: TypeAlias = tuple[int, int, int]
"""A bundle, and by how much a component's number grows with its axes along x and along y."""


class _Bundle(NamedTuple):
    """Indices whose axes are chosen together.

    Attributes
    ----------
    rank
        How many indices.
    ends
        Where they attach: incidences over all vertices of the tensor, each within one group.
    slot
        The open slot of the whole tensor that they belong to, or -1.
    """

    rank: int
    ends: tuple[Incidence, ...]
    slot: int


class Expansion(NamedTuple):
    """A tensor's components as sums of products.

    Attributes
    ----------
    left, right
        Canonical operands.
    rows
        (target, left, right, coefficient): numbers of components, sorted by target, shape
        (n_products, 4). Only distinct targets are there, and operands are representatives.
    """

    left: Tensor
    right: Tensor
    rows: IndexArray


def splits(tensor: Tensor) -> Iterator[Split]:
    """Every way of cutting a tensor of two vertices or more."""
    n = len(tensor.radial)
    edges = _edges(tensor)
    seen: set[frozenset[int]] = set()
    for group in _halves(n):
        others = _rest(n, group)
        # Groups that a symmetry of the tensor turns into one another do the same.
        if frozenset(group) in seen:
            continue
        for order in symmetries(tensor):
            seen |= {frozenset(order[v] for v in group), frozenset(order[v] for v in others)}
        cut = tuple((u, v) for u in group for v in others if edges[min(u, v), max(u, v)])
        if len(others) < 3:
            gathered = _stars(cut)
        elif sum(edges[min(pair), max(pair)] for pair in cut) <= MAX_OPEN_OF_THREE:
            gathered = (tuple((pair,) for pair in cut),)
        else:
            continue
        inner = [side for side in (group, others) if len(side) == 2]
        counts = [range(min(edges[u, v], MAX_DEFERRED) + 1) for u, v in inner]
        for stars, chosen in itertools.product(gathered, itertools.product(*counts)):
            deferred = tuple(
                (u, v, count) for (u, v), count in zip(inner, chosen, strict=True) if count
            )
            yield Split(group, stars, deferred)


def expand(tensor: Tensor, split: Split) -> Expansion:
    """Carry out a split for every distinct component of a canonical tensor."""
    n = len(tensor.radial)
    bundles = _bundles(tensor, split)
    left, left_places = _operand(tensor, split, split.group, bundles)
    right, right_places = _operand(tensor, split, _rest(n, split.group), bundles)
    steps = _steps(tensor)
    whole_places = [
        (i, *steps[bundle.slot]) for i, bundle in enumerate(bundles) if bundle.slot >= 0
    ]
    # Numbers of components add up over bundles, and so does one number for all three tensors.
    sizes = (prod(tensor.shape), prod(left.shape), prod(right.shape))
    along_x, along_y = [0] * len(bundles), [0] * len(bundles)
    for step, places in (
        (sizes[1] * sizes[2], whole_places),
        (sizes[2], left_places),
        (1, right_places),
    ):
        for i_bundle, x, y in places:
            along_x[i_bundle] += step * x
            along_y[i_bundle] += step * y
    keys, factor = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    for bundle, x, y in zip(bundles, along_x, along_y, strict=True):
        a, b = axes_counts(bundle.rank)
        keys = np.add.outer(keys, x * a + y * b).ravel()
        # The legs of the whole are given; a port counts the arrangements itself.
        given = 0 <= bundle.slot < n
        if not given and all(map(_is_at_one_vertex, bundle.ends)):
            factor = np.multiply.outer(factor, arrangements(bundle.rank)).ravel()
        else:
            factor = factor.repeat(len(a))
    target, i_left, i_right = np.unravel_index(keys, sizes)
    i_left, i_right = _first_alike(left, i_left), _first_alike(right, i_right)
    if left == right:
        i_left, i_right = np.minimum(i_left, i_right), np.maximum(i_left, i_right)
    distinct = _first_alike(tensor, target) == target
    keys = ((target * sizes[1] + i_left) * sizes[2] + i_right)[distinct]
    keys, inverse = np.unique(keys, return_inverse=True)
    total = np.bincount(inverse, factor[distinct]).astype(np.int64)
    return Expansion(left, right, np.stack([*np.unravel_index(keys, sizes), total], axis=1))


def _first_alike(tensor: Tensor, components: IndexArray) -> IndexArray:
    alike = representatives(tensor)
    return components if alike is None else alike[components]


def _bundles(tensor: Tensor, split: Split) -> list[_Bundle]:
    """All indices that a split distributes, open ones first."""
    n = len(tensor.radial)
    edges = _edges(tensor)
    sides = (split.group, _rest(n, split.group))
    bundles = [_Bundle(rank, (_at(n, {v: rank}),), v) for v, rank in enumerate(tensor.legs)]
    for slot, port in enumerate(tensor.ports, n):
        for side in sides:
            part = _at(n, {v: port[v] for v in side})
            if any(part):
                bundles.append(_Bundle(sum(part), (part,), slot))
    for star in split.stars:
        ends: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for u, v in star:
            count = edges[min(u, v), max(u, v)]
            ends[0][u] = ends[0].get(u, 0) + count
            ends[1][v] = ends[1].get(v, 0) + count
        bundles.append(_Bundle(sum(ends[0].values()), tuple(_at(n, end) for end in ends), -1))
    for u, v, count in split.deferred:
        bundles.append(_Bundle(count, (_at(n, {u: count}), _at(n, {v: count})), -1))
    return bundles


def _operand(
    tensor: Tensor, split: Split, side: tuple[int, ...], bundles: list[_Bundle]
) -> tuple[Tensor, list[_Place]]:
    """Canonical operand on one side, and how its component depends on the axes of each bundle."""
    edges = _edges(tensor)
    for u, v, count in split.deferred:
        edges[min(u, v), max(u, v)] -= count
    legs = [0] * len(side)
    ports: list[Incidence] = []
    slots: list[tuple[int, int]] = []
    for i_bundle, bundle in enumerate(bundles):
        for end in bundle.ends:
            part = tuple(end[v] for v in side)
            if not any(part):
                continue
            if _is_at_one_vertex(part):
                vertex = next(i for i, count in enumerate(part) if count)
                legs[vertex] += bundle.rank
                slots.append((i_bundle, vertex))
            else:
                slots.append((i_bundle, len(side) + len(ports)))
                ports.append(part)
    operand, order = canonical(
        Tensor(
            tuple(tensor.radial[v] for v in side),
            tuple(legs),
            tuple(edges[pair] for pair in itertools.combinations(side, 2)),
            tuple(ports),
        )
    )
    steps = _steps(operand)
    return operand, [(i_bundle, *steps[order.index(slot)]) for i_bundle, slot in slots]


def _steps(tensor: Tensor) -> list[tuple[int, int]]:
    """By how much a component's number grows with an index of each slot along x, and along y."""
    steps: list[tuple[int, int]] = []
    size = 1
    for rank in reversed(tensor.ranks):
        steps.insert(0, (size * (rank + 1), size))
        size *= (rank + 1) ** 2
    return steps


@cache
def _halves(n: int) -> tuple[tuple[int, ...], ...]:
    """Every way to cut n vertices in two, named by its smaller half."""
    return tuple(
        half
        for size in range(1, n // 2 + 1)
        for half in itertools.combinations(range(n), size)
        if 2 * size < n or half[0] == 0
    )


@cache
def _stars(cut: tuple[Pair, ...]) -> tuple[tuple[tuple[Pair, ...], ...], ...]:
    """Each edge between two groups by itself, or all of them in stars of several.

    Mixtures were tried up to level 24 and never chosen.
    """
    found: list[tuple[tuple[Pair, ...], ...]] = [tuple((pair,) for pair in cut)]
    for end in (0, 1):
        centres = dict.fromkeys(pair[end] for pair in cut)
        stars = tuple(tuple(pair for pair in cut if pair[end] == v) for v in centres)
        if cut and all(len(star) > 1 for star in stars):
            found.append(stars)
    return tuple(found)


def _edges(tensor: Tensor) -> dict[Pair, int]:
    return dict(zip(vertex_pairs(len(tensor.radial)), tensor.edges, strict=True))


def _rest(n: int, group: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(v for v in range(n) if v not in group)


def _at(n: int, counts: dict[int, int]) -> Incidence:
    return tuple(counts.get(v, 0) for v in range(n))


def _is_at_one_vertex(end: Incidence) -> bool:
    return sum(count > 0 for count in end) == 1
