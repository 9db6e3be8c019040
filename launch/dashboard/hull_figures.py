"""Pictures of the hull: a curve for two elements, a triangle for three, a tetrahedron for four.

All functions are pure: plain data in, a figure as plotly's JSON out. A point's ``customdata`` is
the number of its structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hullscreen.launch.dashboard.hull_parts import (
    bin_markers,
    by_composition,
    coloured_points,
    columns_of,
    is_pure,
    label_of,
    labels_outside,
    parted,
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
        tie_lines(hull, theme, TETRAHEDRON),
        coloured_points(others, theme, hull) | place_in(others, TETRAHEDRON),
        points_of(stable, theme, hull, stable=True)
        | place_in(stable, TETRAHEDRON)
        | {
            "mode": "markers+text",
            "text": [label_of(entry) for entry in stable],
            "textposition": "top center",
        },
    ]
    for trace in data[1:]:
        trace["type"] = "scatter3d"
        if "marker" in trace:
            # WebGL draws markers about twice as large as SVG does.
            trace["marker"]["size"] /= 2
    axis = {"visible": False, "showspikes": False}
    return {
        "data": data,
        "layout": layout(
            theme,
            scene={
                "xaxis": axis,
                "yaxis": axis,
                "zaxis": axis,
                "aspectmode": "data",
                "camera": {
                    "eye": {"x": 0.45, "y": -1.75, "z": 0.45},
                    "center": {"x": 0.0, "y": 0.0, "z": -0.08},
                },
            },
            margin={"l": 0, "r": 0, "t": 0, "b": 0},
            # A picture that a viewer has turned stays so when it is brought up to date.
            uirevision="hull",
        ),
    }
