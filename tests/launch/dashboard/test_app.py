"""The page as a browser asks for it: its parts, its refreshes, its answers to a choice."""

import json
from contextlib import closing

import pytest

from hullscreen.launch.dashboard.app import FIGURES, TABLES, make_app
from hullscreen.launch.dashboard.reader import CampaignReaders
from hullscreen.workflows.results import final_hull

IDS = {
    "funnel", "jobs", "hull", "learning", "grades", "cpu", "failures", "structure", "story",
    "stable-table", "campaign-select", "status-line",
}  # fmt: skip


@pytest.fixture(scope="module")
def readers(small_campaign):
    source = (small_campaign.store, small_campaign.connection, small_campaign.directory)
    with closing(CampaignReaders([source])) as readers:
        readers.by_name["cu-pd"].look(everything=True)
        yield readers


@pytest.fixture(scope="module")
def client(readers):
    return make_app(readers, allow_actions=True).server.test_client()


def ids_in(component):
    if isinstance(component, dict):
        found = {component["id"]} if isinstance(component.get("id"), str) else set()
        return found.union(*(ids_in(value) for value in component.values()))
    if isinstance(component, list):
        return set().union(*(ids_in(one) for one in component))
    return set()


def ask(client, wanted, inputs, state=(), changed=()):
    """The answer of the callback that has this output."""
    specification = next(
        one for one in client.get("/_dash-dependencies").json if wanted in one["output"]
    )

    def valued(given):
        if isinstance(given, list):
            return [valued(one) for one in given]
        if given["id"].startswith("{"):
            return []
        key = f"{given['id']}.{given['property']}"
        return {**given, "value": {**dict(inputs), **dict(state)}.get(key)}

    outputs = [
        {"id": name, "property": prop}
        for name, prop in (
            one.rsplit(".", 1) for one in specification["output"].strip(".").split("...")
        )
    ]
    answer = client.post(
        "/_dash-update-component",
        json={
            "output": specification["output"],
            "outputs": outputs if len(outputs) > 1 else outputs[0],
            "inputs": [valued(one) for one in specification["inputs"]],
            "state": [valued(one) for one in specification["state"]],
            "changedPropIds": list(changed),
        },
    )
    if answer.status_code == 204:
        return {}
    assert answer.status_code == 200, answer.text
    return answer.json["response"]


def refresh(client, seen=None, scheme="light"):
    inputs = {"campaign-select.value": "cu-pd", "scheme.data": scheme}
    return ask(
        client, "status-line.children", inputs, {"seen.data": seen or {}}, ["tick.n_intervals"]
    )


def test_the_page_has_every_panel(client):
    assert ids_in(client.get("/_dash-layout").json) >= IDS


def test_the_page_names_no_other_machine(client):
    page = client.get("/").text
    assert "http://" not in page
    assert "https://" not in page
    assert '<html lang="en">' in page
    assert "/assets/page.css" in page
    assert "/assets/page.js" in page


def test_the_first_answer_fills_everything(client):
    answer = refresh(client)
    for name in FIGURES:
        assert answer[name]["figure"]["data"], name
    for place in TABLES.values():
        assert answer[place]["children"], place
    assert answer["status-line"]["children"].startswith("cu-pd (Cu–Pd): finished.")
    assert answer["report-link"]["href"] == "/campaigns/cu-pd/report.html"


def test_later_answers_hold_only_what_changed(client):
    first = refresh(client)
    seen = first["seen"]["data"]
    later = refresh(client, seen)
    assert later.keys() == {"status-line", "report-link"}
    # In other colours the figures are others, and the tables are not.
    dark = refresh(client, seen, scheme="dark")
    assert dark.keys() == {"status-line", "report-link", "seen", *FIGURES}
    assert len(json.dumps(first)) < 1_000_000


def shown(client, picked, drawn=True):
    inputs = {
        "picked.data": picked, "campaign-select.value": "cu-pd", "scheme.data": "light",
        "drawn.data": {"hull": "version"} if drawn else None,
    }  # fmt: skip
    state = {"structure-title.children": "Structure"}
    return ask(client, "structure.figure", inputs, state, ["picked.data"])


def test_a_choice_shows_the_structure_and_its_story(client, small_campaign):
    entry = final_hull(small_campaign.store).stable[1]
    answer = shown(client, entry.structure_index)
    assert f"structure {entry.structure_index}" in answer["structure-title"]["children"]
    assert answer["structure"]["figure"]["data"]
    assert "stable" in json.dumps(answer["story"])


def test_before_a_choice_the_most_stable_compound_is_shown(client, small_campaign):
    stable = final_hull(small_campaign.store).stable
    lowest = min(stable, key=lambda entry: entry.formation_energy_per_atom)
    assert (
        f"structure {lowest.structure_index}" in shown(client, None)["structure-title"]["children"]
    )


def test_the_first_structure_waits_for_the_hull(client):
    assert shown(client, None, drawn=False) == {}
    assert shown(client, 0, drawn=False)["structure"]["figure"]["data"]


def test_a_formula_that_was_typed_shows_its_lowest_structure(client, small_campaign):
    entry = final_hull(small_campaign.store).stable[1]
    typed = {"wanted.value": f" {entry.formula_pretty} "}
    picked = ask(client, "picked.data", {}, typed, ["wanted.n_submit"])["picked"]["data"]
    assert picked == entry.formula_pretty
    title = shown(client, picked)["structure-title"]["children"]
    assert title.endswith(f"structure {entry.structure_index}")


@pytest.mark.parametrize("typed", [None, "", "  ", 7, ["Cu"], "Cu" * 40])
def test_what_nobody_can_have_typed_chooses_nothing(client, typed):
    assert ask(client, "picked.data", {}, {"wanted.value": typed}, ["wanted.n_submit"]) == {}


@pytest.mark.parametrize("picked", ["", "  ", ["Cu"], "Cu" * 40])
def test_what_nobody_can_have_picked_shows_nothing(client, picked):
    assert shown(client, picked, drawn=False) == {}


@pytest.mark.parametrize(
    ("picked", "sentence"),
    [(10**6, "has no"), ("1000000", "has no"), ("<b>", "no chemical formula"), ("Au", "of this")],
)
def test_a_choice_that_does_not_exist_is_a_sentence(client, picked, sentence):
    answer = shown(client, picked)
    text = answer["structure"]["figure"]["layout"]["annotations"][0]["text"]
    assert sentence in text.replace("<br>", " ")
    assert "<b>" not in text


@pytest.mark.parametrize(
    ("points", "chosen"), [([{"customdata": 3}], 3), ([{"customdata": "<b>"}], None), ([], None)]
)
def test_clicks_choose_numbers_only(client, points, chosen):
    clicked = {"hull.clickData": {"points": points}}
    answer = ask(client, "picked.data", clicked, changed=["hull.clickData"])
    assert answer == ({} if chosen is None else {"picked": {"data": chosen}})


def test_another_campaign_has_no_structure_that_was_chosen_before(client):
    clicked = {"hull.clickData": {"points": [{"customdata": 3}]}}
    answer = ask(client, "picked.data", clicked, changed=["campaign-select.value"])
    assert answer == {"picked": {"data": None}}


@pytest.mark.parametrize("allow_actions", [True, False])
def test_only_who_may_act_sees_buttons_that_do(small_campaign, mongo, allow_actions):
    from hullscreen.launch.dashboard.tables import failure_table

    rows = [
        {"what": "failed: dft", "firework": 7, "reason": "<b>no</b>"},
        {"what": "DFT to learn", "structure": 3, "reason": "no"},
    ]
    table = json.dumps(failure_table(rows, "cu-pd", allow_actions=allow_actions).to_plotly_json(),
                       default=lambda one: one.to_plotly_json())  # fmt: skip
    assert table.count('"log"') == 4
    assert table.count('"rerun"') == (2 if allow_actions else 0)
