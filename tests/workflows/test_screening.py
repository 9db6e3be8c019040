"""σ, what a relaxation can gain, and how many structures are taken."""

import math

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from hullscreen.dft_adapters.ase_engine import ASEEngine
from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows.screening import (
    GAIN_SAFETY,
    SMALLEST_SAMPLE,
    TAIL_FREEDOM,
    estimate_errors,
    expected_losses,
    next_wave,
    possible_gain,
    random_sample,
    sample_size,
)


@given(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=60), st.floats(-5, 5))
def test_the_estimate_is_what_numpy_says(errors, level):
    predicted = np.linspace(level, level + 1.0, len(errors))
    computed = predicted + np.array(errors)
    estimate = estimate_errors(predicted, computed)
    kept = computed - predicted
    # The same operations in another order: rounding.
    assert estimate.sigma == pytest.approx(np.linalg.norm(kept) / len(kept) ** 0.5, abs=1e-14)
    assert estimate.uncertainty == pytest.approx(estimate.sigma / (2 * len(kept)) ** 0.5, abs=1e-14)
    assert estimate.largest == max(abs(kept))
    assert estimate.lowest == min(*kept, 0.0)
    assert estimate.mean == pytest.approx(sum(kept) / len(kept), abs=1e-14)
    assert estimate.n_structures == len(errors)
    # Float sums may end an ulp above the largest term.
    assert estimate.sigma <= estimate.largest * (1 + 1e-12)


def test_a_window_is_no_smaller_than_the_largest_error_towards_stability():
    estimate = estimate_errors(np.zeros(4), np.array([0.03, 0.01, -0.04, 0.0]))
    assert estimate.window(4.0) == 4.0 * estimate.sigma
    assert estimate.window(1.0) == 0.04
    # Structures that lie above their prediction are no reason to keep more.
    assert estimate_errors(np.zeros(2), np.array([0.5, 0.5])).window(0.1) == pytest.approx(0.05)


def test_the_uncertainty_is_how_much_sigma_scatters():
    rng = np.random.default_rng(0)
    n = 40
    estimates = [estimate_errors(np.zeros(n), rng.normal(size=n)) for _ in range(4000)]
    sigmas = np.array([estimate.sigma for estimate in estimates])
    # 4,000 samples know a standard deviation to 1 %, and the formula neglects terms of 1/n.
    assert np.mean([e.uncertainty for e in estimates]) == pytest.approx(sigmas.std(), rel=0.05)


@pytest.mark.parametrize("n", [0, 1])
def test_no_sigma_from_less_than_two_structures(n):
    with pytest.raises(CampaignError, match=f"at least two validated structures, got {n}"):
        estimate_errors(np.zeros(n), np.zeros(n))


# Ordered fcc alloys: symbols and sites in units of the lattice constant of the cubic cell.
CRYSTALS = {
    "Cu4": (3.61, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    "Pd4": (3.89, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    "Cu3Pd": (3.70, [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0, 0]]),
    "CuPd3": (3.83, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    "CuPdCuPd": (3.77, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5]]),
}


@pytest.mark.parametrize("symbols", CRYSTALS)
def test_no_relaxation_gains_more_than_is_possible(symbols, tmp_path):
    engine = ASEEngine()
    constant, sites = CRYSTALS[symbols]
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(12):
        size = rng.uniform(0.2, 1.0)
        deformation = np.eye(3) + rng.normal(scale=0.02 * size, size=(3, 3))
        cell = constant * deformation
        positions = sites @ cell + rng.normal(scale=0.05 * size, size=(4, 3))
        atoms = Atoms(symbols, positions=positions, cell=cell, pbc=True)
        start = engine.single_point(atoms, tmp_path)
        end = engine.relax(
            atoms, tmp_path, force_tolerance=0.005, stress_tolerance=2e-4, max_steps=200
        )
        assert end.converged
        gain = start.energy - end.energy
        assert gain > 0
        bound = possible_gain(start.forces, start.stress, atoms.get_volume())
        shares.append(gain / bound)
    assert max(shares) < 1.0
    # A bound that is never half used up would keep structures that cannot matter.
    assert max(shares) > 0.01


def test_the_possible_gain_is_quadratic_and_adds_up():
    rng = np.random.default_rng(1)
    forces, stress = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    none, still = np.zeros((3, 3)), np.zeros((3, 3))
    gain = possible_gain(forces, stress, 40.0)
    # One sum in two parts: rounding.
    assert possible_gain(2 * forces, 2 * stress, 40.0) == pytest.approx(4 * gain, rel=1e-13)
    parts = possible_gain(forces, none, 40.0) + possible_gain(still, stress, 40.0)
    assert parts == pytest.approx(gain, rel=1e-13)
    assert possible_gain(none, still, 40.0) == 0.0
    # A spring of 1 eV/Å² drawn by 0.1 eV/Å gains 5 meV.
    assert possible_gain(np.array([[0.1, 0, 0]]), none, 1.0) == pytest.approx(GAIN_SAFETY * 0.005)


@pytest.mark.parametrize(
    ("n_structures", "wanted", "expected"),
    [
        (0, 40, 0),
        (5, 40, 5),
        (20, 40, 10),
        (99, 40, 10),
        (250, 40, 25),
        (400, 40, 40),
        (10**6, 40, 40),
        (50, 4, 4),
    ],
)
def test_sizes_of_samples(n_structures, wanted, expected):
    assert sample_size(n_structures, wanted) == expected


@given(st.integers(0, 10**6), st.integers(2, 1000))
def test_a_sample_is_never_larger_than_what_there_is_or_what_is_wanted(n, wanted):
    size = sample_size(n, wanted)
    assert 0 <= size <= min(n, wanted)
    assert size >= min(n, wanted, SMALLEST_SAMPLE)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 2**32))
def test_random_samples_are_different_things_and_the_same_for_a_seed(n, size, seed):
    sample = random_sample(n, size, seed)
    assert len(sample) == min(n, size)
    assert (np.diff(sample) > 0).all()
    assert all(0 <= i < n for i in sample)
    assert (sample == random_sample(n, size, seed)).all()


def test_random_samples_prefer_nothing():
    drawn = np.bincount(
        np.concatenate([random_sample(10, 3, seed) for seed in range(3000)]), minlength=10
    )
    # 900 of each expected; the standard deviation is 25.
    assert abs(drawn - 900).max() < 125


@given(st.integers(1, 10**5), st.floats(1.0, 10.0), st.integers(1, 10**4), st.integers(1, 10**5))
def test_waves_grow_to_the_pool_and_not_further(wave, growth, most_new, total):
    following = next_wave(wave, growth, most_new, total)
    assert following <= total
    assert following <= wave + most_new
    if wave < total:
        assert following > wave
        assert following <= max(wave + 1, wave * growth)


def test_expected_losses_are_sums_of_tails():
    heights = np.array([0.04, 0.05, 0.08])
    numbers = np.array([3, 1, 2])
    found = expected_losses(heights / 0.01, numbers)
    tails = [0.5 * math.erfc(h / 0.01 / math.sqrt(2)) for h in heights]
    gaussian = sum(n * tail for n, tail in zip(numbers, tails, strict=True))
    assert found["gaussian"] == pytest.approx(gaussian, rel=1e-12)
    # The same by sampling, of errors with the same variance; 2e6 draws of 5e-3 in all.
    draws = np.random.default_rng(1).standard_t(TAIL_FREEDOM, 2_000_000)
    draws *= 0.01 * math.sqrt((TAIL_FREEDOM - 2) / TAIL_FREEDOM)
    sampled = sum(n * (draws < -h).mean() for n, h in zip(numbers, heights, strict=True))
    assert found["heavy_tailed"] == pytest.approx(sampled, rel=0.05)
    assert found["heavy_tailed"] > found["gaussian"]
    nothing = expected_losses(np.zeros(0), np.zeros(0, dtype=int))
    assert nothing == {"gaussian": 0.0, "heavy_tailed": 0.0}


def test_the_window_reaches_down_to_the_lowest_error_seen():
    gaussian = estimate_errors(np.zeros(4), np.array([0.01, -0.01, 0.01, -0.01]))
    assert gaussian.window(4.0) == pytest.approx(0.04)
    # One structure lies 90 meV/atom below its prediction: so may others.
    tailed = estimate_errors(np.zeros(100), np.array([-0.09, *([0.001] * 99)]))
    assert 4.0 * tailed.sigma < 0.09
    assert tailed.window(4.0) == pytest.approx(0.09)
    # Errors upwards cost no structure its place.
    upwards = estimate_errors(np.zeros(100), np.array([0.09, *([0.001] * 99)]))
    assert upwards.window(4.0) == pytest.approx(4.0 * upwards.sigma)
