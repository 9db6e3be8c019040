"""Structures counted by the server: by formula and height, and by grade."""

import math

import pytest

from hullscreen.database.census import BINS_PER_DECADE, Census


@pytest.fixture
def put(mongo):
    """Function that stores structures with these fields, one after another."""

    def insert(*structures, campaign="tiny"):
        first = mongo.database.structures.count_documents({})
        mongo.database.structures.insert_many(
            {
                "campaign": campaign, "index": first + place, "order": first + place,
                "stage": 1, "formula_pretty": "CuPd", **one,
            }
            for place, one in enumerate(structures)
        )  # fmt: skip

    return insert


@pytest.fixture
def census(mongo):
    counted = Census(mongo, "tiny")
    counted.ensure_indexes()
    return counted


def heights(census, **limits):
    found = census.by_height(**{"highest": 0.1, "width": 0.01, **limits})
    return [(one.formula_pretty, round(one.energy_above_hull, 9), one.n) for one in found]


def test_structures_are_counted_by_formula_and_height(census, put):
    put(
        {"energy_above_hull": 0.0},
        {"energy_above_hull": 0.009},
        {"energy_above_hull": 0.021},
        {"energy_above_hull": 0.021, "formula_pretty": "Cu3Pd", "stage": 2},
        {"energy_above_hull": 0.1},
    )
    assert heights(census) == [("Cu3Pd", 0.025, 1), ("CuPd", 0.005, 2), ("CuPd", 0.025, 1)]
    assert heights(census, highest=0.2)[-1] == ("CuPd", 0.105, 1)


def test_what_dft_has_relaxed_is_no_background(census, put):
    put(
        {"energy_above_hull": 0.0, "stage": 3, "final": {"state": "done"}},
        {"energy_above_hull": 0.0, "stage": 3},
    )
    assert heights(census) == [("CuPd", 0.005, 1)]


def test_other_campaigns_and_what_is_no_number_do_not_count(census, put):
    put({"energy_above_hull": 0.0}, campaign="other")
    put({"energy_above_hull": "high"}, {"energy_above_hull": math.nan}, {})
    assert heights(census) == []


def test_no_document_of_a_screened_structure_is_read(census, put, mongo):
    put(*({"energy_above_hull": 1e-4 * place} for place in range(900)))

    def documents_read():
        return mongo.database.command("serverStatus")["metrics"]["queryExecutor"]["scannedObjects"]

    before = documents_read()
    assert sum(n for _, _, n in heights(census)) == 900
    # Room for what the server itself reads.
    assert documents_read() - before < 90


def relaxed(grade, stage=1):
    return {"relaxed": {"stage": stage, "highest_grade": grade}}


def test_grades_are_counted_by_stage(census, put):
    put(
        relaxed(1.0), relaxed(1.02), relaxed(10.0), relaxed(1.0, stage=2),
        relaxed(0.0), relaxed(math.nan), relaxed(math.inf), relaxed("large"), {},
    )  # fmt: skip
    assert census.grades() == {1: {0: 2, BINS_PER_DECADE: 1}, 2: {0: 1}}


def test_a_part_stands_for_all_grades(census, put):
    put(*(relaxed(1.0) for _ in range(40)))
    assert census.grades(every=4) == {1: {0: 40}}


def test_without_their_indexes_the_numbers_are_the_same(census, put, mongo):
    put({"energy_above_hull": 0.001, **relaxed(1.0)}, {"energy_above_hull": 0.05})
    before = heights(census), census.grades()
    assert all(before)
    mongo.database.structures.drop_indexes()
    assert (heights(census), census.grades()) == before
