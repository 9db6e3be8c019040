"""Shared by the tests of the adapters: crystals, pw.x, and programs that stand in its place."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, make_supercell
from ase.geometry import minkowski_reduce

VOLUMES = {"Cu": 11.8, "Pd": 14.7, "Ni": 10.9, "Pt": 15.1}


def derivative_cells(seed, n_cells, pairs=(("Cu", "Pd"), ("Ni", "Pt")), max_atoms=8):
    """Cells of 1–8 atoms, decorated at random, with volumes up to 15 % wrong."""
    random = np.random.default_rng(seed)
    cells = []
    while len(cells) < n_cells:
        pair = pairs[len(cells) % len(pairs)]
        lattice = random.choice(["fcc", "bcc", "hcp"])
        covera = {"c": 3.6 * 1.63} if lattice == "hcp" else {}
        parent = bulk("Cu", lattice, a=3.6, **covera)
        index = int(random.integers(1, max_atoms + 1)) // len(parent)
        if index < 1:
            continue
        diagonals = [
            (a, b, index // a // b)
            for a in range(1, index + 1)
            if index % a == 0
            for b in range(1, index // a + 1)
            if (index // a) % b == 0
        ]
        a, b, c = diagonals[random.integers(len(diagonals))]
        hermite = np.array(
            [[a, 0, 0], [random.integers(b), b, 0], [*random.integers(c, size=2), c]]
        )
        atoms = make_supercell(parent, hermite)
        atoms.symbols[:] = random.choice(pair, len(atoms))
        volume = sum(VOLUMES[s] for s in atoms.symbols) * random.uniform(0.85, 1.15)
        scaled = atoms.cell * (volume / atoms.get_volume()) ** (1 / 3)
        atoms.set_cell(scaled, scale_atoms=True)
        atoms.set_cell(minkowski_reduce(atoms.cell)[0])
        atoms.wrap()
        atoms.pbc = True
        cells.append(atoms)
    return cells


@pytest.fixture(scope="session")
def random_cells():
    return derivative_cells


@pytest.fixture(scope="session")
def debian_pseudopotentials():
    folder = Path("/usr/share/espresso/pseudo")
    if not (folder / "Ni.pz-nd-rrkjus.UPF").is_file():
        pytest.skip("the pseudopotentials of Debian's quantum-espresso-data are not installed")
    return folder


@pytest.fixture(scope="session")
def pw_x(debian_pseudopotentials):
    found = shutil.which("pw.x")
    if found is None:
        pytest.skip("pw.x is not installed (Debian: quantum-espresso)")
    return found


@pytest.fixture
def executable(tmp_path):
    """Make a small program that stands where pw.x should."""

    def write(text, name="pw.x"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    return write
