"""Rows that say of a structure what people ask for, under the names that they use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.documents import DFT_RELAXED
from hullscreen.potentials.errors import InputError
from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.job_states import dft_states
from hullscreen.workflows.results import HullResult
from hullscreen.workflows.structure_filters import nearest

STAGES = {1: "screen 1", 2: "screen 2", 3: "final"}
# Names that people ask for, and where the documents have them.
FIELDS = {
    "structure_index": "index",
    "prototype": "prototype",
    "formula_pretty": "formula_pretty",
    "chemsys": "chemsys",
    "nelements": "nelements",
    "nsites": "nsites",
    "composition": "composition",
    "stage": "stage",
    "energy_per_atom": "energy_per_atom",
    "formation_energy_per_atom": "formation_energy_per_atom",
    "energy_above_hull": "energy_above_hull",
    "energy_above_hull_from": "energy_from",
    "is_stable": "is_stable",
    "decomposes_to": "decomposes_to",
    "space_group": "symmetry.symbol",
    "space_group_number": "symmetry.number",
    "crystal_system": "symmetry.crystal_system",
    "volume": "volume",
    "density": "density",
    "outcome": "relaxed.outcome",
    "potential": "relaxed.potential",
    "evaluations": "relaxed.evaluations",
    "grade": "relaxed.grade",
    "highest_grade": "relaxed.highest_grade",
    "dropped": "dropped.reason",
    "dropped_in_round": "dropped.round",
    "last_updated": "last_updated",
}
ENERGIES = ("energy_per_atom", "formation_energy_per_atom", "energy_above_hull")
# What a row says of a structure as such, and not once more of its DFT relaxation.
SAID_ALREADY = {"structure_index", "prototype", "formula_pretty", "nsites", "is_stable"}
CSV_FIELDS = tuple(
    name for name in FIELDS if name not in {"composition", "decomposes_to", "last_updated"}
)
# Known of few structures, and from another collection.
JOB_STATE = "job_state"
# What can be put in order: one value for each structure.
SORTABLE = tuple(name for name in FIELDS if name not in {"composition", "decomposes_to"})
READ = [*dict.fromkeys(path.partition(".")[0] for path in FIELDS.values()), "counts", "final"]
# Neither geometries nor earlier relaxations.
READ.remove("relaxed")
READ += [path for path in FIELDS.values() if path.startswith("relaxed.")]
READ += ["relaxed.stage", "relaxed.energy_per_atom"]


def sort_path(sort: str) -> str:
    """Field of the documents to sort by, with ``-`` before it if the order falls.

    Raises
    ------
    InputError
        There is none of this name.
    """
    name = sort.removeprefix("-")
    if name not in SORTABLE:
        raise InputError(
            f"structures have no order by {name!r}; {nearest(name, SORTABLE)}, and all are "
            f"{', '.join(SORTABLE)}"
        )
    return "-" * sort.startswith("-") + FIELDS[name]


def checked_fields(text: str) -> list[str]:
    """Names of fields from a list with commas.

    Raises
    ------
    InputError
        One of them does not exist.
    """
    known = [*FIELDS, JOB_STATE]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise InputError(
                f"structures have no field {name!r}; {nearest(name, known)}, and all are "
                f"{', '.join(known)}"
            )
    return names


def chosen_fields(
    store: CampaignStore, rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Some fields of rows, in this order; what a structure does not have is None."""
    states = dft_states(store) if JOB_STATE in names else {}
    plain = [
        {
            **row,
            "dropped": (row["dropped"] or {}).get("reason"),
            JOB_STATE: states.get(row["structure_index"]),
        }
        for row in rows
    ]
    return [{name: row[name] for name in names} for row in plain]


def row_of(
    document: Mapping[str, Any], result: HullResult | None, entry: Entry | None
) -> dict[str, Any]:
    """One structure: ``mtp`` and ``dft`` hold whose energies they are, and never meet."""
    dropped = document.get("dropped")
    final = document.get("final")
    row = {name: _value(document, path) for name, path in FIELDS.items()}
    row |= {
        "stage": STAGES.get(document.get("stage", 0)),
        "is_stable": bool(document.get("is_stable")),
        "mtp": _mtp(document),
        "dft": None if final is None else dict(final),
        "dropped": dropped,
    }
    if entry is not None and result is not None:
        found = result.document(entry)
        row |= {name: found[name] for name in (*ENERGIES, "is_stable")}
        row["energy_above_hull_from"] = DFT_RELAXED
        row["dft"] = {"state": "done"} | {
            name: value for name, value in found.items() if name not in SAID_ALREADY
        }
    return row


def _value(document: Mapping[str, Any], path: str) -> Any:
    """A field as plain JSON; None where it, or what should hold it, is missing."""
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value.isoformat() if isinstance(value, datetime) else value


def _mtp(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last relaxation with a potential."""
    relaxed, dropped = document.get("relaxed"), document.get("dropped") or {}
    if not relaxed:
        return None
    stage = relaxed.get("stage")
    return {
        "stage": STAGES.get(stage),
        "potential": relaxed.get("potential"),
        "outcome": relaxed.get("outcome"),
        "energy_per_atom": relaxed.get("energy_per_atom"),
        "energy_above_hull": dropped.get("energy_above_hull")
        if dropped.get("stage") == stage
        else None,
    }
