"""The hull as a figure for a paper: as wide as a column, small print, fonts embedded, no title.

What `hullscreen.launch.screen_pictures` draws for a screen is drawn here for paper: sizes are
final, in inches and points, and nothing is scaled afterwards. Two elements make a curve, three a
triangle, four a tetrahedron with a table of its stable phases. Provenance is in the metadata.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hullscreen.launch.campaign_picture import campaign_picture
from hullscreen.launch.exports.contents import Contents, one_line
from hullscreen.launch.exports.figure_of_phases import draw_quaternary, draw_ternary
from hullscreen.launch.exports.figure_style import (
    SCALE,
    SMALL_PRINT,
    STYLE,
    WIDTHS_INCHES,
    axes_in_inches,
    said_provisional,
)
from hullscreen.launch.hull_pictures import HullPicture, labelled
from hullscreen.launch.picture_parts import SHORT_NAME, CurveStyle, draw_curve, label_phases
from hullscreen.potentials.structures import FloatArray

PRINT_DPI = 600
# Height of a curve by its width, inches.
BINARY_HEIGHTS = {"single": 2.7, "double": 4.0}
CURVE = CurveStyle(
    screened="potential only",
    unstable="above the hull",
    stable="on the hull",
    areas=(4.0, 11.0, 22.0),
    unstable_edge=0.7,
    stable_edge=0.5,
    curve=1.1,
    zero=0.5,
)


def write(contents: Contents, path: Path) -> None:
    """Write the figure; the suffix tells PDF, SVG or PNG.

    Structures above the hull are shown as far as they were asked for, the stable ones always.
    """
    hull = contents.require_hull()
    picture = campaign_picture(contents.store, hull)
    chosen = {entry.structure_index for entry in contents.entries}
    kept = picture.is_stable | np.array([e.structure_index in chosen for e in hull.entries])
    picture = replace(
        picture,
        fractions=picture.fractions[kept],
        formation_energies=picture.formation_energies[kept],
        labels=[label for label, keep in zip(picture.labels, kept, strict=True) if keep],
        is_stable=picture.is_stable[kept],
        energy_above_hull=picture.energy_above_hull[kept],
    )
    suffix = path.suffix.lower().removeprefix(".")
    metadata = _metadata(contents, suffix)
    path.write_bytes(
        figure_bytes(picture, contents.wanted.width, suffix, metadata, finished=hull.finished)
    )


def figure_bytes(
    picture: HullPicture,
    width: str,
    suffix: str,
    metadata: dict[str, Any],
    *,
    finished: bool = True,
) -> bytes:
    """The file of a figure.

    Parameters
    ----------
    width
        "single" or "double".
    suffix
        "pdf", "svg" or "png".
    metadata
        What matplotlib writes into such a file.
    finished
        Whether the hull is final; else the figure says that it is provisional.
    """
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = drawn(picture, width)
        if not finished:
            said_provisional(figure.axes[0])
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=PRINT_DPI, metadata=metadata)
    return buffer.getvalue()


def drawn(picture: HullPicture, width: str) -> Any:
    """Matplotlib's figure; call it within the context of `STYLE`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # One dot is one point while labels are placed.
    figure = Figure(figsize=(WIDTHS_INCHES[width], 1.0), dpi=72, facecolor="white")
    FigureCanvasAgg(figure)
    drawers = {2: _draw_binary, 3: draw_ternary, 4: draw_quaternary}
    drawers[len(picture.elements)](figure, picture, width)
    return figure


def _draw_binary(figure: Any, picture: HullPicture, width: str) -> None:
    figure.set_size_inches(WIDTHS_INCHES[width], BINARY_HEIGHTS[width])
    axes = axes_in_inches(figure, left=0.60, right=0.08, bottom=0.40, top=0.26)
    axes.set_xlim(-0.05, 1.05)
    places, corners = draw_curve(axes, picture, CURVE)
    first, second = picture.elements
    axes.set_xlabel(f"atomic fraction of {second} in {first}–{second}")
    method = f"{picture.method} " if 0 < len(picture.method) <= SHORT_NAME else ""
    axes.set_ylabel(f"{method}formation energy (meV/atom)")
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
        fontsize=SMALL_PRINT,
        handletextpad=0.1,
        columnspacing=1.2,
        borderaxespad=0.2,
    )
    line = places[corners]
    best_degrees = np.full(len(places), 270.0)
    best_degrees[corners] = _outward(axes.transData.transform(line))
    # Beside the elements there is no room, below them runs the curve.
    best_degrees[corners[[0, -1]]] = 90.0
    label_phases(
        axes,
        places,
        picture,
        labelled(picture),
        lines=np.stack([line[:-1], line[1:]], axis=1),
        best_degrees=best_degrees,
        scale=SCALE,
    )


def _outward(points: FloatArray) -> FloatArray:
    """Directions, in degrees, away from a curve that is convex from below, shape (n_points,)."""
    steps = np.diff(points, axis=0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    along = np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]])
    degrees: FloatArray = np.degrees(np.arctan2(-along[:, 0], along[:, 1]))
    return degrees


def _metadata(contents: Contents, suffix: str) -> dict[str, Any]:
    """Provenance under the names that a kind of file knows."""
    known = contents.provenance
    title = f"Convex hull of {known['chemsys']}"
    origin, text = one_line(contents.origin), contents.provenance_text
    if suffix == "pdf":
        return {"Title": title, "Subject": origin, "Keywords": text, "Creator": "hullscreen"}
    if suffix == "svg":
        # SVG's Dublin Core has a field for where a thing comes from.
        return {"Title": title, "Description": origin, "Source": text, "Creator": "hullscreen"}
    return {"Title": title, "Description": origin, "Provenance": text, "Software": "hullscreen"}
