"""Every way of splitting a tensor gives what the tensor is by definition."""

import itertools
import string
from functools import cache

import numpy as np
import pytest

from hullscreen.potentials.basis_splits import expand, splits
from hullscreen.potentials.basis_tensors import Tensor, canonical, representatives, vertex_pairs

SAMPLES = {
    "square": Tensor((0, 0), (0, 0), (3,)),
    "legs": Tensor((0, 1), (1, 2), (2,)),
    "outer product": Tensor((0, 0), (1, 1), (0,)),
    "port": Tensor((0, 0), (1, 0), (2,), ((2, 1),)),
    "two ports": Tensor((0, 0), (0, 0), (1,), ((1, 1), (1, 1))),
    "triangle": Tensor((0, 0, 0), (0, 0, 0), (2, 1, 1)),
    "triangle with legs": Tensor((0, 0, 1), (1, 0, 1), (1, 2, 1)),
    "triangle with a port": Tensor((0, 0, 0), (0, 0, 0), (1, 1, 1), ((1, 2, 0),)),
    "port of three": Tensor((0, 0, 0), (0, 0, 0), (1, 0, 1), ((1, 1, 1),)),
    "ring": Tensor((0, 0, 0, 0), (0, 0, 0, 0), (2, 0, 2, 2, 0, 2)),
    "star": Tensor((0, 0, 0, 1), (0, 0, 0, 0), (0, 0, 1, 0, 2, 1)),
    "complete graph": Tensor((0, 0, 0, 0), (0, 0, 0, 0), (1, 1, 1, 1, 1, 1)),
    "apart": Tensor((0, 0, 1, 1), (0, 0, 0, 0), (2, 0, 0, 0, 0, 1)),
}


@cache
def moment(mu, rank):
    """A random symmetric tensor, the same whenever asked for."""
    values = np.random.default_rng((mu, rank)).normal(size=(rank + 1, rank + 1))
    tensor = np.zeros((3,) * rank)
    for index in np.ndindex(tensor.shape):
        tensor[index] = values[index.count(0), index.count(1)]
    return tensor


@cache
def by_definition(tensor):
    """All components: an index for every edge and open end, added up where ends are in ports."""
    letters = iter(string.ascii_letters)
    indices = [""] * len(tensor.radial)
    for (u, v), count in zip(vertex_pairs(len(indices)), tensor.edges, strict=True):
        for _ in range(count):
            letter = next(letters)
            indices[u] += letter
            indices[v] += letter
    slots = []
    n = len(indices)
    legs = [tuple(rank * (u == v) for u in range(n)) for v, rank in enumerate(tensor.legs)]
    for incidence in (*legs, *tensor.ports):
        slots.append("")
        for v, count in enumerate(incidence):
            added = "".join(next(letters) for _ in range(count))
            indices[v] += added
            slots[-1] += added
    factors = [moment(mu, len(index)) for mu, index in zip(tensor.radial, indices, strict=True)]
    full = np.einsum(",".join(indices) + "->" + "".join(slots), *factors, optimize="greedy")
    ends = list(itertools.accumulate(map(len, slots)))
    found = np.zeros(tensor.shape)
    for index in np.ndindex(full.shape):
        parts = [index[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        # Of the equal components of legs one is taken; those of ports are added up.
        if all(part == tuple(sorted(part)) for part in parts[:n]):
            number = (part.count(0) * (len(part) + 1) + part.count(1) for part in parts)
            found[tuple(number)] += full[index]
    return found.ravel()


@pytest.mark.parametrize("name", SAMPLES)
def test_every_split_gives_the_tensor(name):
    tensor, _ = canonical(SAMPLES[name])
    expected = by_definition(tensor)
    alike = representatives(tensor)
    for split in splits(tensor):
        left, right, rows = expand(tensor, split)
        assert len(left.radial) + len(right.radial) == len(tensor.radial)
        found = np.zeros_like(expected)
        target, i_left, i_right, factor = rows.T
        terms = factor * by_definition(left)[i_left] * by_definition(right)[i_right]
        np.add.at(found, target, terms)
        if alike is not None:
            found = found[alike]
        # A few hundred terms near 1 with either sign: rounding near 1e-14.
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        assert len(np.unique(rows[:, :3], axis=0)) == len(rows)


@pytest.mark.parametrize("name", SAMPLES)
def test_canonical_tensor_does_not_depend_on_the_order_of_vertices(name):
    tensor = SAMPLES[name]
    n = len(tensor.radial)
    edges = dict(zip(vertex_pairs(n), tensor.edges, strict=True))
    expected, _ = canonical(tensor)
    for order in itertools.permutations(range(n)):
        moved = Tensor(
            tuple(tensor.radial[v] for v in order),
            tuple(tensor.legs[v] for v in order),
            tuple(edges[min(order[i], order[j]), max(order[i], order[j])] for i, j in edges),
            tuple(tuple(port[v] for v in order) for port in tensor.ports[::-1]),
        )
        assert canonical(moved)[0] == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_components_said_to_be_alike_are(name):
    tensor, _ = canonical(SAMPLES[name])
    alike = representatives(tensor)
    if alike is not None:
        values = by_definition(tensor)
        # The same products in another order: rounding.
        np.testing.assert_allclose(values[alike], values, rtol=1e-12, atol=1e-13)
