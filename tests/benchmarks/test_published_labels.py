"""Potentials for Cu, Si and Li from published DFT labels, beside those that the authors published.

Labels: Zuo et al., J. Phys. Chem. A 124, 731 (2020). Level and cutoff are the authors', so the
number of basis functions is the same. The other settings were chosen on a fifth of the training
sets, held out: forces weigh 0.003, stresses, which are not compared, nothing.
"""

import os
import time
from pathlib import Path

import pytest

from hullscreen.potentials.data_files import read_frames
from hullscreen.potentials.fit import compile_fit, fit
from hullscreen.potentials.labels import errors
from hullscreen.potentials.least_squares import Weights
from hullscreen.potentials.moment_tensor_potential import untrained

pytestmark = [pytest.mark.benchmark, pytest.mark.slow, pytest.mark.reference]

WEIGHTS = Weights(energy=1.0, force=0.003, stress=0.0)
STEPS = 8


@pytest.mark.parametrize(
    ("element", "level", "cutoff", "min_distance", "energy", "force"),
    [
        ("Cu", 20, 3.9, 1.8, 0.52, 14.0),
        ("Si", 24, 4.7, 1.8, 3.03, 88.0),
        ("Li", 16, 5.1, 2.0, 0.66, 13.0),
    ],
)
def test_errors_beside_the_authors(element, level, cutoff, min_distance, energy, force):
    folder = os.environ.get("HULLSCREEN_REFERENCE_DATA")
    if not folder:
        pytest.skip("HULLSCREEN_REFERENCE_DATA is not set")

    def labels(part):
        path = Path(folder) / "zuo2020" / f"{element}_{part}.extxyz.gz"
        return read_frames(path, (element,)).training_set(path)

    training, test = labels("train"), labels("test")
    start = untrained(level, (element,), cutoff=cutoff, min_distance=min_distance)
    compile_fit()
    started = time.process_time()
    potential = fit(start, training, weights=WEIGHTS, max_iterations=STEPS).potential
    spent = time.process_time() - started
    learnt, found = errors(potential, training), errors(potential, test)
    print(
        f"\n{element}, {potential.linear.size} basis functions: "
        f"{found.energy_rmse_mev_per_atom:.2f} meV/atom and "
        f"{found.force_rmse_mev_per_angstrom:.1f} meV/Å on the test set (training set: "
        f"{learnt.energy_rmse_mev_per_atom:.2f} and {learnt.force_rmse_mev_per_angstrom:.1f}); "
        f"the authors' {energy} and {force:.0f}: {found.energy_rmse_mev_per_atom / energy:.2f} and "
        f"{found.force_rmse_mev_per_angstrom / force:.2f} of theirs; {spent:.0f} CPU s for "
        f"{len(training.structures.species)} atoms"
    )
    assert found.energy_rmse_mev_per_atom <= energy
    assert found.force_rmse_mev_per_angstrom <= force
