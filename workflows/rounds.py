"""Reading what a round has brought, and writing the next one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.documents import SCREEN_1, SCREEN_2, TOO_FAR, Geometry, Known
from hullscreen.database.round_documents import RoundDocument, Selected
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.structures import FloatArray, IndexArray, Structures
from hullscreen.workflows.campaign import Campaign, formula
from hullscreen.workflows.dft_jobs import SINGLE_POINT, atoms_of, jobs_of, stored_energy
from hullscreen.workflows.hull import convex_hull
from hullscreen.workflows.labelled import labelled_structures
from hullscreen.workflows.screening import USUAL_SAMPLE, ErrorEstimate, estimate_errors

UNCONVERGED = "its relaxation ended without convergence"
CONVERGED = {"relaxed.outcome": "converged"}
# Whose energies those of a stage are.
SCREENS = {1: SCREEN_1, 2: SCREEN_2}


@dataclass(frozen=True)
class Choice:
    """A structure to be labelled.

    Attributes
    ----------
    structure_index
        The prototype it came from.
    structures, place
        A batch, and where in it the structure is.
    grade, predicted_energy_per_atom
        As in `hullscreen.database.round_documents.Selected`.
    """

    structure_index: int
    structures: Structures
    place: int
    grade: float | None
    predicted_energy_per_atom: float | None


def next_round(round_: RoundDocument, **changes: Any) -> RoundDocument:
    """The round after this one; it keeps the potential unless it fits its own."""
    values: dict[str, Any] = {
        "campaign": round_.campaign,
        "number": round_.number + 1,
        "stage": round_.stage,
        "potential": round_.number + 1 if changes.get("fits") else round_.potential,
        "fits": False,
        "wave": round_.wave,
        "sigma": round_.sigma,
    }
    return RoundDocument(**{**values, **changes})


def not_asked_before(campaign: Campaign, choices: Sequence[Choice]) -> list[Choice]:
    """Those that were not asked for before: what failed is not asked for again."""
    known = {selected.key for selected in campaign.store.selected()}
    jobs = jobs_of(campaign, "")
    return [c for c in choices if jobs.key(_atoms(campaign, c), SINGLE_POINT) not in known]


def beyond_dft(campaign: Campaign) -> list[int]:
    """Structures that DFT could not compute on their way, or not rightly; nor will it elsewhere."""
    failed = [*campaign.store.failed_dft(), *campaign.store.quarantined_here()]
    return sorted({f.structure_index for f in failed if f.purpose == "learn"})


def begin_round(
    campaign: Campaign,
    round_: RoundDocument,
    choices: Sequence[Choice],
    borrowed: Sequence[Selected] = (),
) -> None:
    """Write the structures to be labelled, then the round that labels them.

    ``borrowed`` ones have their labels; they are learnt with the round's own, and counted after
    them.
    """
    jobs = jobs_of(campaign, "")
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
    selected += [
        dataclasses.replace(one, number=number)
        for number, one in enumerate(borrowed, start=len(selected))
    ]
    campaign.store.insert_round(round_, selected)


def measured_errors(campaign: Campaign, purpose: str, until: int) -> ErrorEstimate:
    """Errors of the predictions that were made when structures of this purpose were chosen.

    The newest rounds count, as many as make a sample: errors of older potentials are larger, so
    that σ is rather over- than underestimated.
    """
    wanted = campaign.settings.screening.validation_structures or USUAL_SAMPLE
    labelled: list[tuple[Selected, DFTDocument]] = []
    for number in range(until, -1, -1):
        labelled += labelled_structures(campaign, round=number, purpose=purpose)
        if len(labelled) >= wanted:
            break
    predicted = np.array([s.predicted_energy_per_atom for s, _ in labelled], dtype=np.float64)
    computed = np.array([stored_energy(r) / len(s.species) for s, r in labelled])
    return estimate_errors(predicted, computed)


@dataclass(frozen=True)
class Predictions:
    """What a potential says about all structures whose relaxation of a stage converged.

    Attributes
    ----------
    indices, counts
        Places in the pool (n,) and atoms of each element (n, n_elements).
    energies
        In eV/atom, at the stored geometries, shape (n,).
    heights, formation_energies
        Above the hull of ``energies``, and relative to its elements, eV/atom, shape (n,).
    corners
        The structures at the corners of the hull, with their formulas and energies; see
        `hullscreen.database.round_documents.RoundDocument`.
    """

    indices: IndexArray
    counts: IndexArray
    energies: FloatArray
    heights: FloatArray
    formation_energies: FloatArray
    corners: tuple[dict[str, Any], ...] = ()

    def part(self, chosen: IndexArray) -> Predictions:
        """Some of them; the hull stays that of all."""
        return dataclasses.replace(
            self,
            **{
                name: getattr(self, name)[chosen]
                for name in ("indices", "counts", "energies", "heights", "formation_energies")
            },
        )

    def known(self, source: str) -> dict[int, Known]:
        """What is known of their energies, by index, from a source of energies."""
        columns = (self.indices, self.energies, self.formation_energies, self.heights)
        return {
            index: Known(energy, formation_energy, height, source)
            for index, energy, formation_energy, height in zip(
                *(column.tolist() for column in columns), strict=True
            )
        }


def predictions(
    campaign: Campaign, round_: RoundDocument, potential: MomentTensorPotential
) -> Predictions:
    """Energies of a stage's relaxed structures by its last potential; geometries are streamed.

    What an earlier round has dropped is left out; what this one has is not, so that its decision
    can be taken again.
    """
    stage = round_.stage
    not_before = {"dropped.round": {"$not": {"$lt": round_.number}}}
    indices, counts, energies = [], [], []
    for batch in campaign.store.batches(CONVERGED | {"relaxed.stage": stage} | not_before):
        indices.append(batch.indices)
        counts.append(batch.counts)
        found = potential.evaluate(batch.structures).energies
        energies.append(found / batch.structures.n_atoms)
    if not indices:
        raise nothing_converged(stage)
    all_counts, all_energies = np.concatenate(counts), np.concatenate(energies)
    return on_their_hull(campaign, np.concatenate(indices), all_counts, all_energies)


def on_their_hull(
    campaign: Campaign, indices: IndexArray, counts: IndexArray, energies: FloatArray
) -> Predictions:
    """Structures with energies in eV/atom from one source, and where they lie above their hull."""
    hull = convex_hull(fractions(counts), energies)
    corners = tuple(
        {
            "structure_index": int(indices[i]),
            "formula_pretty": formula(counts[i], campaign.elements),
            "energy_per_atom": float(energies[i]),
        }
        for i in hull.vertices.tolist()
    )
    return Predictions(
        indices, counts, energies, hull.energies_above_hull, hull.formation_energies, corners
    )


def nothing_converged(stage: int) -> CampaignError:
    """Why a screening ends."""
    return CampaignError(
        f"no relaxation of screen {stage} converged, so nothing can be screened; `hullscreen "
        "report` says how they ended"
    )


def drop(
    campaign: Campaign,
    round_: RoundDocument,
    reasons: Iterable[tuple[int, Mapping[str, Any]]],
    known: Mapping[int, Known] | None = None,
) -> None:
    """Note, by index, why this round leaves structures behind, and what is known of them."""
    campaign.store.drop(
        ((index, {**reason, "round": round_.number}) for index, reason in reasons), known
    )


def drop_unconverged(campaign: Campaign, round_: RoundDocument) -> None:
    """Leave behind, with their outcome, structures whose relaxation did not converge."""
    stage = round_.stage
    query = {"stage": stage, "relaxed.outcome": {"$ne": "converged"}}
    drop(
        campaign,
        round_,
        (
            (
                document["index"],
                {
                    "stage": stage,
                    "reason": UNCONVERGED,
                    "outcome": document.get("relaxed", {}).get("outcome", "not relaxed"),
                },
            )
            for document in campaign.store.documents(query, ["relaxed.outcome"])
        ),
    )


def drop_above(
    campaign: Campaign,
    round_: RoundDocument,
    found: Predictions,
    estimate: ErrorEstimate,
    window: float,
) -> None:
    """Leave behind structures that lie higher than a window above their stage's hull, eV/atom."""
    campaign.store.set_hulls(round_.number, predicted_hull=found.corners)
    too_high = np.flatnonzero(found.heights > window)
    drop(
        campaign,
        round_,
        (
            (
                int(found.indices[i]),
                {
                    "stage": round_.stage,
                    "reason": TOO_FAR,
                    "energy_above_hull": float(found.heights[i]),
                    "window": float(window),
                    "sigma": estimate.sigma,
                },
            )
            for i in too_high
        ),
        found.part(too_high).known(SCREENS[round_.stage]),
    )


def fractions(counts: IndexArray) -> FloatArray:
    """Atomic fractions from atoms of each element, shape (n_structures, n_elements)."""
    shares: FloatArray = counts / counts.sum(axis=1, keepdims=True)
    return shares


def _atoms(campaign: Campaign, choice: Choice) -> Atoms:
    return atoms_of(*choice.structures.one(choice.place), campaign.elements)
