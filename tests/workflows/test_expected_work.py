"""Expected numbers of calculations against those of campaigns that were run to their end."""

import pytest

from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.workflows.expected_work import (
    LEARNING_RANGE,
    Estimate,
    expected_calculations,
    labelling_rounds,
    potential_seconds,
)
from hullscreen.workflows.settings_tree import Screening

# Elements, levels, structures of the pool; then what finished campaigns with EMT asked for: seed,
# learn, validate, refine, final relaxations. `hullscreen report --json`, 2026-11-21.
FINISHED = {
    "Cu-Pd, 4 atoms": (2, (8, 12), 71, (32, 64, 10, 11, 6)),
    "Ni-Pt, 4 atoms, AFLOW": (2, (8, 12), 400, (32, 90, 39, 40, 14)),
    "Cu-Pd, levels 6 and 10": (2, (6, 10), 400, (32, 66, 39, 40, 18)),
    "Cu-Pd, 6 atoms, AFLOW": (2, (8, 12), 666, (32, 96, 40, 42, 16)),
    "Ni-Pt, 6 atoms": (2, (8, 12), 337, (32, 58, 33, 19, 8)),
    "Ag-Al, 8 atoms, AFLOW": (2, (8, 12), 1922, (32, 107, 43, 80, 36)),
    "Cu-Pd, levels 10 and 16": (2, (10, 16), 1922, (32, 202, 43, 40, 13)),
    "Cu-Ni-Pt, 3 atoms": (3, (8, 12), 66, (38, 126, 10, 11, 9)),
    "Cu-Ni-Pt, 4 atoms, AFLOW": (3, (8, 12), 1356, (38, 211, 40, 70, 34)),
    "Cu-Ni-Pt, 6 atoms, AFLOW": (3, (8, 12), 3716, (38, 253, 60, 80, 32)),
    "Cu-Ni-Pt, 11 atoms": (3, (8, 12), 400_653, (50, 342, 632, 348, 39)),
    "Al-Ni-Cu-Pt, 3 atoms": (4, (8, 12), 138, (44, 269, 13, 21, 14)),
}
ELEMENTS = ("Cu", "Ni", "Pt", "Al")


def parameters(n_elements, levels):
    return tuple(
        untrained(
            level, ELEMENTS[:n_elements], cutoff=5.5, min_distance=2.0, radial_basis_size=6
        ).parameters.size
        for level in levels
    )


@pytest.mark.parametrize("name", FINISHED)
def test_finished_campaigns_lie_within_the_ranges(name):
    n_elements, levels, n_structures, asked = FINISHED[name]
    found = expected_calculations(
        n_structures, n_elements, asked[0], parameters(n_elements, levels), Screening()
    )
    assert list(found) == ["seed", "learn", "validate", "refine", "final"]
    for purpose, n in zip(found, asked, strict=True):
        estimate = found[purpose]
        assert estimate.low <= n <= estimate.high, (purpose, estimate, n)
    labels = sum(found[purpose].expected for purpose in found)
    assert sum(asked) / 1.5 < labels < 1.5 * sum(asked)


def test_more_structures_elements_or_parameters_ask_for_more():
    def total(n, n_elements=2, n_parameters=(59, 103)):
        found = expected_calculations(n, n_elements, 32, n_parameters, Screening())
        return sum(estimate.expected for estimate in found.values())

    totals = [total(n) for n in (2, 50, 500, 5000, 50_000, 500_000)]
    assert totals == sorted(totals)
    assert total(500) < total(500, n_elements=4)
    assert total(500) < total(500, n_parameters=(120, 194))
    assert labelling_rounds(50)["learn"] < labelling_rounds(5000)["learn"]


def test_a_sample_that_the_settings_name_is_known():
    found = expected_calculations(5000, 2, 32, (59, 103), Screening(validation_structures=7))
    assert found["validate"] == Estimate(6, 7, 7)
    assert found["refine"].expected < 40


def test_ranges_of_sums_and_products():
    some = Estimate(1, 2, 4) + Estimate.exactly(1)
    assert some == Estimate(2, 3, 5)
    assert some.times(0.5, 1, 2) == Estimate(1, 3, 10)
    assert some.at_least(4) == Estimate(4, 4, 5)
    assert Estimate.around(10, LEARNING_RANGE).low < 10
    assert Estimate(0.4, 1.6, 2.5).whole() == Estimate(0, 2, 2)


def test_time_of_the_potentials_is_that_of_the_largest_campaign():
    # 8 min 41 s, of which 9.6 s were DFT's.
    found = potential_seconds(400_653, Estimate.exactly(1372), 194)
    assert found.low < 511 < found.high
