"""DFT-relaxed structures with energies, forces and stresses: extended XYZ and MLIP's ``.cfg``.

Energies in eV, forces in eV/Å, stress in eV/Å³ in ASE's sign; ``.cfg`` holds −V·stress. Numbers are
written with all digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hullscreen.launch.exports.contents import Contents, one_line
from hullscreen.potentials.cfg_files import Configuration, format_cfg
from hullscreen.potentials.data_files import CFG, write_frames
from hullscreen.workflows.dft_jobs import stored_energy
from hullscreen.workflows.hull_entries import Entry

# Of the first structure of a file: that of all others is the same.
PROVENANCE = "provenance"


def write_relaxed(contents: Contents, path: Path) -> None:
    """Write the structures; the suffix of ``path`` tells the format.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    hull = contents.require_hull()
    number = {symbol: kind for kind, symbol in enumerate(hull.elements)}
    cells = [_configuration(contents, entry, number) for entry in contents.entries]
    write_cells(path, with_provenance(cells, contents), hull.elements)


def write_cells(path: Path, cells: Sequence[Configuration], elements: Sequence[str]) -> None:
    """Write a ``.cfg`` or extended XYZ file.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    if path.suffix.lower() != CFG:
        write_frames(path, cells, elements)
        return
    with path.open("w", encoding="utf-8") as file:
        file.writelines(format_cfg(one) + "\n" for one in cells)


def with_provenance(cells: list[Configuration], contents: Contents) -> list[Configuration]:
    """The same, the first one with the provenance of all among its features."""
    if not cells:
        return cells
    features = {**cells[0].features, PROVENANCE: [contents.provenance_text]}
    return [replace(cells[0], features=features), *cells[1:]]


def _configuration(contents: Contents, entry: Entry, number: dict[str, int]) -> Configuration:
    stored = entry.result
    volume = entry.volume
    return Configuration(
        cell=stored.geometry.cell,
        positions=stored.geometry.positions,
        types=np.array([number[symbol] for symbol in entry.symbols], dtype=np.int32),
        energy=stored_energy(stored),
        forces=stored.forces,
        plus_stress=None if stored.stress is None else -volume * stored.stress,
        features={
            "structure_index": [str(entry.structure_index)],
            "prototype": [one_line(entry.prototype)],
            "formula_pretty": [entry.formula_pretty],
            "formation_energy_per_atom": [repr(entry.formation_energy_per_atom)],
            "energy_above_hull": [repr(entry.energy_above_hull)],
            "is_stable": [str(entry.is_stable)],
            "campaign": [one_line(contents.provenance["campaign"])],
        },
    )
