"""The generated basis: as many functions as published, in few products, spanning the same space."""

import itertools
import json
import string
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from hullscreen.potentials import basis as basis_module
from hullscreen.potentials.basis import contractions, generate_basis
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.mtp_files import read_mtp
from hullscreen.potentials.structures import join

# Level: radial functions, basic moments, products, scalar basis functions of published templates.
PUBLISHED = {
    2: (1, 1, 0, 1),
    4: (1, 1, 1, 2),
    6: (2, 5, 5, 5),
    8: (2, 11, 14, 9),
    10: (3, 25, 42, 16),
    12: (3, 46, 117, 29),
    14: (4, 81, 348, 52),
    16: (4, 130, 969, 92),
    18: (5, 201, 2634, 163),
    20: (5, 295, 6349, 288),
    22: (6, 421, 15431, 500),
    24: (6, 581, 36170, 864),
    26: (6, 706, 82520, 1464),
    28: (6, 866, 180069, 2445),
}
REFERENCES = ["L06_1sp", "L08_2sp", "L10_3sp", "L16_1sp", "L16_2sp", "L20_2sp", "L22_3sp"]


# Products and moments made by products, together: what the choice of products minimises.
LEAST = {8: 21, 12: 155, 14: 393, 16: 865, 18: 2181, 20: 4896, 22: 10497, 24: 22898}

AFFORDABLE = [
    pytest.param(level, marks=[pytest.mark.slow] if level > 22 else []) for level in PUBLISHED
]


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """No basis of these tests comes from another run, or stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HULLSCREEN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        basis_module._generate_or_read.cache_clear()
        yield
        basis_module._generate_or_read.cache_clear()


@pytest.mark.parametrize("level", PUBLISHED)
def test_number_of_functions_is_the_published_one(level):
    found = list(contractions(level))
    assert len(found) == len(set(found)) == PUBLISHED[level][3]


@pytest.mark.parametrize("level", AFFORDABLE)
def test_fewer_products_than_published(level):
    basis = generate_basis(level)
    n_radial, n_basic, n_products, n_scalars = PUBLISHED[level]
    assert basis.n_radial == n_radial
    assert len(basis.basic) == n_basic
    assert basis.scalars.size == n_scalars
    assert len(basis.products) <= n_products
    if level >= 14:
        assert len(basis.products) < n_products
    made = basis.n_moments - len(basis.basic)
    # A solver of another version may stop within 0.01 % of the optimum, its usual tolerance.
    assert len(basis.products) + made <= 1.0001 * LEAST.get(level, np.inf)


@pytest.mark.parametrize("level", [2, 4, 8, 14, 18])
def test_products_can_be_carried_out_in_order(level):
    basis = generate_basis(level)
    complete = len(basis.basic)
    for left, right, factor, target in basis.products.tolist():
        assert max(left, right) < complete or target == complete
        assert max(left, right) < target
        # Products of one target stand together.
        assert target in {complete, complete - 1}
        complete = max(complete, target + 1)
        assert factor > 0
    assert complete == basis.n_moments
    assert len(set(basis.scalars.tolist())) == basis.scalars.size
    for table in (basis.basic, basis.products, basis.scalars):
        assert table.dtype == np.int32
        assert table.flags.c_contiguous


@pytest.mark.parametrize("level", [2, 4, 8, 12, 16])
def test_products_give_the_contractions(level):
    basis = generate_basis(level)
    moments = np.zeros(basis.n_moments)
    moments[: len(basis.basic)] = np.random.default_rng(level).normal(size=len(basis.basic))
    tensors = {}
    for (mu, *axes), value in zip(basis.basic.tolist(), moments, strict=False):
        rank = sum(axes)
        tensor = tensors.setdefault((mu, rank), np.zeros((3,) * rank))
        for index in set(itertools.permutations(np.repeat(range(3), axes).tolist())):
            tensor[index] = value
    for left, right, factor, target in basis.products.tolist():
        moments[target] += factor * moments[left] * moments[right]
    scalars = sorted(contractions(level), key=basis_module._order)
    twins = [contracted_by_definition(scalar, tensors) for scalar in scalars]
    # Sums of up to 1e5 terms with either sign: rounding (1e-16) relative to the largest scalars.
    scale = np.abs(twins).max()
    np.testing.assert_allclose(moments[basis.scalars], twins, rtol=1e-11, atol=1e-14 * scale)


def contracted_by_definition(scalar, tensors):
    """One contraction of explicit tensors: a letter for every contracted pair of indices."""
    vertices, edges = scalar
    legs = [""] * len(vertices)
    letters = iter(string.ascii_letters)
    pairs = itertools.combinations(range(len(vertices)), 2)
    for (u, v), count in zip(pairs, edges, strict=True):
        for _ in range(count):
            letter = next(letters)
            legs[u] += letter
            legs[v] += letter
    factors = [tensors[mu, len(leg)] for (mu, _), leg in zip(vertices, legs, strict=True)]
    return float(np.einsum(",".join(legs) + "->", *factors, optimize="greedy"))


def test_a_level_begins_with_the_functions_of_the_level_below():
    structures = environments(5)
    low, high = (values(generate_basis(level), structures) for level in (8, 10))
    # Products may be carried out in another order: rounding.
    np.testing.assert_allclose(high[:, : low.shape[1]], low, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("level", [-2, 0, 1, 7])
def test_odd_or_no_levels_are_refused(level):
    with pytest.raises(InputError, match=f"even number from 2 to 32, got {level}"):
        generate_basis(level)


def environments(count, seed=0):
    """One atom in a wide cell with few random neighbours, again and again; distances 2.0–4.8 Å."""
    rng = np.random.default_rng(seed)

    def cells():
        for _ in range(count):
            n = rng.integers(3, 12)
            directions = rng.normal(size=(n, 3))
            directions /= np.linalg.norm(directions, axis=1)[:, None]
            neighbours = directions * rng.uniform(2.0, 4.8, size=(n, 1))
            # The first atom sees them all; what they see of one another is not looked at.
            yield 60.0 * np.eye(3), np.vstack([np.zeros(3), neighbours]), np.zeros(n + 1, np.int32)

    return join(cells())


def potential_of(basis, n_radial=6, cutoff=5.0):
    """One species, radial functions with the same coefficients whatever the basis."""
    radial = np.random.default_rng(5).normal(size=(1, 1, n_radial, 8))
    return MomentTensorPotential(
        basis,
        ("Cu",),
        2.0,
        cutoff,
        np.ascontiguousarray(radial[:, :, : basis.n_radial]),
        np.zeros(1),
        np.zeros(basis.scalars.size),
        0.1,
    )


def values(basis, structures):
    """Basis functions of each first atom, shape (n_structures, n_scalars)."""
    found = potential_of(basis).evaluate(structures, "sites").gradients
    return found[structures.offsets[:-1], -basis.scalars.size :]


# In three dimensions some scalars depend on others: from level 16 on, the Cayley-Hamilton theorem
# ties the traces of products of four matrices together.
DEPENDENT = {16: 1, 20: 6, 22: 14}


def assert_same_span(level, ours, theirs):
    """Both of the same rank, and together of no higher one.

    Columns are scaled to length one; then the singular values here are either above 1e-5 or
    rounding errors near 1e-15, and 1e-10 is halfway between. Residuals of a regression are
    relative to columns of length one: rounding (1e-15) enlarged by at most the inverse of the
    smallest singular value kept.
    """
    ours, theirs = (matrix / np.linalg.norm(matrix, axis=0) for matrix in (ours, theirs))
    assert ours.shape == theirs.shape
    for matrix in (ours, theirs, np.hstack([ours, theirs])):
        rank = np.linalg.matrix_rank(matrix, tol=1e-10)
        assert rank == ours.shape[1] - DEPENDENT.get(level, 0)
    for target, source in ((ours, theirs), (theirs, ours)):
        solution = np.linalg.lstsq(source, target, rcond=1e-11)[0]
        assert np.abs(source @ solution - target).max() < 1e-9


def tensors(structures, n_radial, max_rank):
    """Moments of each first atom as explicit tensors, (structure) → {(μ, ν): shape (3,) * ν}."""
    radial = np.random.default_rng(5).normal(size=(1, 1, 6, 8))[0, 0]
    for i in range(len(structures)):
        _, positions, _ = structures.one(i)
        vectors = positions[1:] - positions[0]
        r = np.linalg.norm(vectors, axis=1)
        units = vectors / r[:, None]
        xi = (2.0 * r - 7.0) / 3.0
        f = np.polynomial.chebyshev.chebval(xi, radial.T) * 0.1 * (5.0 - r) ** 2
        moments = {}
        for mu, nu in itertools.product(range(n_radial), range(max_rank + 1)):
            total = f[mu]
            for _ in range(nu):
                total = total[..., None] * units.reshape(len(r), *[1] * (total.ndim - 1), 3)
            moments[mu, nu] = total.sum(axis=0)
        yield moments


def contracted(tree, moments):
    """Value of a nested contraction [left, right, rank, [axes of left, axes of right]]."""
    if len(tree) == 3:
        return moments[tree[0], tree[1]]
    left, right, _, axes = tree
    return np.tensordot(contracted(left, moments), contracted(right, moments), axes)


@pytest.mark.parametrize("level", [4, 8, 10, 12, 14, 16])
def test_spans_the_functions_that_motep_lists(level):
    # motep names each scalar as nested tensor contractions, which numpy carries out here.
    root = Path(find_spec("motep").submodule_search_locations[0])
    path = root / "potentials/mtp/jax/precomputed_moments" / f"moments_level{level}.json"
    trees = json.loads(path.read_text())
    structures = environments(3 * len(trees))
    n_radial = PUBLISHED[level][0]
    theirs = [
        [float(contracted(tree, moments)) for tree in trees]
        for moments in tensors(structures, n_radial, level // 2)
    ]
    assert_same_span(level, values(generate_basis(level), structures), np.array(theirs))


@pytest.mark.reference
@pytest.mark.parametrize("name", REFERENCES)
def test_spans_the_functions_of_published_templates(name, reference):
    level = int(name[1:3])
    basis = read_mtp(reference / f"{name}.mtp").basis
    structures = environments(3 * basis.scalars.size)
    ours = values(generate_basis(level), structures)
    assert_same_span(level, ours, values(basis, structures))
