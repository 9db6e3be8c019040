"""Pictures of the hull: a curve for two elements, a triangle for three, a tetrahedron for four.

All functions are pure: plain data in, a figure as plotly's JSON out. A point's ``customdata`` is
the number of its structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hullscreen.launch.dashboard.hull_data import parted
from hullscreen.launch.dashboard.hull_parts import (
    bin_markers,
    by_composition,
    coloured_points,
    columns_of,
    is_pure,
    label_of,
    labels_outside,
    place_in,
    place_in_binary,
    points_of,
    said_numbers,
    tie_lines,
)
from hullscreen.launch.dashboard.theme import Theme, escaped, layout

TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
TETRAHEDRON = np.array(
    [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.75**0.5, 0.0], [0.5, 0.75**0.5 / 3, (2 / 3) ** 0.5]]
)
# Pairs of its corners, as one line with gaps.
EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
# From where it is seen first, so that no corner hides another and few edges cross; the middle of
# what is seen then; and its size. All in plotly's units, in which the panel is about two high.
EYE, MIDDLE, SIZE = np.array([0.78, -0.77, 0.51]), np.array([-0.14, -0.22, -0.12]), 1.5
# Of the elements' symbols from the corners of the triangle, pixels.
OF_CORNERS = ((-16, -12), (16, -12), (0, 16))

Figure = dict[str, Any]
Plain = Mapping[str, Any]


def hull_figure(hull: Plain, theme: Theme) -> Figure:
    """The hull of two, three or four elements.

    Parameters
    ----------
    hull
        As `hullscreen.launch.dashboard.hull_data.hull_data` gives it.
    """
    drawers = {2: _binary, 3: _ternary, 4: _quaternary}
    return drawers[len(hull["elements"])](hull, theme)


def _binary(hull: Plain, theme: Theme) -> Figure:
    first, second = hull["elements"]
    entries, background = hull["entries"], hull["background"]
    stable, others = parted(entries)
    corners = sorted({place for edge in hull["edges"] for place in edge})
    line = sorted((entries[place]["fractions"][1], entries[place]) for place in corners)
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "relaxed by the potential",
            "x": [fractions[1] for fractions in background["fractions"]],
            "y": [1e3 * energy for energy in background["energies"]],
            "text": said_numbers(background["numbers"]),
            "marker": bin_markers(background["numbers"], theme),
            "hovertemplate": "%{text}<br>about %{y:.0f} meV/atom<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "hull",
            "x": [x for x, _ in line],
            "y": [1e3 * entry["formation_energy"] for _, entry in line],
            "line": {"color": theme.first, "width": 2},
            "hoverinfo": "skip",
            "showlegend": False,
        },
        points_of(others, theme, hull, stable=False) | place_in_binary(others),
        points_of(stable, theme, hull, stable=True)
        | place_in_binary(stable)
        | {
            "mode": "markers+text",
            "cliponaxis": False,
            "text": [label_of(entry) for entry in stable],
            "textposition": "bottom center",
        },
    ]
    depth = min((1e3 * entry["formation_energy"] for entry in entries), default=-10.0)
    title = f"fraction of {second} in {first}–{second}"
    return {
        "data": data,
        "layout": layout(
            theme,
            xaxis={"title": {"text": title, "standoff": 8}, "range": [-0.04, 1.04]},
            yaxis={
                "title": {"text": "formation energy (meV/atom)", "standoff": 8},
                # As far above zero as half the hull's depth, and room for labels below.
                "range": [1.22 * depth - 2.0, max(-0.6 * depth, 10.0)],
            },
            hovermode="closest",
        ),
    }


def _ternary(hull: Plain, theme: Theme) -> Figure:
    entries, background = hull["entries"], hull["background"]
    stable, others = parted(entries)
    spread = by_composition(background)
    x, y = columns_of([place for place, _ in spread], TRIANGLE)
    numbers = [n for _, n in spread]
    outline = columns_of([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], TRIANGLE)
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": outline[0],
            "y": outline[1],
            "line": {"color": theme.ink, "width": 1.5},
            "hoverinfo": "skip",
            "showlegend": False,
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "relaxed by the potential",
            "x": x,
            "y": y,
            "text": said_numbers(numbers),
            "marker": bin_markers(numbers, theme),
            "hovertemplate": "%{text}<extra></extra>",
        },
        tie_lines(hull, theme, TRIANGLE),
        coloured_points(others, theme, hull) | place_in(others, TRIANGLE),
        points_of(stable, theme, hull, stable=True) | place_in(stable, TRIANGLE),
    ]
    compounds = [entry for entry in stable if not is_pure(entry)]
    corners = [
        {
            "x": float(corner[0]),
            "y": float(corner[1]),
            "xshift": shift[0],
            "yshift": shift[1],
            "text": f"<b>{escaped(symbol)}</b>",
            "showarrow": False,
            "font": {"size": 16, "color": theme.ink},
        }
        for symbol, corner, shift in zip(hull["elements"], TRIANGLE, OF_CORNERS, strict=True)
    ]
    return {
        "data": data,
        "layout": layout(
            theme,
            xaxis={"visible": False, "range": [-0.13, 1.13]},
            yaxis={"visible": False, "range": [-0.1, 0.98], "scaleanchor": "x"},
            annotations=[*corners, *labels_outside(compounds, TRIANGLE, theme)],
            hovermode="closest",
        ),
    }


def _quaternary(hull: Plain, theme: Theme) -> Figure:
    entries = hull["entries"]
    stable, others = parted(entries)
    corners = {i for facet in hull["facets"] for i in facet}
    order = sorted(corners)
    places = columns_of([entries[i]["fractions"] for i in order], TETRAHEDRON)
    number = {i: place for place, i in enumerate(order)}
    faces = sorted(
        {
            tuple(sorted(number[i] for k, i in enumerate(facet) if k != left))
            for facet in hull["facets"]
            for left in range(4)
        }
    )
    data: list[Figure] = [
        {
            "type": "mesh3d",
            **dict(zip("xyz", places, strict=True)),
            **{name: [face[k] for face in faces] for k, name in enumerate("ijk")},
            "color": theme.first,
            "opacity": 0.03,
            "hoverinfo": "skip",
            "name": "faces",
            "showlegend": False,
        },
        _outline(theme),
        tie_lines(hull, theme, TETRAHEDRON),
        coloured_points(others, theme, hull) | place_in(others, TETRAHEDRON),
        points_of(stable, theme, hull, stable=True)
        | place_in(stable, TETRAHEDRON)
        | {
            "mode": "markers+text",
            "text": [
                f"<b>{label_of(entry)}</b>" if is_pure(entry) else label_of(entry)
                for entry in stable
            ],
            "textposition": _outward(stable),
            "textfont": {"size": [16 if is_pure(entry) else 12 for entry in stable]},
        },
    ]
    for trace in data[1:]:
        trace["type"] = "scatter3d"
        if "marker" in trace:
            # WebGL draws markers larger than SVG does.
            trace["marker"]["size"] /= 2.5
    axis = {"visible": False, "showspikes": False}
    return {
        "data": data,
        "layout": layout(
            theme,
            scene={
                "xaxis": axis,
                "yaxis": axis,
                "zaxis": axis,
                "aspectmode": "manual",
                "aspectratio": dict(
                    zip("xyz", (SIZE * TETRAHEDRON.max(axis=0)).tolist(), strict=True)
                ),
                "camera": {
                    "eye": dict(zip("xyz", (MIDDLE + EYE).tolist(), strict=True)),
                    "center": dict(zip("xyz", MIDDLE.tolist(), strict=True)),
                    "projection": {"type": "orthographic"},
                },
            },
            margin={"l": 0, "r": 0, "t": 0, "b": 0},
            # Markers of three dimensions are too small for a legend.
            legend={"itemsizing": "constant"},
            # A picture that a viewer has turned stays so when it is brought up to date.
            uirevision="hull",
        ),
    }


def _outline(theme: Theme) -> Figure:
    """The edges of the tetrahedron."""
    lines: dict[str, list[float | None]] = {
        axis: [value for pair in EDGES for value in (*TETRAHEDRON[list(pair), k].tolist(), None)]
        for k, axis in enumerate("xyz")
    }
    return {
        "mode": "lines",
        **lines,
        "line": {"color": theme.ink, "width": 4},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _outward(entries: Sequence[Plain]) -> list[str]:
    """On which side of each point its label stands, so that it leaves the tetrahedron."""
    across = np.array([-EYE[1], EYE[0], 0.0]) / np.hypot(*EYE[:2])
    places = np.array([entry["fractions"] for entry in entries]) @ TETRAHEDRON @ across
    middle = float((TETRAHEDRON @ across).mean())
    return ["middle left" if place < middle else "middle right" for place in places]
