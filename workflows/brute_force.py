"""What judges a campaign: its hull against that of the whole pool relaxed with DFT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from hullscreen.database.dft_documents import ReferenceRelaxation
from hullscreen.potentials.errors import CampaignError, DFTError
from hullscreen.potentials.structures import (
    IntArray,
    join,
)
from hullscreen.workflows.campaign import Campaign, formula, open_campaign
from hullscreen.workflows.hull_comparison import Phases, compare, reduced
from hullscreen.workflows.reference_relaxations import RelaxedPool
from hullscreen.workflows.results import HullResult, final_hull
from hullscreen.workflows.same_basin import same_crystal
from hullscreen.workflows.screening import TIE

MEV = 1e3


def reference_phases(relaxed: RelaxedPool, elements: Sequence[str]) -> Phases:
    """What brute force relaxed; failures are left out.

    Raises
    ------
    DFTError
        An element could not be relaxed, so there is no hull.
    """
    done = [i for i, r in enumerate(relaxed.relaxations) if r.state == "done"]
    phases = _phases(done, [relaxed.relaxations[i] for i in done], elements)
    for element, column in zip(elements, phases.fractions.T, strict=True):
        if not (column == 1.0).any():
            number = atomic_numbers[element]
            failures = [r.message for r in relaxed.relaxations if set(r.numbers) == {number}]
            raise DFTError(
                f"brute force could not relax pure {element} in any lattice, so it has no hull; "
                f"the first failure: {failures[0] if failures else 'none was tried'}; mend it and "
                "run again with --retry-failed"
            )
    return phases


def _phases(
    indices: Sequence[int], results: Sequence[ReferenceRelaxation], elements: Sequence[str]
) -> Phases:
    structures = join(
        (r.geometry.cell, r.geometry.positions, _species(r.numbers, elements)) for r in results
    )
    energies = np.array([r.energy for r in results], dtype=np.float64)
    return Phases(
        np.array(indices, dtype=np.int64),
        structures.counts(len(elements)),
        energies / structures.n_atoms,
        structures,
    )


def campaign_to_compare(session_campaign: Campaign) -> Campaign:
    """The campaign as its database holds it, or as given if it has not begun.

    Raises
    ------
    CampaignError
        It was computed with another DFT engine than the one found here.
    """
    store = session_campaign.store
    document = store.find_campaign()
    if document is None:
        return session_campaign
    stored = open_campaign(store)
    if not stored.is_same_engine(document["engine"], stored.elements):
        raise CampaignError(
            f"campaign {store.name!r} was computed with another DFT engine or version than the one "
            "found here, so energies cannot be compared; use the environment that it ran in"
        )
    return stored


def finished_hull(campaign: Campaign) -> HullResult:
    """The hull of a campaign that has come to its end.

    Raises
    ------
    CampaignError
        It has not.
    """
    document = campaign.store.find_campaign()
    if document is None or not document["finished"]:
        raise CampaignError(
            f"campaign {campaign.store.name!r} is not finished, so there is no hull to compare "
            "with; brute force's relaxations are kept: let `hullscreen run` finish the campaign, "
            "then compare"
        )
    return final_hull(campaign.store)


def campaign_phases(result: HullResult) -> Phases:
    """What a campaign relaxed with DFT, in the order of its entries."""
    geometries = [entry.result.geometry for entry in result.entries]
    structures = join(
        (geometry.cell, geometry.positions, _species(entry.result.numbers, result.elements))
        for geometry, entry in zip(geometries, result.entries, strict=True)
    )
    return Phases(
        np.array([entry.structure_index for entry in result.entries], dtype=np.int64),
        structures.counts(len(result.elements)),
        np.array([entry.energy_per_atom for entry in result.entries]),
        structures,
    )


def reference_report(campaign: Campaign, relaxed: RelaxedPool) -> dict[str, Any]:
    """What brute force found and what it cost: plain numbers and lists.

    Raises
    ------
    DFTError
        A pure element could not be relaxed.
    """
    phases = reference_phases(relaxed, campaign.elements)
    different = relaxed.different()
    failed = [r for r in different if r.state == "failed"]
    return {
        "evaluations": sum(r.n_evaluations for r in different),
        "failed": len(failed),
        "failures": dict(sorted(Counter(r.reason for r in failed).items())),
        "cpu_seconds": sum(r.cpu_seconds for r in different),
        "wall_seconds": sum(r.wall_seconds for r in different),
        "relaxations_computed_now": relaxed.n_computed,
        "stable": [
            _phase(campaign, phases, int(v), relaxed.pool.prototypes) for v in phases.hull.vertices
        ],
        "unconverged_below_hull": _unconverged_below(campaign, relaxed, phases),
    }


def report(campaign: Campaign, relaxed: RelaxedPool) -> dict[str, Any]:
    """The whole comparison as plain numbers and lists.

    Raises
    ------
    CampaignError
        The campaign is not finished.
    DFTError
        Brute force could not relax a pure element.
    """
    hull = finished_hull(campaign)
    ours = campaign_phases(hull)
    reference = reference_phases(relaxed, campaign.elements)
    comparison = compare(reference, ours, relaxed.pool.structures.counts(len(campaign.elements)))
    brute = reference_report(campaign, relaxed)
    for entry, how in zip(brute["stable"], comparison.found.values(), strict=True):
        entry["found_as"] = how or None
    costs = campaign_costs(campaign)
    largest = comparison.largest
    differences = MEV * comparison.differences
    return {
        "chemsys": "-".join(sorted(campaign.elements)),
        "structures": len(relaxed.pool.prototypes),
        "brute_force": brute,
        "campaign": {
            **costs,
            "stable": [
                {
                    "formula_pretty": entry.formula_pretty,
                    "energy_per_atom": entry.energy_per_atom,
                    "formation_energy_per_atom": entry.formation_energy_per_atom,
                    "nsites": entry.nsites,
                    "structure_index": entry.structure_index,
                    "prototype": entry.prototype,
                }
                for entry in hull.stable
            ],
        },
        "evaluation_ratio": brute["evaluations"] / max(costs["evaluations"], 1),
        "hull_difference_mev_per_atom": {
            "largest": abs(float(differences[largest])),
            "at": formula(comparison.compositions[largest], campaign.elements),
            "highest": float(differences.max()),
            "lowest": float(differences.min()),
        },
        "recall": comparison.recall,
        "missed": [
            _missed(campaign, relaxed, reference, place, ours)
            for place, how in comparison.found.items()
            if not how
        ],
    }


def campaign_costs(campaign: Campaign) -> dict[str, Any]:
    """Evaluations, failures and times of a campaign.

    Results that another campaign of the database had paid for count as if this one had.
    """
    store = campaign.store
    costs = store.dft_costs()
    keys = [selected.key for selected in store.selected()]
    keys += [entry["final"]["key"] for entry in store.documents(
        {"final.state": "done"}, ["final.key"]
    )]  # fmt: skip
    borrowed = store.borrowed_evaluations(keys)
    paid = sum(int(cost["evaluations"]) for cost in costs.values())
    began, ended = store.campaign()["created_at"], store.last_dft_at()
    return {
        "evaluations": paid + borrowed,
        "borrowed_evaluations": borrowed,
        "evaluations_by_purpose": {name: int(cost["evaluations"]) for name, cost in costs.items()},
        "failed": sum(int(cost["failed"]) for cost in costs.values()),
        "cpu_seconds": sum(store.campaign()["cpu_seconds"].values()),
        "wall_seconds": (ended - began).total_seconds() if ended else 0.0,
    }


def _phase(
    campaign: Campaign, phases: Phases, place: int, prototypes: Sequence[str]
) -> dict[str, Any]:
    index = int(phases.indices[place])
    return {
        "formula_pretty": formula(phases.counts[place], campaign.elements),
        "energy_per_atom": float(phases.energies_per_atom[place]),
        "formation_energy_per_atom": float(phases.hull.formation_energies[place]),
        "nsites": int(phases.counts[place].sum()),
        "structure_index": index,
        "prototype": prototypes[index],
    }


def _unconverged_below(
    campaign: Campaign, relaxed: RelaxedPool, phases: Phases
) -> list[dict[str, Any]]:
    """Relaxations that ended below the hull without converging: the reference is in doubt."""
    places = [
        i for i, r in enumerate(relaxed.relaxations) if r.state == "failed" and r.energy is not None
    ]
    if not places:
        return []
    results = [relaxed.relaxations[i] for i in places]
    unconverged = _phases(places, results, campaign.elements)
    depths = phases.hull_energies(unconverged.fractions) - unconverged.energies_per_atom
    return [
        {
            "formula_pretty": formula(unconverged.counts[k], campaign.elements),
            "structure_index": places[k],
            "prototype": relaxed.pool.prototypes[places[k]],
            "reason": results[k].reason,
            "below_hull_mev_per_atom": float(MEV * depths[k]),
        }
        for k in np.flatnonzero(depths > TIE)
    ]


def _missed(
    campaign: Campaign, relaxed: RelaxedPool, reference: Phases, place: int, ours: Phases
) -> dict[str, Any]:
    """A stable structure that the campaign lacks, and what became of its prototypes there."""
    at = reference.fractions[place : place + 1]
    height = float(ours.hull_energies(at)[0] - reference.energies_per_atom[place])
    prototypes = [int(reference.indices[p]) for p in _same_basin(reference, place)]
    fields = ["index", "stage", "relaxed.outcome", "dropped", "final"]
    query = {"index": {"$in": prototypes}}
    fates = {entry["index"]: fate(entry) for entry in campaign.store.documents(query, fields)}
    names = relaxed.pool.prototypes
    missed = _phase(campaign, reference, place, names)
    return {
        **missed,
        "below_campaign_hull_mev_per_atom": MEV * height,
        "reason": fates.get(missed["structure_index"], "it is not in the campaign's pool"),
        "prototypes": [
            {"structure_index": i, "prototype": names[i], "reason": fates[i]}
            for i in prototypes
            if i in fates
        ],
    }


def _same_basin(phases: Phases, place: int) -> list[int]:
    """Phases that relaxed into the same crystal as one of them, that one first."""
    alike = (reduced(phases.counts) == reduced(phases.counts[place : place + 1])).all(axis=1)
    alike &= np.abs(phases.energies_per_atom - phases.energies_per_atom[place]) <= TIE
    crystal = phases.structures.one(place)
    others = [
        int(i)
        for i in np.flatnonzero(alike)
        if i != place and same_crystal(*crystal, *phases.structures.one(int(i)))
    ]
    return [place, *others]


def fate(document: Mapping[str, Any]) -> str:
    """What became of a structure in its campaign, in words."""
    final, dropped = document.get("final"), document.get("dropped")
    if final is not None and final["state"] == "failed":
        return f"its DFT relaxation failed: {final['reason']}"
    if final is not None:
        return "its DFT relaxation ended elsewhere, or higher"
    if dropped is None:
        return f"nothing was decided about it in stage {document['stage']}"
    details = [
        f"{name.replace('_', ' ')} {MEV * dropped[key]:.1f} meV/atom"
        for name, key in (
            ("energy_above_hull", "energy_above_hull"),
            ("window", "window"),
            ("possible_gain", "possible_gain"),
        )
        if key in dropped
    ]
    details += [
        f"{key.replace('_', ' ')} {dropped[key]}"
        for key in ("same_as", "outcome")
        if key in dropped
    ]
    more = f" ({', '.join(details)})" if details else ""
    return f"dropped in stage {dropped['stage']}: {dropped['reason']}{more}"


def _species(numbers: Sequence[int], elements: Sequence[str]) -> IntArray:
    """Indices into ``elements`` of atomic numbers."""
    place = {atomic_numbers[symbol]: k for k, symbol in enumerate(elements)}
    return np.array([place[z] for z in numbers], dtype=np.int32)
