"""A structure's story: complete, as the hulls say, and told whatever the documents hold."""

import contextlib
import itertools
import json
import math

import pytest

from hullscreen.launch.story_text import sentences
from hullscreen.potentials.errors import DatabaseError, InputError
from hullscreen.workflows.calculation_logs import structure_log
from hullscreen.workflows.results import final_hull
from hullscreen.workflows.story import story

# Sums of the same numbers in another order, eV/atom.
ROUNDING = 1e-9


def structures_in(store):
    return {one["index"]: one for one in store.connection.database["structures"].find()}


@pytest.fixture(scope="module")
def stories(small_campaign):
    """Story and document of every structure."""
    documents = structures_in(small_campaign.store)
    return {i: (story(small_campaign.store, i), one) for i, one in documents.items()}


def test_a_first_label_is_not_said_to_be_where_the_relaxation_ended(stories):
    seeds = [told for told, _ in stories.values() if told["single_points"] and
             told["single_points"][0]["purpose"] == "seed"]  # fmt: skip
    assert seeds
    for told in seeds:
        assert any("the energy of a strained copy" in sentence for sentence in sentences(told))


def test_every_story_is_json_and_has_sentences(stories):
    for index, (told, document) in stories.items():
        assert json.loads(json.dumps(told, allow_nan=False)) == told
        first, *rest = sentences(told)
        assert f"Number {index} is {document['formula_pretty']}" in first
        assert document["prototype"] in first
        assert len(rest) >= len(told["relaxations"]) + len(told["single_points"]) + 1


def test_relaxations_have_their_potentials(stories, small_campaign):
    potentials = {p["number"]: p for p in small_campaign.store.potentials([])}
    for told, document in stories.values():
        assert len(told["relaxations"]) == len(document["relaxations"]) >= 1
        for one in told["relaxations"]:
            assert one["level"] == potentials[one["potential"]]["level"]
            assert one["stage"] == f"screen {potentials[one['potential']]['stage']}"


def test_a_margin_and_competitors_explain_why_a_structure_was_dropped(stories, small_campaign):
    told_of = set()
    for told, document in stories.values():
        dropped = told["dropped"]
        if dropped is None or dropped["energy_above_hull"] is None:
            continue
        told_of.add(told["energy_from"])
        assert dropped["margin"] > 0
        if dropped["window"] is not None:
            assert dropped["margin"] == dropped["energy_above_hull"] - dropped["window"]
        round_ = small_campaign.store.round(dropped["round"])
        hull = round_.labelled_hull if dropped["by_single_point"] else round_.predicted_hull
        energies = {corner["structure_index"]: corner["energy_per_atom"] for corner in hull}
        shares = {one["structure_index"]: one["amount"] for one in dropped["competitors"]}
        assert sum(shares.values()) == pytest.approx(1)
        below = sum(energies[index] * share for index, share in shares.items())
        height = document["energy_per_atom"] - below
        assert height == pytest.approx(dropped["energy_above_hull"], abs=ROUNDING)
        assert any("left it behind" in sentence for sentence in sentences(told))
        assert any("it competed with" in sentence for sentence in sentences(told))
    assert told_of >= {"MTP of screen 1", "DFT single point"}


def test_a_twin_leads_to_the_other_and_back(stories):
    twins = [told for told, _ in stories.values() if told["dropped"] and told["dropped"]["same_as"]]
    assert twins
    for told in twins:
        other, _ = stories[told["dropped"]["same_as"]]
        assert told["structure_index"] in other["twins"]["numbers"]
        assert f"number {other['structure_index']}" in " ".join(sentences(told))


def test_a_stable_phase_knows_what_would_take_its_place(stories, small_campaign):
    result = final_hull(small_campaign.store)
    compounds = [entry for entry in result.stable if len(set(entry.symbols)) == 2]
    assert compounds
    for entry in compounds:
        told, _ = stories[entry.structure_index]
        place = told["place"]
        assert place["is_stable"]
        assert place["below_others"] > 0
        energies = {e.structure_index: e.energy_per_atom for e in result.entries}
        instead = sum(
            energies[one["structure_index"]] * one["amount"] for one in place["replaced_by"]
        )
        assert place["below_others"] == pytest.approx(instead - entry.energy_per_atom, abs=ROUNDING)
        assert "would take its place" in " ".join(sentences(told))


def test_an_unstable_phase_names_what_it_decomposes_to(copied_campaign, mongo):
    products = [
        {"structure_index": 4, "formula": "Cu", "amount": 0.25},
        {"structure_index": 7, "formula": "CuPd", "amount": 0.75},
    ]
    change = {"is_stable": False, "energy_above_hull": 0.0123, "decomposes_to": products}
    mongo.database.structures.update_one({"index": 13}, {"$set": change})
    told = sentences(story(copied_campaign, 13))
    assert (
        "It lies 12.30 meV/atom above the hull of DFT relaxations: it decomposes to "
        "0.25 Cu (number 4) + 0.75 CuPd (number 7)." in told
    )


def test_dft_that_failed_or_is_to_come(copied_campaign, mongo):
    structures = mongo.database.structures
    structures.update_one({"index": 13}, {"$unset": {"final": "", "is_stable": ""}})
    told = story(copied_campaign, 13)
    assert told["dft_relaxation"]["state"] == "waiting"
    assert "still to come" in " ".join(sentences(told))
    copied_campaign.save_final(13, {"state": "failed", "key": "none", "reason": "no end of SCF"})
    assert "DFT could not relax it (failed): no end of SCF." in sentences(
        story(copied_campaign, 13)
    )
    (label, *_) = copied_campaign.selected(structure_index=13)
    copied_campaign.quarantine(label.key, reason="too low", judged="range", judged_by="cu-pd")
    told = story(copied_campaign, 13)
    assert told["single_points"][0]["state"] == "quarantined"
    assert "quarantined, too low" in " ".join(sentences(told))


def test_before_anything_happened(copied_campaign, mongo):
    everything = ("relaxed", "relaxations", "dropped", "energy_above_hull", "energy_from")
    mongo.database.structures.update_one({"index": 2}, {"$unset": dict.fromkeys(everything, "")})
    mongo.database.selected.delete_many({})
    assert sentences(story(copied_campaign, 2))[1:] == ["No potential has relaxed it yet."]


def test_a_number_that_no_structure_has(small_campaign):
    with pytest.raises(InputError, match="numbers 0 to 22, got 23"):
        story(small_campaign.store, 23)


def test_a_number_before_there_are_structures(copied_campaign, mongo):
    mongo.database["structures"].delete_many({})
    for ask in (story, structure_log):
        with pytest.raises(InputError, match="no structures yet, so none has the number 3"):
            ask(copied_campaign, 3)


SENSELESS = (None, "<script>\x1b[31m\n", -1.5, math.nan, [None, 3], {"a": 1})
FIELDS = (
    "prototype", "formula_pretty", "nsites", "counts", "relaxed", "relaxations", "dropped", "final",
    "energy_per_atom", "energy_above_hull", "energy_from", "is_stable", "decomposes_to", "symmetry",
    "dropped.round", "dropped.energy_above_hull", "dropped.stage", "dropped.sigma", "final.key",
)  # fmt: skip


@pytest.mark.parametrize("index", [3, 13])
def test_documents_that_make_no_sense_are_told_as_far_as_they_go(copied_campaign, mongo, index):
    structures = mongo.database.structures
    before = structures.find_one({"index": index})
    n_told = 0
    for name, value in itertools.product(FIELDS, SENSELESS):
        if name.partition(".")[0] in before:
            structures.replace_one({"index": index}, before)
            structures.update_one({"index": index}, {"$set": {name: value}})
            with contextlib.suppress(DatabaseError):
                told = story(copied_campaign, index)
                json.dumps(told, allow_nan=False)
                assert all(line.isprintable() for line in sentences(told))
                n_told += 1
    assert n_told > 50


@pytest.mark.parametrize("index", [3, 13])
def test_names_of_other_structures_are_harmless_too(copied_campaign, mongo, index):
    hostile = "\x1b[31mCu"
    mongo.database.structures.update_many(
        {"index": {"$ne": index}}, {"$set": {"formula_pretty": hostile}}
    )
    for field in ("predicted_hull", "labelled_hull"):
        change = {"$set": {f"{field}.$[].formula_pretty": hostile}}
        mongo.database.rounds.update_many({field: {"$ne": []}}, change)
    told = sentences(story(copied_campaign, index))
    assert "[31mCu" in " ".join(told)
    assert all(line.isprintable() for line in told)


def test_documents_without_which_nothing_can_be_told_are_named(copied_campaign, mongo):
    mongo.database.selected.update_many({}, {"$unset": {"species": ""}})
    with pytest.raises(DatabaseError, match=r"structure 4 .* damaged \(KeyError: 'species'\)"):
        story(copied_campaign, 4)
