"""Decisions: what follows what, and that a decision killed anywhere ends as if nothing had been."""

import pytest

from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows import decisions
from hullscreen.workflows.firetasks import DecideTask, PrototypesTask
from hullscreen.workflows.flows import prepare_launchpad

# What differs between two decisions that are the same.
OF_THE_MOMENT = ("_id", "created_at", "last_updated", "cpu_seconds", "directory")
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
    found = {
        name: sorted(
            repr(sorted((k, v) for k, v in document.items() if k not in OF_THE_MOMENT))
            for document in database[name].find({})
        )
        for name in OURS
    }
    return {**found, "workflows": workflows_in(database)}


def workflows_in(database):
    """Workflows by their Fireworks' tasks and links; fails if a Firework belongs to none."""
    fireworks = {firework["fw_id"]: firework for firework in database.fireworks.find({})}
    found, owned = [], set()
    for workflow in database.workflows.find({}):
        owned |= set(workflow["nodes"])
        tasks = {i: repr((fireworks[i]["name"], fireworks[i]["state"], fireworks[i]["spec"]["_tasks"]))
                 for i in workflow["nodes"]}  # fmt: skip
        links = sorted(
            (tasks[int(parent)], sorted(tasks[child] for child in children))
            for parent, children in workflow["links"].items()
        )
        found.append((workflow["name"], links))
    assert owned == set(fireworks), "a killed submission left Fireworks of no workflow"
    return sorted(found)


@pytest.fixture
def step_of(make_campaign, mongo, launchpad, put_back):
    """Function: put the database before a decision, and give the Firetask that decides, as a function."""

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


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_write_a_decision_is_taken_again_with_the_same_result(
    kind, tiny_history, step_of, mortal, mongo, put_back
):
    decided = decisions_of(tiny_history)[kind]
    step_of(decided)()
    expected = comparable(mongo.database)
    lives = 0
    while True:
        perform = step_of(decided)
        with mortal(lives) as fate:
            perform()
        if not fate.dead:
            break
        perform()
        assert comparable(mongo.database) == expected, f"killed after {lives} writes"
        lives += 1
    print(kind, lives)
    # At least the round, the processor time, the workflow and the note that it is there.
    assert lives >= (2 if kind == "finish" else 5)
