"""The report is one file: it loads nothing, and holds what the page shows."""

import json
from datetime import UTC, datetime
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest

from hullscreen.launch.dashboard import report_file
from hullscreen.launch.dashboard.figures import FIGURES
from hullscreen.launch.dashboard.report_file import report_html
from hullscreen.launch.dashboard.theme import THEMES
from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows.results import final_hull

# Attributes by which a document loads others.
LOADS = {"src", "href", "srcset", "data", "poster", "action", "background"}


class Reader(HTMLParser):
    """Elements and texts of a document by the element that they stand in."""

    def __init__(self):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(dict(attributes).get("id", tag))

    def handle_endtag(self, _tag):
        self._open.pop()

    def handle_data(self, data):
        if self._open:
            place = self._open[-1]
            self.texts[place] = self.texts.get(place, "") + data

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))


def read(text):
    reader = Reader()
    # Elements that never end.
    reader.feed(text.replace('<meta charset="utf-8">', '<meta charset="utf-8"/>'))
    return reader


@pytest.fixture(scope="module")
def report(small_campaign):
    origin = {"seed": 0, "name": "</pre><script>alert(1)</script>"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_file, "provenance", lambda _: origin)
        return report_html(small_campaign.store, small_campaign.connection)


def test_nothing_is_loaded(report):
    reader = read(report)
    assert [one for one in reader.elements if LOADS & one[1].keys()] == []
    assert {tag for tag, _ in reader.elements}.isdisjoint({"link", "iframe", "img", "object"})
    policy = next(
        attributes["content"]
        for tag, attributes in reader.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "http" not in policy
    # plotly, once, and two short texts beside it.
    assert [tag for tag, _ in reader.elements].count("script") == 3


def test_the_figures_are_the_pages(report):
    given = json.loads(read(report).texts["given"])
    assert given["figures"].keys() == FIGURES.keys()
    for figures in given["figures"].values():
        assert figures.keys() == THEMES.keys()
        for figure in figures.values():
            assert len(go.Figure(figure).data) > 0


def test_every_stable_phase_has_its_structure(report, small_campaign):
    reader = read(report)
    given = json.loads(reader.texts["given"])
    stable = {str(entry.structure_index) for entry in final_hull(small_campaign.store).stable}
    assert given["structures"].keys() == stable
    buttons = {one["data-structure"] for _, one in reader.elements if "data-structure" in one}
    assert buttons == stable
    chosen = given["structures"][given["chosen"]]
    assert chosen["facts"]
    assert chosen["story"]


def test_text_is_text(report):
    assert "<script>alert(1)" not in report
    assert "&lt;script&gt;alert(1)" in report


def test_a_hostile_campaign_has_a_report(copied_campaign, mongo):
    mongo.database.structures.update_many(
        {"final.state": "done"}, {"$set": {"prototype": "</script><script>alert(1)</script>"}}
    )
    text = report_html(copied_campaign, mongo)
    assert "<script>alert(1)" not in text
    json.loads(read(text).texts["given"])


def test_numbers_that_are_none_leave_the_pictures(copied_campaign, mongo):
    potentials = mongo.database["potentials"]
    potentials.update_many({}, {"$set": {"n_training": float("nan"), "force_rmse": float("inf")}})
    potentials.update_one({}, {"$set": {"n_training": datetime(9999, 12, 31, tzinfo=UTC)}})

    def refuse(constant):
        raise AssertionError(f"a browser reads no {constant}")

    given = read(report_html(copied_campaign, mongo)).texts["given"]
    assert set(json.loads(given, parse_constant=refuse)["figures"]) == set(FIGURES)


def test_a_campaign_that_has_just_begun_has_a_report(make_campaign, mongo):
    campaign = make_campaign()
    reader = read(report_html(campaign.store, mongo))
    assert "generating prototypes" in reader.texts["status-line"]
    assert json.loads(reader.texts["given"])["structures"] == {}


def test_a_campaign_that_is_not_there(mongo):
    from hullscreen.database.campaign_store import CampaignStore

    with pytest.raises(CampaignError, match="no campaign 'none'"):
        report_html(CampaignStore(mongo, "none"), mongo)
