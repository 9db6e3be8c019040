"""The end of the second screen: DFT single points where the hull may be, until σ is small enough.

The most promising basins are labelled at the geometry that the potential gave them. Comparing label
and prediction measures σ where it matters, on structures that the potential has not seen; then they
are learnt, which makes it smaller. When no basin within the window is without a label, the labels
themselves decide which structures a DFT relaxation could still bring to the hull.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hullscreen.database.documents import SINGLE_POINT
from hullscreen.database.round_documents import RoundDocument, Selected
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures, join
from hullscreen.workflows.campaign import FINAL_STAGE, Campaign
from hullscreen.workflows.dft_jobs import atoms_of, forces_for, stored_array, stored_energy
from hullscreen.workflows.hull import BoolArray
from hullscreen.workflows.labelled import Label, labelled_structures
from hullscreen.workflows.learning import fingerprints
from hullscreen.workflows.relaxation_gain import relaxation_gain
from hullscreen.workflows.rounds import (
    SCREENS,
    Choice,
    Predictions,
    begin_round,
    drop,
    drop_above,
    drop_unconverged,
    measured_errors,
    next_round,
    on_their_hull,
    predictions,
)
from hullscreen.workflows.same_basin import group_by_basin, simplest_members
from hullscreen.workflows.screening import TIE, USUAL_SAMPLE, ErrorEstimate

# Heights change while σ is refined: structures are given up beyond so many windows only.
GIVEN_UP_BEYOND = 2.0
# Share of the basins without a label that is labelled at once: σ shrinks in a few rounds, however
# many they are, and the first of them save the others.
SHARE_AT_ONCE = 0.1
# A basin of low energy has few members.
MEMBERS_OF_A_BASIN = 10
# Labels of a basin that may be quarantined before it is given up.
MOST_WRONG_OF_A_BASIN = 2
# Of lengths; it costs an energy of 1e-4 eV/atom, which a relaxation gains back.
EXPANSION = 1.002


TOO_HIGH = "its DFT single point lies higher above the hull than a relaxation can gain"
FAILED = "its DFT single point failed"
QUARANTINED = "its DFT single point is quarantined"
TWIN = "the same basin as another structure"
TWIN_OF_FAILED = "the same basin as a structure whose DFT single point failed, or is quarantined"


def refine(campaign: Campaign, round_: RoundDocument) -> None:
    """Label the most promising basins until none within 4σ of the hull is left without a label."""
    settings = campaign.settings.screening
    wanted = settings.validation_structures or USUAL_SAMPLE
    # A campaign that was opened again has labels of this purpose from before.
    selected = campaign.store.selected(purpose="refine")
    asked = {one.structure_index for one in selected}
    estimate = measured_errors(campaign, "refine", round_.number) if asked else None
    # Before the first labels nothing is known but the errors of the first potential.
    known = estimate or dataclasses.replace(_of_first_screen(round_), least_window=0.0)
    window = known.window(settings.sigma_multiple)
    # σ may have grown since they were given up.
    campaign.store.take_back(stage=2, up_to=window)
    potential, _ = campaign.potential(round_.potential)
    found = predictions(campaign, round_, potential)
    inside = found.heights <= window
    if estimate is None:
        # Enough to measure σ from, however few the first potential leaves.
        inside[np.argsort(found.heights, kind="stable")[: wanted * MEMBERS_OF_A_BASIN]] = True
    is_asked = np.isin(found.indices, list(asked))
    near = np.flatnonzero(inside | is_asked)
    structures = _geometries(campaign, found.indices[near])
    basins = group_by_basin(structures, found.energies[near], fingerprints(potential, structures))
    closed = is_asked[near] & ~_may_be_asked_elsewhere(campaign, selected, found, near, basins)
    simplest = simplest_members(basins, found.energies[near], is_asked[near])
    open_ = np.setdiff1d(basins[inside[near]], basins[closed])
    open_ = open_[np.argsort(found.heights[near][open_], kind="stable")]
    if not open_.size:
        _choose_final(campaign, round_, found, near, basins, known)
        return
    n_chosen = max(wanted, int(SHARE_AT_ONCE * len(open_))) if estimate else wanted
    choices = []
    for basin in open_[:n_chosen].tolist():
        i = simplest.get(basin, basin)
        energy = float(found.energies[near[i]])
        choice = Choice(int(found.indices[near[i]]), structures, i, None, energy)
        if basin not in simplest:
            attempts = sum(one.structure_index == choice.structure_index for one in selected)
            choice = _elsewhere(choice, potential, attempts)
        choices.append(choice)
    if estimate:
        unlabelled = found.part(np.flatnonzero(~is_asked))
        drop_above(campaign, round_, unlabelled, estimate, GIVEN_UP_BEYOND * window)
    sigma = estimate.to_dict() if estimate else round_.sigma
    following = next_round(round_, purpose="refine", fits=True, again=True, sigma=sigma)
    begin_round(campaign, following, choices)


def _may_be_asked_elsewhere(
    campaign: Campaign,
    selected: Sequence[Selected],
    found: Predictions,
    near: IndexArray,
    basins: IndexArray,
) -> BoolArray:
    """Structures whose label is quarantined: another cell of the crystal may be computed rightly.

    A basin of which more labels were wrong is given up.
    """
    indices = found.indices[near]
    aside = campaign.store.quarantined_dft([one.key for one in selected])
    labels = [one.structure_index for one in selected if one.key in aside]
    numbers = np.array([labels.count(index) for index in indices.tolist()])
    of_basin = np.bincount(basins, weights=numbers, minlength=len(basins))
    wrong = np.isin(indices, list(_quarantined(campaign, selected)))
    return wrong & (of_basin[basins] <= MOST_WRONG_OF_A_BASIN)


def _elsewhere(choice: Choice, potential: MomentTensorPotential, attempts: int) -> Choice:
    """The same structure a little expanded: a calculation of its own, which may come out right."""
    cell, positions, species = choice.structures.one(choice.place)
    scale = EXPANSION**attempts
    moved = join([(scale * cell, scale * positions, species)])
    energy = float(potential.evaluate(moved).energies[0]) / len(species)
    return dataclasses.replace(choice, structures=moved, place=0, predicted_energy_per_atom=energy)


def _quarantined(campaign: Campaign, selected: Sequence[Selected]) -> set[int]:
    """Structures whose label is quarantined, and that have no other."""
    aside = campaign.store.quarantined_dft([one.key for one in selected])
    fine = {one.structure_index for one in selected if one.key not in aside}
    return {one.structure_index for one in selected if one.key in aside} - fine


def _of_first_screen(round_: RoundDocument) -> ErrorEstimate:
    assert round_.sigma is not None, "every round of the second stage knows σ of the first"  # noqa: S101
    return ErrorEstimate(**round_.sigma)


def _geometries(campaign: Campaign, indices: IndexArray) -> Structures:
    """Relaxed structures with these places in the pool, ascending."""
    batches = campaign.store.batches({"index": {"$in": indices.tolist()}})
    return join(batch.structures.one(i) for batch in batches for i in range(len(batch)))


def _choose_final(
    campaign: Campaign,
    round_: RoundDocument,
    found: Predictions,
    near: IndexArray,
    basins: IndexArray,
    estimate: ErrorEstimate,
) -> None:
    """Relax with DFT what may still reach the hull, judged by its DFT single point."""
    store = campaign.store
    candidates = set(found.indices.tolist())
    labelled = [
        (selected, result)
        for selected, result in labelled_structures(campaign, purpose="refine")
        if selected.structure_index in candidates
    ]
    _require_elements(campaign, labelled)
    indices = np.array([selected.structure_index for selected, _ in labelled])
    potential, _ = campaign.potential(round_.potential)
    computed, gains = _labels_and_gains(campaign, potential, labelled)
    above = computed.heights
    store.set_hulls(round_.number, labelled_hull=computed.corners)
    chosen = above - gains <= TIE
    by_height = indices[chosen][np.argsort(above[chosen], kind="stable")]
    final = tuple(dict.fromkeys(by_height.tolist()))
    too_high = _too_high(indices[~chosen], above[~chosen], gains[~chosen])
    drop(campaign, round_, too_high)
    asked = {selected.structure_index for selected in store.selected(purpose="refine")}
    failed = asked & candidates - set(indices.tolist())
    aside = _quarantined(campaign, store.selected(purpose="refine"))
    drop(
        campaign,
        round_,
        (
            (i, {"stage": FINAL_STAGE, "reason": QUARANTINED if i in aside else FAILED})
            for i in sorted(failed)
        ),
    )
    known = set(indices.tolist())
    drop(campaign, round_, _twins(found.indices[near], basins, known, TWIN))
    drop(campaign, round_, _twins(found.indices[near], basins, failed, TWIN_OF_FAILED))
    window = estimate.window(campaign.settings.screening.sigma_multiple)
    rest = np.flatnonzero(~np.isin(found.indices, indices))
    drop_above(campaign, round_, found.part(rest), estimate, window)
    drop_unconverged(campaign, round_)
    near_hull = found.part(rest[found.heights[rest] <= window])
    store.save_known(near_hull.known(SCREENS[2]) | computed.known(SINGLE_POINT))
    store.advance(final, FINAL_STAGE)
    following = next_round(
        round_, stage=FINAL_STAGE, purpose="final", sigma=estimate.to_dict(), final_indices=final
    )
    begin_round(campaign, following, [])


def _require_elements(campaign: Campaign, labelled: Sequence[Label]) -> None:
    pure = {int(one.species[0]) for one, _ in labelled if len(set(one.species.tolist())) == 1}
    missing = [element for k, element in enumerate(campaign.elements) if k not in pure]
    if missing:
        wrong = [*campaign.store.failed_dft(), *campaign.store.quarantined_here()]
        reasons = [one.reason for one in wrong if one.purpose == "refine"]
        raise CampaignError(
            f"no DFT single point of pure {', '.join(missing)} near the hull can be used, so there "
            f"is no hull; the first reason: {reasons[0] if reasons else 'none is recorded'}; mend "
            "it, let `hullscreen labels DIR --recompute KEY` remove what is wrong, and run again"
        )


def _labels_and_gains(
    campaign: Campaign, potential: MomentTensorPotential, labelled: Sequence[Label]
) -> tuple[Predictions, FloatArray]:
    """Single points above the hull of all, and what a relaxation may gain, eV/atom."""
    indices = np.array([selected.structure_index for selected, _ in labelled])
    n_elements = len(campaign.elements)
    counts = np.array([np.bincount(s.species, minlength=n_elements) for s, _ in labelled])
    energies = np.array([stored_energy(result) for _, result in labelled]) / counts.sum(axis=1)
    gains = np.empty(len(labelled))
    for i, (selected, result) in enumerate(labelled):
        structure = (selected.geometry.cell, selected.geometry.positions, selected.species)
        forces = forces_for(atoms_of(*structure, campaign.elements), result)
        gains[i] = relaxation_gain(potential, structure, forces, stored_array(result.stress))
    return on_their_hull(campaign, indices, counts, energies), gains / counts.sum(axis=1)


def _too_high(
    indices: IndexArray, above: FloatArray, gains: FloatArray
) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, height, gain in zip(indices, above, gains, strict=True):
        yield (
            int(index),
            {
                "stage": FINAL_STAGE,
                "reason": TOO_HIGH,
                "energy_above_hull": float(height),
                "possible_gain": float(gain),
            },
        )


def _twins(
    indices: IndexArray, basins: IndexArray, members: set[int], reason: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Structures in a basin with one of some others, and which."""
    by_basin = {
        int(basin): int(index)
        for index, basin in zip(indices, basins, strict=True)
        if int(index) in members
    }
    for index, basin in zip(indices, basins, strict=True):
        twin = by_basin.get(int(basin))
        if twin is not None and int(index) not in members:
            yield int(index), {"stage": 2, "reason": reason, "same_as": twin}
