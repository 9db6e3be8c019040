"""The hull as plain data: of DFT, of the screening before, and of nothing."""

import json
import math

import pytest

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.launch.dashboard.hull_data import (
    NEAREST,
    fractions_of,
    hull_data,
    stable_data,
)
from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows.results import final_hull


def test_the_hull_is_that_of_the_results(small_campaign):
    store = small_campaign.store
    found, result = hull_data(store), final_hull(store)
    assert found["energies"] == "relaxed with DFT"
    assert [entry["index"] for entry in found["entries"]] == [
        entry.structure_index for entry in result.entries
    ]
    # Rounded to 1e-7 eV/atom for the page.
    assert [entry["above"] for entry in found["entries"]] == pytest.approx(
        [entry.energy_above_hull for entry in result.entries], abs=1e-7
    )
    rows = stable_data(found)["rows"]
    assert [row["index"] for row in rows] == [entry.structure_index for entry in result.stable]
    json.dumps(found, allow_nan=False)


def test_the_background_is_everything_else_with_a_height(small_campaign):
    store = small_campaign.store
    background = hull_data(store)["background"]
    depth = -float(final_hull(store).hull.formation_energies.min())
    known = store.count(
        energy_above_hull={"$gte": 0.0, "$lt": max(1.6 * depth, 0.1)}, final={"$exists": False}
    )
    assert sum(background["numbers"]) == known > 0
    assert len(background["fractions"]) == len(background["energies"])


def test_before_dft_the_screening_has_a_hull(mongo, tiny_history, put_back):
    """From the first screening on there is a picture, and it says whose energies it shows."""
    store = CampaignStore(mongo, "tiny")
    sources = []
    for decided in tiny_history:
        put_back(mongo, decided.after)
        store.ensure_indexes()
        try:
            sources.append(hull_data(store)["energies"])
        except CampaignError as error:
            sources.append("still screening" if "still screening" in str(error) else str(error))
    assert list(dict.fromkeys(sources)) == [
        "still screening",
        "MTP of screen 1",
        "MTP of screen 2",
        "DFT single point",
        "relaxed with DFT",
    ]


def test_hulls_of_screening_begin_at_the_elements(mongo, tiny_history, put_back):
    store = CampaignStore(mongo, "tiny")
    first = next(
        decided for decided in tiny_history if decided.next_round and decided.next_round.stage == 2
    )
    put_back(mongo, first.after)
    store.ensure_indexes()
    found = hull_data(store)
    rows = stable_data(found)["rows"]
    assert [rows[0]["formula"], rows[-1]["formula"]] == ["Cu", "Pd"]
    assert all(row["prototype"] and row["nsites"] for row in rows)
    assert all(row["formation_energy"] <= 0.0 for row in rows)


def test_after_the_stable_phases_come_the_nearest_above_the_hull():
    """So that a keyboard reaches the points above the hull, too."""

    def entry(index, above):
        return {
            "index": index, "formula": "Cu" if above == 0.0 else f"Cu{index}Pd", "above": above,
            "fractions": [1.0, 0.0], "formation_energy": above, "stable": above == 0.0,
        }  # fmt: skip

    entries = [entry(index, 0.001 * max(index - 1, 0)) for index in range(NEAREST + 9)]
    found = stable_data({"entries": entries, "energies": "relaxed with DFT", "finished": True})
    assert [row["index"] for row in found["rows"]] == [0]
    # The second of one crystal comes first.
    assert [row["index"] for row in found["nearest"]] == list(range(1, NEAREST + 1))


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("Cu3Pd", [0.75, 0.25, 0.0]),
        ("Pd", [0.0, 1.0, 0.0]),
        ("Cu12Pd36", [0.25, 0.75, 0.0]),
        # pymatgen takes out common factors of the last two of three elements.
        ("Cu(PdAu)2", [0.2, 0.4, 0.4]),
        ("Ag", None),
        ("CuAg", None),
        ("Cu1e999", None),
        ("Cu(", None),
        ("<script>", None),
        ("", None),
    ],
)
def test_fractions_of_a_formula(formula, expected):
    found = fractions_of(formula, ["Cu", "Pd", "Au"])
    assert found == expected
    assert found is None or math.isclose(sum(found), 1.0)
