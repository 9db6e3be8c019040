"""Where the labels of a picture stand: near their points, off the lines, never over one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hullscreen.potentials.structures import FloatArray

INK, LEADER = "#222222", "#777777"
# Tried positions: distances in points, directions in degrees.
DISTANCES = (13.0, 17.0, 22.0, 29.0, 38.0, 50.0)
DIRECTIONS = np.arange(0, 360, 15)
# Penalties of a position: each of the 120 points of a line beneath it, a marker beneath it, a point
# of distance, and a degree away from the best direction. Overlap with another label or with a
# labelled point is never accepted.
LINE_COST, MARKER_COST, DISTANCE_COST, DEGREE_COST = 0.12, 0.6, 0.25, 0.012
POINTS_OF_A_LINE = 120
# A leader joins a label to its point if there is more than this between them, in points.
LEADER_GAP = 11.0
# Font sizes in points: while there are few labels, and never below.
LARGEST, SMALLEST = 11.0, 7.5
FEW_LABELS, SHRINK_PER_LABEL = 12, 0.12
# In print, whatever the scale.
LEGIBLE = 6.0


def place_labels(
    axes: Any,
    anchors: FloatArray,
    texts: Sequence[str],
    best_degrees: FloatArray,
    *,
    solid: FloatArray,
    loose: FloatArray,
    lines: FloatArray,
    scale: float = 1.0,
) -> list[Any]:
    """Write labels beside their points, the first ones with the widest choice.

    The figure must have 72 dots per inch, so that a dot is a point.

    Parameters
    ----------
    axes
        matplotlib axes whose limits are final.
    anchors, texts
        The labelled points in data coordinates, shape (n_labels, 2), and what is written.
    best_degrees
        Direction in which each label stands best, shape (n_labels,).
    solid, loose
        Points that no label may cover, and points that it had better not, shapes (n, 2).
    lines
        Ends of the lines of the picture, shape (n_lines, 2, 2).
    scale
        Of letters and distances, smaller than one in small figures.

    Returns
    -------
    The labels written; one that finds no free place is left out.
    """
    figure = axes.get_figure()
    renderer = figure.canvas.get_renderer()
    # Equal scales on both axes take effect in drawing only, unless they are asked for.
    axes.apply_aspect()
    to_points = axes.transData.transform
    steps = np.linspace(0.0, 1.0, POINTS_OF_A_LINE)[None, :, None]
    ends = to_points(lines.reshape(-1, 2)).reshape(-1, 2, 2)
    traced = (ends[:, None, 0] * (1 - steps) + ends[:, None, 1] * steps).reshape(-1, 2)
    solid, loose = to_points(solid.reshape(-1, 2)), to_points(loose.reshape(-1, 2))
    frame = axes.bbox if axes.axison else figure.bbox
    low_limit = np.array([frame.x0 + 2.0, figure.bbox.y0])
    high_limit = np.array([figure.bbox.x1, figure.bbox.y1])
    size = min(max(LARGEST - SHRINK_PER_LABEL * (len(texts) - FEW_LABELS), SMALLEST), LARGEST)
    size = max(scale * size, LEGIBLE)
    taken = np.zeros((0, 4))
    written = []
    for place, text, best in zip(anchors, texts, best_degrees, strict=True):
        label = axes.annotate(
            text,
            place,
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=INK,
            zorder=8,
        )
        box = label.get_window_extent(renderer)
        half = np.array([box.width, box.height]) / 2 + 0.5
        anchor = to_points(place)
        choice, cheapest = None, np.inf
        for distance in scale * np.array(DISTANCES):
            for degrees in DIRECTIONS:
                way = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
                # Wide labels beside a point stand as clear of it as those above.
                centre = anchor + way * (distance + abs(way[0]) * (half[0] - half[1]))
                low, high = centre - half, centre + half
                if (low < low_limit).any() or (high > high_limit).any():
                    continue
                if ((low < taken[:, 2:]) & (high > taken[:, :2])).all(axis=1).any():
                    continue
                if _count_inside(solid, low - 4.0 * scale, high + 4.0 * scale):
                    continue
                turned = abs((degrees - best + 180.0) % 360.0 - 180.0)
                cost = (
                    LINE_COST * _count_inside(traced, low, high)
                    + MARKER_COST * _count_inside(loose, low - 2.0 * scale, high + 2.0 * scale)
                    + DISTANCE_COST * distance
                    + DEGREE_COST * turned
                )
                if cost < cheapest:
                    choice, cheapest = (centre, distance), cost
        if choice is None:
            label.remove()
            continue
        centre, distance = choice
        label.xyann = tuple(centre - anchor)
        _surround_with_white(label)
        taken = np.append(taken, [[*(centre - half), *(centre + half)]], axis=0)
        written.append(label)
        if distance - half[1] > LEADER_GAP * scale:
            _draw_leader(axes, place, anchor, centre, half)
    return written


def _draw_leader(
    axes: Any, place: FloatArray, anchor: FloatArray, centre: FloatArray, half: FloatArray
) -> None:
    """A thin line from the edge of a label's box to its point."""
    way = anchor - centre
    edge = centre + way * min(half / np.maximum(np.abs(way), 1e-9))
    axes.annotate(
        "",
        place,
        xytext=tuple(edge - anchor),
        textcoords="offset points",
        zorder=4.5,
        arrowprops={
            "arrowstyle": "-",
            "color": LEADER,
            "linewidth": 0.6,
            "shrinkA": 0.0,
            "shrinkB": 3.0,
        },
    )


def _surround_with_white(label: Any) -> None:
    from matplotlib.patheffects import withStroke

    label.set_path_effects([withStroke(linewidth=2.5, foreground="white", alpha=0.85)])


def _count_inside(points: FloatArray, low: FloatArray, high: FloatArray) -> int:
    return int(((points > low) & (points < high)).all(axis=1).sum())
