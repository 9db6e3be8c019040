"""The published templates come out of their level: counts, products and order, number by number."""

from dataclasses import replace

import numpy as np
import pytest

from hullscreen.potentials.basis import Basis, generate_basis
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.mtp_fields import Fields
from hullscreen.potentials.published_order import (
    _values,
    generated_places,
    level_of,
    published_basis,
    published_places,
    same_basis,
)

# Level: radial functions, basic moments, products, basis functions, moments in all.
PUBLISHED = {
    2: (1, 1, 0, 1, 1),
    4: (1, 1, 1, 2, 2),
    6: (2, 5, 5, 5, 8),
    8: (2, 11, 14, 9, 18),
    10: (3, 25, 42, 16, 41),
    12: (3, 46, 117, 29, 84),
    14: (4, 81, 348, 52, 174),
    16: (4, 130, 969, 92, 350),
    18: (5, 201, 2634, 163, 718),
    20: (5, 295, 6349, 288, 1352),
    22: (6, 421, 15431, 500, 2621),
    24: (6, 581, 36170, 864, 4991),
    26: (6, 706, 82520, 1464, 9396),
    28: (6, 866, 180069, 2445, 17366),
}
REFERENCES = ["L06_1sp", "L08_2sp", "L10_3sp", "L16_1sp", "L16_2sp", "L20_2sp", "L22_3sp"]
# Generating our own products takes longer above.
LEVELS_BOTH = [2, 4, 6, 8, 10, 12, 14, 16]


@pytest.mark.parametrize("level", PUBLISHED)
def test_counts_are_the_published_ones(level):
    basis = published_basis(level)
    counts = len(basis.basic), len(basis.products), basis.scalars.size, basis.n_moments
    assert (basis.n_radial, *counts) == PUBLISHED[level]
    assert level_of(basis) == level
    # By these values functions are found again.
    assert len(set(_values(basis))) == basis.scalars.size


@pytest.mark.reference
@pytest.mark.parametrize("name", REFERENCES)
def test_tables_are_those_of_published_files(name, reference):
    fields = Fields((reference / f"{name}.mtp").read_text())
    basis = published_basis(int(name[1:3]))
    assert basis.basic.ravel().tolist() == fields.integers("alpha_index_basic")
    assert basis.products.ravel().tolist() == fields.integers("alpha_index_times")
    assert basis.scalars.tolist() == fields.integers("alpha_moment_mapping")
    assert basis.n_moments == fields.count("alpha_moments_count")


def test_level_eight_as_published():
    # Written out by hand from the definition: M₀², M₁·M₁, M₂:M₂, M₀M₀', M₀³, M₀(M₁·M₁), M₀⁴.
    basis = published_basis(8)
    assert basis.basic[[0, 1, 4, 5, 10]].tolist() == [
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 2, 0, 0],
        [0, 1, 1, 0],
        [1, 0, 0, 0],
    ]
    second_rank = [[4, 4, 1], [5, 5, 2], [6, 6, 2], [7, 7, 1], [8, 8, 2], [9, 9, 1]]
    assert basis.products.tolist() == [
        [0, 0, 1, 11],
        *([i, i, 1, 12] for i in (1, 2, 3)),
        *([*row, 13] for row in second_rank),
        [0, 10, 1, 14],
        [0, 11, 1, 15],
        [0, 12, 1, 16],
        [0, 15, 1, 17],
    ]
    assert basis.scalars.tolist() == [0, 10, 11, 12, 13, 14, 15, 16, 17]


def test_products_can_be_carried_out_in_order():
    basis = published_basis(18)
    complete = len(basis.basic)
    for left, right, _, target in basis.products.tolist():
        assert max(left, right) < target
        assert target in {complete, complete - 1}
        complete = max(complete, target + 1)
    assert complete == basis.n_moments


@pytest.mark.parametrize("level", [-2, 0, 7])
def test_odd_or_no_levels_are_refused(level):
    with pytest.raises(InputError, match=f"even number from 2 to 32, got {level}"):
        published_basis(level)


@pytest.mark.parametrize("level", LEVELS_BOTH)
def test_our_functions_are_the_published_ones_in_another_order(level, make_structures):
    generated, published = generate_basis(level), published_basis(level)
    theirs, places = published_places(generated) or (generated, np.arange(generated.scalars.size))
    assert same_basis(theirs, published)
    assert sorted(places) == list(range(published.scalars.size))
    ours, back = generated_places(published)
    assert same_basis(ours, generated)
    np.testing.assert_array_equal(places[back], np.arange(places.size))
    # Numbers, too: each basis function of both at random moments. Sums of up to some hundred
    # products round at 1e-16 of their largest term.
    rng = np.random.default_rng(level)
    number = {tuple(moment): rng.normal() for moment in published.basic.tolist()}
    a, b = carried_out(generated, number)[places], carried_out(published, number)
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def carried_out(basis, number):
    """Basis functions where basic moments have the values ``number``."""
    moments = np.zeros(basis.n_moments)
    moments[: len(basis.basic)] = [number[tuple(moment)] for moment in basis.basic.tolist()]
    for left, right, coefficient, target in basis.products.tolist():
        moments[target] += coefficient * moments[left] * moments[right]
    return moments[basis.scalars]


def test_other_bases_are_left_alone():
    generated, published = generate_basis(12), published_basis(12)
    pruned = replace(generated, scalars=generated.scalars[:-1])
    turned = replace(generated, scalars=generated.scalars[::-1].copy())
    longer = Basis(
        generated.basic,
        np.vstack([generated.products, [[0, 0, 1, generated.n_moments]]]).astype(np.int32),
        generated.scalars,
        generated.n_moments + 1,
    )
    for basis in (pruned, turned, longer, published):
        assert published_places(basis) is None
    for basis in (pruned, turned, longer, generated):
        assert generated_places(basis) is None


def test_our_products_in_the_published_order_are_known():
    generated, published = generate_basis(12), published_basis(12)
    _, places = published_places(generated)
    ordered = replace(generated, scalars=generated.scalars[places])
    theirs, unchanged = published_places(ordered)
    assert same_basis(theirs, published)
    np.testing.assert_array_equal(unchanged, np.arange(places.size))


def test_the_order_of_our_functions_stays():
    # Files made here come back in the order of `generate_basis`, and active sets stored beside
    # them count on it: another order makes every stored set one of other parameters.
    _, places = published_places(generate_basis(10))
    assert places.tolist() == [0, 2, 9, 1, 3, 5, 10, 6, 11, 4, 7, 12, 13, 14, 8, 15]
