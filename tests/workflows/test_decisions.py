"""Decisions: what follows what, and that a decision killed anywhere ends as if nothing had been."""

import dataclasses

import numpy as np
import pytest

from hullscreen.database import collections
from hullscreen.database.publications import BEGAN_AT, CHANGES, PUBLICATION, PUBLISHED
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.workflows import decisions, refinement
from hullscreen.workflows.firetasks import DecideTask, PrototypesTask
from hullscreen.workflows.flows import prepare_launchpad
from hullscreen.workflows.hull import convex_hull
from hullscreen.workflows.rounds import fractions
from hullscreen.workflows.screening import TIE, ErrorEstimate

# What differs between two decisions that are the same.
OF_THE_MOMENT = (
    *("_id", "created_at", "last_updated", "cpu_seconds", "directory"),
    *(PUBLICATION, CHANGES, PUBLISHED, BEGAN_AT),
)
OURS = ("campaigns", "structures", "selected", "rounds", "potentials", "dft_results")
KINDS = (
    "begin",
    "learn",
    "wave",
    "learn to validate",
    "validate to learn",
    "learn to refine",
    "refine to refine",
    "refine to final",
    "finish",
)


def kind_of(decided):
    """Name of a decision, by its round and the one that it began."""
    before, begun = decided.round, decided.next_round
    if before is None:
        return "begin"
    if begun is None:
        return "finish"
    if begun.purpose == "learn" and before.purpose in ("seed", "learn"):
        return "learn" if begun.fits else "wave"
    return f"{before.purpose} to {begun.purpose}"


def decisions_of(history):
    """The first decision of each kind."""
    return {kind_of(decided): decided for decided in reversed(history)}


def comparable(database):
    """Everything that counts in a database, without ids and times."""
    documents = {name: list(database[name].find({})) for name in OURS}
    return {**comparable_documents(documents), "workflows": workflows_in(database)}


def comparable_documents(documents):
    """The campaign's documents without ids and times."""
    return {
        "workflows": [],
        **{
            name: sorted(
                repr(sorted((k, v) for k, v in document.items() if k not in OF_THE_MOMENT))
                for document in documents.get(name, [])
            )
            for name in OURS
        },
    }


def workflows_in(database):
    """Workflows by their Fireworks' tasks and links; fails if a Firework belongs to none."""
    fireworks = {firework["fw_id"]: firework for firework in database.fireworks.find({})}
    found, owned = [], set()
    for workflow in database.workflows.find({}):
        owned |= set(workflow["nodes"])
        mine = {i: fireworks[i] for i in workflow["nodes"]}
        tasks = {
            i: repr((firework["name"], firework["state"], firework["spec"]["_tasks"]))
            for i, firework in mine.items()
        }
        links = sorted(
            (tasks[int(parent)], sorted(tasks[child] for child in children))
            for parent, children in workflow["links"].items()
        )
        found.append((workflow["name"], links))
    assert owned == set(fireworks), "a killed submission left Fireworks of no workflow"
    return sorted(found)


@pytest.fixture
def step_of(make_campaign, mongo, launchpad, put_back):
    """Function: put the database before a decision; gives a function that takes it."""

    def step(decided):
        campaign = make_campaign()
        put_back(mongo, decided.before)
        prepare_launchpad(launchpad)
        if decided.round is None:
            task = PrototypesTask({"campaign": "tiny"})
        else:
            task = DecideTask({"campaign": "tiny", "round": decided.round.number})
        task.launchpad = launchpad
        return lambda: task.perform(campaign)

    return step


def test_a_campaign_takes_every_kind_of_decision(tiny_history):
    assert set(decisions_of(tiny_history)) == set(KINDS)


@pytest.fixture
def kill_at_any_write(step_of, mortal, mongo):
    """Function: kill a decision at each of its writes, and take it again; the number of writes."""

    def kill(decided):
        step_of(decided)()
        expected = comparable(mongo.database)
        lives = 0
        while True:
            perform = step_of(decided)
            with mortal(lives) as fate:
                perform()
            if not fate.dead:
                return lives
            perform()
            assert comparable(mongo.database) == expected, f"killed after {lives} writes"
            lives += 1

    return kill


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_write_a_decision_is_taken_again_with_the_same_result(
    kind, tiny_history, kill_at_any_write
):
    lives = kill_at_any_write(decisions_of(tiny_history)[kind])
    # At least the round, the processor time, the workflow and the note that it is there.
    assert lives >= (2 if kind == "finish" else 5)


@pytest.fixture
def no_errors(monkeypatch):
    """A first potential without errors, so that the share that is always kept decides."""
    measured = decisions.measured_errors
    monkeypatch.setattr(
        decisions,
        "measured_errors",
        lambda *words: dataclasses.replace(measured(*words), sigma=1e-9, lowest=0.0),
    )


@pytest.mark.usefixtures("no_errors")
def test_killed_in_the_middle_of_its_drops_the_first_screen_keeps_the_same(
    tiny_history, kill_at_any_write, monkeypatch
):
    monkeypatch.setattr(decisions, "KEPT_AT_LEAST", 0.5)
    monkeypatch.setattr(collections, "BULK_SIZE", 3)
    # Ten drops, three at once.
    assert kill_at_any_write(decisions_of(tiny_history)["validate to learn"]) >= 5 + 3


def test_killed_in_the_middle_of_its_drops_the_last_refinement_ends_the_same(
    tiny_history, kill_at_any_write, monkeypatch
):
    def by_composition(structures, energies, _fingerprints):
        # Twins, and not only of what has a label.
        kinds = structures.counts(2) / structures.n_atoms[:, None]
        alike = (kinds[:, None] == kinds).all(axis=2)
        return np.where(alike, energies, np.inf).argmin(axis=1)

    monkeypatch.setattr(refinement, "group_by_basin", by_composition)
    monkeypatch.setattr(refinement, "relaxation_gain", lambda *_: 0.0)
    monkeypatch.setattr(collections, "BULK_SIZE", 1)
    decided = [
        d for d in tiny_history
        if d.round and d.next_round
        and (d.round.purpose, d.next_round.purpose) == ("refine", "final")
    ][-1]  # fmt: skip
    assert kill_at_any_write(decided) > 5


@pytest.mark.usefixtures("no_errors")
def test_the_lowest_share_always_passes_the_first_screen(tiny_history, put, monkeypatch):
    campaign, round_ = put(decisions_of(tiny_history)["validate to learn"])
    monkeypatch.setattr(decisions, "KEPT_AT_LEAST", 0.4)
    decisions.decide(campaign, round_)
    kept = campaign.store.count(stage=2)
    assert kept >= 0.4 * campaign.store.count()
    assert kept < campaign.store.count()


def test_what_dft_could_not_compute_hides_nothing_from_the_choice(tiny_history, put):
    campaign, round_ = put(decisions_of(tiny_history)["learn"])
    first = [choice.structure_index for choice in decisions._enlarging(campaign, round_)]
    assert len(first) > 1
    results = campaign.store._database.dft_results
    document = results.find_one({"purpose": "seed"})
    del document["_id"]
    results.insert_one(
        {**document, "key": "planted", "purpose": "learn", "state": "failed",
         "structure_index": first[0]}
    )  # fmt: skip
    again = [choice.structure_index for choice in decisions._enlarging(campaign, round_)]
    assert first[0] not in again
    assert again


def test_waves_end_with_the_structures_of_their_stage(tiny_history, put, monkeypatch):
    campaign, _ = put(decisions_of(tiny_history)["validate to learn"])
    campaign.store.advance(range(0, 20, 2), 2)
    orders = campaign.store.orders(2)
    assert orders.tolist() == sorted(orders)
    assert len(orders) == 10
    monkeypatch.setattr(decisions, "next_wave", lambda *_: 3)
    settings = dataclasses.replace(campaign.settings.learning, first_wave=4)
    campaign = dataclasses.replace(
        campaign, settings=dataclasses.replace(campaign.settings, learning=settings)
    )
    wave = decisions._next_wave(campaign, 2, 0)
    assert (orders < wave).sum() == 4
    assert decisions._next_wave(campaign, 2, int(orders[-1]) + 1) is None


@pytest.fixture
def put(make_campaign, mongo, put_back):
    """Function: campaign and round just before a decision."""
    campaign = make_campaign()

    def before(decided):
        put_back(mongo, decided.before)
        return campaign, decided.round

    return before


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_decision_that_was_taken_is_not_taken_again(kind, tiny_history, put, mongo, put_back):
    decided = decisions_of(tiny_history)[kind]
    campaign, round_ = put(decided)
    put_back(mongo, decided.after)
    decisions.decide(campaign, round_)
    assert comparable(mongo.database) == comparable_documents(decided.after)


def test_the_first_round_asks_for_every_element_and_for_compounds(tiny_history):
    begin = tiny_history[0]
    asked = [document for document in begin.after["selected"] if document["round"] == 0]
    kinds = [set(np.frombuffer(document["species"], dtype="<i4").tolist()) for document in asked]
    assert {0} in kinds
    assert {1} in kinds
    assert {0, 1} in kinds
    assert len({document["key"] for document in asked}) == len(asked)


def test_candidates_are_those_that_enlarge_the_active_set(tiny_history, put):
    decided = decisions_of(tiny_history)["learn"]
    campaign, round_ = put(decided)
    decisions.decide(campaign, round_)
    settings = campaign.settings.learning
    chosen = campaign.store.selected(round=round_.number + 1)
    assert 0 < len(chosen) <= settings.max_selected_per_wave
    potential, active = campaign.potential(round_.potential)
    for one in chosen:
        assert one.grade >= settings.select_grade
        batch = campaign.store.structures(
            {"index": one.structure_index}, geometry="relaxed.snapshot"
        )
        assert one.geometry.cell.tobytes() == batch.structures.cells[0].tobytes()
        (grade,) = active.grades(energy_rows(potential, batch.structures))
        # The relaxation watches the same grade at every step; its sums are in another order.
        assert grade == pytest.approx(one.grade, rel=1e-6)


def test_what_was_asked_for_and_failed_is_not_asked_for_again(tiny_history, put):
    decided = decisions_of(tiny_history)["learn"]
    campaign, round_ = put(decided)
    decisions.decide(campaign, round_)
    asked = campaign.store.selected(round=round_.number + 1)
    # The same candidates once more, after a round whose labels brought nothing.
    following = campaign.store.round(round_.number + 1)
    campaign.store._database.rounds.update_one(
        {"number": following.number}, {"$set": {"potential": round_.potential, "fits": False}}
    )
    decisions.decide(campaign, campaign.store.round(following.number))
    again = {one.key for one in campaign.store.selected(round=following.number + 1)}
    assert again.isdisjoint({one.key for one in asked})


def test_a_stage_that_never_ends_learning_goes_on(tiny_history, put, monkeypatch):
    decided = decisions_of(tiny_history)["learn"]
    campaign, round_ = put(decided)
    monkeypatch.setattr(decisions, "MAX_LEARNING_ROUNDS", 0)
    decisions.decide(campaign, round_)
    following = campaign.store.round(round_.number + 1)
    assert following.wave > round_.wave
    assert not following.fits


def test_the_first_screen_keeps_what_lies_within_its_window(tiny_history, put):
    decided = decisions_of(tiny_history)["validate to learn"]
    campaign, round_ = put(decided)
    decisions.decide(campaign, round_)
    following = campaign.store.round(round_.number + 1)
    estimate = ErrorEstimate(**following.sigma)
    window = estimate.window(campaign.settings.screening.sigma_multiple)
    potential, _ = campaign.potential(round_.potential)
    batch = campaign.store.structures({"relaxed.outcome": "converged"})
    energies = potential.evaluate(batch.structures).energies / batch.structures.n_atoms
    heights = convex_hull(fractions(batch.counts), energies).energies_above_hull
    expected = dict(zip(batch.indices.tolist(), heights, strict=True))
    documents = list(campaign.store.documents({}, ["index", "stage", "dropped"]))
    kept = {d["index"] for d in documents if d["stage"] == 2}
    assert kept == {index for index, height in expected.items() if height <= window}
    assert 2 < len(kept) < len(documents)
    for document in documents:
        if document["index"] not in kept:
            dropped = document["dropped"]
            assert dropped["energy_above_hull"] == expected[document["index"]] > window
            assert (dropped["window"], dropped["sigma"]) == (window, following.sigma["sigma"])


def test_the_hull_needs_its_corners(tiny_history, put, mongo):
    campaign, round_ = put(decisions_of(tiny_history)["finish"])
    pure = {"counts.1": 0, "final": {"$exists": True}}
    failed = {"final": {"state": "failed", "reason": "pw.x ran out of memory"}}
    mongo.database.structures.update_many(pure, {"$set": failed})
    with pytest.raises(
        CampaignError, match=r"no DFT relaxation of pure Cu succeeded, .* pw.x ran out of memory"
    ):
        decisions.decide(campaign, round_)
    assert not campaign.store.campaign()["finished"]


def test_compounds_that_failed_do_not_keep_the_hull_back(tiny_history, put, mongo):
    campaign, round_ = put(decisions_of(tiny_history)["finish"])
    mixed = {"counts.0": {"$gt": 0}, "counts.1": {"$gt": 0}, "final": {"$exists": True}}
    mongo.database.structures.update_many(mixed, {"$set": {"final.state": "failed"}})
    decisions.decide(campaign, round_)
    assert campaign.store.campaign()["finished"]


@pytest.fixture
def late_label(make_campaign, mongo, put_back, tiny_history):
    """Function: the finished campaign, one of whose labels came after the last fit."""
    campaign = make_campaign()

    def put_late():
        put_back(mongo, tiny_history[-1].after)
        last = max(p["number"] for p in tiny_history[-1].after["potentials"])
        mongo.database.potentials.update_one({"number": last}, {"$inc": {"n_training": -1}})
        return campaign

    return put_late


def test_labels_that_came_late_are_counted(late_label, mongo, put_back, tiny_history):
    campaign = late_label()
    assert campaign.store.new_labels() == 1
    put_back(mongo, tiny_history[-1].after)
    assert campaign.store.new_labels() == 0


def lowest_energies(structures):
    """Of every formula that DFT has relaxed, eV/atom."""
    lowest = {}
    for document in structures:
        if "final" in document:
            energy = document["final"]["energy_per_atom"]
            formula = document["formula_pretty"]
            lowest[formula] = min(energy, lowest.get(formula, energy))
    return lowest


def test_opened_again_everything_is_screened_once_more(
    late_label, work_off_round, mongo, tiny_history
):
    campaign = late_label()
    decisions.reopen(campaign)
    assert campaign.store.count(stage=1, relaxed={"$exists": False}) == 20
    assert not campaign.store.campaign()["finished"]
    while not campaign.store.campaign()["finished"]:
        round_ = campaign.store.last_round()
        work_off_round(campaign, round_)
        decisions.decide(campaign, round_)
    assert campaign.store.new_labels() == 0
    after = lowest_energies(mongo.database.structures.find({}))
    # DFT relaxations from other starts end within their force tolerance of the same minimum.
    assert after == pytest.approx(lowest_energies(tiny_history[-1].after["structures"]), abs=TIE)


def test_killed_at_any_write_a_campaign_is_opened_again_once(late_label, mongo, mortal):
    campaign = late_label()

    def open_again():
        # As `hullscreen run` asks before it works.
        if campaign.store.campaign()["finished"] and campaign.store.new_labels() > 0:
            decisions.reopen(campaign)

    open_again()
    expected = comparable(mongo.database)
    lives = 0
    while True:
        late_label()
        with mortal(lives) as fate:
            open_again()
        if not fate.dead:
            break
        open_again()
        assert comparable(mongo.database) == expected, f"killed after {lives} writes"
        lives += 1
    assert lives >= 3
