"""What happened to one structure of a campaign, from prototype to hull, as plain data.

Everything comes from the documents; what they lack, or hold in a form that cannot be, is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.documents import DFT_RELAXED, RELAXATION_FIELDS
from hullscreen.database.round_documents import Selected
from hullscreen.potentials.errors import DatabaseError, InputError
from hullscreen.workflows.calculation_logs import no_such_structure
from hullscreen.workflows.campaign import FINAL_STAGE
from hullscreen.workflows.competitors import competitors_below, place_of_stable
from hullscreen.workflows.output_tails import safe_line
from hullscreen.workflows.refinement import TWIN, TWIN_OF_FAILED
from hullscreen.workflows.structure_rows import STAGES

KNOWN = ("energy_per_atom", "formation_energy_per_atom", "energy_above_hull")
READ = [
    "index", "prototype", "formula_pretty", "chemsys", "nsites", "counts", "stage", "relaxations",
    *(f"relaxed.{name}" for name in RELAXATION_FIELDS), "dropped", "final", *KNOWN, "energy_from",
    "is_stable", "decomposes_to", "symmetry", "volume", "density",
]  # fmt: skip
TWINS_SHOWN = 10
Plain = dict[str, Any]


def story(store: CampaignStore, index: int) -> Plain:
    """Everything that decided the fate of a structure.

    Parameters
    ----------
    index
        Place in the pool, as `hullscreen query` shows it.

    Returns
    -------
    ``structure_index, prototype, formula_pretty, chemsys, nsites, stage, energy_from`` and the
    energies that are known, in eV/atom; ``symmetry, volume`` (Å³), ``density`` (g/cm³);
    ``relaxations``: with a potential, see `_relaxations`;
    ``single_points``: by DFT, see `_single_points`;
    ``dropped``: why it was left behind, or None, see `_dropped`;
    ``twins``: numbers of structures that were left behind for being the same;
    ``dft_relaxation``: or None, see `_dft_relaxation`;
    ``place``: on the hull of DFT relaxations, or None, see `_place`.

    Raises
    ------
    InputError
        The pool has no such structure.
    DatabaseError
        The documents are damaged.
    """
    found = store.search({"index": index}, READ, sort=[])
    if not found:
        raise no_such_structure(store, index)
    try:
        return _told(store, index, found[0])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise DatabaseError(
            f"documents about structure {index} of campaign {store.name!r} are damaged "
            f"({type(error).__name__}: {safe_line(str(error))}); restore them from a dump"
        ) from error


def _told(store: CampaignStore, index: int, document: Mapping[str, Any]) -> Plain:
    asked = store.selected(structure_index=index)
    final = _table(document.get("final"))
    keys = [one.key for one in asked]
    results = store.dft_results([*keys, *([final["key"]] if "key" in final else [])])
    last = store.last_round()
    chosen = last is not None and last.purpose == "final" and index in last.final_indices
    return {
        "structure_index": index,
        **{name: _text(document.get(name)) for name in ("prototype", "formula_pretty", "chemsys")},
        "nsites": _number(document.get("nsites")),
        "stage": _stage(document.get("stage")),
        **{name: _number(document.get(name)) for name in (*KNOWN, "volume", "density")},
        "energy_from": _text(document.get("energy_from")),
        "symmetry": _plain(_table(document.get("symmetry"))) or None,
        "relaxations": _relaxations(store, document),
        "single_points": [_single_point(one, results.get(one.key)) for one in asked],
        "dropped": _dropped(store, document),
        "twins": _twins(store, index),
        "dft_relaxation": _dft_relaxation(final, results, chosen=chosen),
        "place": _place(store, document),
    }


def _relaxations(store: CampaignStore, document: Mapping[str, Any]) -> list[Plain]:
    """Relaxations with a potential, the first one first.

    ``stage, potential`` (the round that fitted it), its ``level`` and ``n_training``; ``outcome,
    energy_per_atom`` in eV/atom, ``evaluations, grade, highest_grade``.
    """
    listed = document.get("relaxations") or [document.get("relaxed")]
    potentials = {p["number"]: p for p in store.potentials(["number", "level", "n_training"])}
    told = []
    for entry in filter(None, map(_table, listed if isinstance(listed, list) else [])):
        potential = potentials.get(_number(entry.get("potential")), {})
        numbers = {name: _number(entry.get(name)) for name in RELAXATION_FIELDS}
        told.append(
            numbers
            | {"stage": _stage(entry.get("stage")), "outcome": _text(entry.get("outcome"))}
            | {name: _number(potential.get(name)) for name in ("level", "n_training")}
        )
    return told


def _single_point(asked: Selected, result: DFTDocument | None) -> Plain:
    """A DFT single point: when and what for, and what came of it.

    ``round, purpose, grade`` (that chose it), ``predicted_energy_per_atom`` and
    ``energy_per_atom`` in eV/atom, ``state`` (``waiting`` where there is no result), ``reason``.
    """
    energy = None if result is None or result.energy is None else result.energy
    n_atoms = len(asked.species)
    return {
        "round": asked.round,
        "purpose": _text(asked.purpose),
        "grade": _number(asked.grade),
        "predicted_energy_per_atom": _number(asked.predicted_energy_per_atom),
        "energy_per_atom": None if energy is None else _number(energy / n_atoms),
        "state": "waiting" if result is None else result.state,
        "reason": "" if result is None else _text(result.reason),
        "key": asked.key,
    }


def _dropped(store: CampaignStore, document: Mapping[str, Any]) -> Plain | None:
    """Why a structure was left behind.

    ``stage, round, reason, outcome, same_as``; ``energy_above_hull, window, sigma, possible_gain``
    in eV/atom; ``margin``: how far it lies beyond what would have kept it, eV/atom;
    ``competitors``: what it would decompose to on the hull that decided.
    """
    dropped = _table(document.get("dropped"))
    if not dropped:
        return None
    names = ("energy_above_hull", "window", "sigma", "possible_gain", "same_as", "round")
    numbers = {name: _number(dropped.get(name)) for name in names}
    height = numbers["energy_above_hull"]
    allowed = numbers["possible_gain"] if numbers["window"] is None else numbers["window"]
    return {
        **numbers,
        "stage": _stage(dropped.get("stage")),
        "reason": _text(dropped.get("reason")),
        "outcome": _text(dropped.get("outcome")),
        "margin": None if height is None or allowed is None else height - allowed,
        "by_single_point": dropped.get("stage") == FINAL_STAGE,
        "competitors": []
        if height is None
        else competitors_below(store, document, dropped, numbers["round"]),
    }


def _twins(store: CampaignStore, index: int) -> Plain:
    """Structures that were left behind for being the same as this one: numbers, and how many."""
    query = {
        "dropped.stage": {"$in": list(STAGES)},
        "dropped.reason": {"$in": [TWIN, TWIN_OF_FAILED]},
        "dropped.same_as": index,
    }
    found = store.search(query, ["index"], sort=["index"], limit=TWINS_SHOWN)
    n = store.count(**query) if len(found) == TWINS_SHOWN else len(found)
    return {"n": n, "numbers": [document["index"] for document in found]}


def _dft_relaxation(
    final: Mapping[str, Any], results: Mapping[str, DFTDocument], *, chosen: bool
) -> Plain | None:
    """How its DFT relaxation stands and ended: ``state``, ``reason``, energy in eV/atom, costs."""
    if not final:
        return {"state": "waiting", "reason": ""} if chosen else None
    result = results.get(final.get("key", ""))
    told: Plain = {
        "state": _text(final.get("state")),
        "reason": _text(final.get("reason")),
        "energy_per_atom": _number(final.get("energy_per_atom")),
        "key": _text(final.get("key")),
    }
    if result is not None:
        told |= {
            "state": result.state if told["state"] == "done" else told["state"],
            "reason": told["reason"] or _text(result.reason),
            "n_evaluations": result.n_evaluations,
            "cpu_seconds": result.cpu_seconds,
            "corrections": [safe_line(line) for line in result.corrections],
        }
    return told


def _place(store: CampaignStore, document: Mapping[str, Any]) -> Plain | None:
    """Place on the hull of DFT relaxations: ``is_stable, energy_above_hull`` in eV/atom.

    Of an unstable structure ``decomposes_to``; of a stable one ``below_others``, how far the hull
    would rise without it, eV/atom, ``replaced_by``, and ``next``: the lowest of its composition.
    """
    if (
        not isinstance(document.get("is_stable"), bool)
        or document.get("energy_from") != DFT_RELAXED
    ):
        return None
    stable = document["is_stable"]
    place: Plain = {
        "is_stable": stable,
        "finished": bool(store.campaign()["finished"]),
        "energy_above_hull": _number(document.get("energy_above_hull")),
        "decomposes_to": _products(document.get("decomposes_to")),
    }
    return place | (place_of_stable(store, document) if stable else {})


def _table(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _number(value: Any) -> Any:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _text(value: Any) -> str:
    """A line that is safe to show; "" where there is none."""
    return safe_line(value) if isinstance(value, str) else ""


def _stage(value: Any) -> str:
    return STAGES.get(value, "") if isinstance(value, int) else ""


def _products(value: Any) -> list[Plain]:
    """Phases with their shares, of those that are complete."""
    listed = [_table(one) for one in value] if isinstance(value, list) else []
    told = [
        {
            "structure_index": _number(one.get("structure_index")),
            "formula": _text(one.get("formula")),
            "amount": _number(one.get("amount")),
        }
        for one in listed
    ]
    return [one for one in told if None not in one.values()]


def _plain(value: Any) -> Any:
    """JSON of numbers, lines and tables; what is neither is None."""
    if isinstance(value, Mapping):
        return {safe_line(str(name)): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return safe_line(value) if isinstance(value, str) else _number(value)
