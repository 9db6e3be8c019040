"""The end of the second screen: DFT single points where the hull may be, until σ is small enough.

The most promising basins are labelled at the geometry that the potential gave them. Comparing label
and prediction measures σ where it matters, on structures that the potential has not seen; then they
are learnt, which makes it smaller. When no basin within the window is without a label, the labels
themselves decide which structures a DFT relaxation could still bring to the hull.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from hullscreen.database.documents import DFTDocument, RoundDocument, Selected
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures, join
from hullscreen.workflows.campaign import FINAL_STAGE, Campaign
from hullscreen.workflows.dft_jobs import stored_array, stored_energy
from hullscreen.workflows.hull import convex_hull
from hullscreen.workflows.learning import fingerprints
from hullscreen.workflows.rounds import (
    Choice,
    Predictions,
    begin_round,
    drop_above,
    drop_unconverged,
    fractions,
    measured_errors,
    next_round,
    predictions,
)
from hullscreen.workflows.same_basin import group_by_basin, simplest_members
from hullscreen.workflows.screening import TIE, USUAL_SAMPLE, ErrorEstimate, possible_gain
from hullscreen.workflows.steps import labelled_structures

# Heights change while σ is refined: structures are given up beyond so many windows only.
GIVEN_UP_BEYOND = 2.0
# Share of the basins without a label that is labelled at once: σ shrinks in a few rounds, however
# many they are, and the first of them save the others.
SHARE_AT_ONCE = 0.1


TOO_HIGH = "its DFT single point lies higher above the hull than a relaxation can gain"


def refine(campaign: Campaign, round_: RoundDocument) -> None:
    """Label the most promising basins until none within 4σ of the hull is left without a label."""
    settings = campaign.settings.screening
    # A campaign that was opened again has labels of this purpose from before.
    asked = {s.structure_index for s in campaign.store.selected(purpose="refine")}
    estimate = measured_errors(campaign, "refine", round_.number) if asked else None
    # Before the first labels nothing is known but the errors of the first potential.
    first = ErrorEstimate(**(round_.sigma or {}))
    known = estimate or dataclasses.replace(first, least_window=0.0)
    window = known.window(settings.sigma_multiple)
    potential, _ = campaign.potential(round_.potential)
    found = predictions(campaign, 2, potential)
    near = np.flatnonzero(found.heights <= window)
    structures = _geometries(campaign, found.indices[near])
    basins = _basins(potential, structures, found.energies[near])
    asked_basins = {
        int(basins[i]) for i in np.flatnonzero(np.isin(found.indices[near], list(asked)))
    }
    simplest = simplest_members(basins, found.energies[near])
    open_ = np.array([i for i in np.unique(basins) if int(i) not in asked_basins], dtype=np.int64)
    open_ = open_[np.argsort(found.heights[near][open_], kind="stable")]
    if not open_.size:
        _choose_final(campaign, round_, found, near, basins, known)
        return
    n_chosen = max(settings.validation_structures or USUAL_SAMPLE, int(SHARE_AT_ONCE * len(open_)))
    choices = [
        Choice(int(found.indices[near[i]]), structures, i, None, float(found.energies[near[i]]))
        for i in (simplest[int(basin)] for basin in open_[:n_chosen])
    ]
    if estimate:
        drop_above(campaign, 2, found, estimate, GIVEN_UP_BEYOND * window)
    following = next_round(round_, purpose="refine", fits=True, again=True, sigma=known.to_dict())
    begin_round(campaign, following, choices)


def _geometries(campaign: Campaign, indices: IndexArray) -> Structures:
    """Relaxed structures with these places in the pool, ascending."""
    batches = campaign.store.batches({"index": {"$in": indices.tolist()}})
    return join(batch.structures.one(i) for batch in batches for i in range(len(batch)))


def _basins(
    potential: MomentTensorPotential, structures: Structures, energies: FloatArray
) -> IndexArray:
    return group_by_basin(structures, energies, fingerprints(potential, structures))


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
    indices = np.array([selected.structure_index for selected, _ in labelled])
    above, gains = _heights_and_gains(labelled, len(campaign.elements))
    chosen = above - gains <= TIE
    final = tuple(indices[chosen][np.argsort(above[chosen], kind="stable")].tolist())
    store.drop(_too_high(indices[~chosen], above[~chosen], gains[~chosen]))
    asked = {selected.structure_index for selected in store.selected(purpose="refine")}
    store.drop(
        (index, {"stage": FINAL_STAGE, "reason": "its DFT single point failed"})
        for index in sorted(asked & candidates - set(indices.tolist()))
    )
    store.drop(_twins(found.indices[near], basins, asked))
    window = estimate.window(campaign.settings.screening.sigma_multiple)
    rest = np.flatnonzero(~np.isin(found.indices, indices))
    drop_above(campaign, 2, found.part(rest), estimate, window)
    drop_unconverged(campaign, stage=2)
    store.advance(final, FINAL_STAGE)
    following = next_round(
        round_, stage=FINAL_STAGE, purpose="final", sigma=estimate.to_dict(), final_indices=final
    )
    begin_round(campaign, following, [])


def _heights_and_gains(
    labelled: list[tuple[Selected, DFTDocument]], n_elements: int
) -> tuple[FloatArray, FloatArray]:
    """Height of each single point above the hull of all, what a relaxation may gain; eV/atom."""
    counts = np.array([np.bincount(s.species, minlength=n_elements) for s, _ in labelled])
    energies = np.array([stored_energy(result) for _, result in labelled]) / counts.sum(axis=1)
    gains = np.array(
        [
            possible_gain(
                stored_array(result.forces),
                stored_array(result.stress),
                abs(float(np.linalg.det(selected.geometry.cell))),
            )
            for selected, result in labelled
        ]
    )
    above = convex_hull(fractions(counts), energies).energies_above_hull
    return above, gains / counts.sum(axis=1)


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
    indices: IndexArray, basins: IndexArray, asked: set[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Structures that were not asked for themselves, being in a basin with one that was."""
    by_basin = {
        int(basin): int(index)
        for index, basin in zip(indices, basins, strict=True)
        if int(index) in asked
    }
    for index, basin in zip(indices, basins, strict=True):
        twin = by_basin.get(int(basin))
        if twin is not None and int(index) not in asked:
            yield int(index), {
                "stage": 2, "reason": "the same basin as another structure", "same_as": twin,
            }  # fmt: skip
