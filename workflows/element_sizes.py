"""Sizes of the elements: atomic volumes, bond radii and electronegativities.

Source of the radii: I.-H. Chu, S. Roychowdhury, D. Han, A. Jain, S. P. Ong, Comput. Mater. Sci.
146, 184 (2018); they and the molar volumes are read from pymatgen.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from hullscreen.potentials.errors import InputError
from hullscreen.potentials.structures import FloatArray

CUBIC_ANGSTROM_PER_CM3_PER_MOL = 1.0 / 0.602214076

# No packing of spheres has its nearest neighbours farther apart than fcc: d <= 2^(1/6) v^(1/3).
CLOSEST_PACKING = 2.0 ** (1.0 / 6.0)


@dataclass(frozen=True, eq=False)
class ElementSizes:
    """What the start volume of an alloy is made of; one entry for each element.

    Attributes
    ----------
    volumes
        Atomic volumes of the elements in Å³, shape (n_elements,).
    radii, radius_slopes
        Bond radius in Å, and its change with the spread of electronegativities in the structure.
    pure_stretches
        Factor on the bond radius that gives the close-packed element its atomic volume.
    electronegativities
        Pauling's, shape (n_elements,).
    """

    volumes: FloatArray
    radii: FloatArray
    radius_slopes: FloatArray
    pure_stretches: FloatArray
    electronegativities: FloatArray


@cache
def _tabulated(symbol: str) -> tuple[float, float, float, float]:
    """Atomic volume (Å³, nan if unknown), bond radius, its slope, electronegativity (nan)."""
    from pymatgen.analysis.structure_prediction.volume_predictor import bond_params
    from pymatgen.core.periodic_table import Element

    element = Element(symbol)
    with warnings.catch_warnings():
        # pymatgen warns where it has no value; that case is handled here.
        warnings.simplefilter("ignore", UserWarning)
        molar_volume, electronegativity = element.molar_volume, float(element.X)
    volume = math.nan if molar_volume is None else float(molar_volume)
    volume *= CUBIC_ANGSTROM_PER_CM3_PER_MOL
    entry = bond_params.get(symbol)
    if entry is None:
        return volume, math.nan, 0.0, electronegativity
    return volume, float(entry["r"]), float(entry["k"]), electronegativity


def element_sizes(
    elements: Sequence[str], elemental_volumes: Mapping[str, float] | None = None
) -> ElementSizes:
    """Sizes of the elements of a campaign.

    Parameters
    ----------
    elements
        Element symbols.
    elemental_volumes
        Atomic volumes in Å³ that replace the experimental ones, for instance those of the
        campaign's own DFT; bond radii are scaled with their cube root.

    Raises
    ------
    InputError
        A volume is unknown or not a positive number.
    """
    given = elemental_volumes or {}
    volumes, radii, slopes, negativities = [], [], [], []
    for symbol in elements:
        volume, radius, slope, electronegativity = _tabulated(symbol)
        if symbol in given:
            own = float(given[symbol])
            if not (math.isfinite(own) and own > 0.0):
                raise InputError(f"the volume of {symbol} must be positive (Å³/atom), got {own}")
            stretch = (own / volume) ** (1.0 / 3.0) if math.isfinite(volume) else 1.0
            volume, radius, slope = own, radius * stretch, slope * stretch
        if not math.isfinite(volume):
            raise InputError(
                f"the atomic volume of {symbol} is not known; give it in elemental_volumes (Å³)"
            )
        if not math.isfinite(radius):
            radius = 0.5 * CLOSEST_PACKING * volume ** (1.0 / 3.0)
        volumes.append(volume)
        radii.append(radius)
        slopes.append(slope)
        negativities.append(electronegativity)
    known = [value for value in negativities if math.isfinite(value)]
    # Without a value an element adds nothing to the spread.
    filler = sum(known) / len(known) if known else 0.0
    return ElementSizes(
        np.array(volumes),
        np.array(radii),
        np.array(slopes),
        0.5 * CLOSEST_PACKING * np.cbrt(volumes) / np.array(radii),
        np.array([value if math.isfinite(value) else filler for value in negativities]),
    )
