"""pymatgen's ``ComputedStructureEntry`` as JSON; a ``PhaseDiagram`` of them is this hull."""

from __future__ import annotations

import json
from pathlib import Path

from monty.json import MontyEncoder
from pymatgen.entries.computed_entries import ComputedStructureEntry

from hullscreen.launch.exports.contents import Contents
from hullscreen.workflows.exports import structure_of
from hullscreen.workflows.hull_entries import Entry


def write(contents: Contents, path: Path) -> None:
    """Write a list of entries, each with its provenance among the parameters.

    Examples
    --------
    >>> from monty.serialization import loadfn
    >>> from pymatgen.analysis.phase_diagram import PhaseDiagram
    >>> PhaseDiagram(loadfn("entries.json")).stable_entries
    """
    entries = [_computed(contents, entry) for entry in contents.entries]
    path.write_text(json.dumps(entries, cls=MontyEncoder, indent=1) + "\n", encoding="utf-8")


def _computed(contents: Contents, entry: Entry) -> ComputedStructureEntry:
    campaign = contents.provenance["campaign"]
    return ComputedStructureEntry(
        structure_of(entry),
        entry.energy_per_atom * entry.nsites,
        correction=0.0,
        parameters={
            "dft_engine": contents.provenance["dft_engine"]["name"],
            "provenance": contents.provenance,
        },
        data={
            "structure_index": entry.structure_index,
            "prototype": entry.prototype,
            "formula_pretty": entry.formula_pretty,
            "formation_energy_per_atom": entry.formation_energy_per_atom,
            "energy_above_hull": entry.energy_above_hull,
            "is_stable": entry.is_stable,
            "dft_key": entry.result.key,
            "last_updated": entry.result.created_at.isoformat(),
        },
        entry_id=f"{campaign}-{entry.structure_index}",
    )
