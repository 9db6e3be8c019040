"""Labels of campaigns with fewer of the elements."""

from datetime import UTC, datetime

import pytest

from hullscreen.workflows.borrowed_labels import borrowed_labels, systems_of
from hullscreen.workflows.campaign import add_prototypes
from hullscreen.workflows.decisions import first_round
from hullscreen.workflows.dft_steps import label
from hullscreen.workflows.flows import round_workflow
from hullscreen.workflows.labelled import labelled_structures
from hullscreen.workflows.potential_steps import training_set


@pytest.fixture
def binary(tiny_history, make_campaign, mongo, put_back):
    """The finished Cu–Pd campaign in a database of the test's own."""
    campaign = make_campaign()
    put_back(mongo, tiny_history[-1].after)
    return campaign


@pytest.fixture
def ternary(binary, make_campaign):
    """Function: a campaign of more elements in the same database, registered now."""

    def make(name="ternary", elements=("Pd", "Au", "Cu"), **tables):
        return make_campaign(name=name, campaign={"elements": list(elements)}, **tables)

    return make


def test_a_ternary_learns_what_its_binary_has_labelled(binary, ternary):
    campaign = ternary()
    borrowed = borrowed_labels(campaign)
    theirs = labelled_structures(binary)
    assert [one.key for one in borrowed] == [one.key for one, _ in theirs]
    assert systems_of(borrowed) == {frozenset({2}), frozenset({0}), frozenset({0, 2})}
    for one, (before, _) in zip(borrowed, theirs, strict=True):
        symbols = [campaign.elements[k] for k in one.species]
        assert symbols == [binary.elements[k] for k in before.species]


def test_the_first_round_asks_for_what_is_new_and_learns_all(binary, ternary):
    campaign = ternary()
    n_before = campaign.store.count_dft()
    add_prototypes(campaign)
    first_round(campaign)
    selected = campaign.store.selected()
    own = [one for one in selected if one.purpose == "seed"]
    assert [one.number for one in selected] == list(range(len(selected)))
    assert selected[: len(own)] == own
    # Gold is index 1: nothing else is asked for.
    assert all(1 in one.species for one in own)
    workflow = round_workflow(campaign, campaign.store.round(0))
    spans = [
        (task["first"], task["last"])
        for firework in workflow.fws
        for task in firework.tasks
        if type(task).__name__ == "LabelTask"
    ]
    assert max(spans)[1] == len(own)
    label(campaign, campaign.store.round(0), 0, len(own))
    assert campaign.store.count_dft() == n_before + len(own)
    training = training_set(campaign, until=0)
    assert len(training) == len(own) + len(labelled_structures(binary))
    theirs = {result.energy for _, result in labelled_structures(binary)}
    assert theirs < set(training.energies.tolist())


def test_campaigns_of_the_same_elements_or_another_engine_lend_nothing(binary, ternary):
    assert borrowed_labels(ternary("again", ("Cu", "Pd"))) == []
    other = {"arguments": {"asap_cutoff": True}}
    assert borrowed_labels(ternary("other", dft=other)) == []
    assert borrowed_labels(ternary("unwilling", learning={"borrow": False})) == []


def test_what_came_later_and_what_failed_is_left(binary, ternary):
    campaign = ternary()
    n_labels = len(borrowed_labels(campaign))
    results = campaign.store._database.dft_results
    keys = [one.key for one in borrowed_labels(campaign)]
    results.update_one({"key": keys[0]}, {"$set": {"state": "failed"}})
    late = datetime(2100, 1, 1, tzinfo=UTC)
    results.update_one({"key": keys[1]}, {"$set": {"created_at": late}})
    left = [one.key for one in borrowed_labels(campaign)]
    assert left == keys[2:]
    assert len(left) == n_labels - 2
