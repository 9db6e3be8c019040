"""MaxVol: the set has the volume it promises, grows from what it was, and grades as MLIP-3 does."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullscreen.potentials.active_set import (
    NOT_SET,
    SWAP_THRESHOLD,
    SWAPS_BETWEEN_INVERSIONS,
    UNSEEN,
    empty_active_set,
    select_active_set,
    select_candidates,
)
from hullscreen.potentials.almtp_files import read_almtp
from hullscreen.potentials.cfg_files import read_cfg, to_structures
from hullscreen.potentials.errors import PotentialError

# A⁻¹ gathers rounding errors between inversions; with condition numbers below 1e4 here they stay
# below 1e-9.
INVERSE_ROUNDING = 1e-9

matrices = st.builds(
    lambda n, extra, seed: np.random.default_rng(seed).normal(size=(n + extra, n)),
    st.integers(1, 8),
    st.integers(0, 40),
    st.integers(0, 10_000),
)


@settings(max_examples=50, deadline=None)
@given(rows=matrices)
def test_no_row_lies_outside_the_set(rows):
    active = select_active_set(rows)
    np.testing.assert_allclose(
        active.rows @ active.inverse, np.eye(rows.shape[1]), atol=INVERSE_ROUNDING
    )
    assert active.grades(rows).max() <= SWAP_THRESHOLD * (1 + INVERSE_ROUNDING)
    for place, source in enumerate(active.sources):
        expected = UNSEEN * np.eye(rows.shape[1])[place] if source == NOT_SET else rows[source]
        np.testing.assert_array_equal(active.rows[place], expected)


@settings(max_examples=30, deadline=None)
@given(rows=matrices)
def test_the_volume_is_near_the_largest(rows):
    n = rows.shape[1]
    if n > 3:
        rows = rows[: n + 2]
    best = max(
        abs(np.linalg.det(rows[list(chosen)]))
        for chosen in itertools.combinations(range(len(rows)), n)
    )
    found = abs(np.linalg.det(select_active_set(rows).rows))
    # A submatrix whose rows reach no other by more than a factor t has at least
    # (t √n)⁻ⁿ of the largest volume (Goreinov et al., lemma 1); never more than the largest.
    assert best / (SWAP_THRESHOLD * np.sqrt(n)) ** n <= found <= best * (1 + INVERSE_ROUNDING)


def test_many_swaps_keep_the_inverse():
    rng = np.random.default_rng(2)
    # Longer and longer rows, so that nearly each is swapped in once.
    rows = rng.normal(size=(800, 30)) * np.linspace(1, 50, 800)[:, None]
    order = np.arange(800)
    active = empty_active_set(30)
    n_swaps = 0
    for part in np.array_split(order, 40):
        grown = select_active_set(rows[part], active)
        n_swaps += np.count_nonzero(grown.sources != NOT_SET)
        active = grown
    assert n_swaps > 2 * SWAPS_BETWEEN_INVERSIONS
    np.testing.assert_allclose(active.rows @ active.inverse, np.eye(30), atol=INVERSE_ROUNDING)


def test_nothing_seen_extrapolates_strongly():
    active = empty_active_set(3)
    assert active.grades(np.array([[0.0, 2.0, 0.0]]))[0] == pytest.approx(2.0 / UNSEEN, rel=1e-12)
    assert active.grades(np.zeros((0, 3))).shape == (0,)


def test_starting_warm_only_adds_what_enlarges():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(60, 5)), rng.normal(size=(60, 5))
    old = select_active_set(first)
    same = select_active_set(first, old)
    assert (same.sources == NOT_SET).all()
    np.testing.assert_array_equal(same.rows, old.rows)
    inside = 0.5 * old.rows / np.abs(old.rows @ old.inverse).max()
    assert (select_active_set(inside, old).sources == NOT_SET).all()
    larger = select_active_set(3.0 * second, old)
    assert abs(np.linalg.det(larger.rows)) > abs(np.linalg.det(old.rows))
    assert select_active_set(np.zeros((0, 5)), old).rows is not old.rows


def test_candidates_come_by_falling_grade_and_once():
    rng = np.random.default_rng(1)
    active = select_active_set(rng.normal(size=(60, 5)))
    candidates = 2.0 * rng.normal(size=(80, 5))
    chosen = select_candidates(active, candidates)
    grades = active.grades(candidates)
    assert len(chosen)
    assert len(set(chosen.tolist())) == len(chosen)
    assert (np.diff(grades[chosen]) <= 0).all()
    assert (grades[chosen] > 1.0).all()
    # Once learnt, they would not be chosen again.
    grown = select_active_set(candidates, active)
    assert not len(select_candidates(grown, candidates))


def test_rows_that_are_no_numbers():
    with pytest.raises(PotentialError, match="not finite"):
        select_active_set(np.array([[np.nan, 1.0]]))


def test_an_end_is_promised():
    with pytest.raises(PotentialError, match="did not end in 3 swaps"):
        select_active_set(np.random.default_rng(0).normal(size=(50, 10)), max_swaps=3)


@pytest.fixture(scope="module")
def graded(reference):
    """Potential, active set, candidates, and the grades that MLIP-3 found for them."""
    potential, selection = read_almtp(reference / "relax" / "CuAu_EMT_L08.almtp")
    configurations = read_cfg(reference / "relax" / "cand_1000_graded_mlip3.cfg")
    grades = [float(one.features["MV_grade"][0]) for one in configurations]
    structures = to_structures(configurations)
    rows = potential.evaluate(structures, "structures").gradients
    return selection.active_set, rows / structures.n_atoms[:, None], np.array(grades)


@pytest.mark.reference
def test_grades_of_a_thousand_candidates(graded):
    active, rows, grades = graded
    # MLIP-3 wrote positions with 6 decimals (1e-6 Å) and grades with 6 digits.
    np.testing.assert_allclose(active.grades(rows), grades, rtol=1e-4)


@pytest.mark.reference
def test_about_as_many_are_chosen_as_by_mlip(graded, reference):
    active, rows, _ = graded
    chosen = select_candidates(active, rows)
    theirs = len(read_cfg(reference / "relax" / "select_add_mlip3.cfg"))
    # The order of swaps decides which local maximum of the volume is found: 62 beside 59.
    assert abs(len(chosen) - theirs) <= 0.15 * theirs
    volumes = np.linalg.slogdet(select_active_set(rows, active).rows).logabsdet
    assert volumes > np.linalg.slogdet(active.rows).logabsdet
