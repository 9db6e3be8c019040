"""Pictures of hulls: written whole, labelled without overlaps, in every number of elements."""

import subprocess
import sys

import numpy as np
import pytest

from hullscreen.launch.hull_pictures import HullPicture, tie_lines, with_subscripts
from hullscreen.launch.picture_labels import place_labels
from hullscreen.launch.picture_parts import energy_range
from hullscreen.launch.screen_pictures import DRAWERS, SIZES, draw_hull
from hullscreen.potentials.errors import CompositionError, InputError
from hullscreen.workflows.hull import convex_hull

ELEMENTS = ["Cu", "Ni", "Pt", "Al", "Pd"]


def made_up(n_elements, n_entries=60, seed=0, depth=0.4, background=True):
    rng = np.random.default_rng(seed)
    elements = ELEMENTS[:n_elements]
    counts = rng.multinomial(6, np.full(n_elements, 1 / n_elements), n_entries)
    counts = np.concatenate([6 * np.eye(n_elements, dtype=int), counts])
    fractions = counts / 6
    energies = -depth * (1 - (fractions**2).sum(axis=1)) + rng.gamma(2.0, 0.02, len(counts))
    hull = convex_hull(fractions, energies)
    labels = []
    for row in counts // np.gcd.reduce(counts, axis=1)[:, None]:
        parts = zip(elements, row, strict=True)
        labels.append("".join(f"{s}{n if n > 1 else ''}" for s, n in parts if n))
    return HullPicture(
        elements,
        fractions,
        hull.formation_energies,
        labels,
        hull.stable,
        hull.energies_above_hull,
        "a hull",
        background=(fractions, hull.formation_energies + 0.02) if background else None,
    )


@pytest.mark.parametrize("n_elements", [2, 3, 4])
@pytest.mark.parametrize("background", [False, True])
def test_a_picture_of_any_number_of_elements(tmp_path, n_elements, background):
    path = tmp_path / "hull.png"
    draw_hull(made_up(n_elements, background=background), path)
    from matplotlib.image import imread

    pixels = imread(path)
    width, height = SIZES[n_elements]
    assert pixels.shape[:2] == (round(200 * height), round(200 * width))
    # Mostly white paper, and something on it.
    white = (pixels[..., :3] > 0.99).all(axis=-1).mean()
    assert 0.5 < white < 0.99
    assert [p.name for p in tmp_path.iterdir()] == ["hull.png"]


def test_svg_files_of_one_hull_are_equal(tmp_path):
    for name in ("a.svg", "b.svg"):
        draw_hull(made_up(3), tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "<svg" in text


@pytest.mark.parametrize("n_elements", [2, 3, 4])
@pytest.mark.parametrize("depth", [-0.4, 0.0, 1e-9])
def test_hulls_of_the_elements_alone(tmp_path, n_elements, depth):
    draw_hull(made_up(n_elements, depth=depth), tmp_path / "hull.png")
    only = made_up(n_elements, n_entries=0, background=False)
    draw_hull(only, tmp_path / "elements.png")
    assert (tmp_path / "elements.png").stat().st_size > 1000


def drawn(picture):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZES[len(picture.elements)], dpi=72)
    FigureCanvasAgg(figure)
    DRAWERS[len(picture.elements)](figure, picture)
    return figure


@pytest.mark.parametrize("n_elements", [2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_labels_of_stable_phases_do_not_overlap(n_elements, seed):
    picture = made_up(n_elements, seed=seed)
    figure = drawn(picture)
    renderer = figure.canvas.get_renderer()
    axes = figure.axes[0]
    boxes = {t.get_text(): t.get_window_extent(renderer) for t in axes.texts if t.get_text()}
    expected = {with_subscripts(picture.labels[i]) for i in np.flatnonzero(picture.is_stable)}
    assert set(boxes) == expected
    names = sorted(boxes)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert not boxes[first].overlaps(boxes[second]), (first, second)
        assert figure.bbox.containsx(boxes[first].x0)
        assert figure.bbox.containsx(boxes[first].x1)
    spots = axes.transData.transform(picture_places(picture, axes))
    for name in set(names) - set(ELEMENTS):
        box = boxes[name]
        inside = (spots > [box.x0, box.y0]) & (spots < [box.x1, box.y1])
        assert not inside.all(axis=1).any(), name


def picture_places(picture, axes):
    """Stable phases in data coordinates, read back from the drawing."""
    return np.asarray(max(axes.collections, key=lambda c: c.get_zorder()).get_offsets())


def test_a_label_without_a_free_place_is_left_out():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2), dpi=72)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    middle = np.full((40, 2), 0.5)
    written = place_labels(
        axes,
        middle,
        ["a long label"] * 40,
        np.zeros(40),
        solid=middle[:1],
        loose=np.zeros((0, 2)),
        lines=np.zeros((0, 2, 2)),
    )
    assert 0 < len(written) < 40


def test_tie_lines_are_the_edges_of_facets():
    fractions = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3]])
    energies = np.array([0.0, 0.0, 0.0, -0.1])
    picture = HullPicture(
        ["Cu", "Ni", "Pt"], fractions, energies, list("abcd"), energies <= 0, 0 * energies
    )
    assert tie_lines(picture).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]


def test_the_energy_axis_shows_the_hull_and_what_is_near():
    low, high = energy_range(np.array([0.0, -100.0, 0.0]), np.array([5.0, 4000.0]))
    assert low < -100.0
    assert high == 50.0
    low, high = energy_range(np.array([0.0, 0.0]), np.array([10.0, 20.0, 30.0]))
    assert low < 0.0 < high
    assert high == 20.0


@pytest.mark.parametrize(
    ("formula", "printed"),
    [("Cu3Pd", "Cu₃Pd"), ("Al12(NiTi)10", "Al₁₂(NiTi)₁₀"), ("Cu", "Cu"), ("AuCu", "AuCu")],
)
def test_subscripts(formula, printed):
    assert with_subscripts(formula) == printed


def test_errors_say_what_to_do(tmp_path):
    picture = made_up(2)
    with pytest.raises(InputError, match=r"named .png or .svg, came hull.pdf"):
        draw_hull(picture, tmp_path / "hull.pdf")
    with pytest.raises(InputError, match="cannot write"):
        draw_hull(picture, tmp_path / "none" / "hull.png")
    with pytest.raises(InputError, match=r"two to four elements .* came Cu, Ni, Pt, Al, Pd"):
        made_up(5)
    with pytest.raises(InputError, match=r"expected is_stable of shape \(2,\) in a picture"):
        HullPicture(["Cu", "Pd"], np.eye(2), np.zeros(2), ["Cu", "Pd"], np.ones(3), np.zeros(2))
    no_copper = HullPicture(
        ["Cu", "Pd"], np.array([[0.0, 1.0]]), np.zeros(1), ["Pd"], np.ones(1, bool), np.zeros(1)
    )
    with pytest.raises(CompositionError, match="pure element number 0"):
        draw_hull(no_copper, tmp_path / "hull.png")
    assert list(tmp_path.iterdir()) == []


def test_the_module_is_imported_without_matplotlib():
    code = (
        "import sys, hullscreen.launch.screen_pictures; "
        "sys.exit('matplotlib' in sys.modules or 'scipy' in sys.modules)"
    )
    import hullscreen.launch

    root = hullscreen.launch.__path__[0].rsplit("/hullscreen/", 1)[0]
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": root}, check=True)
