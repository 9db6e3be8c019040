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

from hullscreen.potentials.fit import TrainingSet, Weights, fit
from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.potentials.least_squares import normal_equations, pose, solve
from hullscreen.potentials.moment_tensor_potential import Evaluation, MomentTensorPotential
from hullscreen.potentials.structures import FloatArray
from hullscreen.workflows.hull import convex_hull

BoolArray: TypeAlias = NDArray[np.bool_]

# A crystal's energy relative to a mixture of the elements, eV/atom. No compound of metals forms
# with more than 1.5; metastable lattices lie below 1 above it, beside what a relaxation gains.
DEEPEST = -2.0
HIGHEST = 5.0
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
# An outlier: so many robust standard deviations, and so many eV/atom, more high above the hull.
# Undisturbed EMT labels of four systems reach 8 deviations and 0.02 eV/atom; published DFT labels
# of single elements are within both limits as well.
OUTLYING = 12.0
LEAST_ENERGY = 0.05
# If the others leave so much of a label's energy to itself, they say nothing about it.
MOST_LEVERAGE = 0.95
# Errors of forces and stress, relative to the smaller of what is foretold and labelled: from so
# much on, and so many times the usual, they are looked at more closely; those of the second pair
# are wrong. Undisturbed EMT labels reach 0.3; published ones of surfaces of Si 3 and 9 times.
SUSPICIOUS_SLOPE = 0.35
SUSPICIOUS_RATIO = 4.0
WRONG_SLOPE = 0.6
WRONG_RATIO = 10.0
# Added to sizes: forces in eV/Å, stress times volume in eV/atom; smaller ones decide little.
SMALL_FORCE = 0.2
SMALL_STRAIN = 0.5
# Fits in which what looks wrong loses its weight, down to this, until it shows what was.
CLOSER_LOOKS = 5
ITERATIONS_OF_A_LOOK = 8
SMALLEST_TRUST = 1e-4

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

    A fit follows what is wrong, and errs elsewhere. So where there is a suspicion it is repeated
    with less and less weight for what does not fit, and what is wrong stands out.

    Parameters
    ----------
    potential
        Fitted to ``training``, or to most of it.
    """
    n = len(training)
    trust = np.ones(n)
    for _ in range(CLOSER_LOOKS):
        found = potential.evaluate(training.structures)
        foretold, scores, heights = _foretold_energies(
            potential, found, training, trust, n_elements
        )
        slopes = _relative_slopes(found, training)
        usual = np.maximum(
            SIGMA_OF_MEDIAN * float(np.median(slopes)), _usual_nearby(slopes, heights)
        )
        ease = 1.0 + heights / HEIGHT_SCALE
        outlying = (scores > OUTLYING) & (np.abs(foretold) > LEAST_ENERGY * ease)
        suspicious = (slopes > SUSPICIOUS_SLOPE) & (slopes > SUSPICIOUS_RATIO * usual)
        if not (outlying | suspicious).any():
            break
        # What is wrong pulls at everything: once more, with its pull taken away.
        full = FULL_WEIGHT * float(np.median(slopes))
        trust = np.maximum((full / np.maximum(slopes, full)) ** 2, SMALLEST_TRUST)
        pull = trust * np.maximum((FULL_WEIGHT / np.maximum(scores, FULL_WEIGHT)) ** 2, 1e-2)
        potential = fit(
            potential,
            training,
            emphasis=np.maximum(pull * ease**-2, SMALLEST_TRUST),
            max_iterations=ITERATIONS_OF_A_LOOK,
        ).potential
    wrong_slope = suspicious & (slopes > np.maximum(WRONG_SLOPE, WRONG_RATIO * usual))
    return Judged(foretold, scores, slopes, outlying, wrong_slope)


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
    trust: FloatArray,
    n_elements: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Energies by all others less the label, eV/atom, the same in deviations, and heights.

    Forces and stress count as in a fit, times ``trust``: they tell which of two energies is wrong.
    Heights are above the hull of the energies foretold, for a label far too low would lift all
    others.
    """
    n_atoms, n = training.structures.n_atoms, len(training)
    fractions = training.structures.counts(n_elements) / n_atoms[:, None]
    labels = training.energies / n_atoms
    errors = found.energies / n_atoms - labels
    rows = energy_rows(potential, training.structures)
    slopes = pose(training, Weights(energy=0.0), trust / n, 0.0)
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
