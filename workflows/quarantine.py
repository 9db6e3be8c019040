"""What a round puts aside: DFT results that cannot be right, with their reasons.

A verdict is a function of the labels before it, so that one that was interrupted while it was
noted is the same when it is given again: what this very round has put aside is judged once more.
What a person has released is never put aside again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.dft_queries import BY_HAND
from hullscreen.database.round_documents import RoundDocument
from hullscreen.dft_adapters.model_hessian import shortest_distance
from hullscreen.potentials.active_set import ActiveSet
from hullscreen.potentials.fit import FitResult, TrainingSet
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.dft_jobs import stored_array, stored_energy
from hullscreen.workflows.judgement import (
    DEEPEST,
    HIGHEST,
    Judged,
    Relaxed,
    formation_energies,
    judge,
    outside_the_range,
    relaxation_fault,
)
from hullscreen.workflows.labelled import Label, labelled_structures, training_set_of
from hullscreen.workflows.publishing import publish_hulls_of
from hullscreen.workflows.screening import possible_gain

RANGE, CONTRADICTION, RELAXATION = "range", "contradiction", "relaxation"
# Labels that may be put aside because they contradict the others: a share of all, but these few
# also of a small seed. If it were more, the engine or the potential is at fault, not they.
SHARE_OF_LABELS = 0.05
FEW_LABELS = 3
MOST_REFITS = 4

Fit = tuple[FitResult, ActiveSet]


@dataclass
class Verdicts:
    """What a round puts aside, and what it would have.

    Attributes
    ----------
    aside
        Why and how each label was judged, by its key.
    doubt
        Why labels that look wrong are learnt nevertheless; empty if none are.
    """

    aside: dict[str, tuple[str, str]] = field(default_factory=dict)
    doubt: str = ""

    def others(self, labels: Sequence[Label]) -> list[Label]:
        """Labels that are not put aside."""
        return [label for label in labels if label[1].key not in self.aside]


def judge_of(campaign: Campaign, round_: RoundDocument) -> str:
    """Name of a round as a judge."""
    return f"{campaign.store.name}, round {round_.number}"


def note(campaign: Campaign, round_: RoundDocument, verdicts: Verdicts) -> None:
    """Write the verdicts into the database; once they are there nothing changes."""
    for key, (judged, reason) in verdicts.aside.items():
        campaign.store.quarantine(
            key, reason=reason, judged=judged, judged_by=judge_of(campaign, round_)
        )
    # Other campaigns may have taken them for right.
    publish_hulls_of(campaign.store, list(verdicts.aside))
    if verdicts.doubt:
        campaign.store.set_campaign(**{f"doubts.{round_.number}": verdicts.doubt})


def judge_range(campaign: Campaign, labels: Sequence[Label]) -> Verdicts:
    """Put aside labels whose energies no crystal has."""
    verdicts = Verdicts()
    if not labels:
        return verdicts
    counts = np.array(
        [np.bincount(one.species, minlength=len(campaign.elements)) for one, _ in labels]
    )
    n_atoms = counts.sum(axis=1)
    energies = np.array([stored_energy(result) for _, result in labels]) / n_atoms
    gains = np.array([_gain(result) for _, result in labels])
    formation = formation_energies(counts / n_atoms[:, None], energies)
    for i in np.flatnonzero(outside_the_range(formation, gains)).tolist():
        result = labels[i][1]
        if result.judged != BY_HAND:
            sentence = (
                f"its energy of {energies[i]:.3f} eV/atom lies {formation[i]:+.2f} eV/atom from a "
                f"mixture of the elements, where crystals of metals lie between {DEEPEST:+g} and "
                f"{HIGHEST:+g}"
            )
            verdicts.aside[result.key] = (RANGE, sentence)
    return verdicts


def learn(
    campaign: Campaign, labels: Sequence[Label], train: Callable[[TrainingSet], Fit]
) -> tuple[Fit, TrainingSet, Verdicts]:
    """Fit a potential to labels, leaving out those that contradict it once it has learnt them.

    If more contradict it than could be wrong each by itself, all are learnt, and a doubt is said.
    """
    verdicts = judge_range(campaign, labels)
    labels = verdicts.others(labels)
    everything = training_set_of(campaign, labels)
    fitted = train(everything)
    trained, training, kept = fitted, everything, labels
    found = Verdicts()
    for _ in range(MOST_REFITS):
        new = _contradictions(campaign, kept, trained[0].potential, training)
        if not new:
            break
        found.aside |= new
        allowed = _allowed(campaign, labels)
        if len(found.aside) > allowed:
            verdicts.doubt = (
                f"{len(found.aside)} or more of {len(labels)} labels contradict the potential that "
                f"has learnt them, where at most {allowed} may be put aside, so all are kept: "
                "check the engine's settings (spin, pseudopotentials, k points), or give the "
                "potential more freedom (level_first, level_second, cutoff_angstrom)"
            )
            return fitted, everything, verdicts
        kept = found.others(labels)
        training = training_set_of(campaign, kept)
        trained = train(training)
    verdicts.aside |= found.aside
    return trained, training, verdicts


def doubtful(campaign: Campaign, labels: Sequence[Label], potential: MomentTensorPotential) -> bool:
    """Whether labels contradict a potential and each other, which has not learnt all of them."""
    verdicts = judge_range(campaign, labels)
    kept = verdicts.others(labels)
    return bool(verdicts.aside) or bool(
        _contradictions(campaign, kept, potential, training_set_of(campaign, kept))
    )


def _contradictions(
    campaign: Campaign,
    labels: Sequence[Label],
    potential: MomentTensorPotential,
    training: TrainingSet,
) -> dict[str, tuple[str, str]]:
    """Verdicts by key; the last label of an element stays, for without it there is no fit."""
    judged = judge(potential, training, len(campaign.elements))
    wrong = np.flatnonzero(judged.wrong_energy | judged.wrong_slope)
    pure = {i: one.species[0] for i, (one, _) in enumerate(labels) if len(set(one.species)) == 1}
    verdicts = {}
    for i in wrong[np.argsort(-judged.scores[wrong], kind="stable")].tolist():
        _, result = labels[i]
        element = pure.get(i)
        if result.judged == BY_HAND or list(pure.values()).count(element) == 1:
            continue
        pure.pop(i, None)
        verdicts[result.key] = (CONTRADICTION, _sentence(judged, i, labels[i]))
    return verdicts


def _sentence(judged: Judged, i: int, label: Label) -> str:
    selected, result = label
    if not judged.wrong_energy[i]:
        return (
            "its forces or stress contradict all other labels: they differ by "
            f"{judged.slopes[i]:.1f} times their size from what the others foretell"
        )
    energy = stored_energy(result) / len(result.numbers)
    sentence = (
        f"its energy of {energy:.3f} eV/atom contradicts all other labels, which foretell "
        f"{energy + judged.energies[i]:.3f}, {judged.scores[i]:.0f} times their usual error away"
    )
    expected = selected.predicted_energy_per_atom
    if expected is not None:
        sentence += f"; the potential that chose it expected {expected:.3f}"
    return sentence


def _allowed(campaign: Campaign, labels: Sequence[Label]) -> int:
    """Contradictions that may be put aside, those of earlier rounds counted."""
    keys = [one.key for one in campaign.store.selected()]
    judged = {result.key for _, result in labels}
    earlier = sum(
        result.judged == CONTRADICTION and result.key not in judged
        for result in campaign.store.quarantined_dft(keys).values()
    )
    return max(FEW_LABELS, int(SHARE_OF_LABELS * (len(labels) + earlier))) - earlier


def relaxation_verdict(
    campaign: Campaign, index: int, result: DFTDocument, least_distance: float
) -> str:
    """Why a final relaxation of structure ``index`` cannot be right; empty if it may be."""
    if result.judged == BY_HAND:
        return ""
    labels = labelled_structures(campaign, purpose="refine", structure_index=index)
    if not labels:
        return ""
    single_point = labels[-1][1]
    fault = relaxation_fault(
        _relaxed(result, least_distance),
        _relaxed(single_point, least_distance),
        _gain(single_point),
        least_distance,
    )
    return f"the DFT relaxation {fault}" if fault else ""


def _relaxed(result: DFTDocument, least_distance: float) -> Relaxed:
    n_atoms, cell = len(result.numbers), result.geometry.cell
    return Relaxed(
        stored_energy(result) / n_atoms,
        abs(float(np.linalg.det(cell))) / n_atoms,
        # Farther ones are of no interest.
        shortest_distance(cell, result.geometry.positions, 2.0 * least_distance),
    )


def _gain(result: DFTDocument) -> float:
    """What a relaxation can gain, eV/atom."""
    volume = abs(float(np.linalg.det(result.geometry.cell)))
    gain = possible_gain(stored_array(result.forces), stored_array(result.stress), volume)
    return gain / len(result.numbers)
