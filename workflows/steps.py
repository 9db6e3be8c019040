"""The steps of a round, each of which may be repeated at any time without a change in its effect.

label → fit → relax → decide, and at the end the final DFT relaxations. What a step has to do is
read from the database when it runs, so a step that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hullscreen.database.campaign_store import StructureBatch
from hullscreen.database.documents import (
    DFTDocument,
    Geometry,
    PotentialDocument,
    Relaxed,
    RoundDocument,
    Selected,
)
from hullscreen.dft_adapters.engine import CalculationError
from hullscreen.potentials.errors import CampaignError, DFTError
from hullscreen.potentials.fit import EV_PER_CUBIC_ANGSTROM_IN_GPA, TrainingSet
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.mtp_files import mtp_text
from hullscreen.potentials.relaxation import Outcome, RelaxationLimits, relax
from hullscreen.potentials.relaxation import Relaxed as Batch
from hullscreen.potentials.structures import join
from hullscreen.workflows.campaign import Campaign, read_potential
from hullscreen.workflows.dft_jobs import (
    DFTJobs,
    atoms_of,
    forces_for,
    stored_array,
    stored_energy,
)
from hullscreen.workflows.learning import shortest_bond, train

CONVERGED = Outcome.CONVERGED.name.lower()
# Relaxed structures are saved in groups of this many: a killed worker loses seconds.
SAVED_TOGETHER = 1000
# The radial functions' range begins at this fraction of the shortest bond; atoms this near are a
# collapse.
MIN_DISTANCE_OF_BOND = 0.78
COLLAPSE_OF_MIN_DISTANCE = 0.75
# No structure lies this far below the lowest label, eV/atom: it has fallen into a hole of the
# potential.
DEPTH_OF_A_HOLE = 1.0


def label(campaign: Campaign, round_: RoundDocument, first: int, last: int) -> None:
    """Compute DFT single points of the selected structures ``first`` to ``last`` (exclusive).

    Raises
    ------
    DFTError
        Some failed; the others are stored.
    """
    wanted = campaign.store.selected(round=round_.number, number={"$gte": first, "$lt": last})
    jobs = DFTJobs(campaign.engine, campaign.store, round_.purpose, campaign.directory)
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


def relax_with_dft(campaign: Campaign, round_: RoundDocument, first: int, last: int) -> None:
    """Relax the final structures number ``first`` to ``last`` (exclusive) with DFT.

    Raises
    ------
    DFTError
        Some failed; the others are stored.
    """
    settings = campaign.settings.dft
    jobs = DFTJobs(campaign.engine, campaign.store, round_.purpose, campaign.directory)
    wanted = round_.final_indices[first:last]
    failures = []
    with campaign.accounting("dft_final"):
        for index in wanted:
            batch = campaign.store.structures({"index": index})
            atoms = atoms_of(*batch.structures.one(0), campaign.elements)
            try:
                result = jobs.relax(
                    atoms,
                    index,
                    force_tolerance=settings.force_tolerance,
                    stress_tolerance=settings.stress_tolerance_gpa / EV_PER_CUBIC_ANGSTROM_IN_GPA,
                    max_steps=settings.max_steps,
                )
            except CalculationError as error:
                campaign.store.save_final(index, {"state": "failed", "reason": str(error)})
                failures.append(f"structure {index}: {error}")
            else:
                energy = stored_energy(result) / len(atoms)
                campaign.store.save_final(
                    index, {"state": "done", "key": result.key, "energy_per_atom": energy}
                )
    _raise_failures(failures, len(wanted))


def _raise_failures(failures: Sequence[str], n_wanted: int) -> None:
    if failures:
        raise DFTError(f"{len(failures)} of {n_wanted} calculations failed: {'; '.join(failures)}")


def fit_potential(campaign: Campaign, round_: RoundDocument) -> None:
    """Fit the round's potential to every label so far, starting from the stage's last one.

    Raises
    ------
    CampaignError
        No label of the seed could be computed.
    """
    store = campaign.store
    if store.potential(round_.number) is not None:
        return
    _require_new_labels(campaign, round_)
    training = training_set(campaign, until=round_.number)
    earlier = [
        entry["number"]
        for entry in store.potentials(["number", "stage"])
        if entry["stage"] == round_.stage and entry["number"] < round_.number
    ]
    settings = campaign.settings.potential
    with campaign.accounting("training"):
        start = campaign.potential(earlier[-1])[0] if earlier else None
        result, active = train(
            training,
            elements=campaign.elements,
            stage=round_.stage,
            level=campaign.level(round_.stage),
            cutoff=settings.cutoff_angstrom,
            min_distance=min_distance(campaign),
            radial_basis_size=settings.radial_basis_size,
            seed=campaign.settings.campaign.seed,
            start=start,
        )
        store.save_potential(
            PotentialDocument(
                campaign=store.name,
                number=round_.number,
                stage=round_.stage,
                level=campaign.level(round_.stage),
                text=mtp_text(result.potential),
                active_rows=np.ascontiguousarray(active.rows, dtype="<f8").tobytes(),
                n_training=len(training),
                loss=result.losses[-1],
                condition=result.condition,
                lowest_energy_per_atom=float(
                    (training.energies / training.structures.n_atoms).min()
                ),
            )
        )


def _require_new_labels(campaign: Campaign, round_: RoundDocument) -> None:
    """Refuse to go on if structures of several compositions all failed: the engine is at fault.

    Those of one composition may all be beyond it; they are left out, as single failures are.
    """
    wanted = campaign.store.selected(round=round_.number)
    compositions = {tuple(sorted(one.species.tolist())) for one in wanted}
    if len(compositions) > 1 and not labelled_structures(campaign, round=round_.number):
        failed = campaign.store.dft_results([one.key for one in wanted])
        reasons = [result.reason for result in failed.values()]
        raise CampaignError(
            f"DFT gave no energy for any of the {len(wanted)} structures of round {round_.number}; "
            f"the first reason: {reasons[0] if reasons else 'see the jobs'}; mend it and run again"
        )


def training_set(campaign: Campaign, until: int) -> TrainingSet:
    """Labels of all rounds up to ``until``, those that failed left out.

    Raises
    ------
    CampaignError
        There are none, or a pure element is missing.
    """
    labelled = labelled_structures(campaign, round={"$lte": until})
    missing = [
        element
        for k, element in enumerate(campaign.elements)
        if not any((selected.species == k).all() for selected, _ in labelled)
    ]
    if missing:
        failures = [failed.reason for failed in campaign.store.failed_dft()]
        raise CampaignError(
            f"DFT gave no energy of pure {', '.join(missing)}, so nothing can be fitted; the first "
            f"failure: {failures[0] if failures else 'none is recorded'}; mend it and run again"
        )
    return TrainingSet(
        join((s.geometry.cell, s.geometry.positions, s.species) for s, _ in labelled),
        np.array([stored_energy(result) for _, result in labelled]),
        np.concatenate([_forces(campaign, selected, result) for selected, result in labelled]),
        np.array([stored_array(result.stress) for _, result in labelled]),
    )


def labelled_structures(campaign: Campaign, **query: object) -> list[tuple[Selected, DFTDocument]]:
    """Selected structures whose DFT single point is done, and that result; each content once."""
    selected = campaign.store.selected(**query)
    results = campaign.store.dft_results([one.key for one in selected])
    unique = {one.key: one for one in reversed(selected)}
    return [
        (one, results[one.key])
        for one in selected
        if unique[one.key] is one and one.key in results and results[one.key].state == "done"
    ]


def _forces(campaign: Campaign, selected: Selected, result: DFTDocument) -> np.ndarray:
    geometry = selected.geometry
    atoms = atoms_of(geometry.cell, geometry.positions, selected.species, campaign.elements)
    return forces_for(atoms, result)


def min_distance(campaign: Campaign) -> float:
    """Where the radial functions begin, Å."""
    given = campaign.settings.potential.min_distance_angstrom
    if given > 0:
        return given
    sizes = campaign.store.structures({"index": {"$lt": 1000}}, geometry="start")
    pure = (sizes.counts > 0).sum(axis=1) == 1
    volumes = sizes.structures.volumes / sizes.structures.n_atoms
    return MIN_DISTANCE_OF_BOND * shortest_bond(volumes[pure])


def relax_structures(campaign: Campaign, round_: RoundDocument, first: int, last: int) -> None:
    """Relax what the round has still to relax of the structures in places ``first`` to ``last``."""
    store = campaign.store
    document = campaign.potential_document(round_.potential)
    potential, active = read_potential(document)
    lowest_label = document.lowest_energy_per_atom
    if lowest_label is None:
        training = training_set(campaign, until=round_.potential)
        lowest_label = float((training.energies / training.structures.n_atoms).min())
    limits = _limits(campaign, potential, lowest_label)
    while True:
        with campaign.accounting("database"):
            batch = store.waiting(round_, first, last, limit=SAVED_TOGETHER)
        if not len(batch):
            return
        with campaign.accounting("relaxation"):
            relaxed = relax(potential, batch.structures, limits, active)
        with campaign.accounting("database"):
            results = {
                int(index): _result(campaign, round_, batch, relaxed, i)
                for i, index in enumerate(batch.indices)
            }
            store.save_relaxed(results)


def _result(
    campaign: Campaign, round_: RoundDocument, batch: StructureBatch, relaxed: Batch, i: int
) -> Relaxed:
    """What is stored of the relaxation of structure ``i`` of a batch."""
    outcome = Outcome(relaxed.outcomes[i])
    moved, energy = relaxed.structures, relaxed.energies[i] / relaxed.structures.n_atoms[i]
    if outcome is not Outcome.CONVERGED and batch.outcomes[i] == CONVERGED and round_.again:
        # It was at rest before: what a new potential could not improve stays where it was.
        outcome, moved, energy = Outcome.CONVERGED, batch.structures, batch.energies_per_atom[i]
    candidate = relaxed.highest_grades[i] >= campaign.settings.learning.select_grade
    return Relaxed(
        stage=round_.stage,
        potential=round_.potential,
        outcome=outcome.name.lower(),
        energy_per_atom=float(energy) if np.isfinite(energy) else None,
        evaluations=int(relaxed.evaluations[i]),
        grade=float(relaxed.grades[i]),
        highest_grade=float(relaxed.highest_grades[i]),
        geometry=Geometry(*moved.one(i)[:2]),
        snapshot=Geometry(*relaxed.snapshots.one(i)[:2]) if candidate else None,
    )


def _limits(
    campaign: Campaign, potential: MomentTensorPotential, lowest_label: float
) -> RelaxationLimits:
    settings = campaign.settings
    return RelaxationLimits(
        force_tolerance=settings.relaxation.force_tolerance,
        stress_tolerance_gpa=settings.relaxation.stress_tolerance_gpa,
        max_evaluations=settings.relaxation.max_steps,
        break_grade=settings.learning.break_grade,
        shortest_distance=COLLAPSE_OF_MIN_DISTANCE * potential.min_distance,
        lowest_energy_per_atom=lowest_label - DEPTH_OF_A_HOLE,
    )
