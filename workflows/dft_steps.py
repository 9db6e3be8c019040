"""The steps of a round that run DFT; like all steps, they may be repeated at any time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ase import Atoms

from hullscreen.database.round_documents import RoundDocument
from hullscreen.dft_adapters.engine import CalculationError
from hullscreen.potentials.errors import DFTError
from hullscreen.potentials.fit import EV_PER_CUBIC_ANGSTROM_IN_GPA
from hullscreen.workflows import quarantine
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.dft_jobs import (
    DFTJobs,
    atoms_of,
    jobs_of,
    relaxation_kind,
    stored_energy,
)
from hullscreen.workflows.potential_steps import COLLAPSE_OF_MIN_DISTANCE, min_distance
from hullscreen.workflows.publishing import PUBLISHED_EVERY_S, publish_hull


def label(
    campaign: Campaign,
    round_: RoundDocument,
    first: int,
    last: int,
    repeat_before: datetime | None = None,
) -> None:
    """Compute DFT single points of the selected structures ``first`` to ``last`` (exclusive).

    What failed up to ``repeat_before`` is computed again; other failures are remembered.

    Raises
    ------
    DFTError
        Some failed, now or before; the others are stored.
    EngineMissingError
        The engine cannot serve, or is not the one that the campaign began with.
    """
    campaign.require_same_engine()
    wanted = campaign.store.selected(round=round_.number, number={"$gte": first, "$lt": last})
    # Of an earlier campaign; they are not computed again until somebody asks for it.
    quarantined = campaign.store.quarantined_dft([one.key for one in wanted])
    wanted = [one for one in wanted if one.key not in quarantined]
    jobs = jobs_of(campaign, round_.purpose, repeat_before)
    failures = []
    with campaign.accounting("dft_labels"):
        for selected in wanted:
            atoms = atoms_of(
                selected.geometry.cell,
                selected.geometry.positions,
                selected.species,
                campaign.elements,
            )
            try:
                jobs.single_point(atoms, selected.structure_index)
            except CalculationError as error:
                failures.append(f"structure {selected.structure_index}: {error}")
    _raise_failures(failures, len(wanted))


def relax_with_dft(
    campaign: Campaign,
    round_: RoundDocument,
    first: int,
    last: int,
    repeat_before: datetime | None = None,
) -> None:
    """Relax the final structures number ``first`` to ``last`` (exclusive) with DFT.

    What failed up to ``repeat_before`` is computed again; other failures are remembered.

    Raises
    ------
    DFTError
        Some failed, now or before; the others are stored.
    EngineMissingError
        The engine cannot serve, or is not the one that the campaign began with.
    """
    campaign.require_same_engine()
    jobs = jobs_of(campaign, round_.purpose, repeat_before)
    wanted = round_.final_indices[first:last]
    least_distance = COLLAPSE_OF_MIN_DISTANCE * min_distance(campaign)
    failures = []
    with campaign.accounting("dft_final"):
        for index in wanted:
            atoms = _start_of_relaxation(campaign, index)
            try:
                final = _final(campaign, round_, jobs, index, atoms, least_distance)
            except CalculationError as error:
                key = _relaxation_key(campaign, jobs, atoms)
                final = {"state": "failed", "key": key, "reason": str(error)}
                failures.append(f"structure {index}: {error}")
            campaign.store.save_final(index, final)
            campaign.store.note_hull_change()
            publish_hull(campaign.store, if_older_s=PUBLISHED_EVERY_S)
    _raise_failures(failures, len(wanted))


def final_stress_tolerance(campaign: Campaign) -> float:
    """Of a final relaxation, eV/Å³."""
    return campaign.settings.dft.stress_tolerance_gpa / EV_PER_CUBIC_ANGSTROM_IN_GPA


def _relaxation_key(campaign: Campaign, jobs: DFTJobs, atoms: Atoms) -> str:
    force_tolerance = campaign.settings.dft.force_tolerance
    return jobs.key(atoms, relaxation_kind(force_tolerance, final_stress_tolerance(campaign)))


def _final(
    campaign: Campaign,
    round_: RoundDocument,
    jobs: DFTJobs,
    index: int,
    atoms: Atoms,
    least_distance: float,
) -> dict[str, object]:
    """Relax structure ``index`` from ``atoms`` with DFT and judge the result: what is noted."""
    settings = campaign.settings.dft
    key = _relaxation_key(campaign, jobs, atoms)
    aside = campaign.store.quarantined_dft([key]).get(key)
    if aside is None:
        result = jobs.relax(
            atoms,
            index,
            force_tolerance=settings.force_tolerance,
            stress_tolerance=final_stress_tolerance(campaign),
            max_steps=settings.max_steps,
        )
        reason = quarantine.relaxation_verdict(campaign, index, result, least_distance)
        if not reason:
            energy = stored_energy(result) / len(atoms)
            return {"state": "done", "key": key, "energy_per_atom": energy}
        verdict = {key: (quarantine.RELAXATION, reason)}
        quarantine.note(campaign, round_, quarantine.Verdicts(verdict))
    else:
        reason = aside.reason
    return {"state": "failed", "key": key, "reason": f"quarantined: {reason}"}


def _start_of_relaxation(campaign: Campaign, index: int) -> Atoms:
    """Where the potential left a structure; if DFT erred there, where it did not."""
    selected = campaign.store.selected(purpose="refine", structure_index=index)
    aside = campaign.store.quarantined_dft([one.key for one in selected])
    fine = [one for one in selected if one.key not in aside]
    if aside and fine:
        geometry, species = fine[-1].geometry, fine[-1].species
        return atoms_of(geometry.cell, geometry.positions, species, campaign.elements)
    batch = campaign.store.structures({"index": index})
    return atoms_of(*batch.structures.one(0), campaign.elements)


def _raise_failures(failures: Sequence[str], n_wanted: int) -> None:
    if failures:
        raise DFTError(f"{len(failures)} of {n_wanted} calculations failed: {'; '.join(failures)}")
