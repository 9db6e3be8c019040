"""An ASE database of the DFT-relaxed structures, one SQLite file."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from hullscreen.launch.exports.contents import Contents
from hullscreen.workflows.dft_jobs import stored_energy
from hullscreen.workflows.hull_entries import Entry


def write(contents: Contents, path: Path) -> None:
    """Write a row for each structure; the provenance is the database's metadata.

    Numbers are key-value pairs, by which ASE can select rows. The name of the prototype is among
    the row's ``data``: ASE takes no text for a key that reads like a number.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    # Left empty for us by whoever puts it in its place; SQLite takes an empty file for a new one.
    try:
        with connect(str(path), type="db", use_lock_file=False) as database:
            database.metadata = {"title": contents.origin, "provenance": contents.provenance}
            for entry in contents.entries:
                database.write(
                    _atoms(entry),
                    key_value_pairs=_numbers(entry),
                    data={"prototype": entry.prototype, "dft_key": entry.result.key},
                )
    except sqlite3.Error as error:
        raise OSError(errno.EIO, f"the ASE database cannot be written ({error})") from error


def _atoms(entry: Entry) -> Atoms:
    stored = entry.result
    atoms = Atoms(
        stored.numbers, positions=stored.geometry.positions, cell=stored.geometry.cell, pbc=True
    )
    known = {"energy": stored_energy(stored), "forces": stored.forces, "stress": stored.stress}
    if stored.stress is not None:
        # In ASE's order of six, as its databases keep it.
        known["stress"] = stored.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(
        atoms, **{name: value for name, value in known.items() if value is not None}
    )
    return atoms


def _numbers(entry: Entry) -> dict[str, Any]:
    return {
        "structure_index": entry.structure_index,
        "energy_per_atom": entry.energy_per_atom,
        "formation_energy_per_atom": entry.formation_energy_per_atom,
        "energy_above_hull": entry.energy_above_hull,
        "is_stable": entry.is_stable,
        "space_group": entry.symmetry["number"],
    }
