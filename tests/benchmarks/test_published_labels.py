"""Potentials for Cu, Si and Li from published DFT labels, beside those that the authors published.

Labels: Zuo et al., J. Phys. Chem. A 124, 731 (2020). The level is the authors'; cutoffs and weights
were chosen on a fifth of the training sets, held out. Stresses are not compared, so they weigh
nothing. For Si the energies of the two surfaces of the test set keep ours above the authors'.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from hullscreen.potentials.data_files import read_frames
from hullscreen.potentials.fit import compile_fit, fit
from hullscreen.potentials.labels import errors
from hullscreen.potentials.least_squares import Weights
from hullscreen.potentials.moment_tensor_potential import untrained

pytestmark = [pytest.mark.slow, pytest.mark.reference]


class Case(NamedTuple):
    """Settings, errors of the authors' potential on the test set (meV/atom, meV/Å), our steps."""

    element: str
    level: int
    cutoff: float
    min_distance: float
    force_weight: float
    energy: float
    force: float
    steps: int


CU = Case("Cu", 20, 3.9, 1.8, 0.003, 0.52, 14.0, 6)
SI = Case("Si", 24, 5.0, 1.8, 0.01, 3.03, 88.0, 3)
LI = Case("Li", 16, 5.1, 2.0, 0.01, 0.66, 13.0, 6)


def beside_the_authors(case):
    """Errors on the test set over those of the authors' potential: energies and forces."""
    folder = os.environ.get("HULLSCREEN_REFERENCE_DATA")
    if not folder:
        pytest.skip("HULLSCREEN_REFERENCE_DATA is not set")

    def labels(part):
        path = Path(folder) / "zuo2020" / f"{case.element}_{part}.extxyz.gz"
        return read_frames(path, (case.element,)).training_set(path)

    training, test = labels("train"), labels("test")
    start = untrained(
        case.level, (case.element,), cutoff=case.cutoff, min_distance=case.min_distance
    )
    weights = Weights(energy=1.0, force=case.force_weight, stress=0.0)
    compile_fit()
    started = time.process_time()
    potential = fit(start, training, weights=weights, max_iterations=case.steps).potential
    spent = time.process_time() - started
    learnt, found = errors(potential, training), errors(potential, test)
    ratios = (
        found.energy_rmse_mev_per_atom / case.energy,
        found.force_rmse_mev_per_angstrom / case.force,
    )
    print(
        f"\n{case.element}, {potential.linear.size} basis functions: "
        f"{found.energy_rmse_mev_per_atom:.2f} meV/atom and "
        f"{found.force_rmse_mev_per_angstrom:.1f} meV/Å on the test set (training set: "
        f"{learnt.energy_rmse_mev_per_atom:.2f} and {learnt.force_rmse_mev_per_angstrom:.1f}); "
        f"the authors' {case.energy} and {case.force:.0f}: {ratios[0]:.2f} and {ratios[1]:.2f} of "
        f"theirs; {spent:.0f} CPU s for {len(training.structures.species)} atoms"
    )
    return ratios


@pytest.mark.parametrize("case", [CU, LI], ids=["Cu", "Li"])
def test_errors_are_at_most_the_authors(case):
    assert max(beside_the_authors(case)) <= 1.0


def test_silicon():
    energy, force = beside_the_authors(SI)
    assert force <= 1.0
    # Not at most the authors': 5 % above was seen.
    assert energy < 1.2
