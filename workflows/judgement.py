"""Which DFT results cannot be right: what the others, and the potential that learnt them, say.

A code may converge to nonsense without a word: a wrong magnetic solution, a wrong pseudopotential,
a cell read wrongly. Nothing here knows physics but the range of a crystal's energies. What a label
is compared with are all other labels, through the potential: its parameters are fitted once more,
linearised, in such a way that a single energy pulls no harder than any other, however wrong it is.
The energy of each label is then foretold without it; its leverage says, as an extrapolation grade
does, how much such a prediction is worth.

Source: iteratively reweighted least squares with bounded influence: Huber, Robust Statistics
(1981), chapter 7; leverage and residuals of what is left out: Belsley, Kuh, Welsch, Regression
Diagnostics (1980), chapter 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hullscreen.potentials.fit import TrainingSet, Weights
from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.potentials.least_squares import normal_equations, pose, solve
from hullscreen.potentials.moment_tensor_potential import Evaluation, MomentTensorPotential
from hullscreen.potentials.structures import FloatArray
from hullscreen.workflows.hull import convex_hull

BoolArray: TypeAlias = NDArray[np.bool_]

# A crystal's energy relative to a mixture of the elements, eV/atom. No compound of metals forms
# with more than 1.5; metastable lattices lie below 1 above it, beside what a relaxation gains.
DEEPEST = -2.0
HIGHEST = 8.0
# Absolute, eV/atom: deviations below it are alike when the elements' energies are found.
ALIKE = 1e-3
# Median of absolute values to the standard deviation, for normally distributed numbers.
SIGMA_OF_MEDIAN = 1.4826
# Energies count fully in the robust fit up to so many standard deviations.
FULL_WEIGHT = 3.0
ROBUST_STEPS = 15
# Absolute, of weights up to one: less changes no verdict.
SETTLED = 1e-2
# Relative to the diagonal: what the labels leave open must not make the system singular.
RIDGE = 1e-9
# Potentials are worse the higher labels lie, eV/atom: they count less, as in the first stage's
# fit. Those of about the same height, so many, are compared with each other as well.
HEIGHT_SCALE = 0.3
SMALLEST_SHARE = 1e-2
NEIGHBOURS = 15
# A wrong energy: so many robust standard deviations, and so many eV/atom off, more high above the
# hull. Undisturbed EMT labels, AFLOW prototypes of up to 6 eV/atom among them, exceed the second
# only with scores up to 9; published DFT labels of Cu, Si and Li never. Of several, those this near
# the worst are named at once.
OUTLYING = 16.0
LEAST_ENERGY = 0.15
SHARE_OF_WORST = 0.5
# If the others leave so much of a label's energy to itself, they say nothing about it.
MOST_LEVERAGE = 0.95
# Wrong forces or stress: errors relative to the smaller of computed and labelled, larger than the
# first (more above the hull) and so many times the usual, up to this height, eV/atom. Undisturbed
# EMT labels reach 0.6 there; higher they reach 13.
LEAST_SLOPE = 0.8
OUTLYING_SLOPE = 10.0
HIGHEST_SLOPE = 0.5
# Added to sizes: forces in eV/Å, stress times volume in eV/atom; smaller ones decide little.
SMALL_FORCE = 0.2
SMALL_STRAIN = 0.5
# A relaxation against its single point, eV/atom: uphill is another basin than that of an earlier
# potential's geometry; downhill, from a saddle without forces into another basin (L1₀ NiAl to B2
# gains 0.1), or so many times the largest harmonic gain.
UPHILL = 0.03
ANOTHER_BASIN = 0.25
SURPLUS_OF_GAIN = 3.0
VOLUME_RATIOS = (0.6, 1.7)


@dataclass(frozen=True)
class Judged:
    """What all other labels say about each one.

    Attributes
    ----------
    energies
        The energy that the others foretell less that of the label, eV/atom, shape (n,).
    scores
        Its size in robust standard deviations of labels of the same height, shape (n,).
    slopes
        Relative errors of forces and stress, the larger of both, shape (n,).
    wrong_energy, wrong_slope
        Labels that contradict the others, in their energy, or in forces or stress, shape (n,).
    """

    energies: FloatArray
    scores: FloatArray
    slopes: FloatArray
    wrong_energy: BoolArray
    wrong_slope: BoolArray


@dataclass(frozen=True)
class Relaxed:
    """A geometry and its energy.

    Attributes
    ----------
    energy_per_atom, volume, shortest_distance
        In eV/atom, Å³ per atom and Å.
    """

    energy_per_atom: float
    volume: float
    shortest_distance: float


def formation_energies(fractions: FloatArray, energies: FloatArray) -> FloatArray:
    """Energies relative to mixtures of the elements, eV/atom, shape (n,).

    The elements have the energies that leave the least sum of absolute deviations, so that a few
    labels that are far off move nothing.

    Parameters
    ----------
    fractions
        Atomic fractions, shape (n, n_elements).
    energies
        In eV/atom, shape (n,).
    """
    weights = np.ones(len(energies))
    deviations = energies
    for _ in range(100):
        root = np.sqrt(weights)
        elements = np.linalg.lstsq(fractions * root[:, None], energies * root, rcond=None)[0]
        deviations = energies - fractions @ elements
        weights = 1.0 / np.maximum(np.abs(deviations), ALIKE)
    return np.asarray(deviations, dtype=np.float64)


def outside_the_range(formation: FloatArray, gains: FloatArray) -> BoolArray:
    """Labels whose energy no crystal of metals has, shape (n,).

    Parameters
    ----------
    formation
        Energies relative to mixtures of the elements, eV/atom, shape (n,).
    gains
        What a relaxation could gain at most, eV/atom, shape (n,).
    """
    outside: BoolArray = (formation < DEEPEST) | (formation - gains > HIGHEST)
    return outside


def judge(potential: MomentTensorPotential, training: TrainingSet, n_elements: int) -> Judged:
    """Compare each label with what all others say through a potential that was fitted to them.

    Energies are foretold without the label. Of forces and stress nothing of the kind can be said:
    a structure is chosen because the others do not tell them. So it is the potential that has
    learnt them whom they may contradict, grossly, near the hull, and while no energy is wrong.

    Parameters
    ----------
    potential
        Fitted to ``training``, or to most of it.
    """
    found = potential.evaluate(training.structures)
    foretold, scores, heights = _foretold_energies(potential, found, training, n_elements)
    ease = 1.0 + heights / HEIGHT_SCALE
    wrong_energy = (scores > OUTLYING) & (np.abs(foretold) > LEAST_ENERGY * ease)
    # One that is wrong makes others look wrong.
    wrong_energy &= scores >= SHARE_OF_WORST * scores.max(initial=0.0, where=wrong_energy)
    slopes = _relative_slopes(found, training)
    usual = np.maximum(SIGMA_OF_MEDIAN * float(np.median(slopes)), _usual_nearby(slopes, heights))
    wrong_slope = (slopes > LEAST_SLOPE * ease) & (slopes > OUTLYING_SLOPE * usual)
    wrong_slope &= (heights < HIGHEST_SLOPE) & ~wrong_energy.any()
    return Judged(foretold, scores, slopes, wrong_energy, wrong_slope)


def relaxation_fault(found: Relaxed, start: Relaxed, gain: float, least_distance: float) -> str:
    """What cannot be right about a relaxation, as the rest of a sentence; empty if nothing.

    Parameters
    ----------
    found, start
        Where it ended, and a single point of the same structure with the same settings.
    gain
        What a relaxation of the single point could gain at most by its forces and stress, eV/atom.
    least_distance
        Atoms nearer than this are a collapse, Å.
    """
    rise = found.energy_per_atom - start.energy_per_atom
    ratio = found.volume / start.volume
    least = max(SURPLUS_OF_GAIN * gain, ANOTHER_BASIN)
    if rise > UPHILL:
        return (
            f"ended {rise:.3f} eV/atom above the single point of the same structure, "
            "where a relaxation goes down"
        )
    if rise < -least:
        return (
            f"ended {-rise:.3f} eV/atom below the single point of the same structure, whose "
            f"forces and stress leave at most {least:.3f} to gain"
        )
    if not VOLUME_RATIOS[0] < ratio < VOLUME_RATIOS[1]:
        return f"changed the volume by a factor of {ratio:.2f}"
    if found.shortest_distance < least_distance:
        return (
            f"ended with two atoms {found.shortest_distance:.2f} Å apart, nearer than "
            f"{least_distance:.2f}"
        )
    return ""


def _foretold_energies(
    potential: MomentTensorPotential,
    found: Evaluation,
    training: TrainingSet,
    n_elements: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Energies by all others less the label, eV/atom, the same in deviations, and heights.

    Forces and stress count as in a fit: they tell which of two energies is wrong.
    Heights are above the hull of the energies foretold, for a label far too low would lift all
    others.
    """
    n_atoms, n = training.structures.n_atoms, len(training)
    fractions = training.structures.counts(n_elements) / n_atoms[:, None]
    labels = training.energies / n_atoms
    errors = found.energies / n_atoms - labels
    rows = energy_rows(potential, training.structures)
    slopes = pose(training, Weights(energy=0.0), np.full(n, 1.0 / n), 0.0)
    rest = normal_equations(slopes, potential, linear_only=False)
    shares, influence = np.ones(n), np.ones(n)
    for _ in range(2):
        weights = Weights().energy * n_atoms * shares / n
        for _ in range(ROBUST_STEPS):
            each = weights * influence
            matrix = rest.hessian + (rows.T * each) @ rows
            matrix[np.diag_indices_from(matrix)] *= 1.0 + RIDGE
            gradient = rest.gradient + rows.T @ (each * errors)
            solution = solve(matrix, np.column_stack([gradient, rows.T]))
            residuals = errors - rows @ solution[:, 0]
            leverages = np.einsum("ij,ji->i", rows, solution[:, 1:]) * each
            own = 1.0 - np.minimum(leverages, MOST_LEVERAGE)
            scores = np.abs(residuals) * np.sqrt(weights / own)
            scores /= max(SIGMA_OF_MEDIAN * float(np.median(scores)), np.finfo(float).tiny)
            before = influence
            influence = (FULL_WEIGHT / np.maximum(scores, FULL_WEIGHT)) ** 2
            if np.abs(influence - before).max() < SETTLED:
                break
        known = leverages < MOST_LEVERAGE
        foretold = np.where(known, residuals / own, 0.0)
        heights = convex_hull(fractions, labels + foretold).energies_above_hull
        shares = np.maximum((1.0 + heights / HEIGHT_SCALE) ** -2, SMALLEST_SHARE)
    scores = np.where(known, scores, 0.0)
    return foretold, scores / np.maximum(1.0, _usual_nearby(scores, heights)), heights


def _relative_slopes(found: Evaluation, training: TrainingSet) -> FloatArray:
    """Errors of forces or of stress, the larger, relative to their size, shape (n,)."""
    volume = (training.structures.volumes / training.structures.n_atoms)[:, None, None]
    compared = (
        (_rms, found.forces, training.forces, SMALL_FORCE),
        (_norm, found.stresses * volume, training.stresses * volume, SMALL_STRAIN),
    )
    relative: FloatArray = np.max(
        [
            size(computed - label, training)
            / (small + np.minimum(size(computed, training), size(label, training)))
            for size, computed, label, small in compared
        ],
        axis=0,
    )
    return relative


def _rms(forces: FloatArray, training: TrainingSet) -> FloatArray:
    """Root mean square force of each structure, shape (n,)."""
    squares = np.add.reduceat((forces**2).sum(axis=1), training.structures.offsets[:-1])
    return np.asarray(np.sqrt(squares / training.structures.n_atoms), dtype=np.float64)


def _norm(tensors: FloatArray, _training: TrainingSet) -> FloatArray:
    return np.asarray(np.linalg.norm(tensors, axis=(1, 2)), dtype=np.float64)


def _usual_nearby(values: FloatArray, heights: FloatArray) -> FloatArray:
    """Robust standard deviation of the values of labels of about the same height, shape (n,)."""
    n = len(values)
    size = min(NEIGHBOURS, n)
    order = np.argsort(heights, kind="stable")
    windows = np.lib.stride_tricks.sliding_window_view(values[order], size)
    medians = SIGMA_OF_MEDIAN * np.median(windows, axis=1)
    usual = np.empty(n)
    usual[order] = medians[np.clip(np.arange(n) - size // 2, 0, n - size)]
    return usual
