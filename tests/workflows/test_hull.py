"""The hull agrees with pymatgen's, entry by entry, and keeps its invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullscreen.potentials.errors import CompositionError
from hullscreen.workflows.hull import (
    STABLE_TOLERANCE,
    convex_hull,
    energy_above_hull,
    formation_energies,
)

ELEMENTS = ["Cu", "Ni", "Pt", "Al"]
# eV/atom. Energies are of the order of 1, both sides solve a 4×4 system: 1e-15 times its condition.
ROUNDING = 1e-12


def random_entries(n_elements, n_entries, seed, depth=0.5):
    """Atom counts of cells of up to 12 atoms and energies that favour mixing."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 12 // n_elements + 1, (n_entries, n_elements))
    counts[counts.sum(axis=1) == 0] = 1
    counts = np.concatenate([np.eye(n_elements, dtype=np.int64), counts])
    fractions = counts / counts.sum(axis=1, keepdims=True)
    energies = rng.normal(-3.0, 0.1, len(counts)) - depth * (1 - (fractions**2).sum(axis=1))
    return counts, fractions, energies


def phase_diagram(counts, energies):
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    entries = [
        PDEntry(
            Composition({s: int(n) for s, n in zip(ELEMENTS, row, strict=False) if n}),
            float(energy * row.sum()),
        )
        for row, energy in zip(counts, energies, strict=True)
    ]
    return PhaseDiagram(entries), entries


@pytest.mark.parametrize("n_elements", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("depth", [0.0, 0.5])
def test_agrees_with_pymatgen(n_elements, seed, depth):
    counts, fractions, energies = random_entries(n_elements, 150, seed, depth)
    diagram, entries = phase_diagram(counts, energies)
    hull = convex_hull(fractions, energies)
    above = [diagram.get_e_above_hull(entry, allow_negative=True) for entry in entries]
    assert hull.energies_above_hull == pytest.approx(above, abs=ROUNDING)
    formation = [diagram.get_form_energy_per_atom(entry) for entry in entries]
    assert hull.formation_energies == pytest.approx(formation, abs=ROUNDING)
    assert formation_energies(counts, energies) == pytest.approx(formation, abs=ROUNDING)
    assert {entries[i] for i in hull.vertices} == diagram.stable_entries
    assert {entries[i] for i in np.flatnonzero(hull.stable)} == diagram.stable_entries
    for i in np.flatnonzero(~hull.stable)[:20]:
        theirs = diagram.get_decomposition(entries[i].composition)
        ours = {entries[j]: share for j, share in hull.decomposition(int(i)).items()}
        assert set(ours) == {entry for entry, share in theirs.items() if share > 1e-9}
        for entry, share in ours.items():
            assert share == pytest.approx(theirs[entry], abs=ROUNDING)


def lower_hull_by_programming(fractions, energies, at):
    """Slow twin: the cheapest mixture of entries with the composition ``at``."""
    from scipy.optimize import linprog

    result = linprog(
        energies,
        A_eq=fractions.T,
        b_eq=at,
        bounds=(0, None),
        method="highs-ds",
        options={"dual_feasibility_tolerance": 1e-10, "primal_feasibility_tolerance": 1e-10},
    )
    return result.fun


@st.composite
def entry_sets(draw):
    """Compositions on a coarse grid and few energy levels: ties, duplicates, coplanar points."""
    n_elements = draw(st.integers(2, 4))
    denominator = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_entries = draw(st.integers(0, 25))
    counts = rng.multinomial(denominator, np.full(n_elements, 1 / n_elements), n_entries)
    counts = np.concatenate([np.eye(n_elements, dtype=np.int64), counts.reshape(-1, n_elements)])
    levels = draw(st.sampled_from([1, 2, 5, 10**9]))
    scale = draw(st.sampled_from([1e-6, 1e-3, 0.1, 10.0]))
    energies = -scale * rng.integers(0, levels + 1, len(counts)) / levels
    if draw(st.booleans()):
        energies[:n_elements] = 0.0
    return counts / counts.sum(axis=1, keepdims=True), energies


@settings(max_examples=150, deadline=None)
@given(entry_sets())
def test_never_negative_and_equal_to_linear_programming(entries):
    fractions, energies = entries
    hull = convex_hull(fractions, energies)
    assert (hull.energies_above_hull >= 0).all()
    assert hull.stable[hull.vertices].all()
    span = max(float(np.ptp(energies)), 1e-6)
    for i in range(0, len(fractions), 3):
        below = lower_hull_by_programming(fractions, energies / span, fractions[i]) * span
        # The simplex solver's own tolerance is 1e-10 of the largest energy.
        assert hull.energies_above_hull[i] == pytest.approx(energies[i] - below, abs=1e-8 * span)


@settings(max_examples=100, deadline=None)
@given(entry_sets())
def test_the_hull_supports_every_entry_and_touches_its_corners(entries):
    hull = convex_hull(*entries)
    at_entries = hull.hull_energy_at(hull.fractions)
    size = max(1.0, float(np.abs(hull.formation_energies).max()))
    assert (at_entries <= hull.formation_energies + ROUNDING * size).all()
    corners = hull.formation_energies[hull.vertices]
    assert at_entries[hull.vertices] == pytest.approx(corners, abs=ROUNDING * size)


@settings(max_examples=100, deadline=None)
@given(entry_sets())
def test_decompositions_keep_the_composition_and_have_the_hulls_energy(entries):
    hull = convex_hull(*entries)
    for i in range(len(hull.fractions)):
        parts = hull.decomposition(i)
        shares = np.array(list(parts.values()))
        members = np.array(list(parts))
        assert (shares > 0).all()
        assert hull.stable[members].all()
        assert shares @ hull.fractions[members] == pytest.approx(hull.fractions[i], abs=1e-9)
        energy = shares @ hull.formation_energies[members]
        above = hull.formation_energies[i] - energy
        assert above == pytest.approx(hull.energies_above_hull[i], abs=2 * STABLE_TOLERANCE)


@settings(max_examples=60, deadline=None)
@given(entry_sets(), st.integers(0, 2**32 - 1))
def test_an_entry_above_the_hull_changes_nothing(entries, seed):
    fractions, energies = entries
    rng = np.random.default_rng(seed)
    before = convex_hull(fractions, energies)
    new = rng.dirichlet(np.ones(fractions.shape[1]), 5)
    reference = new @ energies[: fractions.shape[1]]
    lowest = [energies[(fractions[:, k] == 1)].min() for k in range(fractions.shape[1])]
    reference = new @ np.array(lowest)
    above = before.hull_energy_at(new) + reference + rng.uniform(1e-3, 1.0, 5)
    after = energy_above_hull(np.concatenate([fractions, new]), np.concatenate([energies, above]))
    assert after[: len(energies)] == pytest.approx(before.energies_above_hull, abs=1e-11)


@settings(max_examples=60, deadline=None)
@given(entry_sets(), st.randoms(use_true_random=False))
def test_the_order_of_elements_and_entries_does_not_matter(entries, random):
    fractions, energies = entries
    columns = list(range(fractions.shape[1]))
    rows = list(range(len(fractions)))
    random.shuffle(columns)
    random.shuffle(rows)
    expected = energy_above_hull(fractions, energies)[rows]
    shuffled = energy_above_hull(fractions[np.ix_(rows, columns)], energies[rows])
    assert shuffled == pytest.approx(expected, abs=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_compositions_of_very_large_cells(n_elements, seed):
    # 300 atoms: facets can be slivers, which is where a hull code loses digits.
    rng = np.random.default_rng(seed)
    counts = [rng.multinomial(300, p) for p in rng.dirichlet(np.full(n_elements, 0.3), 200)]
    fractions = np.concatenate([np.eye(n_elements), np.array(counts) / 300])
    energies = (fractions**2).sum(axis=1) - 1.0
    hull = convex_hull(fractions, energies)
    # The energy is strictly convex in the composition: every entry is a corner.
    assert hull.energies_above_hull == pytest.approx(np.zeros(len(fractions)), abs=1e-9)
    middle = rng.dirichlet(np.ones(n_elements), 20)
    convex = hull.hull_energy_at(middle)
    assert (convex >= (middle**2).sum(axis=1) - 1.0 - 1e-9).all()
    # A mixture of entries with the hull's energy, under planes that no entry undercuts: the two
    # together prove the value.
    assert (hull.hull_energy_at(fractions) <= hull.formation_energies + 1e-9).all()
    for row, energy in zip(middle, convex, strict=True):
        parts = hull.decomposition_at(row)
        mixed = sum(share * hull.formation_energies[i] for i, share in parts.items())
        assert energy == pytest.approx(mixed, abs=1e-9)


def test_compositions_lost_in_rounding_are_refused():
    rng = np.random.default_rng(14)
    fractions = np.concatenate([np.eye(3), rng.dirichlet(np.full(3, 0.05), 200)])
    with pytest.raises(CompositionError, match="atom counts divided by their sum"):
        convex_hull(fractions, (fractions**2).sum(axis=1) - 1.0)


def test_only_the_elements():
    hull = convex_hull(np.eye(3), np.array([-1.0, -2.0, -3.0]))
    assert hull.stable.tolist() == [True, True, True]
    assert hull.facets.tolist() == [[0, 1, 2]]
    assert hull.hull_energy_at(np.array([[0.2, 0.3, 0.5]])).tolist() == [0.0]


def test_everything_lies_above():
    fractions = np.array([[1, 0], [0.5, 0.5], [0, 1], [0.25, 0.75]])
    hull = convex_hull(fractions, np.array([-1.0, -0.5, -1.0, -0.9]))
    assert hull.energies_above_hull == pytest.approx([0, 0.5, 0, 0.1], abs=1e-15)
    assert hull.decomposition(3) == {0: 0.25, 2: 0.75}


def test_one_composition_is_an_element():
    hull = convex_hull(np.ones((3, 1)), np.array([-1.0, -3.0, -2.0]))
    assert hull.energies_above_hull.tolist() == [2.0, 0.0, 1.0]


def test_ties_are_all_stable_and_the_first_is_the_corner():
    fractions = np.array([[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.75, 0.25]])
    energies = np.array([0.0, 0.0, -0.2, -0.2 - 5e-10, -0.2 + 2e-9, -0.1])
    hull = convex_hull(fractions, energies)
    # Within 1e-9 of the corner, 2.5e-9 above it, and a point on the tie line.
    assert hull.stable.tolist() == [True, True, True, True, False, True]
    assert hull.vertices.tolist() == [0, 1, 3]


def test_a_compound_deeper_than_rounding_is_on_the_hull():
    fractions = np.array([[1, 0], [0, 1], [0.5, 0.5]])
    hull = convex_hull(fractions, np.array([-3.0, -4.0, -3.5 - 1e-6]))
    assert hull.vertices.tolist() == [0, 1, 2]
    assert hull.hull_energy_at(np.array([[0.75, 0.25]])) == pytest.approx([-0.5e-6], abs=1e-14)


@pytest.mark.parametrize(
    ("fractions", "energies", "message"),
    [
        ([[1.0, 0.0], [0.5, 0.5]], [0, 0], "pure element number 1"),
        ([[1.0, 0.0], [0.0, 1.0], [0.5, 0.4]], [0, 0, 0], r"came \[0.5, 0.4\] in row 2"),
        ([[1.0, 0.0], [0.0, 1.0], [1.5, -0.5]], [0, 0, 0], "not negative"),
        ([[1.0, 0.0], [0.0, 1.0]], [0, 0, 0], "one energy for each of 2 entries"),
        ([[1.0, 0.0], [0.0, 1.0]], [0, np.nan], "finite energies, came nan for entry 1"),
        ([[1.0, 0.0], [0.0, np.nan]], [0, 0], r"in row 1"),
        ([1.0, 0.0], [0, 0], r"expected fractions of shape"),
        (np.zeros((0, 2)), [], "pure element number 0"),
    ],
)
def test_bad_input_is_named(fractions, energies, message):
    with pytest.raises(CompositionError, match=message):
        energy_above_hull(np.array(fractions), np.array(energies))


def test_empty_rows_of_counts_are_named():
    with pytest.raises(CompositionError, match="row 1 is empty"):
        formation_energies(np.array([[1, 0], [0, 0], [0, 1]]), np.zeros(3))
    with pytest.raises(CompositionError, match=r"shape \(n, 2\), came \(1, 3\)"):
        convex_hull(np.eye(2), np.zeros(2)).hull_energy_at(np.array([[0.2, 0.3, 0.5]]))
