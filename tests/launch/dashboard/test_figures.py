"""Figures are plotly's, of any data that the database may hold, in both schemes."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest

from hullscreen.launch.dashboard.crystal_figure import crystal_figure
from hullscreen.launch.dashboard.figures import FIGURES, figure_of
from hullscreen.launch.dashboard.hull_data import stable_data
from hullscreen.launch.dashboard.reader import Panel, seen_now
from hullscreen.launch.dashboard.theme import THEMES
from hullscreen.workflows.hull import convex_hull

ELEMENTS = ["Cu", "Ag", "Au", "Pd"]
# A refresh is to stay below this with every panel in it, in bytes.
LARGEST_ANSWER = 1_000_000


def hull_of(n_elements, *, n_entries=60, n_bins=5, seed=1):
    """Plain data of a random hull."""
    rng = np.random.default_rng(seed)
    fractions = np.concatenate(
        [np.eye(n_elements), np.round(rng.dirichlet(np.ones(n_elements), n_entries), 3)]
    )
    fractions /= fractions.sum(axis=1, keepdims=True)
    energies = np.concatenate([np.zeros(n_elements), rng.uniform(-0.2, 0.1, n_entries)])
    hull = convex_hull(fractions, energies)
    entries = [
        {
            "index": place, "formula": f"{ELEMENTS[place % n_elements]}{place + 2}",
            "prototype": "<script>alert(1)</script>", "nsites": 4,
            "fractions": fractions[place].tolist(),
            "formation_energy": float(hull.formation_energies[place]),
            "above": float(hull.energies_above_hull[place]),
            "stable": bool(hull.stable[place]),
        }
        for place in range(len(energies))
    ]  # fmt: skip
    spread = rng.dirichlet(np.ones(n_elements), n_bins)
    return {
        "elements": ELEMENTS[:n_elements], "energies": "relaxed with DFT", "finished": True,
        "entries": entries, "facets": hull.facets.tolist(),
        "edges": sorted({(min(a, b), max(a, b)) for f in hull.facets.tolist()
                         for a in f for b in f if a != b}),
        "background": {
            "fractions": spread.tolist(), "energies": rng.uniform(-0.1, 0.2, n_bins).tolist(),
            "numbers": rng.integers(1, 100_000, n_bins).tolist(),
        },
    }  # fmt: skip


def panel(data):
    return Panel(data, "", "version")


def valid(figure):
    """The figure, once plotly has checked every name and value in it."""
    json.dumps(figure, allow_nan=False)
    return go.Figure(figure)


@pytest.mark.parametrize("scheme", THEMES)
@pytest.mark.parametrize("n_elements", [2, 3, 4])
def test_every_stable_phase_can_be_chosen(n_elements, scheme):
    hull = hull_of(n_elements)
    figure = valid(figure_of("hull", panel(hull), scheme))
    stable = {row["index"] for row in stable_data(hull)["rows"]}
    on_hull = next(trace for trace in figure.data if (trace.name or "").endswith("on the hull"))
    others = next(trace for trace in figure.data if (trace.name or "").endswith("above the hull"))
    assert set(on_hull.customdata) == stable
    assert stable | set(others.customdata) == {entry["index"] for entry in hull["entries"]}
    # Told apart without colours, too.
    assert on_hull.marker.symbol != others.marker.symbol


def test_axes_of_a_binary_have_units():
    figure = valid(figure_of("hull", panel(hull_of(2)), "light"))
    assert figure.layout.yaxis.title.text == "formation energy (meV/atom)"
    assert figure.layout.xaxis.title.text == "fraction of Ag in Cu–Ag"


@pytest.mark.parametrize("n_elements", [2, 3, 4])
def test_tie_lines_join_what_the_facets_join(n_elements):
    hull = hull_of(n_elements)
    figure = valid(figure_of("hull", panel(hull), "light"))
    if n_elements == 2:
        line = next(trace for trace in figure.data if trace.name == "hull")
        assert list(line.x) == sorted(line.x)
        assert len(line.x) == len(hull["edges"]) + 1
    else:
        lines = next(trace for trace in figure.data if trace.name == "tie lines")
        assert len(lines.x) == 3 * len(hull["edges"])


def test_a_tetrahedron_has_the_faces_of_its_facets():
    hull = hull_of(4)
    mesh = valid(figure_of("hull", panel(hull), "light")).data[0]
    faces = {frozenset(f) - {left} for f in hull["facets"] for left in f}
    assert len(mesh.i) == len(faces)


@pytest.mark.parametrize("n_elements", [2, 3, 4])
def test_text_of_the_database_is_no_markup(n_elements):
    text = json.dumps(figure_of("hull", panel(hull_of(n_elements)), "light"))
    assert "<script" not in text
    assert "&lt;script" in text


@pytest.mark.parametrize("n_elements", [2, 3, 4])
def test_the_largest_hull_is_a_small_answer(n_elements):
    hull = hull_of(n_elements, n_entries=1500, n_bins=65 * 60)
    assert len(json.dumps(figure_of("hull", panel(hull), "light"))) < LARGEST_ANSWER


@pytest.mark.parametrize("scheme", THEMES)
def test_figures_of_a_finished_campaign(small_campaign, scheme):
    snapshot = seen_now(small_campaign.store, small_campaign.connection)
    total = 0
    for name in FIGURES:
        assert snapshot.panels[name].trouble == ""
        figure = figure_of(name, snapshot.panels[name], scheme)
        assert len(valid(figure).data) > 0
        total += len(json.dumps(figure))
    assert total < LARGEST_ANSWER


def test_a_figure_is_drawn_once_for_all_viewers():
    shown = panel(hull_of(2))
    assert figure_of("hull", shown, "dark") is figure_of("hull", shown, "dark")
    assert figure_of("hull", shown, "dark") != figure_of("hull", shown, "light")


@pytest.mark.parametrize("name", FIGURES)
def test_data_that_cannot_be_drawn_is_a_sentence(name):
    figure = valid(figure_of(name, panel({"elements": 3}), "light"))
    assert "cannot be drawn" in figure.layout.annotations[0].text.replace("<br>", " ")


def test_trouble_is_said_in_place_of_a_figure():
    figure = valid(figure_of("hull", Panel(None, "no <b>hull</b> yet", "v"), "light"))
    assert figure.layout.annotations[0].text == "no &lt;b&gt;hull&lt;/b&gt; yet"


def test_a_campaign_without_decisions_has_a_funnel():
    levels = [
        {"name": "pool", "n": 400_000, "dropped": {}},
        {"name": "hull", "n": None, "dropped": {}},
    ]
    (bars,) = valid(figure_of("funnel", panel(levels), "light")).data
    assert bars.text == ("<b>400,000</b>", "not decided yet")
    valid(figure_of("funnel", panel([{"name": "pool", "n": None, "dropped": {}}]), "light"))


@pytest.mark.parametrize(
    ("name", "nothing", "said"),
    [
        ("learning", {"potentials": [], "sigmas": []}, "no potential is fitted yet"),
        (
            "grades",
            {"stages": {}, "every": 1, "select_grade": 2.0, "break_grade": 10.0},
            "no structure is relaxed",
        ),
        ("cpu", [], "no processor time"),
    ],
)
def test_a_campaign_that_has_just_begun_says_so(name, nothing, said):
    figure = valid(figure_of(name, panel(nothing), "light"))
    assert said in figure.layout.annotations[0].text


def test_the_picture_says_why_potentials_of_earlier_versions_have_no_errors():
    old = {
        "number": 0, "stage": 1, "level": 6, "n_training": 9, "loss": 0.1,
        "energy_rmse": None, "force_rmse": None,
    }  # fmt: skip
    sigma = {"round": 3, "stage": 1, "sigma": 0.02, "uncertainty": 0.002, "n_structures": 40}
    figure = valid(figure_of("learning", panel({"potentials": [old], "sigmas": [sigma]}), "light"))
    assert [trace.name for trace in figure.data] == ["σ, screen 1", "training set"]
    (star, _) = figure.data
    assert star.y == (20.0,)
    # Two standard errors either way.
    assert star.error_y.array == (4.0,)
    later = [{**old, "number": number} for number in (1, 2)]
    newest = {**old, "number": 3, "energy_rmse": 0.01, "force_rmse": 0.1}
    curves = {"potentials": [old, *later, newest], "sigmas": []}
    figure = valid(figure_of("learning", panel(curves), "light"))
    notes = [(note.yref, note.x) for note in figure.layout.annotations]
    assert notes == [("y domain", 1.0), ("y2 domain", 1.0)]
    assert "rounds 0 to 2" in figure.layout.annotations[0].text
    assert not valid(
        figure_of("learning", panel({"potentials": [newest], "sigmas": []}), "light")
    ).layout.annotations


def test_thresholds_stand_at_their_grades():
    histogram = {
        "stages": {"1": {"grades": [1.0, 3.0], "numbers": [5, 2]}},
        "every": 20, "select_grade": 2.0, "break_grade": 10.0,
    }  # fmt: skip
    figure = valid(figure_of("grades", panel(histogram), "light"))
    assert [shape.x0 for shape in figure.layout.shapes] == [2.0, 10.0]
    assert [note.text for note in figure.layout.annotations] == ["select 2", "break 10"]
    assert "one in 20" in figure.layout.yaxis.title.text


def test_processor_time_adds_up():
    parts = [{"part": "training", "seconds": 75.0}, {"part": "DFT", "seconds": 25.0}]
    (bars,) = valid(figure_of("cpu", panel(parts), "light")).data
    assert bars.text == ("75.0 s (75%)", "25.0 s (25%)")
    large = [{"part": "DFT", "seconds": 720_000.0}]
    figure = valid(figure_of("cpu", panel(large), "light"))
    assert figure.layout.xaxis.title.text == "processor time (h)"
    assert figure.data[0].x == (200.0,)


def crystal(positions, symbols, side=4.0):
    return {
        "index": 7, "symbols": symbols, "elements": ["Cu", "Pd"],
        "cell": (side * np.eye(3)).tolist(), "positions": positions,
    }  # fmt: skip


def test_atoms_on_faces_are_drawn_on_all_of_them():
    figure = valid(crystal_figure(crystal([[0, 0, 0], [2, 2, 2]], ["Cu", "Pd"]), THEMES["light"]))
    edges, copper, palladium = figure.data
    # Twelve edges of two ends and a gap; eight corners; one atom in the middle.
    assert len(edges.x) == 36
    assert (copper.name, len(copper.x)) == ("Cu", 8)
    assert (palladium.name, len(palladium.x)) == ("Pd", 1)
    assert copper.marker.color != palladium.marker.color
    alone = valid(crystal_figure(crystal([[1, 1, 1]], ["Pd"]), THEMES["light"])).data[1]
    assert (alone.name, alone.marker.color) == ("Pd", palladium.marker.color)
    assert figure.layout.scene.xaxis.title.text == "x (Å)"
