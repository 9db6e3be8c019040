"""Triangle and tetrahedron of a hull for print: tie lines, phases, and heights above the hull."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hullscreen.launch.exports.figure_style import (
    PRINT,
    SCALE,
    SMALL_PRINT,
    WIDTHS_INCHES,
    axes_in_inches,
)
from hullscreen.launch.hull_pictures import HullPicture, is_pure, labelled, with_subscripts
from hullscreen.launch.picture_labels import INK
from hullscreen.launch.picture_parts import (
    BLUE,
    GREY,
    GRID_PERCENT,
    TETRAHEDRON,
    TRIANGLE,
    draw_grid,
    draw_lines,
    draw_unstable,
    label_phases,
    name_elements,
)
from hullscreen.potentials.structures import FloatArray

# Of the elements' names from the corners, in points.
ELEMENT_DISTANCE = 11.0
# Inches: the colour bar with its numbers, the legend, a row of the table.
BAR_HEIGHT, LEGEND_HEIGHT, ROW_HEIGHT = 0.44, 0.20, 0.145
# Of the table: phases that it names, rows of a block at least, and the width of a block in inches.
ROWS, LEAST_ROWS, BLOCK_WIDTH = 40, 10, 1.52
# Half a symbol's width in points.
LETTER = 5.0


def draw_ternary(figure: Any, picture: HullPicture, width: str) -> None:
    """Triangle with the colour bar below; two columns wide, it is as high as a page allows."""
    across = WIDTHS_INCHES[width] if width == "single" else 0.75 * WIDTHS_INCHES[width]
    height = 0.9 * across + BAR_HEIGHT + LEGEND_HEIGHT
    figure.set_size_inches(WIDTHS_INCHES[width], height)
    margin = (WIDTHS_INCHES[width] - across) / 2
    axes = axes_in_inches(figure, left=margin, right=margin, bottom=BAR_HEIGHT, top=LEGEND_HEIGHT)
    axes.set_xlim(-0.09, 1.09)
    axes.set_ylim(-0.09, 0.96)
    draw_grid(axes, line_width=0.5, label=f"every {GRID_PERCENT[0]} at.%")
    compounds = [i for i in labelled(picture) if not is_pure(picture, i)]
    _draw_phases(figure, axes, picture, TRIANGLE, line_width=0.7, entries=compounds)


def draw_quaternary(figure: Any, picture: HullPicture, width: str) -> None:
    """Tetrahedron whose phases are numbered, and a table of them: below it or, if wide, beside."""
    across = WIDTHS_INCHES["single"]
    compounds = [i for i in labelled(picture) if not is_pure(picture, i)]
    compounds.sort(key=lambda i: float(picture.formation_energies[i]))
    rows = [
        (
            str(number),
            with_subscripts(picture.labels[i]),
            f"{1000.0 * picture.formation_energies[i]:.1f}",
        )
        for number, i in enumerate(compounds[:ROWS], start=1)
    ] or [("", "the elements only", "")]
    if len(compounds) > ROWS:
        rows.append(("", f"and {len(compounds) - ROWS} more", ""))
    per_block = max(-(-len(rows) // 2), LEAST_ROWS)
    table = (per_block + 1.5) * ROW_HEIGHT
    wide = width == "double"
    below = 0.0 if wide else table
    height = 0.95 * across + BAR_HEIGHT + LEGEND_HEIGHT + below
    figure.set_size_inches(WIDTHS_INCHES[width], max(height, table + 0.1))
    axes = axes_in_inches(
        figure,
        left=0.0,
        right=WIDTHS_INCHES[width] - across,
        bottom=BAR_HEIGHT + below,
        top=LEGEND_HEIGHT,
    )
    axes.set_xlim(-0.09, 1.09)
    axes.set_ylim(-0.08, 1.04)
    labels = list(picture.labels)
    for number, i in enumerate(compounds[:ROWS], start=1):
        labels[i] = str(number)
    numbered = replace(picture, labels=labels)
    _draw_phases(figure, axes, numbered, TETRAHEDRON, line_width=0.35, entries=compounds[:ROWS])
    top = figure.get_size_inches()[1] - 0.1 if wide else (per_block + 1.2) * ROW_HEIGHT
    for block, start in enumerate(range(0, len(rows), per_block)):
        left = (across + 0.2 if wide else 0.08) + block * (BLOCK_WIDTH + 0.15)
        _write_block(figure, rows[start : start + per_block], left, top)


def _write_block(figure: Any, rows: list[tuple[str, str, str]], left: float, top: float) -> None:
    """Number, formula and formation energy of some phases, its upper left corner in inches."""
    width, height = figure.get_size_inches()
    columns = ((left + 0.15, "right"), (left + 0.22, "left"), (left + BLOCK_WIDTH, "right"))
    for row, texts in enumerate([("", "stable phase", "meV/atom"), *rows]):
        for text, (place, side) in zip(texts, columns, strict=True):
            figure.text(
                place / width,
                (top - row * ROW_HEIGHT) / height,
                text.replace("-", "−"),
                ha=side,
                va="top",
                fontsize=SMALL_PRINT,
                fontweight="normal" if row else "bold",
                color=INK,
            )


def _draw_phases(
    figure: Any,
    axes: Any,
    picture: HullPicture,
    corners: FloatArray,
    *,
    line_width: float,
    entries: list[int],
) -> None:
    """Everything but the grid and the table; ``entries`` carry their labels."""
    axes.set_aspect("equal")
    axes.set_axis_off()
    places = np.asarray(picture.fractions) @ corners
    stable = np.asarray(picture.is_stable, dtype=bool)
    if picture.background is not None:
        spread = np.unique(np.round(picture.background[0] @ corners, 6), axis=0)
        axes.scatter(
            *spread.T, s=2, color=GREY, linewidths=0, zorder=1, label="potential only",
            rasterized=True,
        )  # fmt: skip
    outline, lines = draw_lines(axes, picture, corners, edge_width=0.8, line_width=line_width)
    axes.scatter(
        *places[stable].T,
        s=24,
        color=BLUE,
        edgecolors="white",
        linewidths=0.5,
        zorder=5,
        label="on the hull",
    )
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=4,
        fontsize=SMALL_PRINT,
        handletextpad=0.3,
        handlelength=1.2,
        columnspacing=1.0,
        borderaxespad=0.0,
    )
    _draw_heights(figure, axes, picture, places)
    middle = corners.mean(axis=0)
    names = _covered_by_names(axes, picture.elements, corners)
    label_phases(
        axes,
        places,
        picture,
        entries,
        lines=np.concatenate([lines, outline]),
        best_degrees=np.degrees(np.arctan2(*(places - middle).T[::-1])),
        scale=SCALE,
        covered=names,
    )


def _covered_by_names(axes: Any, elements: Sequence[str], corners: FloatArray) -> FloatArray:
    """Write the elements at the corners; where that is in data coordinates, shape (n, 2)."""
    away = name_elements(axes, elements, corners, distance=ELEMENT_DISTANCE, font_size=PRINT + 1.0)
    axes.apply_aspect()
    to_points = axes.transData
    centres = to_points.transform(corners) + ELEMENT_DISTANCE * away
    # Both letters of a symbol, and what is between them.
    spread = np.array([[-LETTER, 0.0], [0.0, 0.0], [LETTER, 0.0]])
    covered: FloatArray = to_points.inverted().transform((centres[:, None] + spread).reshape(-1, 2))
    return covered


def _draw_heights(figure: Any, axes: Any, picture: HullPicture, places: FloatArray) -> None:
    """Phases above the hull by colour, and the bar that says which colour is which height."""
    drawn = draw_unstable(axes, picture, places, area=10.0, edge_width=0.25)
    if drawn is None:
        return
    dots, extend = drawn
    height = figure.get_size_inches()[1]
    # Where the axes were put, not what an equal aspect leaves of them.
    box = axes.get_position(original=True)
    bar_axes = figure.add_axes(
        (box.x0 + 0.15 * box.width, box.y0 - 0.10 / height, 0.7 * box.width, 0.08 / height)
    )
    bar = figure.colorbar(
        dots,
        cax=bar_axes,
        orientation="horizontal",
        extend=extend,
    )
    bar.set_label("energy above hull (meV/atom)", labelpad=1.0)
    bar.ax.tick_params(pad=1.5, length=2.0)
    bar.outline.set_visible(False)
