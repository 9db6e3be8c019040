"""How wrong a potential is, and which structures can therefore not be on the hull."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.structures import FloatArray, IndexArray

# Stiffness of the softest modes that a metal's relaxation still follows: an atom's in eV/Å², a
# lattice's in eV/Å³ (30 GPa). Softer ones gain more, but at forces of a relaxed structure too
# little to matter.
SOFT_ATOM = 1.0
SOFT_LATTICE = 30.0 / 160.21766208
# The estimate of the energy still to be gained is harmonic; it is trusted up to this factor.
GAIN_SAFETY = 3.0
# Phases that tie within this are one phase to a hull's reader, so all of them are worth relaxing,
# eV/atom.
TIE = 5e-4
SMALLEST_SAMPLE = 10
# Errors of potentials over relaxed structures have tails about as heavy as this Student
# distribution's; its fourth moment just exists.
TAIL_FREEDOM = 5
USUAL_SAMPLE = 40


@dataclass(frozen=True)
class ErrorEstimate:
    """σ of a stage: energy errors of its potential on structures it was not trained on.

    Attributes
    ----------
    sigma
        Root mean square error in eV/atom.
    uncertainty
        Standard error of ``sigma`` if errors were Gaussian, eV/atom.
    largest
        Largest error in eV/atom.
    lowest
        Most negative error in eV/atom: how far a structure lay below its prediction.
    mean
        Mean error in eV/atom; cancels from distances to the hull.
    n_structures
        Size of the sample.
    least_window
        A height, eV/atom, up to which structures are kept whatever the errors are.
    """

    sigma: float
    uncertainty: float
    largest: float
    lowest: float
    mean: float
    n_structures: int
    least_window: float = 0.0

    def window(self, multiple: float) -> float:
        """Height above the hull, eV/atom, up to which structures are kept.

        So many σ; but errors are heavy-tailed, and a structure that the sample has shown to lie
        further below its prediction is not ruled out either.
        """
        return max(multiple * self.sigma, -self.lowest, self.least_window)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


def estimate_errors(predicted: FloatArray, computed: FloatArray) -> ErrorEstimate:
    """σ from energies per atom in eV, both of shape (n_structures,).

    Raises
    ------
    CampaignError
        Fewer than two structures were computed.
    """
    errors = computed - predicted
    if errors.size < 2:
        raise CampaignError(
            f"σ needs at least two validated structures, got {errors.size}; `hullscreen labels` "
            "says why the others failed or are quarantined; mend it and run again"
        )
    sigma = float(np.sqrt(np.mean(errors**2)))
    return ErrorEstimate(
        sigma=sigma,
        uncertainty=sigma / float(np.sqrt(2.0 * errors.size)),
        largest=float(np.abs(errors).max()),
        lowest=float(min(errors.min(), 0.0)),
        mean=float(errors.mean()),
        n_structures=int(errors.size),
    )


def expected_losses(heights: FloatArray, numbers: IndexArray) -> dict[str, float]:
    """How many structures that were dropped at these heights lie below the hull nevertheless.

    The sum of the probabilities that a structure's energy is too high by its height. It is rather
    too large: structures that are one crystal count each; but the hull's own error is left out.

    Parameters
    ----------
    heights
        Above the hull of the predictions, in units of the error σ, shape (n,).
    numbers
        Structures of each height, shape (n,).

    Returns
    -------
    ``gaussian``: with normally distributed errors; ``heavy_tailed``: with Student's distribution
    of `TAIL_FREEDOM` degrees of freedom and the same variance.
    """
    from scipy.stats import norm, t

    narrower = math.sqrt((TAIL_FREEDOM - 2.0) / TAIL_FREEDOM)
    return {
        "gaussian": float(norm.sf(heights) @ numbers),
        "heavy_tailed": float(t.sf(heights / narrower, TAIL_FREEDOM) @ numbers),
    }


def possible_gain(forces: FloatArray, stress: FloatArray, volume: float) -> float:
    """Energy in eV that a relaxation may still gain: forces (n, 3) in eV/Å, stress in eV/Å³."""
    atoms = (forces**2).sum() / (2.0 * SOFT_ATOM)
    lattice = volume * (stress**2).sum() / (2.0 * SOFT_LATTICE)
    return float(GAIN_SAFETY * (atoms + lattice))


def next_wave(wave: int, growth: float, most_new: int, total: int) -> int:
    """Size of the wave after one of ``wave`` structures, ``most_new`` larger at most."""
    return min(total, wave + most_new, max(wave + 1, int(wave * growth)))


def sample_size(n_structures: int, wanted: int) -> int:
    """Structures to validate: as many as wanted, but of a small pool a tenth, at least ten.

    If nothing is wanted it is the square root, at least `USUAL_SAMPLE`: the more structures there
    are, the rarer the errors that matter.
    """
    wanted = wanted or max(USUAL_SAMPLE, math.isqrt(n_structures))
    return min(n_structures, wanted, max(SMALLEST_SAMPLE, n_structures // 10))


def random_sample(n: int, size: int, seed: int) -> IndexArray:
    """Sorted indices of ``size`` of n things, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.permutation(n)[:size])
