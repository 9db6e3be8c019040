"""The end of the second screen: DFT single points where the hull may be, until σ is small enough.

The most promising basins are labelled at the geometry that the potential gave them. Comparing label
and prediction measures σ where it matters, on structures that the potential has not seen; then they
are learnt, which makes it smaller. When no basin within the window is without a label, the labels
themselves decide which structures a DFT relaxation could still bring to the hull.
"""

from __future__ import annotations

import numpy as np

from hullscreen.database.campaign_store import StructureBatch
from hullscreen.database.documents import RoundDocument
from hullscreen.potentials.structures import FloatArray, IndexArray
from hullscreen.workflows.campaign import FINAL_STAGE, Campaign
from hullscreen.workflows.dft_jobs import stored_array, stored_energy
from hullscreen.workflows.hull import convex_hull
from hullscreen.workflows.learning import fingerprints
from hullscreen.workflows.rounds import (
    Choice,
    begin_round,
    drop_unconverged,
    fractions,
    measured_errors,
    next_round,
    relaxed_structures,
    too_far_above,
)
from hullscreen.workflows.same_basin import group_by_basin, simplest_members
from hullscreen.workflows.screening import TIE, ErrorEstimate, possible_gain
from hullscreen.workflows.steps import labelled_structures


def refine(campaign: Campaign, round_: RoundDocument) -> None:
    """Label the most promising basins until none within 4σ of the hull is left without a label."""
    settings = campaign.settings.screening
    # A campaign that was opened again has labels of this purpose from before.
    asked = {s.structure_index for s in campaign.store.selected(purpose="refine")}
    estimate = measured_errors(campaign, "refine", round_.number) if asked else None
    potential, _ = campaign.potential(round_.potential)
    batch = relaxed_structures(campaign, stage=2)
    energies = potential.evaluate(batch.structures).energies / batch.structures.n_atoms
    heights = convex_hull(fractions(batch.counts), energies).energies_above_hull
    basins = group_by_basin(batch.structures, energies, fingerprints(potential, batch.structures))
    asked_basins = {int(basins[i]) for i, index in enumerate(batch.indices) if int(index) in asked}
    window = estimate.window(settings.sigma_multiple) if estimate else np.inf
    simplest = simplest_members(basins, energies)
    open_ = np.array(
        [i for i in np.unique(basins) if int(i) not in asked_basins and heights[i] <= window],
        dtype=np.int64,
    )
    open_ = open_[np.argsort(heights[open_], kind="stable")][: settings.validation_structures]
    sigma = estimate.to_dict() if estimate else round_.sigma
    if open_.size:
        chosen = [simplest[int(i)] for i in open_]
        choices = [
            Choice(int(batch.indices[i]), batch.structures, i, None, float(energies[i]))
            for i in chosen
        ]
        following = next_round(round_, purpose="refine", fits=True, again=True, sigma=sigma)
        begin_round(campaign, following, choices)
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
    """Relax with DFT what may still reach the hull, judged by its DFT single point."""
    window = estimate.window(campaign.settings.screening.sigma_multiple)
    labelled = labelled_structures(campaign, purpose="refine")
    labelled = [(s, r) for s, r in labelled if s.structure_index in set(batch.indices.tolist())]
    place = {int(index): i for i, index in enumerate(batch.indices)}
    places = np.array([place[s.structure_index] for s, _ in labelled], dtype=np.int64)
    n_atoms = np.array([len(s.species) for s, _ in labelled])
    energies = np.array([stored_energy(result) for _, result in labelled]) / n_atoms
    above = convex_hull(fractions(batch.counts[places]), energies).energies_above_hull
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
        int(batch.indices[i]): too_far_above(2, heights[i], estimate, window)
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
    asked = {selected.structure_index for selected in campaign.store.selected(purpose="refine")}
    for index in asked.intersection(place) - {s.structure_index for s, _ in labelled}:
        reasons[index] = {"stage": FINAL_STAGE, "reason": "its DFT single point failed"}
    order = np.argsort(above[chosen], kind="stable")
    final = tuple(int(batch.indices[p]) for p in places[chosen][order])
    for index in final:
        reasons.pop(index, None)
    campaign.store.drop(reasons)
    drop_unconverged(campaign, stage=2)
    campaign.store.advance(final, FINAL_STAGE)
    following = next_round(
        round_, stage=FINAL_STAGE, purpose="final", sigma=estimate.to_dict(), final_indices=final
    )
    begin_round(campaign, following, [])
