"""Partly contracted products of moments, their components, and which of those are the same.

A tensor here is a multigraph: vertices are moments M_{μ,ν}, edges are contracted index pairs, and
what is left of a vertex's indices is open. Open indices of one vertex are its *legs*. A *port* is a
bundle of open indices that starts at several vertices and is symmetrised over them: it meets one
moment on the other side, which is symmetric, so that only the number of indices along each axis
counts. A component names these numbers for all legs and ports.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, lru_cache
from math import factorial, prod
from typing import NamedTuple, TypeAlias

import numpy as np

from hullscreen.potentials.structures import IndexArray

Axes: TypeAlias = tuple[int, int, int]
"""How many indices point along x, y and z."""

Incidence: TypeAlias = tuple[int, ...]
"""How many indices of a bundle start at each vertex."""


class Tensor(NamedTuple):
    """A product of moments, contracted in part.

    Attributes
    ----------
    radial
        Radial function μ of each vertex.
    legs
        Number of open indices of each vertex that are in no port.
    edges
        Number of index pairs contracted between each two vertices, upper triangle.
    ports
        Bundles that start at two vertices or more. A component of a port is the sum over all ways
        of handing its axes to its vertices; each counts as often as its indices can be arranged.
    """

    radial: tuple[int, ...]
    legs: tuple[int, ...]
    edges: tuple[int, ...]
    ports: tuple[Incidence, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """Number of indices of each slot: the legs of every vertex, then the ports."""
        return (*self.legs, *(sum(port) for port in self.ports))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of each slot in the numbering of components.

        Axes (a, b, c) of a slot of rank r have the number a (r + 1) + b. So the number of a sum of
        axes is the sum of their numbers; in return some numbers belong to no axes.
        """
        return tuple((rank + 1) ** 2 for rank in self.ranks)


@cache
def axes_of_rank(rank: int) -> tuple[Axes, ...]:
    """All ways of pointing ``rank`` indices along three axes, regardless of their order."""
    return tuple((a, b, rank - a - b) for a in range(rank, -1, -1) for b in range(rank - a, -1, -1))


def n_axes(rank: int) -> int:
    """Number of components of a symmetric tensor."""
    return (rank + 1) * (rank + 2) // 2


@cache
def axes_counts(rank: int) -> IndexArray:
    """How many indices point along x and how many along y, shape (2, n_axes(rank))."""
    return np.array(axes_of_rank(rank)).T[:2]


@cache
def arrangements(rank: int) -> IndexArray:
    """In how many orders the indices of each component can stand, shape (n_axes(rank),)."""
    return np.array(
        [factorial(rank) // prod(factorial(n) for n in axes) for axes in axes_of_rank(rank)]
    )


@cache
def vertex_pairs(n: int) -> tuple[tuple[int, int], ...]:
    """The upper triangle, in the order in which edges are listed."""
    return tuple(itertools.combinations(range(n), 2))


@lru_cache(maxsize=2**16)
def canonical(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The smallest of all orders of vertices and ports: equal for isomorphic tensors.

    Returns
    -------
    That tensor, and which slot of the given one each of its slots is.
    """
    n = len(tensor.radial)
    return min(
        (reordered, (*order, *(n + port for port in ports)))
        for order in itertools.permutations(range(n))
        for reordered, ports in [_reorder(tensor, order)]
    )


@lru_cache(maxsize=2**12)
def representatives(tensor: Tensor) -> IndexArray | None:
    """For each component of a canonical tensor the first one that is always equal to it.

    Shape (prod(tensor.shape),), components in C order; None if all differ.
    """
    orders = symmetries(tensor)
    if len(orders) == 1:
        return None
    shape = tensor.shape
    numbers = np.arange(prod(shape)).reshape(shape)
    smallest = numbers
    for order in orders:
        smallest = np.minimum(smallest, numbers.transpose(order))
    return smallest.ravel()


@lru_cache(maxsize=2**16)
def n_distinct(tensor: Tensor) -> int:
    """Number of components of a canonical tensor that have to be stored."""
    alike = representatives(tensor)
    if alike is None:
        return prod(n_axes(rank) for rank in tensor.ranks)
    numbers = np.zeros(1, dtype=np.int64)
    for rank in tensor.ranks:
        a, b = axes_counts(rank)
        numbers = np.add.outer((rank + 1) ** 2 * numbers, (rank + 1) * a + b).ravel()
    return int(np.count_nonzero(alike[numbers] == numbers))


@lru_cache(maxsize=2**16)
def symmetries(tensor: Tensor) -> tuple[tuple[int, ...], ...]:
    """Orders of slots that leave a tensor as it is: a group."""
    n = len(tensor.radial)
    found = []
    for order in itertools.permutations(range(n)):
        if _reorder(tensor, order)[0] == tensor:
            moved = [_moved(port, order) for port in tensor.ports]
            found += [
                (*order, *(n + port for port in ports))
                for ports in itertools.permutations(range(len(moved)))
                if all(moved[port] == tensor.ports[i] for i, port in enumerate(ports))
            ]
    return tuple(found)


def _reorder(tensor: Tensor, order: Sequence[int]) -> tuple[Tensor, list[int]]:
    """The tensor with its vertices in another order, and which of its ports stands where."""
    pairs = vertex_pairs(len(order))
    edges = dict(zip(pairs, tensor.edges, strict=True))
    moved = [_moved(port, order) for port in tensor.ports]
    ports = sorted(range(len(moved)), key=moved.__getitem__)
    reordered = Tensor(
        _moved(tensor.radial, order),
        _moved(tensor.legs, order),
        tuple(edges[min(order[i], order[j]), max(order[i], order[j])] for i, j in pairs),
        tuple(moved[port] for port in ports),
    )
    return reordered, ports


def _moved(counts: tuple[int, ...], order: Sequence[int]) -> tuple[int, ...]:
    return tuple(counts[v] for v in order)
