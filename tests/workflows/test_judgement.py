"""Labels that are wrong are found among right ones; right ones are left alone, however strange."""

import dataclasses
import itertools
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.calculators.emt import EMT

from hullscreen.potentials.data_files import read_frames
from hullscreen.potentials.fit import TrainingSet, best_start, fit
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.structures import join
from hullscreen.workflows import judgement
from hullscreen.workflows.dft_jobs import atoms_of
from hullscreen.workflows.judgement import (
    Relaxed,
    formation_energies,
    judge,
    outside_the_range,
    relaxation_fault,
)
from hullscreen.workflows.learning import train
from hullscreen.workflows.prototypes import PrototypePool
from hullscreen.workflows.seed import strained_seed

ELEMENTS = ("Cu", "Pd")


@pytest.fixture(scope="module")
def training():
    """Strained Cu-Pd prototypes of up to three atoms with EMT's energies, forces and stresses."""
    pool = PrototypePool(ELEMENTS, lattices=("fcc", "bcc"), max_atoms=3, aflow=False)
    prototypes = join(
        batch.structures.one(i) for batch in pool.batches(100) for i in range(len(batch.structures))
    )
    parts = [strained_seed(prototypes, seed)[0] for seed in (1, 2)]
    structures = join(part.one(i) for part in parts for i in range(len(part)))
    energies, forces, stresses = [], [], []
    for i in range(len(structures)):
        atoms = atoms_of(*structures.one(i), ELEMENTS)
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        stresses.append(atoms.get_stress(voigt=False))
    return TrainingSet(structures, np.array(energies), np.concatenate(forces), np.array(stresses))


def learnt(training, start=None):
    """The potential of the first stage that has learnt these labels."""
    return train(
        training, elements=ELEMENTS, stage=1, level=8, cutoff=5.0, min_distance=1.9,
        radial_basis_size=6, seed=1, start=start,
    )[0].potential  # fmt: skip


@pytest.fixture(scope="module")
def potential(training):
    return learnt(training)


def with_lies(training, lies):
    """Labels some of which are off by so many eV/atom."""
    energies = training.energies.copy()
    for i, lie in lies.items():
        energies[i] += lie * training.structures.n_atoms[i]
    return dataclasses.replace(training, energies=energies)


def wrong(judged):
    return np.flatnonzero(judged.wrong_energy | judged.wrong_slope).tolist()


def test_of_labels_that_are_right_none_is_named(training, potential):
    judged = judge(potential, training, 2)
    assert wrong(judged) == []
    # Little more than half of what would be named.
    assert judged.scores.max() < 0.6 * judgement.OUTLYING
    assert np.abs(judged.energies).max() < 0.5 * judgement.LEAST_ENERGY


@pytest.mark.parametrize("lie", [0.4, -0.4, 3.0, -3.0])
@pytest.mark.parametrize("place", [0, 13, 30, 45])
def test_one_wrong_energy_is_named_and_told_by_the_others(training, potential, lie, place):
    labels = with_lies(training, {place: lie})
    # It has learnt the lie, and follows it.
    judged = judge(learnt(labels, potential), labels, 2)
    assert wrong(judged) == [place]
    # What the others foretell, from a potential that errs by 0.02 eV/atom at most.
    assert judged.energies[place] == pytest.approx(-lie, abs=0.08)


def test_several_wrong_energies_are_named_one_after_another(training, potential):
    lies = {3: 0.4, 20: -0.4, 41: 0.4}
    labels, kept, found = with_lies(training, lies), np.arange(len(training)), set()
    for _ in range(3):
        part = labels.take(kept)
        new = kept[wrong(judge(learnt(part, potential), part, 2))]
        found |= set(new.tolist())
        kept = np.setdiff1d(kept, new)
    assert found == set(lies)


@pytest.mark.parametrize("factor", [0.0, -3.0])
def test_wrong_forces_are_named(training, potential, factor):
    offsets = training.structures.offsets
    sizes = np.array([np.abs(training.forces[a:b]).max() for a, b in itertools.pairwise(offsets)])
    place = int(np.argmax(np.where(training.structures.n_atoms == 3, sizes, 0.0)))
    forces = training.forces.copy()
    forces[offsets[place] : offsets[place + 1]] *= factor
    labels = dataclasses.replace(training, forces=forces)
    assert wrong(judge(learnt(labels, potential), labels, 2)) == [place]


def test_the_energies_of_a_magnitude_of_pseudopotentials_change_nothing(training):
    shift = training.structures.counts(2) @ np.array([-2900.0, -1300.0])
    labels = dataclasses.replace(training, energies=training.energies + shift)
    shifted = with_lies(labels, {13: -0.4})
    assert wrong(judge(learnt(shifted), shifted, 2)) == [13]


def test_energies_outside_the_range_of_metals(training):
    counts = training.structures.counts(2)
    fractions = counts / counts.sum(axis=1, keepdims=True)
    energies = training.energies / counts.sum(axis=1) + fractions @ np.array([-2900.0, -1300.0])
    gains = np.zeros(len(energies))
    formation = formation_energies(fractions, energies)
    assert not outside_the_range(formation, gains).any()
    assert np.abs(formation).max() < 1.0
    for place in (0, 20):
        for lie, found in ((-3.0, [place]), (3.0, []), (20.0, [place])):
            wrong_ones = energies.copy()
            wrong_ones[place] += lie
            formation = formation_energies(fractions, wrong_ones)
            assert np.flatnonzero(outside_the_range(formation, gains)).tolist() == found
    # Compressed so far that its forces explain the energy.
    gains[20] = 30.0
    assert not outside_the_range(formation, gains).any()


SINGLE_POINT = Relaxed(-3.5, 12.0, 2.5)


@pytest.mark.parametrize(
    ("found", "gain", "fault"),
    [
        (Relaxed(-3.52, 12.1, 2.5), 0.01, ""),
        (Relaxed(-3.499, 12.1, 2.5), 0.0, ""),
        # L1₀ NiAl relaxes into B2 without a force at the start.
        (Relaxed(-3.65, 12.5, 2.4), 0.0, ""),
        (Relaxed(-4.6, 12.5, 2.4), 0.5, ""),
        (Relaxed(-3.1, 12.1, 2.5), 0.01, "ended 0.400 eV/atom above"),
        (Relaxed(-3.9, 12.1, 2.5), 0.01, "ended 0.400 eV/atom below .* at most 0.250"),
        (Relaxed(-3.52, 22.0, 2.5), 0.01, "changed the volume by a factor of 1.83"),
        (Relaxed(-3.52, 6.0, 2.5), 0.01, "changed the volume by a factor of 0.50"),
        (Relaxed(-3.52, 12.0, 1.2), 0.01, "two atoms 1.20 Å apart, nearer than 1.50"),
    ],
)
def test_relaxations_that_cannot_be_right(found, gain, fault):
    said = relaxation_fault(found, SINGLE_POINT, gain, 1.5)
    assert bool(said) == bool(fault)
    assert re.search(fault, said)


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize(("element", "min_distance"), [("Cu", 1.8), ("Li", 2.0), ("Si", 1.8)])
def test_published_dft_labels_are_left_alone(element, min_distance, monkeypatch):
    """Surfaces, vacancies and melts (Zuo et al., J. Phys. Chem. A 124, 731 (2020))."""
    folder = os.environ.get("HULLSCREEN_REFERENCE_DATA")
    if not folder:
        pytest.skip("HULLSCREEN_REFERENCE_DATA is not set")
    path = Path(folder) / "zuo2020" / f"{element}_train.extxyz.gz"
    training = read_frames(path, (element,)).training_set(path)
    training = training.take(range(0, len(training), 6))
    n_atoms = training.structures.n_atoms
    energies = training.energies / n_atoms
    # A hull needs two elements; of one it is its lowest energy.
    monkeypatch.setattr(
        judgement, "convex_hull",
        lambda _, values: SimpleNamespace(energies_above_hull=values - values.min()),
    )  # fmt: skip
    emphasis = (0.3 / (0.3 + energies - energies.min())) ** 2
    starts = [
        untrained(8, (element,), cutoff=5.0, min_distance=min_distance, seed=i) for i in range(2)
    ]
    start = best_start(starts, training, emphasis=emphasis)
    potential = fit(start, training, emphasis=emphasis, max_iterations=15).potential
    assert wrong(judge(potential, training, 1)) == []
    labels = with_lies(training, {20: 0.4})
    potential = fit(potential, labels, emphasis=emphasis, max_iterations=15).potential
    assert wrong(judge(potential, labels, 1)) == [20]
