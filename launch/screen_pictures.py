"""A hull for a screen: a curve for two metals, a triangle for three, a tetrahedron for four.

Figures are built as objects and written through the Agg or SVG backend, so that nothing here
touches pyplot's global state or needs a display. matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hullscreen.launch.hull_pictures import HullPicture, is_pure, labelled, with_subscripts
from hullscreen.launch.picture_labels import INK
from hullscreen.launch.picture_parts import (
    BLUE,
    GREY,
    SHORT_NAME,
    TETRAHEDRON,
    TRIANGLE,
    CurveStyle,
    draw_curve,
    draw_grid,
    draw_lines,
    draw_unstable,
    label_phases,
    name_elements,
)
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray

PNG_DPI = 200
CURVE = CurveStyle(
    screened="relaxed by the potential",
    unstable="above the hull",
    stable="on the hull",
    areas=(9.0, 26.0, 52.0),
    unstable_edge=1.1,
    stable_edge=0.9,
    curve=1.8,
    zero=0.7,
)
# Of the elements' names from the corners, in points.
ELEMENT_DISTANCE = 18.0
# Rows of a quaternary's table.
TABLE_ROWS = 24


def draw_hull(picture: HullPicture, path: str | Path) -> None:
    """Write a picture of a hull; it appears whole or not at all.

    Parameters
    ----------
    picture
        What to show.
    path
        Ends in ``.png`` or ``.svg``.

    Raises
    ------
    InputError
        Another suffix, or the file cannot be written.
    CompositionError
        The entries have no hull, a pure element is missing for one.
    """
    from hullscreen.potentials.data_files import complete_or_absent

    target = Path(path)
    suffix = target.suffix.lower().removeprefix(".")
    if suffix not in {"png", "svg"}:
        raise InputError(f"expected a picture named .png or .svg, came {target.name}")
    data = _rendered(picture, suffix)
    try:
        with complete_or_absent(target) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}") from error


def _rendered(picture: HullPicture, suffix: str) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The hash salt makes two SVG files of the same hull equal.
    with rc_context({"svg.hashsalt": "hullscreen", "font.size": 11.0, "font.family": "sans-serif"}):
        # One dot is one point while labels are placed; files have their own resolution.
        figure = Figure(figsize=SIZES[len(picture.elements)], dpi=72, facecolor="white")
        FigureCanvasAgg(figure)
        DRAWERS[len(picture.elements)](figure, picture)
        buffer = io.BytesIO()
        metadata = {"Date": None} if suffix == "svg" else {"Software": "hullscreen"}
        figure.savefig(buffer, format=suffix, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()


def _draw_binary(figure: Any, picture: HullPicture) -> None:
    axes = figure.add_axes((0.115, 0.13, 0.86, 0.75))
    axes.set_xlim(-0.045, 1.045)
    name = picture.method or ""
    method = name if 0 < len(name) <= SHORT_NAME else "DFT"
    style = replace(CURVE, unstable=f"{method}, above the hull", stable=f"{method}, on the hull")
    places, corners = draw_curve(axes, picture, style)
    first, second = picture.elements
    axes.set_xlabel(f"fraction of {second} in {first}–{second}")
    axes.set_ylabel("formation energy (meV/atom)")
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
        frameon=False,
        fontsize=10,
        handletextpad=0.2,
        columnspacing=1.6,
        borderaxespad=0.2,
    )
    figure.suptitle(picture.title, x=0.545, y=0.98, fontsize=13.5, color=INK)
    line = places[corners]
    label_phases(
        axes,
        places,
        picture,
        labelled(picture),
        lines=np.stack([line[:-1], line[1:]], axis=1),
        best_degrees=np.full(len(places), 270.0),
    )


def _draw_ternary(figure: Any, picture: HullPicture) -> None:
    axes = figure.add_axes((0.01, 0.01, 0.84, 0.91))
    axes.set_xlim(-0.12, 1.12)
    axes.set_ylim(-0.10, 0.95)
    draw_grid(axes, line_width=0.7)
    _draw_phases(figure, axes, picture, TRIANGLE, line_width=1.0)


def _draw_quaternary(figure: Any, picture: HullPicture) -> None:
    axes = figure.add_axes((0.0, 0.01, 0.56, 0.91))
    axes.set_xlim(-0.12, 1.12)
    axes.set_ylim(-0.12, 1.06)
    _draw_phases(figure, axes, picture, TETRAHEDRON, line_width=0.5)
    compounds = [i for i in labelled(picture) if not is_pure(picture, i)]
    compounds.sort(key=lambda i: float(picture.formation_energies[i]))
    rows = [
        (with_subscripts(picture.labels[i]), f"{1000.0 * picture.formation_energies[i]:.1f}")
        for i in compounds[:TABLE_ROWS]
    ] or [("the elements only", "")]
    if len(compounds) > TABLE_ROWS:
        rows.append((f"and {len(compounds) - TABLE_ROWS} more", ""))
    table = figure.add_axes((0.71, 0.04, 0.26, 0.84))
    table.set_axis_off()
    table.text(0.0, 1.0, "stable phase", fontweight="bold", va="top", color=INK)
    table.text(1.0, 1.0, "meV/atom", fontweight="bold", va="top", ha="right", color=INK)
    for row, (formula, energy) in enumerate(rows, start=1):
        height = 0.98 - row * 0.96 / (TABLE_ROWS + 1)
        table.text(0.0, height, formula, va="top", fontsize=9.5, color=INK)
        table.text(1.0, height, energy.replace("-", "−"), va="top", ha="right", fontsize=9.5)


def _draw_phases(
    figure: Any, axes: Any, picture: HullPicture, corners: FloatArray, line_width: float
) -> None:
    """Tie lines, entries coloured by energy above hull, labels; for triangles and tetrahedra."""
    axes.set_aspect("equal")
    axes.set_axis_off()
    figure.suptitle(picture.title, x=0.5, y=0.975, fontsize=13.5, color=INK)
    places = np.asarray(picture.fractions) @ corners
    stable = np.asarray(picture.is_stable, dtype=bool)
    if picture.background is not None:
        spread = np.unique(np.round(picture.background[0] @ corners, 6), axis=0)
        axes.scatter(
            *spread.T,
            s=5,
            color=GREY,
            linewidths=0,
            zorder=1,
            label="relaxed by the potential only",
        )
    outline, lines = draw_lines(axes, picture, corners, edge_width=1.2, line_width=line_width)
    axes.scatter(
        *places[stable].T,
        s=62,
        color=BLUE,
        edgecolors="white",
        linewidths=1,
        zorder=5,
        label=f"{picture.method}, on the hull",
    )
    axes.legend(loc="upper left", frameon=False, fontsize=9, handletextpad=0.4)
    _draw_heights(figure, axes, picture, places)
    middle = corners.mean(axis=0)
    name_elements(axes, picture.elements, corners, distance=ELEMENT_DISTANCE, font_size=14.0)
    label_phases(
        axes,
        places,
        picture,
        [i for i in labelled(picture) if not is_pure(picture, i)],
        lines=np.concatenate([lines, outline]),
        best_degrees=np.degrees(np.arctan2(*(places - middle).T[::-1])),
    )


def _draw_heights(figure: Any, axes: Any, picture: HullPicture, places: FloatArray) -> None:
    drawn = draw_unstable(axes, picture, places, area=24.0, edge_width=0.35)
    if drawn is None:
        return
    dots, extend = drawn
    width, height = figure.get_size_inches()
    bar_axes = figure.add_axes((axes.get_position().x1, 0.27, 0.14 / width, 2.9 / height))
    bar = figure.colorbar(dots, cax=bar_axes, extend=extend)
    bar.set_label("energy above hull (meV/atom)")
    bar.outline.set_visible(False)


DRAWERS = {2: _draw_binary, 3: _draw_ternary, 4: _draw_quaternary}
# Inches.
SIZES = {2: (7.2, 4.8), 3: (7.6, 6.2), 4: (9.6, 5.6)}
