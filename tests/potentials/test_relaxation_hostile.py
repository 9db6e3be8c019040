"""Structures that nobody should relax: each ends alone, and nothing but numbers comes back.

Run as a script it relaxes many of them and prints what it saw, for a test of memory in a process of
its own.
"""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hullscreen.potentials.active_set import select_active_set
from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.potentials.input_checks import SMALLEST_VOLUME_PER_ATOM
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.relaxation import Outcome, RelaxationLimits, relax
from hullscreen.potentials.structures import join

ELEMENTS = ("Cu", "Au")
VOLUME = 13.0
BATCH = 1000
FCC = 0.5 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
# How a structure may end before it has an energy.
WITHOUT_ENERGY = [Outcome.TOO_CLOSE, Outcome.VOLUME_LIMIT, Outcome.ENERGY_LIMIT]


# Structures


def lattice(rng):
    """An fcc cell of 1-10 atoms in a row, with some strain."""
    n = int(rng.integers(1, 11))
    edge = (4.0 * VOLUME) ** (1 / 3)
    cell = np.diag([n, 1, 1]) @ FCC * edge @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3)))
    return cell, np.outer(np.arange(n) / n, cell[0])


def rattled(rng):
    cell, positions = lattice(rng)
    return cell, positions + rng.uniform(-1.0, 1.0, positions.shape)


def scattered(rng):
    cell, positions = lattice(rng)
    return cell, rng.random(positions.shape) @ cell


def resized(factor):
    def resize(rng):
        cell, positions = lattice(rng)
        return cell * factor ** (1 / 3), positions * factor ** (1 / 3)

    return resize


def nearly_one_site(rng):
    cell, positions = lattice(rng)
    direction = rng.normal(size=3)
    apart = 10.0 ** rng.uniform(-6.0, np.log10(0.3))
    near = positions[:1] + apart * direction / np.linalg.norm(direction)
    return cell, np.concatenate([positions, near])


def on_one_site(rng):
    cell, positions = lattice(rng)
    return cell, np.concatenate([positions, positions[:1] + cell[2]])


def slab(rng):
    cell, positions = lattice(rng)
    normal = np.cross(cell[0], cell[1])
    cell[2] += rng.uniform(5.0, 10.0 ** rng.uniform(1.0, 4.0)) * normal / np.linalg.norm(normal)
    return cell, positions


def skewed(rng):
    """The same lattice by vectors of up to millions of Å."""
    cell, positions = lattice(rng)
    for _ in range(int(rng.integers(1, 6))):
        a, b = rng.permutation(3)[:2]
        cell[a] += int(rng.integers(-20, 21)) * cell[b]
    return cell, positions


def needle(rng):
    """Squeezed along one axis, stretched along another."""
    cell, positions = lattice(rng)
    factor = rng.uniform(1.5, 5.0)
    stretch = np.diag(rng.permutation([factor, 1.0, 1.0 / factor]))
    return cell @ stretch, positions @ stretch


def plane(rng):
    """Squeezed to next to no volume."""
    cell, positions = lattice(rng)
    least = 1.01 * SMALLEST_VOLUME_PER_ATOM / VOLUME
    stretch = np.diag(rng.permutation([max(rng.uniform(0.0, 0.1), 1.3 * least), 1.0, 1.0]))
    return cell @ stretch, positions @ stretch


def cancelling(rng):
    """Three long vectors of which no pair can be shortened, but whose sum is tiny."""
    size = rng.uniform(3.0, 12.0)
    angles = np.pi * np.array([0.0, 2.0, 4.0]) / 3.0
    cell = size * np.stack([np.cos(angles), np.sin(angles), np.zeros(3)], axis=1)
    sum_ = 10.0 ** rng.uniform(-1.0, 0.0)
    cell[2, 2] += max(sum_, 0.35 * size**-2 * 3)
    n = int(rng.integers(1, 4))
    return cell, rng.random((n, 3)) @ cell


def one_atom(rng):
    cell = VOLUME ** (1 / 3) * (np.eye(3) + 0.4 * rng.normal(size=(3, 3)))
    return (cell if abs(np.linalg.det(cell)) > 1.0 else 2.5 * np.eye(3)), np.zeros((1, 3))


def lonely(rng):
    return 30.0 * np.eye(3), 20.0 * rng.random((2, 3))


def far_outside(rng):
    cell, positions = lattice(rng)
    return cell, positions + rng.integers(-1000, 1000, positions.shape) @ cell


KINDS = [
    rattled, scattered, resized(0.5), resized(0.2), resized(2.0), resized(8.0), nearly_one_site,
    on_one_site, slab, skewed, needle, plane, cancelling, one_atom, lonely, far_outside, lattice,
]  # fmt: skip


def hostile(n, seed):
    rng = np.random.default_rng(seed)

    def parts():
        for i in range(n):
            cell, positions = KINDS[i % len(KINDS)](rng)
            yield cell, positions, rng.integers(2, size=len(positions)).astype(np.int32)

    return join(parts())


def sound(structures):
    """Those of hostile structures that are just lattices."""
    return structures.take(range(len(KINDS) - 1, len(structures), len(KINDS)))


# Potentials


def random_potential(level, seed, size=1.0, *, min_distance=2.0, cutoff=5.0):
    """Parameters without meaning: most such energies have no lower bound."""
    start = untrained(
        level, ELEMENTS, cutoff=cutoff, min_distance=min_distance, radial_basis_size=6
    )
    rng = np.random.default_rng(seed)
    parameters = start.parameters
    linear = slice(start.radial.size, None)
    parameters[linear] = size * rng.normal(size=parameters[linear].size)
    return start.with_parameters(parameters)


def cases():
    """Potentials with limits that let them do their worst."""
    quick = {"max_evaluations": 60}
    return {
        "random": (random_potential(8, 0), RelaxationLimits(**quick)),
        "steep": (random_potential(6, 1, 1e6), RelaxationLimits(**quick)),
        # Energies and forces that are no numbers.
        "overflowing": (random_potential(6, 2, 1e305), RelaxationLimits(**quick)),
        # Radial functions far outside their range, where they grow without bound.
        "holes": (
            random_potential(6, 3, min_distance=3.5),
            RelaxationLimits(shortest_distance=0.0, volume_ratio=1e3, **quick),
        ),
        "floor": (
            random_potential(6, 4),
            RelaxationLimits(lowest_energy_per_atom=-1.0, break_grade=1e4, **quick),
        ),
        "nothing is small enough": (
            random_potential(2, 5, 0.1, cutoff=4.0),
            RelaxationLimits(force_tolerance=0.0, stress_tolerance_gpa=0.0, **quick),
        ),
    }


def active_set(potential):
    return select_active_set(energy_rows(potential, sound(hostile(4 * len(KINDS), 99))))


# What must hold


def check(start, result, limits):
    """Everything that a database would keep is a number, or there is no energy at all."""
    n = len(start)
    outcomes = result.outcomes
    assert np.isin(outcomes, list(Outcome)).all()
    assert ((result.evaluations >= 0) & (result.evaluations <= limits.max_evaluations)).all()
    for geometry in (result.structures, result.snapshots):
        assert np.isfinite(geometry.cells).all()
        assert np.isfinite(geometry.positions).all()
        np.testing.assert_array_equal(geometry.species, start.species)
        # They can be relaxed again.
        assert (geometry.volumes > SMALLEST_VOLUME_PER_ATOM * geometry.n_atoms * (1 - 1e-9)).all()
    for grades in (result.grades, result.highest_grades):
        assert np.isfinite(grades).all()
    assert (result.highest_grades >= result.grades).all()
    none = np.isnan(result.energies)
    assert np.isfinite(result.energies[~none]).all()
    assert np.isfinite(result.max_forces[~none]).all()
    assert np.isfinite(result.max_stresses[~none]).all()
    # Without an energy, a structure is where it began.
    assert np.isin(outcomes[none], WITHOUT_ENERGY).all()
    assert (result.evaluations[none] <= 1).all()
    assert not result.highest_grades[none].any()
    owner = np.repeat(np.arange(n), start.n_atoms)
    for geometry in (result.structures, result.snapshots):
        np.testing.assert_array_equal(geometry.cells[none], start.cells[none])
        np.testing.assert_array_equal(geometry.positions[none[owner]], start.positions[none[owner]])
    close = result.energies / start.n_atoms < limits.lowest_energy_per_atom
    assert not close.any()
    ratio = result.structures.volumes / start.volumes
    # Volumes of cells skewed by millions of Å are known to a few digits only.
    assert ((ratio < limits.volume_ratio * 1.01) & (ratio > 0.99 / limits.volume_ratio)).all()
    converged = outcomes == Outcome.CONVERGED
    assert (result.max_forces[converged] < limits.force_tolerance).all()


@pytest.mark.parametrize("name", cases())
def test_every_structure_ends_alone(name):
    potential, limits = cases()[name]
    start = hostile(20 * len(KINDS), seed=len(name))
    result = relax(potential, start, limits)
    check(start, result, limits)
    print(name, result.outcome_counts())
    # Sound structures among them fare as they do alone.
    alone = relax(potential, sound(start), limits)
    np.testing.assert_array_equal(alone.energies, result.energies[len(KINDS) - 1 :: len(KINDS)])
    np.testing.assert_array_equal(alone.structures.positions, sound(result.structures).positions)


def test_grades_of_hostile_structures_are_numbers():
    potential, limits = cases()["floor"]
    start = hostile(10 * len(KINDS), seed=1)
    result = relax(potential, start, limits, active_set(potential))
    check(start, result, limits)
    assert (result.outcomes == Outcome.EXTRAPOLATING).any()
    stopped = result.outcomes == Outcome.EXTRAPOLATING
    np.testing.assert_array_equal(result.highest_grades[stopped], result.grades[stopped])
    assert (result.grades[stopped] >= limits.break_grade).all()


def test_overflowing_energies_are_none():
    potential, limits = cases()["overflowing"]
    start = hostile(10 * len(KINDS), seed=2)
    result = relax(potential, start, limits, active_set(random_potential(6, 4)))
    check(start, result, limits)
    assert (result.outcomes == Outcome.ENERGY_LIMIT).any()


def test_a_lattice_whose_vectors_cancel_needs_few_translations():
    """Their pairs cannot be shortened; the translations of such a cell once took gigabytes."""
    size, sum_ = 3.0, 0.0129
    angles = np.pi * np.array([0.0, 2.0, 4.0]) / 3.0
    cell = size * np.stack([np.cos(angles), np.sin(angles), np.zeros(3)], axis=1)
    cell[2, 2] = sum_
    start = join([(cell, np.zeros((1, 3)), np.zeros(1, np.int32))])
    assert start.volumes[0] > SMALLEST_VOLUME_PER_ATOM
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for distance in (1.0, 0.0):
        result = relax(random_potential(6, 0), start, RelaxationLimits(shortest_distance=distance))
        assert result.outcome_counts() == {"too_close": 1}
    # kB; the translations would be 32 bytes times 5e7.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_skewed_cells_end_where_the_same_lattice_does():
    potential = random_potential(6, 4)
    straight = sound(hostile(5 * len(KINDS), 4))
    turned = straight.take(range(len(straight)))
    turned.cells[:, 0] += 7 * turned.cells[:, 1] - 3 * turned.cells[:, 2]
    limits = RelaxationLimits(max_evaluations=5)
    one, other = relax(potential, straight, limits), relax(potential, turned, limits)
    np.testing.assert_array_equal(one.outcomes, other.outcomes)
    np.testing.assert_array_equal(one.evaluations, other.evaluations)
    # Sums run in another order: 1e-15 relative, enlarged by steps along steep walls.
    np.testing.assert_allclose(one.energies, other.energies, rtol=1e-9, equal_nan=True)


# Many, in a process of their own


def relax_many(n_structures):
    """Relax hostile structures batch by batch; prints a line of JSON for each case and round."""
    chosen = list(cases().items())
    n_batches = n_structures // BATCH
    for number in range(n_batches):
        name, (potential, limits) = chosen[number % len(chosen)]
        start = hostile(BATCH, seed=1000 + number)
        active = active_set(potential) if name in ("random", "floor") else None
        began = time.process_time()
        result = relax(potential, start, limits, active)
        spent = time.process_time() - began
        check(start, result, limits)
        with Path("/proc/self/statm").open() as file:
            resident = int(file.read().split()[1]) * resource.getpagesize()
        # That of `getrusage` is inherited from the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = 1024 * int(re.search(r"^VmHWM:\s+(\d+) kB", status, flags=re.MULTILINE)[1])
        line = {
            "case": name, "seconds": spent, "resident": resident, "peak": peak,
            "outcomes": result.outcome_counts(), "evaluations": int(result.evaluations.sum()),
        }  # fmt: skip
        print(json.dumps(line), flush=True)


def run_apart(n_structures):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, __file__, str(n_structures)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_memory_is_flat(lines):
    # The first round of all potentials compiles and fills caches.
    settled = lines[len(cases()) :]
    growth = max(line["resident"] for line in settled) - settled[0]["resident"]
    # A batch of a thousand and its results are 2 MB; allocators keep some.
    assert growth < 40e6, f"memory grew by {growth / 1e6:.0f} MB"
    # Python, numpy, numba and compiled code take 250 MB.
    assert lines[-1]["peak"] < 1e9


@pytest.mark.slow
def test_tens_of_thousands():
    n_structures = 100_000 if os.environ.get("HULLSCREEN_FULL_BENCHMARKS") else 30_000
    lines = run_apart(n_structures)
    assert len(lines) == n_structures // BATCH
    outcomes = sum((Counter(line["outcomes"]) for line in lines), Counter())
    assert sum(outcomes.values()) == n_structures
    # Every way to end is seen.
    assert set(outcomes) == {outcome.name.lower() for outcome in Outcome}
    settled = lines[len(cases()) :]
    spent = sum(line["seconds"] for line in settled) / len(settled) / BATCH
    slowest = max(line["seconds"] for line in settled) / BATCH
    print(
        f"\n{dict(outcomes)}; {1e6 * spent:.0f} µs each, {1e6 * slowest:.0f} µs in the slowest "
        f"batch; {lines[-1]['resident'] / 1e6:.0f} MB, {lines[-1]['peak'] / 1e6:.0f} MB at most"
    )
    assert_memory_is_flat(lines)


if __name__ == "__main__":
    relax_many(int(sys.argv[1]))
