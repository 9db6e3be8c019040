"""What comes next: the only place where a campaign decides.

Every decision is a function of what the database holds, so it can be taken again after a crash,
with the same result. It ends with the document of the next round, which is its commit: before,
nothing that a repeated decision reads has changed.

```
stage 1  seed → learn … (waves grow; each is repeated until nothing is new) → validate → screen
stage 2  learn … → refine … (the most promising are labelled, σ shrinks) → screen
stage 3  final (DFT relaxations) → the hull
```
"""

from __future__ import annotations

import dataclasses

import numpy as np

from hullscreen.database.round_documents import RoundDocument
from hullscreen.potentials.active_set import select_candidates
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.potentials.relaxation import Outcome
from hullscreen.potentials.structures import join
from hullscreen.workflows.borrowed_labels import borrowed_labels, systems_of
from hullscreen.workflows.campaign import Campaign, total_structures
from hullscreen.workflows.potential_steps import judge_sample
from hullscreen.workflows.publishing import publish_hulls_of
from hullscreen.workflows.refinement import refine
from hullscreen.workflows.rounds import (
    CONVERGED,
    SCREENS,
    Choice,
    begin_round,
    beyond_dft,
    drop_above,
    drop_unconverged,
    measured_errors,
    next_round,
    not_asked_before,
    nothing_converged,
    predictions,
)
from hullscreen.workflows.screening import next_wave, random_sample, sample_size
from hullscreen.workflows.seed import SEED_POOL, campaign_seed

# Snapshots compared at once, those of small cells first; what they teach makes most others known.
MOST_CANDIDATES = 20_000
# A stage that still meets new environments after so many rounds goes on with what it has.
MAX_LEARNING_ROUNDS = 80
# Structures by which a wave grows, at most: what it teaches helps the next one.
MOST_NEW = 40_000
# Of the structures of the first screen, the lowest ones.
KEPT_AT_LEAST = 0.1
VALIDATION_STREAM = 2


def first_round(campaign: Campaign) -> None:
    """Begin: the seed's labels, the first potential, the first wave."""
    settings = campaign.settings
    smallest = campaign.store.structures({"index": {"$lt": SEED_POOL}}, geometry="start")
    borrowed = borrowed_labels(campaign)
    seed, sources = campaign_seed(
        smallest.structures,
        len(campaign.elements),
        len(settings.prototypes.lattices),
        settings.campaign.seed,
        systems_of(borrowed),
    )
    choices = [
        Choice(int(smallest.indices[source]), seed, i, None, None)
        for i, source in enumerate(sources)
    ]
    wave = min(settings.learning.first_wave, total_structures(campaign))
    begin_round(
        campaign,
        RoundDocument(
            campaign=campaign.store.name, number=0, stage=1, purpose="seed", potential=0, fits=True,
            wave=wave,
        ),
        choices,
        borrowed,
    )  # fmt: skip


def reopen(campaign: Campaign) -> None:
    """Screen once more with all labels, from the first stage on; no DFT is repeated unasked."""
    last = campaign.store.last_round()
    if last is None:
        return
    campaign.store.return_to_first_stage()
    # Any other last round is the one that a killed process has begun here.
    if last.purpose == "final":
        again = next_round(
            last, stage=1, purpose="learn", fits=True, wave=total_structures(campaign), sigma=None
        )
        begin_round(campaign, again, _removed(campaign))
    campaign.store.set_campaign(finished=False, labels_changed=0)


def _removed(campaign: Campaign) -> list[Choice]:
    """Structures whose label somebody has removed, so that it is computed once more."""
    asked = {one.key: one for one in reversed(campaign.store.selected())}
    known = campaign.store.dft_results(list(asked))
    return [
        Choice(
            one.structure_index,
            join([(one.geometry.cell, one.geometry.positions, one.species)]),
            0,
            one.grade,
            one.predicted_energy_per_atom,
        )
        for key, one in asked.items()
        if key not in known
    ]


def decide(campaign: Campaign, round_: RoundDocument) -> None:
    """Take the decision at the end of a round: begin the next one, or finish the campaign."""
    if campaign.store.find_round(round_.number + 1) is not None:
        return
    if round_.purpose == "final":
        _finish(campaign)
    elif round_.purpose == "validate":
        _screen_first(campaign, round_)
    elif round_.purpose == "refine":
        refine(campaign, round_)
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
    # Other campaigns may have lacked what was computed here.
    publish_hulls_of(campaign.store, campaign.store.final_keys())
    campaign.store.set_campaign(finished=True)


def _learn(campaign: Campaign, round_: RoundDocument) -> None:
    """Label what enlarges the active set; if nothing does, relax a larger wave, or go on."""
    store, learning = campaign.store, campaign.settings.learning
    n_rounds = sum(r.stage == round_.stage and r.fits for r in store.rounds())
    choices: list[Choice] = []
    if n_rounds < MAX_LEARNING_ROUNDS:
        choices = not_asked_before(campaign, _enlarging(campaign, round_))
        choices = choices[: learning.max_selected_per_wave]
    if choices:
        begin_round(campaign, next_round(round_, purpose="learn", fits=True), choices)
    elif (wave := _next_wave(campaign, round_.stage, round_.wave)) is not None:
        begin_round(campaign, next_round(round_, purpose="learn", wave=wave), [])
    elif round_.stage == 1:
        _validate(campaign, round_)
    else:
        refine(campaign, round_)


def _next_wave(campaign: Campaign, stage: int, wave: int) -> int | None:
    """Where the wave after one ends; None if that holds all structures of the stage."""
    learning, total = campaign.settings.learning, total_structures(campaign)
    orders = campaign.store.orders(stage)
    taken = int(np.searchsorted(orders, wave))
    if taken == len(orders):
        return None
    size = next_wave(max(taken, 1), learning.wave_growth, MOST_NEW, len(orders))
    size = min(max(size, learning.first_wave), len(orders))
    return int(orders[size - 1]) + 1 if size < len(orders) else total


def _enlarging(campaign: Campaign, round_: RoundDocument) -> list[Choice]:
    """Snapshots that enlarge the active set, by falling grade."""
    potential, active = campaign.potential(round_.potential)
    candidates = campaign.store.structures(
        {
            "relaxed.stage": round_.stage,
            # All of them, named so that the outcomes' index leads to this potential's.
            "relaxed.outcome": {"$in": [outcome.name.lower() for outcome in Outcome]},
            "relaxed.potential": round_.potential,
            "relaxed.highest_grade": {"$gte": campaign.settings.learning.select_grade},
            "index": {"$nin": beyond_dft(campaign)},
        },
        geometry="relaxed.snapshot",
        limit=MOST_CANDIDATES,
    )
    picked = select_candidates(active, energy_rows(potential, candidates.structures))
    return [
        Choice(
            int(candidates.indices[i]),
            candidates.structures,
            int(i),
            float(candidates.highest_grades[i]),
            None,
        )
        for i in picked
    ]


def _validate(campaign: Campaign, round_: RoundDocument) -> None:
    """Label a random sample of relaxed structures, to learn how wrong the potential is on them."""
    potential, _ = campaign.potential(round_.potential)
    found = campaign.store.documents(CONVERGED | {"relaxed.stage": 1}, [])
    indices = [document["index"] for document in found]
    if not indices:
        raise nothing_converged(1)
    seed = campaign.settings.campaign.seed + VALIDATION_STREAM
    wanted = campaign.settings.screening.validation_structures
    sample = random_sample(len(indices), sample_size(len(indices), wanted), seed)
    batch = campaign.store.structures({"index": {"$in": [indices[i] for i in sample]}})
    energies = potential.evaluate(batch.structures).energies / batch.structures.n_atoms
    choices = [
        Choice(int(index), batch.structures, i, None, float(energies[i]))
        for i, index in enumerate(batch.indices)
    ]
    begin_round(campaign, next_round(round_, purpose="validate"), choices)


def _screen_first(campaign: Campaign, round_: RoundDocument) -> None:
    """Drop what lies further than 4σ above the hull of the first potential.

    A sample shows no errors as rare as those that matter among so many structures, and the second
    potential costs little, so it always sees a share of them.
    """
    judge_sample(campaign, round_)
    estimate = measured_errors(campaign, "validate", round_.number)
    potential, _ = campaign.potential(round_.potential)
    found = predictions(campaign, round_, potential)
    least = float(np.quantile(found.heights, KEPT_AT_LEAST))
    estimate = dataclasses.replace(estimate, least_window=least)
    window = estimate.window(campaign.settings.screening.sigma_multiple)
    drop_above(campaign, round_, found, estimate, window)
    drop_unconverged(campaign, round_)
    kept = found.part(np.flatnonzero(found.heights <= window))
    campaign.store.save_known(kept.known(SCREENS[1]))
    campaign.store.advance(found.indices[found.heights <= window].tolist(), 2)
    wave = _next_wave(campaign, 2, 0) or total_structures(campaign)
    begin_round(
        campaign,
        next_round(
            round_, stage=2, purpose="learn", fits=True, wave=wave, sigma=estimate.to_dict()
        ),
        [],
    )
