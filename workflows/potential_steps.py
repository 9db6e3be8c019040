"""The steps of a round that fit a potential and relax with it.

label → fit → relax → decide, and at the end the final DFT relaxations. Each may be repeated at any
time without a change in its effect: what a step has to do is read from the database when it runs,
so a step that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hullscreen.database.campaign_store import StructureBatch
from hullscreen.database.documents import Geometry, Relaxed
from hullscreen.database.round_documents import PotentialDocument, RoundDocument
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.fit import TrainingSet
from hullscreen.potentials.labels import errors
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.mtp_files import mtp_text
from hullscreen.potentials.relaxation import Outcome, RelaxationLimits, relax
from hullscreen.potentials.relaxation import Relaxed as Batch
from hullscreen.workflows import quarantine
from hullscreen.workflows.campaign import Campaign, read_potential
from hullscreen.workflows.labelled import label_digest, labelled_structures, training_set_of
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
    labels = labelled_structures(
        campaign,
        judged_again_by=quarantine.judge_of(campaign, round_),
        round={"$lte": round_.number},
    )
    with campaign.accounting("training"):
        (result, active), training, verdicts = quarantine.learn(
            campaign, labels, _trainer(campaign, round_)
        )
        quarantine.note(campaign, round_, verdicts)
        residuals = errors(result.potential, training).known()
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
                energy_rmse=_thousandth(residuals["energy_rmse_mev_per_atom"]),
                force_rmse=_thousandth(residuals["force_rmse_mev_per_angstrom"]),
                labels=b"".join(label_digest(result) for _, result in verdicts.others(labels)),
            )
        )


def _thousandth(value: float | None) -> float | None:
    """In eV what is in meV."""
    return None if value is None else 1e-3 * value


def _trainer(campaign: Campaign, round_: RoundDocument) -> Callable[[TrainingSet], quarantine.Fit]:
    """Training of a potential of the round's stage, from the last one of that stage if any."""
    settings = campaign.settings.potential
    earlier = [
        entry["number"]
        for entry in campaign.store.potentials(["number", "stage"])
        if entry["stage"] == round_.stage and entry["number"] < round_.number
    ]
    start = campaign.potential(earlier[-1])[0] if earlier else None
    shortest = min_distance(campaign)

    def fit_to(training: TrainingSet) -> quarantine.Fit:
        return train(
            training,
            elements=campaign.elements,
            stage=round_.stage,
            level=campaign.level(round_.stage),
            cutoff=settings.cutoff_angstrom,
            min_distance=shortest,
            radial_basis_size=settings.radial_basis_size,
            seed=campaign.settings.campaign.seed,
            start=start,
        )

    return fit_to


def judge_sample(campaign: Campaign, round_: RoundDocument) -> None:
    """Put aside labels of a round that fits nothing, before errors are measured with them.

    Labels that a potential did not foresee may be right and the potential wrong, so a doubt is
    settled by one that has learnt them.
    """
    labels = labelled_structures(
        campaign,
        judged_again_by=quarantine.judge_of(campaign, round_),
        round={"$lte": round_.number},
    )
    potential, _ = campaign.potential(round_.potential)
    if quarantine.doubtful(campaign, labels, potential):
        with campaign.accounting("training"):
            _, _, verdicts = quarantine.learn(campaign, labels, _trainer(campaign, round_))
        quarantine.note(campaign, round_, verdicts)


def _require_new_labels(campaign: Campaign, round_: RoundDocument) -> None:
    """Refuse to go on if structures of several compositions all failed: the engine is at fault.

    Those of one composition may all be beyond it; they are left out, as single failures are.
    """
    wanted = campaign.store.selected(round=round_.number)
    compositions = {tuple(sorted(one.species.tolist())) for one in wanted}
    results = campaign.store.dft_results([one.key for one in wanted])
    if len(compositions) > 1 and all(result.state == "failed" for result in results.values()):
        reasons = [result.reason for result in results.values()]
        raise CampaignError(
            f"DFT gave no energy for any of the {len(wanted)} structures of round {round_.number}; "
            f"the first reason: {reasons[0] if reasons else 'see the jobs'}; mend it and run again"
        )


def training_set(campaign: Campaign, until: int) -> TrainingSet:
    """Labels of all rounds up to ``until``, those that failed or are quarantined left out.

    Raises
    ------
    CampaignError
        There are none, or a pure element is missing.
    """
    return training_set_of(campaign, labelled_structures(campaign, round={"$lte": until}))


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
