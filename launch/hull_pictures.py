"""Pictures of a hull for people: a curve for two metals, a triangle for three, else a tetrahedron.

Blue and vermilion are Okabe and Ito's, and the map runs in lightness from brown to pale yellow:
both stay apart for colour-blind readers and on grey paper. Figures are built as objects and written
through the Agg or SVG backend, so that nothing here touches pyplot's global state or needs a
display. matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hullscreen.launch.picture_labels import INK, place_labels
from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray, IndexArray
from hullscreen.workflows.hull import FRACTION_TOLERANCE, BoolArray, convex_hull

BLUE, VERMILION, GREY, PALE = "#0072B2", "#D55E00", "#B4B4B4", "#DDE6EC"
MAP = "YlOrBr_r"
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
# Structures further above the hull than this share one colour in triangles and tetrahedra, eV/atom.
COLOUR_LIMIT = 0.1
PNG_DPI = 200
# Of the elements' names from the corners, in points.
ELEMENT_DISTANCE = 18.0
# Rows of a quaternary's table.
TABLE_ROWS = 24
NOTHING = np.zeros((0, 2))
# Letters of a method's name that a legend in one row has room for; the title names longer ones.
SHORT_NAME = 8


@dataclass(frozen=True, slots=True, eq=False)
class HullPicture:
    """What a picture of a hull shows.

    Attributes
    ----------
    elements
        Symbols, two to four.
    fractions
        Atomic fractions of the entries, shape (n_entries, n_elements).
    formation_energies
        In eV/atom, shape (n_entries,).
    labels
        A formula for each entry (``Cu3Pd``); those of stable entries are shown.
    is_stable
        Shape (n_entries,).
    energy_above_hull
        In eV/atom, shape (n_entries,).
    title
        Above the picture.
    method
        What gave the energies of the entries, for the legend.
    background
        Fractions (n, n_elements) and formation energies (n,) of structures shown lightly, such as
        everything the potential relaxed.
    """

    elements: Sequence[str]
    fractions: FloatArray
    formation_energies: FloatArray
    labels: Sequence[str]
    is_stable: BoolArray
    energy_above_hull: FloatArray
    title: str = ""
    method: str = "DFT"
    background: tuple[FloatArray, FloatArray] | None = None

    def __post_init__(self) -> None:
        n_entries, n_elements = len(self.labels), len(self.elements)
        if n_elements not in DRAWERS:
            raise InputError(
                f"expected two to four elements in a picture of a hull, "
                f"came {', '.join(self.elements) or 'none'}"
            )
        shapes = {
            "fractions": (np.shape(self.fractions), (n_entries, n_elements)),
            "formation_energies": (np.shape(self.formation_energies), (n_entries,)),
            "is_stable": (np.shape(self.is_stable), (n_entries,)),
            "energy_above_hull": (np.shape(self.energy_above_hull), (n_entries,)),
        }
        if self.background is not None:
            n_others = len(self.background[1])
            shapes["background"] = (np.shape(self.background[0]), (n_others, n_elements))
        for name, (came, expected) in shapes.items():
            if came != expected:
                raise InputError(f"expected {name} of shape {expected} in a picture, came {came}")


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
    target = Path(path)
    suffix = target.suffix.lower().removeprefix(".")
    if suffix not in {"png", "svg"}:
        raise InputError(f"expected a picture named .png or .svg, came {target.name}")
    data = _rendered(picture, suffix)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def with_subscripts(formula: str) -> str:
    """``Cu3Pd`` as it is printed, ``Cu₃Pd``.

    Examples
    --------
    >>> with_subscripts("Al12Ni5")
    'Al₁₂Ni₅'
    """
    return re.sub(r"(?<=[A-Za-z)])\d+", lambda found: found[0].translate(SUBSCRIPTS), formula)


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
    x = np.asarray(picture.fractions)[:, 1]
    energies = 1000.0 * np.asarray(picture.formation_energies)
    stable = np.asarray(picture.is_stable, dtype=bool)
    others = np.zeros(0) if picture.background is None else 1000.0 * picture.background[1]
    axes.set_xlim(-0.045, 1.045)
    axes.set_ylim(*energy_range(energies, np.concatenate([energies[~stable], others])))
    if picture.background is not None:
        axes.scatter(
            picture.background[0][:, 1],
            others,
            s=9,
            color=GREY,
            alpha=0.45,
            linewidths=0,
            label="relaxed by the potential",
            zorder=1,
            rasterized=True,
        )
    axes.axhline(0.0, color=INK, linewidth=0.7, linestyle=(0, (4, 4)), zorder=2)
    name = picture.method or ""
    method = name if 0 < len(name) <= SHORT_NAME else "DFT"
    if not stable.all():
        axes.scatter(
            x[~stable],
            energies[~stable],
            s=26,
            facecolors="white",
            edgecolors=VERMILION,
            linewidths=1.1,
            label=f"{method}, above the hull",
            zorder=3,
        )
    corners = convex_hull(picture.fractions, picture.formation_energies).vertices
    corners = corners[np.argsort(x[corners])]
    axes.plot(x[corners], energies[corners], color=BLUE, linewidth=1.8, zorder=4)
    axes.scatter(
        x[stable],
        energies[stable],
        s=52,
        color=BLUE,
        edgecolors="white",
        linewidths=0.9,
        label=f"{method}, on the hull",
        zorder=5,
        clip_on=False,
    )
    first, second = picture.elements
    axes.set_xlabel(f"fraction of {second} in {first}–{second}")
    axes.set_ylabel("formation energy (meV/atom)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
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
    line = np.stack([x[corners], energies[corners]], axis=1)
    label_phases(
        axes,
        np.stack([x, energies], axis=1),
        picture,
        labelled(picture),
        lines=np.stack([line[:-1], line[1:]], axis=1),
        best_degrees=np.full(len(x), 270.0),
    )


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


def _draw_ternary(figure: Any, picture: HullPicture) -> None:
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    axes = figure.add_axes((0.01, 0.01, 0.84, 0.91))
    axes.set_xlim(-0.12, 1.12)
    axes.set_ylim(-0.10, 0.95)
    for step in np.linspace(0.25, 0.75, 3):
        for i in range(3):
            start = (1 - step) * corners[i] + step * corners[(i + 1) % 3]
            end = (1 - step) * corners[i] + step * corners[(i + 2) % 3]
            axes.plot(*np.stack([start, end]).T, color=PALE, linewidth=0.7, zorder=0)
    _draw_phases(figure, axes, picture, corners, line_width=1.0)


def _draw_quaternary(figure: Any, picture: HullPicture) -> None:
    # A tetrahedron seen a little from above and from the side, so that no two corners coincide.
    corners = np.array([[0.0, 0.14], [0.72, 0.0], [1.0, 0.36], [0.54, 0.95]])
    axes = figure.add_axes((0.0, 0.01, 0.56, 0.91))
    axes.set_xlim(-0.12, 1.12)
    axes.set_ylim(-0.12, 1.06)
    _draw_phases(figure, axes, picture, corners, line_width=0.5)
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
    _draw_unstable(figure, axes, picture, places)
    middle = corners.mean(axis=0)
    for symbol, corner in zip(picture.elements, corners, strict=True):
        away = (corner - middle) / np.linalg.norm(corner - middle)
        axes.annotate(
            symbol,
            corner,
            xytext=tuple(ELEMENT_DISTANCE * away),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=14,
            fontweight="bold",
            color=INK,
            zorder=7,
        )
    label_phases(
        axes,
        places,
        picture,
        [i for i in labelled(picture) if not is_pure(picture, i)],
        lines=np.concatenate([lines, outline]),
        best_degrees=np.degrees(np.arctan2(*(places - middle).T[::-1])),
    )


def _draw_unstable(figure: Any, axes: Any, picture: HullPicture, places: FloatArray) -> None:
    above = 1000.0 * np.asarray(picture.energy_above_hull)
    order = np.flatnonzero(~np.asarray(picture.is_stable, dtype=bool))
    if not len(order):
        return
    # The nearest to the hull lies on top where entries share a composition.
    order = order[np.argsort(-above[order], kind="stable")]
    highest, limit = float(above[order].max()), 1000.0 * COLOUR_LIMIT
    dots = axes.scatter(
        *places[order].T,
        c=above[order],
        s=24,
        cmap=MAP,
        vmin=0.0,
        vmax=min(max(highest, 1.0), limit),
        edgecolors=INK,
        linewidths=0.35,
        zorder=3,
    )
    width, height = figure.get_size_inches()
    bar_axes = figure.add_axes((axes.get_position().x1, 0.27, 0.14 / width, 2.9 / height))
    bar = figure.colorbar(dots, cax=bar_axes, extend="max" if highest > limit else "neither")
    bar.set_label("energy above hull (meV/atom)")
    bar.outline.set_visible(False)


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


def is_pure(picture: HullPicture, entry: int) -> bool:
    """Whether an entry is an element."""
    return bool(np.max(picture.fractions[entry]) > 1.0 - FRACTION_TOLERANCE)


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


def tie_lines(picture: HullPicture) -> IndexArray:
    """Pairs of entries joined by an edge of a facet, shape (n_lines, 2)."""
    facets = convex_hull(picture.fractions, picture.formation_energies).facets
    edges = [facets[:, [i, j]] for i, j in pairs(facets.shape[1])]
    return np.unique(np.concatenate(edges), axis=0)


def pairs(n: int) -> Iterator[tuple[int, int]]:
    """Every two of ``n`` numbers, the smaller one first."""
    return ((i, j) for i in range(n) for j in range(i + 1, n))


def labelled(picture: HullPicture) -> list[int]:
    """Numbers of stable entries, one for each label."""
    first: dict[str, int] = {}
    for i in np.flatnonzero(picture.is_stable).tolist():
        first.setdefault(picture.labels[i], i)
    return list(first.values())


DRAWERS = {2: _draw_binary, 3: _draw_ternary, 4: _draw_quaternary}
# Inches.
SIZES = {2: (7.2, 4.8), 3: (7.6, 6.2), 4: (9.6, 5.6)}
