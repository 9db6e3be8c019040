"""What comes next: the only place where a campaign decides.

Every decision is a function of what the database holds, so it can be taken again after a crash, with the same
result. It ends with the document of the next round, which is its commit: before, nothing that a repeated
decision reads has changed.

```
stage 1:  seed → learn … (waves grow, and each is repeated until nothing is new) → validate → screen at 4σ
stage 2:  learn …                                     → refine … (label the most promising) → screen at 4σ
stage 3:  final (DFT relaxations) → the hull
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hullscreen.database.campaign_store import StructureBatch
from hullscreen.database.documents import DFTDocument, Geometry, RoundDocument, Selected
from hullscreen.potentials.active_set import select_candidates
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures
from hullscreen.workflows.campaign import FINAL_STAGE, Campaign, total_structures
from hullscreen.workflows.dft_jobs import SINGLE_POINT, DFTJobs, atoms_of, stored_array, stored_energy
from hullscreen.workflows.hull import convex_hull
from hullscreen.workflows.learning import (
    fingerprints,
    gradient_rows,
    seed_indices,
    strained_seed,
)
from hullscreen.workflows.same_basin import group_by_basin
from hullscreen.workflows.screening import (
    TIE,
    ErrorEstimate,
    estimate_errors,
    next_wave,
    possible_gain,
    random_sample,
    sample_size,
)
from hullscreen.workflows.steps import labelled_structures

# A stage that still meets new environments after so many rounds goes on with what it has.
MAX_LEARNING_ROUNDS = 80
VALIDATION_STREAM = 2
SEED_STREAM = 3


@dataclass(frozen=True)
class Choice:
    """A structure to be labelled.

    Attributes
    ----------
    structure_index
        The prototype it came from.
    grade, predicted_energy_per_atom
        As in `hullscreen.database.documents.Selected`.
    """

    structure_index: int
    structures: Structures
    place: int
    grade: float | None
    predicted_energy_per_atom: float | None


def first_round(campaign: Campaign) -> None:
    """Begin: the seed's labels, the first potential, the first wave."""
    settings = campaign.settings
    smallest = campaign.store.structures({"index": {"$lt": 1000}}, geometry="start")
    n_pure = len(settings.prototypes.lattices) * len(campaign.elements)
    chosen = seed_indices(smallest.counts, max(n_pure, len(campaign.elements)))
    seed, sources = strained_seed(
        smallest.structures.take(chosen), settings.campaign.seed + SEED_STREAM
    )
    choices = [
        Choice(int(smallest.indices[chosen[source]]), seed, i, None, None)
        for i, source in enumerate(sources)
    ]
    wave = min(settings.learning.first_wave, total_structures(campaign))
    _begin(
        campaign,
        RoundDocument(
            campaign=campaign.store.name, number=0, stage=1, purpose="seed", potential=0, fits=True,
            wave=wave,
        ),
        choices,
    )  # fmt: skip


def decide(campaign: Campaign, round_: RoundDocument) -> None:
    """Take the decision at the end of a round: begin the next one, or finish the campaign."""
    if campaign.store.find_round(round_.number + 1) is not None:
        return
    if round_.purpose == "final":
        _finish(campaign)
    elif round_.purpose == "validate":
        _screen_first(campaign, round_)
    elif round_.purpose == "refine":
        _refine(campaign, round_)
    else:
        _learn(campaign, round_)


def _finish(campaign: Campaign) -> None:
    """The hull is final if it has its corners."""
    fields = ["counts", "final"]
    done = list(campaign.store.documents({"final.state": "done"}, fields))
    pure = {k for d in done for k, n in enumerate(d["counts"]) if n == sum(d["counts"])}
    missing = [element for k, element in enumerate(campaign.elements) if k not in pure]
    if missing:
        failed = campaign.store.documents({"final.state": "failed"}, fields)
        reasons = [document["final"]["reason"] for document in failed]
        raise CampaignError(
            f"no DFT relaxation of pure {', '.join(missing)} succeeded, so there is no hull; the "
            f"first reason: {reasons[0] if reasons else 'see the jobs'}; mend it and run again"
        )
    campaign.store.set_campaign(finished=True)


def _learn(campaign: Campaign, round_: RoundDocument) -> None:
    """Label what enlarges the active set; if nothing does, relax a larger wave, then leave learning."""
    store, learning = campaign.store, campaign.settings.learning
    potential, active = campaign.potential(round_.potential)
    candidates = store.structures(
        {
            "relaxed.stage": round_.stage,
            "relaxed.potential": round_.potential,
            "relaxed.highest_grade": {"$gte": learning.select_grade},
        },
        geometry="relaxed.snapshot",
    )
    n_rounds = sum(r.stage == round_.stage and r.purpose == "learn" for r in store.rounds())
    choices: list[Choice] = []
    if n_rounds < MAX_LEARNING_ROUNDS:
        picked = select_candidates(active, gradient_rows(potential, candidates.structures))
        choices = [
            Choice(int(candidates.indices[i]), candidates.structures, int(i),
                   float(candidates.highest_grades[i]), None)
            for i in picked
        ]  # fmt: skip
        choices = _new_choices(campaign, choices)[: learning.max_selected_per_wave]
    total = total_structures(campaign)
    if choices:
        _begin(campaign, _next(round_, purpose="learn", fits=True), choices)
    elif round_.wave < total:
        wave = next_wave(round_.wave, learning.wave_growth, total)
        _begin(campaign, _next(round_, purpose="learn", wave=wave), [])
    elif round_.stage == 1:
        _validate(campaign, round_)
    else:
        _refine(campaign, round_)


def _validate(campaign: Campaign, round_: RoundDocument) -> None:
    """Label a random sample of relaxed structures, to learn how wrong the potential is on them."""
    potential, _ = campaign.potential(round_.potential)
    batch = _relaxed(campaign, stage=1)
    energies = potential.evaluate(batch.structures).energies / batch.structures.n_atoms
    seed = campaign.settings.campaign.seed + VALIDATION_STREAM
    wanted = campaign.settings.screening.validation_structures
    sample = random_sample(len(batch), sample_size(len(batch), wanted), seed)
    choices = [
        Choice(int(batch.indices[i]), batch.structures, int(i), None, float(energies[i]))
        for i in sample
    ]
    _begin(campaign, _next(round_, purpose="validate"), choices)


def _screen_first(campaign: Campaign, round_: RoundDocument) -> None:
    """Drop what lies further than 4σ above the hull of the first potential."""
    estimate = _errors(campaign, round_)
    potential, _ = campaign.potential(round_.potential)
    batch = _relaxed(campaign, stage=1)
    energies = potential.evaluate(batch.structures).energies / batch.structures.n_atoms
    heights = convex_hull(_fractions(batch.counts), energies).energies_above_hull
    window = campaign.settings.screening.sigma_multiple * estimate.sigma
    kept = heights <= window
    campaign.store.drop(
        {
            int(index): _above_hull(1, height, estimate, window)
            for index, height in zip(batch.indices[~kept], heights[~kept], strict=True)
        }
    )
    _drop_unconverged(campaign, stage=1)
    campaign.store.advance([int(index) for index in batch.indices[kept]], 2)
    wave = min(campaign.settings.learning.first_wave, total_structures(campaign))
    _begin(
        campaign,
        _next(round_, stage=2, purpose="learn", fits=True, wave=wave, sigma=estimate.to_dict()),
        [],
    )


def _refine(campaign: Campaign, round_: RoundDocument) -> None:
    """Label the most promising basins until none within 4σ of the hull is left without a label."""
    settings = campaign.settings.screening
    estimate = _errors(campaign, round_) if round_.purpose == "refine" else None
    potential, _ = campaign.potential(round_.potential)
    batch = _relaxed(campaign, stage=2)
    energies = potential.evaluate(batch.structures).energies / batch.structures.n_atoms
    heights = convex_hull(_fractions(batch.counts), energies).energies_above_hull
    basins = group_by_basin(
        batch.structures, energies, fingerprints(potential, batch.structures)
    )
    asked = {s.structure_index for s in campaign.store.selected(purpose="refine")}
    asked_basins = {
        int(basins[i]) for i, index in enumerate(batch.indices) if int(index) in asked
    }
    window = settings.sigma_multiple * estimate.sigma if estimate else np.inf
    open_ = np.array(
        [i for i in np.unique(basins) if int(i) not in asked_basins and heights[i] <= window],
        dtype=np.int64,
    )
    open_ = open_[np.argsort(heights[open_], kind="stable")][: settings.validation_structures]
    sigma = estimate.to_dict() if estimate else round_.sigma
    if open_.size:
        choices = [
            Choice(int(batch.indices[i]), batch.structures, int(i), None, float(energies[i]))
            for i in open_
        ]
        following = _next(round_, purpose="refine", fits=True, again=True, sigma=sigma)
        _begin(campaign, following, choices)
    else:
        assert estimate is not None, "a first refinement always finds structures"  # noqa: S101
        _choose_final(campaign, round_, batch, heights, basins, estimate)


def _choose_final(
    campaign: Campaign,
    round_: RoundDocument,
    batch: StructureBatch,
    heights: FloatArray,
    basins: IndexArray,
    estimate: ErrorEstimate,
) -> None:
    """Relax with DFT what may still reach the hull, judged by its DFT single point, forces and stress."""
    window = campaign.settings.screening.sigma_multiple * estimate.sigma
    labelled = labelled_structures(campaign, purpose="refine")
    labelled = [(s, r) for s, r in labelled if s.structure_index in set(batch.indices.tolist())]
    place = {int(index): i for i, index in enumerate(batch.indices)}
    places = np.array([place[s.structure_index] for s, _ in labelled], dtype=np.int64)
    n_atoms = np.array([len(s.species) for s, _ in labelled])
    energies = np.array([stored_energy(result) for _, result in labelled]) / n_atoms
    above = convex_hull(_fractions(batch.counts[places]), energies).energies_above_hull
    gains = np.array(
        [
            possible_gain(
                stored_array(r.forces), stored_array(r.stress),
                abs(float(np.linalg.det(s.geometry.cell))),
            ) / len(s.species)
            for s, r in labelled
        ]
    )  # fmt: skip
    chosen = above - gains <= TIE
    reasons = {
        int(batch.indices[i]): _above_hull(2, heights[i], estimate, window)
        for i in range(len(batch))
        if heights[i] > window
    }
    representatives = {int(basins[p]): int(batch.indices[p]) for p in places}
    for i, index in enumerate(batch.indices):
        twin = representatives.get(int(basins[i]))
        if twin is not None and twin != int(index):
            reasons[int(index)] = {
                "stage": 2, "reason": "the same basin as another structure", "same_as": twin,
            }  # fmt: skip
    for p, height, gain in zip(places[~chosen], above[~chosen], gains[~chosen], strict=True):
        reasons[int(batch.indices[p])] = {
            "stage": FINAL_STAGE,
            "reason": "its DFT single point lies higher above the hull than a relaxation can gain",
            "energy_above_hull": float(height),
            "possible_gain": float(gain),
        }
    order = np.argsort(above[chosen], kind="stable")
    final = tuple(int(batch.indices[p]) for p in places[chosen][order])
    for index in final:
        reasons.pop(index, None)
    campaign.store.drop(reasons)
    _drop_unconverged(campaign, stage=2)
    following = _next(
        round_, stage=FINAL_STAGE, purpose="final", sigma=estimate.to_dict(), final_indices=final
    )
    _begin(campaign, following, [])
    campaign.store.advance(final, FINAL_STAGE)


def _errors(campaign: Campaign, round_: RoundDocument) -> ErrorEstimate:
    """Errors of the predictions that were made when structures of this purpose were chosen.

    The newest rounds count, as many as make a sample: errors of older potentials are larger, so that
    σ is rather over- than underestimated.
    """
    labelled: list[tuple[Selected, DFTDocument]] = []
    for number in range(round_.number, -1, -1):
        labelled += labelled_structures(campaign, round=number, purpose=round_.purpose)
        if len(labelled) >= campaign.settings.screening.validation_structures:
            break
    predicted = np.array([s.predicted_energy_per_atom for s, _ in labelled], dtype=np.float64)
    computed = np.array([stored_energy(r) / len(s.species) for s, r in labelled])
    return estimate_errors(predicted, computed)


def _relaxed(campaign: Campaign, stage: int) -> StructureBatch:
    """Structures whose relaxation of a stage converged."""
    return campaign.store.structures({"relaxed.stage": stage, "relaxed.outcome": "converged"})


def _drop_unconverged(campaign: Campaign, stage: int) -> None:
    query = {"stage": stage, "relaxed.outcome": {"$ne": "converged"}}
    campaign.store.drop(
        {
            document["index"]: {
                "stage": stage,
                "reason": "its relaxation ended without convergence",
                "outcome": document.get("relaxed", {}).get("outcome", "not relaxed"),
            }
            for document in campaign.store.documents(query, ["index", "relaxed.outcome"])
        }
    )


def _above_hull(
    stage: int, height: float, estimate: ErrorEstimate, window: float
) -> dict[str, object]:
    return {
        "stage": stage,
        "reason": "too far above the hull of its stage",
        "energy_above_hull": float(height),
        "window": float(window),
        "sigma": estimate.sigma,
    }


def _fractions(counts: IndexArray) -> FloatArray:
    return counts / counts.sum(axis=1, keepdims=True)


def _next(round_: RoundDocument, **changes: object) -> RoundDocument:
    """The round after this one; it keeps the potential unless it fits its own."""
    values: dict[str, object] = {
        "campaign": round_.campaign,
        "number": round_.number + 1,
        "stage": round_.stage,
        "potential": round_.number + 1 if changes.get("fits") else round_.potential,
        "fits": False,
        "wave": round_.wave,
        "sigma": round_.sigma,
    }
    return RoundDocument(**{**values, **changes})  # type: ignore[arg-type]


def _new_choices(campaign: Campaign, choices: Sequence[Choice]) -> list[Choice]:
    """Those whose structure was not asked for before: a calculation that failed is not asked again."""
    known = {selected.key for selected in campaign.store.selected()}
    jobs = _jobs(campaign)
    return [c for c in choices if jobs.key(_atoms(campaign, c), SINGLE_POINT) not in known]


def _begin(campaign: Campaign, round_: RoundDocument, choices: Sequence[Choice]) -> None:
    jobs = _jobs(campaign)
    selected = []
    for number, choice in enumerate(choices):
        cell, positions, species = choice.structures.one(choice.place)
        selected.append(
            Selected(
                campaign=campaign.store.name,
                round=round_.number,
                number=number,
                purpose=round_.purpose,
                structure_index=choice.structure_index,
                grade=choice.grade,
                predicted_energy_per_atom=choice.predicted_energy_per_atom,
                key=jobs.key(_atoms(campaign, choice), SINGLE_POINT),
                species=species,
                geometry=Geometry(cell, positions),
            )
        )
    campaign.store.insert_round(round_, selected)


def _jobs(campaign: Campaign) -> DFTJobs:
    return DFTJobs(campaign.engine, campaign.store, "", campaign.directory)


def _atoms(campaign: Campaign, choice: Choice) -> Atoms:
    return atoms_of(*choice.structures.one(choice.place), campaign.elements)
