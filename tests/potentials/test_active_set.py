"""MaxVol: the set has the volume it promises, grows from what it was, and grades as MLIP-3 does."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullscreen.potentials import maxvol
from hullscreen.potentials.active_set import (
    NOT_SET,
    SWAP_THRESHOLD,
    UNSEEN,
    ActiveSet,
    empty_active_set,
    select_active_set,
    select_candidates,
)
from hullscreen.potentials.almtp_files import read_almtp
from hullscreen.potentials.cfg_files import read_cfg, to_structures
from hullscreen.potentials.errors import PotentialError
from hullscreen.potentials.gradient_rows import GradientRows, energy_rows
from hullscreen.potentials.maxvol_kernels import enlarge, wander
from hullscreen.potentials.mtp_files import read_mtp

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


def volume(active):
    return np.linalg.slogdet(active.rows).logabsdet


tables = st.builds(
    lambda n, m, seed: np.random.default_rng(seed).normal(size=(n + m, n)),
    st.integers(1, 8),
    st.integers(1, 30),
    st.integers(0, 10_000),
)


@settings(max_examples=60, deadline=None)
@given(rows=tables, pairs=st.booleans())
def test_the_compiled_search_leaves_no_swap_and_no_pair(rows, pairs):
    n = rows.shape[1]
    members, others = np.arange(n), np.arange(n, len(rows))
    before = abs(np.linalg.det(rows[:n]))
    coefficients = rows[n:] @ np.linalg.inv(rows[:n])
    swaps = enlarge(coefficients, members, others, SWAP_THRESHOLD, 10_000, pairs)
    assert sorted([*members, *others]) == list(range(len(rows)))
    assert abs(np.linalg.det(rows[members])) >= before * SWAP_THRESHOLD ** min(swaps, 1)
    expected = rows[others] @ np.linalg.inv(rows[members])
    # Random starts may be nearly singular: what is lost there stays far below a swap's gain.
    np.testing.assert_allclose(coefficients, expected, atol=1e-6)
    assert np.abs(expected).max() <= SWAP_THRESHOLD + 1e-6
    if pairs:
        minors = np.einsum("ij,kl->ijkl", expected, expected)
        minors -= np.einsum("il,kj->ijkl", expected, expected)
        assert np.abs(minors).max() <= SWAP_THRESHOLD + 1e-6


@settings(max_examples=60, deadline=None)
@given(rows=tables)
def test_detours_end_at_a_larger_volume_or_where_they_began(rows):
    first = select_active_set(rows)
    members = first.sources.copy()
    others = np.setdiff1d(np.arange(len(rows)), members)
    found, left = members.copy(), others.copy()
    if wander(rows[others] @ first.inverse, found, left, SWAP_THRESHOLD, 30, 3):
        gain = np.linalg.slogdet(rows[found]).logabsdet - volume(first)
        assert gain > np.log(SWAP_THRESHOLD) - INVERSE_ROUNDING
        assert sorted([*found, *left]) == list(range(len(rows)))
    else:
        np.testing.assert_array_equal(found, members)
        np.testing.assert_array_equal(left, others)


@settings(max_examples=40, deadline=None)
@given(rows=matrices, sizes=st.lists(st.integers(0, 30), min_size=1, max_size=20))
def test_blocks_of_any_size_give_the_same_set(rows, sizes):
    ends = np.minimum(np.cumsum([*sizes, len(rows)]), len(rows))
    blocks = [rows[first:last] for first, last in itertools.pairwise([0, *ends])]
    whole, streamed = select_active_set(rows), select_active_set(blocks)
    np.testing.assert_array_equal(streamed.rows, whole.rows)
    np.testing.assert_array_equal(streamed.sources, whole.sources)


@settings(max_examples=40, deadline=None)
@given(rows=matrices, at_once=st.integers(1, 50))
def test_little_memory_still_leaves_no_row_outside(rows, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maxvol, "ROWS_AT_ONCE", at_once)
        active = select_active_set(rows)
        assert active.grades(rows).max() <= SWAP_THRESHOLD * (1 + INVERSE_ROUNDING)
    # Both are maxima of the volume, of which there are many; each keeps to the bound of lemma 1.
    n = rows.shape[1]
    bound = n * np.log(SWAP_THRESHOLD * np.sqrt(n)) + INVERSE_ROUNDING
    assert abs(volume(active) - volume(select_active_set(rows))) <= bound


@settings(max_examples=30, deadline=None)
@given(rows=matrices, seed=st.integers(0, 100))
def test_the_order_of_candidates_does_not_matter(rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    assert volume(select_active_set(rows[order])) == pytest.approx(
        volume(select_active_set(rows)), abs=INVERSE_ROUNDING
    )


def test_thousands_of_swaps_keep_the_inverse():
    rng = np.random.default_rng(2)
    # Longer and longer rows, a few at a time, so that nearly each is swapped in once.
    rows = rng.normal(size=(9000, 30)) * np.geomspace(1, 1e6, 9000)[:, None]
    start = empty_active_set(30)
    chosen = maxvol.Chosen(start.rows, start.inverse, -1 - np.arange(30), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maxvol, "ROWS_AT_ONCE", 20)
        found = maxvol.largest_volume([rows], chosen, maxvol.Limits(SWAP_THRESHOLD, 100_000))
    assert found.n_swaps > 2000
    np.testing.assert_allclose(found.rows @ found.inverse, np.eye(30), atol=INVERSE_ROUNDING)


def test_many_swaps_without_an_inversion_keep_the_coefficients():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(1200, 400))
    members, others = np.arange(400), np.arange(400, 1200)
    coefficients = rows[400:] @ np.linalg.inv(rows[:400])
    limit = maxvol.SWAPS_BETWEEN_INVERSIONS
    assert enlarge(coefficients, members, others, SWAP_THRESHOLD, limit, pairs=False) > limit / 2
    # Far below the least gain of a swap, 1e-3, so that none is made or left by mistake.
    expected = rows[others] @ np.linalg.inv(rows[members])
    np.testing.assert_allclose(coefficients, expected, atol=1e-8)


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((5, 4)),
        np.zeros((0, 4)),
        np.ones((1, 4)),
        np.repeat(np.arange(12.0).reshape(3, 4), 5, axis=0),
        np.random.default_rng(0).normal(size=(50, 2)) @ np.ones((2, 4)),
    ],
    ids=["zeros", "none", "one", "duplicates", "dependent"],
)
def test_rows_that_do_not_span_the_space(rows):
    active = select_active_set(rows)
    rank = np.linalg.matrix_rank(rows) if len(rows) else 0
    assert np.count_nonzero(active.sources != NOT_SET) == rank
    assert len(set(active.sources[active.sources != NOT_SET])) == rank
    unseen = active.sources == NOT_SET
    np.testing.assert_array_equal(active.rows[unseen], UNSEEN * np.eye(4)[unseen])
    assert active.grades(rows).max(initial=0.0) <= SWAP_THRESHOLD


def test_rows_of_the_start_keep_their_places_and_may_come_back():
    rng = np.random.default_rng(4)
    old = select_active_set(rng.normal(size=(60, 8)))
    new = select_active_set(1.1 * rng.normal(size=(40, 8)), old)
    stayed = new.sources == NOT_SET
    assert 0 < stayed.sum() < 8
    np.testing.assert_array_equal(new.rows[stayed], old.rows[stayed])
    # Those that left would not enlarge the set again.
    assert new.grades(old.rows).max() <= SWAP_THRESHOLD * (1 + INVERSE_ROUNDING)


def test_grades_of_many_rows_are_those_of_each():
    rng = np.random.default_rng(5)
    active = select_active_set(rng.normal(size=(60, 7)))
    rows = rng.normal(size=(2 * maxvol.ROWS_AT_ONCE + 3, 7))
    expected = [np.abs(row @ active.inverse).max() for row in rows]
    # Sums of seven products in another order.
    np.testing.assert_allclose(active.grades(rows), expected, rtol=1e-13)


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_no_numbers(value):
    rows = np.random.default_rng(0).normal(size=(3000, 3))
    rows[2500, 1] = value
    with pytest.raises(PotentialError, match="of candidate 2500 by the parameters are not finite"):
        select_active_set(rows)
    with pytest.raises(PotentialError, match="of candidate 2500 by"):
        select_active_set([rows[:10], rows[10:]], select_active_set(rows[:10]))
    broken = ActiveSet(np.eye(3), np.full((3, 3), value), np.zeros(3, dtype=np.int64))
    with pytest.raises(PotentialError, match="not finite"):
        select_active_set(rows[:5], broken)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (np.zeros(3), r"expected rows of shape .* got \(3,\)"),
        ([], "neither candidates nor an active set"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"3 parameters, .* candidate 2 has .* \(2, 4\)"),
        (iter([np.zeros((2, 3))]), "several times, but got an iterator"),
    ],
    ids=["one row", "nothing", "other potential", "generator"],
)
def test_candidates_that_are_none(rows, sentence):
    with pytest.raises(PotentialError, match=sentence):
        select_active_set(rows)


def test_rows_of_another_potential():
    with pytest.raises(PotentialError, match="has 3 parameters, but a block"):
        select_active_set(np.zeros((2, 4)), empty_active_set(3))


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
    return selection.active_set, energy_rows(potential, structures), np.array(grades)


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


@pytest.mark.reference
@pytest.mark.parametrize("name", ["L06_1sp", "L08_2sp", "L10_3sp", "L16_1sp", "L16_2sp"])
def test_the_volume_is_at_least_that_of_mlip(name, reference):
    potential, theirs = read_almtp(reference / f"{name}_state.almtp")
    pool = to_structures(read_cfg(reference / f"{name}_cand.cfg"))
    rows = GradientRows(potential, pool, "sites" if theirs.by_neighbourhood else "structures")
    ours = select_active_set(rows)
    # Where both found the same rows, their volumes differ by the rounding of log|det|.
    assert volume(ours) >= volume(theirs.active_set) - 1e-9
    unset = np.count_nonzero(theirs.active_set.sources == NOT_SET)
    assert np.count_nonzero(ours.sources == NOT_SET) == unset


@pytest.mark.reference
@pytest.mark.parametrize("level", ["08", "16"])
def test_the_volume_of_labels_is_at_least_that_of_mlip(level, reference):
    folder = reference / "relax"
    potential, theirs = read_almtp(folder / f"CuAu_EMT_L{level}.almtp")
    labels = GradientRows(potential, to_structures(read_cfg(folder / "train_CuAu_EMT_200.cfg")))
    pool = GradientRows(potential, to_structures(read_cfg(folder / "cand_1000.cfg")))
    ours = select_active_set(labels)
    assert volume(ours) >= volume(theirs.active_set)
    # What MLIP's rule makes of the pool: one swap after the other, the largest factor first.
    block = np.concatenate([theirs.active_set.rows, *pool])
    n = len(ours.rows)
    members, others = np.arange(n), np.arange(n, len(block))
    while enlarge(
        block[others] @ np.linalg.inv(block[members]),
        members,
        others,
        SWAP_THRESHOLD,
        50,
        pairs=False,
    ):
        pass
    swapped = np.linalg.slogdet(block[members]).logabsdet
    assert volume(select_active_set(pool, ours)) >= swapped
    assert volume(select_active_set(pool, theirs.active_set)) >= swapped
    assert volume(select_active_set([*labels, *pool])) >= swapped
    if level == "08":
        chosen = to_structures(read_cfg(folder / "select_add_mlip3.cfg"))
        added = select_active_set(GradientRows(potential, chosen), theirs.active_set)
        assert volume(select_active_set(pool, ours)) >= volume(added)


@pytest.mark.reference
def test_a_pool_in_parts_reaches_the_volume_of_the_whole(reference, monkeypatch):
    folder = reference / "relax"
    potential = read_mtp(folder / "CuAu_EMT_L16.mtp")
    pool = GradientRows(potential, to_structures(read_cfg(folder / "cand_1000.cfg")))
    rows = np.concatenate(list(pool))
    whole = volume(select_active_set(rows))
    for at_once in (100, 300):
        monkeypatch.setattr(maxvol, "ROWS_AT_ONCE", at_once)
        # Of 222 rows; the maxima of the volume that were found lie within 1 of one another.
        assert abs(volume(select_active_set(rows)) - whole) < 2.0
