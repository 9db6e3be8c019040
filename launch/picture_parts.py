"""What pictures of hulls for a screen and figures for print are made of.

Blue and vermilion are Okabe and Ito's, and the map runs in lightness from brown to pale yellow:
both stay apart for colour-blind readers and on grey paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hullscreen.launch.hull_pictures import HullPicture, pairs, tie_lines, with_subscripts
from hullscreen.launch.picture_labels import INK, place_labels
from hullscreen.potentials.structures import FloatArray, IndexArray
from hullscreen.workflows.hull import convex_hull

BLUE, VERMILION, GREY, PALE = "#0072B2", "#D55E00", "#B4B4B4", "#DDE6EC"
MAP = "YlOrBr_r"
# Structures further above the hull than this share one colour in triangles and tetrahedra, eV/atom.
COLOUR_LIMIT = 0.1
TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
# A tetrahedron seen a little from above and from the side, so that no two corners coincide.
TETRAHEDRON = np.array([[0.0, 0.14], [0.72, 0.0], [1.0, 0.36], [0.54, 0.95]])
GRID_PERCENT = (25, 50, 75)
# Letters of a method's name that a legend in one row has room for; the title names longer ones.
SHORT_NAME = 8
NOTHING = np.zeros((0, 2))


@dataclass(frozen=True, slots=True)
class CurveStyle:
    """How the points and lines of two elements are drawn.

    Attributes
    ----------
    screened, unstable, stable
        What the legend calls what the potential relaxed, what lies above the hull and on it.
    areas
        Of these points, in square points.
    unstable_edge, stable_edge, curve, zero
        Widths of lines in points.
    """

    screened: str
    unstable: str
    stable: str
    areas: tuple[float, float, float]
    unstable_edge: float
    stable_edge: float
    curve: float
    zero: float


def draw_curve(axes: Any, picture: HullPicture, style: CurveStyle) -> tuple[FloatArray, IndexArray]:
    """Draw the hull of two elements and what lies above it; the limits of x are set before.

    Returns
    -------
    Places of the entries, fraction of the second element and meV/atom, shape (n_entries, 2), and
    the corners of the hull from left to right.
    """
    x = np.asarray(picture.fractions)[:, 1]
    energies = 1000.0 * np.asarray(picture.formation_energies)
    stable = np.asarray(picture.is_stable, dtype=bool)
    others = np.zeros(0) if picture.background is None else 1000.0 * picture.background[1]
    axes.set_ylim(*energy_range(energies, np.concatenate([energies[~stable], others])))
    if picture.background is not None:
        axes.scatter(
            picture.background[0][:, 1],
            others,
            s=style.areas[0],
            color=GREY,
            alpha=0.45,
            linewidths=0,
            label=style.screened,
            zorder=1,
            rasterized=True,
        )
    axes.axhline(0.0, color=INK, linewidth=style.zero, linestyle=(0, (4, 4)), zorder=2)
    if not stable.all():
        axes.scatter(
            x[~stable],
            energies[~stable],
            s=style.areas[1],
            facecolors="white",
            edgecolors=VERMILION,
            linewidths=style.unstable_edge,
            label=style.unstable,
            zorder=3,
        )
    corners = convex_hull(picture.fractions, picture.formation_energies).vertices
    corners = corners[np.argsort(x[corners])]
    axes.plot(x[corners], energies[corners], color=BLUE, linewidth=style.curve, zorder=4)
    axes.scatter(
        x[stable],
        energies[stable],
        s=style.areas[2],
        color=BLUE,
        edgecolors="white",
        linewidths=style.stable_edge,
        label=style.stable,
        zorder=5,
        clip_on=False,
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return np.stack([x, energies], axis=1), corners


def energy_range(energies: FloatArray, unstable: FloatArray) -> tuple[float, float]:
    """Limits of a binary's energy axis, meV/atom: the hull, and what lies not far above it."""
    lowest = min(float(energies.min()), 0.0)
    positive = unstable[unstable > 0]
    if lowest < -1.0:
        # As far above zero as half the hull's depth.
        top = -0.5 * lowest
    else:
        top = max(float(np.median(positive)), 1.0) if len(positive) else 10.0
    if len(positive):
        top = min(top, 1.1 * float(positive.max()))
    top = max(top, -0.12 * lowest, 1.0)
    return lowest - 0.16 * (top - lowest), top


def draw_grid(axes: Any, *, line_width: float, label: str = "") -> None:
    """Draw lines of equal fractions in a triangle."""
    for percent in GRID_PERCENT:
        step = percent / 100
        for i in range(3):
            start = (1 - step) * TRIANGLE[i] + step * TRIANGLE[(i + 1) % 3]
            end = (1 - step) * TRIANGLE[i] + step * TRIANGLE[(i + 2) % 3]
            axes.plot(
                *np.stack([start, end]).T, color=PALE, linewidth=line_width, zorder=0, label=label
            )
            label = ""


def draw_lines(
    axes: Any, picture: HullPicture, corners: FloatArray, *, edge_width: float, line_width: float
) -> tuple[FloatArray, FloatArray]:
    """Draw the edges of a triangle or tetrahedron and its tie lines.

    Parameters
    ----------
    corners
        Places of the pure elements, shape (n_elements, n_dimensions).
    edge_width, line_width
        In points.

    Returns
    -------
    Ends of the edges and of the tie lines, each of shape (n_lines, 2, n_dimensions).
    """
    outline = np.stack([corners[[i, j]] for i, j in pairs(len(corners))])
    for start, end in outline:
        axes.plot(*np.stack([start, end]).T, color=INK, linewidth=edge_width, zorder=2)
    lines: FloatArray = (np.asarray(picture.fractions) @ corners)[tie_lines(picture)]
    for number, (start, end) in enumerate(lines):
        axes.plot(
            *np.stack([start, end]).T,
            color=BLUE,
            linewidth=line_width,
            alpha=0.7,
            zorder=2,
            label="" if number else "tie line",
        )
    return outline, lines


def draw_unstable(
    axes: Any, picture: HullPicture, places: FloatArray, *, area: float, edge_width: float
) -> tuple[Any, str] | None:
    """Draw what lies above the hull in colours of its height.

    Returns
    -------
    What a colour bar is made of, and its ``extend``; None where everything is stable.
    """
    above = 1000.0 * np.asarray(picture.energy_above_hull)
    order = np.flatnonzero(~np.asarray(picture.is_stable, dtype=bool))
    if not len(order):
        return None
    # The nearest to the hull lies on top where entries share a composition.
    order = order[np.argsort(-above[order], kind="stable")]
    highest, limit = float(above[order].max()), 1000.0 * COLOUR_LIMIT
    dots = axes.scatter(
        *places[order].T,
        c=above[order],
        s=area,
        cmap=MAP,
        vmin=0.0,
        vmax=min(max(highest, 1.0), limit),
        edgecolors=INK,
        linewidths=edge_width,
        zorder=3,
    )
    return dots, "max" if highest > limit else "neither"


def name_elements(
    axes: Any, elements: Sequence[str], corners: FloatArray, *, distance: float, font_size: float
) -> FloatArray:
    """Write the elements outside the corners, ``distance`` points away.

    Returns
    -------
    Directions from the corners to the names, of length one, shape (n_elements, 2).
    """
    away: FloatArray = corners - corners.mean(axis=0)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    for symbol, corner, way in zip(elements, corners, away, strict=True):
        axes.annotate(
            symbol,
            corner,
            xytext=tuple(distance * way),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=font_size,
            fontweight="bold",
            color=INK,
            zorder=7,
        )
    return away


def label_phases(
    axes: Any,
    places: FloatArray,
    picture: HullPicture,
    entries: list[int],
    *,
    lines: FloatArray,
    best_degrees: FloatArray,
    scale: float = 1.0,
    covered: FloatArray = NOTHING,
) -> None:
    """Write formulas of ``entries``, those with the deepest energies first.

    Parameters
    ----------
    axes, picture
        Where, and of what.
    places
        Of all entries, in data coordinates, shape (n_entries, 2).
    lines, best_degrees, scale
        See `place_labels`; a direction for each entry.
    covered
        Further points that no label may cover, in data coordinates, shape (n, 2).
    """
    stable = np.asarray(picture.is_stable, dtype=bool)
    chosen = sorted(entries, key=lambda i: float(picture.formation_energies[i]))
    place_labels(
        axes,
        places[chosen],
        [with_subscripts(picture.labels[i]) for i in chosen],
        best_degrees[chosen],
        solid=np.concatenate([places[stable], covered]),
        loose=places[~stable],
        lines=lines,
        scale=scale,
    )
