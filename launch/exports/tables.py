"""The DFT-relaxed structures as a table of comma-separated values, and the hull as JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from hullscreen.launch.exports.contents import Contents, one_line
from hullscreen.launch.result_tables import cell_text
from hullscreen.workflows.hull_entries import Entry

COLUMNS = (
    "structure_index",
    "formula_pretty",
    "prototype",
    "space_group_symbol",
    "space_group_number",
    "nsites",
    "energy_per_atom",
    "formation_energy_per_atom",
    "energy_above_hull",
    "is_stable",
    "volume",
    "density",
    "dft_key",
    "last_updated",
)


def write_csv(contents: Contents, path: Path) -> None:
    """Write a row for each structure below comments with the provenance.

    Energies in eV/atom, volume in Å³, density in g/cm³. Texts are quoted, numbers are not.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {contents.origin}\n# {contents.provenance_text}\n")
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_row(entry) for entry in contents.entries)


def write_json(contents: Contents, path: Path) -> None:
    """Write what ``hullscreen hull --json --all`` prints, and ``provenance``.

    Of a selection, ``stable``, ``ties`` and ``unstable`` hold what was selected; products of
    decomposition are those of the whole hull.
    """
    chosen = {entry.structure_index for entry in contents.entries}
    document: dict[str, Any] = contents.require_hull().to_dict(everything=True)
    for part in ("stable", "ties", "unstable"):
        document[part] = [one for one in document[part] if one["structure_index"] in chosen]
    document["provenance"] = contents.provenance
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _row(entry: Entry) -> list[Any]:
    return [
        entry.structure_index,
        entry.formula_pretty,
        cell_text(one_line(entry.prototype)),
        entry.symmetry["symbol"],
        entry.symmetry["number"],
        entry.nsites,
        entry.energy_per_atom,
        entry.formation_energy_per_atom,
        entry.energy_above_hull,
        str(entry.is_stable),
        entry.volume,
        entry.density,
        entry.result.key,
        entry.result.created_at.isoformat(),
    ]
