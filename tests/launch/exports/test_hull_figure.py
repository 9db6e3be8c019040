"""Figures for print: their size, their fonts, where they come from, and labels that can be read."""

import json

import numpy as np
import pytest
from PIL import Image

from hullscreen.launch.exports.figure_style import STYLE, WIDTHS_INCHES
from hullscreen.launch.exports.hull_figure import PRINT_DPI, drawn, figure_bytes
from hullscreen.launch.hull_pictures import HullPicture
from hullscreen.workflows.hull import convex_hull

ELEMENTS = ["Cu", "Ni", "Pt", "Al"]


def made_up(n_elements, n_entries=60, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(6, np.full(n_elements, 1 / n_elements), n_entries)
    counts = np.concatenate([6 * np.eye(n_elements, dtype=int), counts])
    fractions = counts / 6
    energies = -0.4 * (1 - (fractions**2).sum(axis=1)) + rng.gamma(2.0, 0.02, len(counts))
    hull = convex_hull(fractions, energies)
    labels = []
    for row in counts // np.gcd.reduce(counts, axis=1)[:, None]:
        parts = zip(ELEMENTS, row, strict=False)
        labels.append("".join(f"{s}{n if n > 1 else ''}" for s, n in parts if n))
    return HullPicture(
        ELEMENTS[:n_elements],
        fractions,
        hull.formation_energies,
        labels,
        hull.stable,
        hull.energies_above_hull,
        method="EMT",
        background=(fractions, hull.formation_energies + 0.02),
    )


def boxes_of(figure):
    """Boxes of all texts of a figure, in points."""
    renderer = figure.canvas.get_renderer()
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += axes.texts
        texts += axes.get_legend().get_texts() if axes.get_legend() else []
        texts += [axes.xaxis.label, axes.yaxis.label] if axes.axison else []
    return [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text()]


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize(("n_elements", "seed"), [(2, 0), (2, 1), (3, 0), (3, 1), (4, 0)])
def test_nothing_that_is_written_overlaps_or_leaves_the_paper(n_elements, width, seed):
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = drawn(made_up(n_elements, seed=seed), width)
        figure.canvas.draw()
        boxes = boxes_of(figure)
    assert len(boxes) > n_elements
    for i, (text, box) in enumerate(boxes):
        for other, another in boxes[i + 1 :]:
            assert not box.overlaps(another), (text, other)
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0, text
        assert box.y1 <= figure.bbox.y1, text


@pytest.mark.parametrize(("n_elements", "width"), [(2, "single"), (3, "double"), (4, "single")])
def test_as_wide_as_a_column(tmp_path, n_elements, width):
    path = tmp_path / "figure.png"
    path.write_bytes(figure_bytes(made_up(n_elements), width, "png", {}))
    with Image.open(path) as image:
        assert image.width == pytest.approx(WIDTHS_INCHES[width] * PRINT_DPI, abs=1)
        assert image.height < 9 * PRINT_DPI
        pixels = np.asarray(image.convert("L").reduce(4))
    # Mostly white paper, and something on it.
    assert 0.5 < (pixels > 250).mean() < 0.99


@pytest.mark.parametrize("n_elements", [2, 3, 4])
def test_the_elements_alone(n_elements):
    assert figure_bytes(made_up(n_elements, n_entries=0), "single", "svg", {})


def test_a_provisional_figure_says_so():
    final = figure_bytes(made_up(3), "single", "svg", {"Date": None})
    provisional = figure_bytes(made_up(3), "single", "svg", {"Date": None}, finished=False)
    assert b"<!-- provisional -->" in provisional
    assert b"<!-- provisional -->" not in final


def test_fonts_of_the_pdf_are_embedded_and_its_origin_is_in_it(export):
    data = export("hull-figure", "cu-pd.pdf").read_bytes()
    assert b"/FontFile2" in data
    assert b"/Type3" not in data
    assert b"Convex hull of Cu-Pd" in data
    assert b"fingerprint" in data
    assert b'"seed": 0' in data


def test_the_origin_is_in_png_and_svg(export):
    with Image.open(export("hull-figure", "cu-pd.png", "--width", "double")) as image:
        assert json.loads(image.text["Provenance"])["campaign"] == "cu-pd"
        assert "EMT" in image.text["Description"]
    text = export("hull-figure", "cu-pd.svg").read_text(encoding="utf-8")
    assert "Convex hull of Cu-Pd" in text
    assert "fingerprint" in text
