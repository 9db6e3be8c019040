"""Sizes and fonts of figures for print, and where their parts stand in inches."""

from __future__ import annotations

from typing import Any

from hullscreen.launch.picture_labels import INK

# One and two columns of most journals: 86 and 178 mm.
WIDTHS_INCHES = {"single": 3.386, "double": 7.008}
PRINT, SMALL_PRINT = 8.0, 7.0
# Of labels beside what they are on a screen.
SCALE = 0.72
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": PRINT,
    "axes.labelsize": PRINT,
    "axes.linewidth": 0.6,
    "xtick.labelsize": SMALL_PRINT,
    "ytick.labelsize": SMALL_PRINT,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    # Whole TrueType fonts in the file: publishers refuse those of type 3.
    "pdf.fonttype": 42,
    "svg.hashsalt": "hullscreen",
}


def axes_in_inches(figure: Any, *, left: float, right: float, bottom: float, top: float) -> Any:
    """Axes that leave margins of so many inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - top) / height,
        )
    )


def said_provisional(axes: Any) -> None:
    """Say that the hull is not final: below a curve, or beside the top of a triangle."""
    curve = axes.axison
    axes.text(
        0.99 if curve else 0.02,
        0.02 if curve else 0.97,
        "provisional",
        transform=axes.transAxes,
        ha="right" if curve else "left",
        va="bottom" if curve else "top",
        fontsize=SMALL_PRINT,
        style="italic",
        color=INK,
    )
