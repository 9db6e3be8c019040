"""MLIP's text files of potentials: ``.mtp``, version 1.1.0.

Only what the format needs is fixed; the products and the order of basis functions are read from the
file, so potentials of any template, MLIP's or ours, are evaluated as they were trained. Element
names, which the format lacks, are kept in ``potential_tag``.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hullscreen.potentials.basis import Basis
from hullscreen.potentials.errors import FileFormatError, HullscreenError
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.structures import FloatArray

_INTEGERS = re.compile(r"-?\d+")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
# Programs and versions name these differently; ours is the first.
_MIN_DISTANCE = ("min_dist", "min", "min_val")
_CUTOFF = ("max_dist", "max", "max_val")
_BASIS_SIZE = ("radial_basis_size", "size", "basis_size")
ACTIVE_SET_MARK = b"#MVS_v1.1"
"""Where the potential of an ``.almtp`` file ends and its active set begins."""


def read_mtp(path: str | Path, elements: tuple[str, ...] | None = None) -> MomentTensorPotential:
    """Read the potential of a ``.mtp`` or ``.almtp`` file.

    Parameters
    ----------
    elements
        Symbols of the species; by default those of ``potential_tag``, else "X0", "X1", ...

    Raises
    ------
    FileFormatError
        The file cannot be read, a field is missing, or counts disagree.
    """
    path = Path(path)
    try:
        text = path.read_bytes().partition(ACTIVE_SET_MARK)[0].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"cannot read the potential {path}: {error}") from error
    return parse_mtp(text, str(path), elements)


def parse_mtp(
    text: str, source: str, elements: tuple[str, ...] | None = None
) -> MomentTensorPotential:
    """The potential of a ``.mtp`` file's text; ``source`` names it in errors, see `read_mtp`."""
    if not text.startswith("MTP"):
        raise FileFormatError(f"{source} is no .mtp file: expected 'MTP' in its first line")
    fields = {
        key.strip(): value.strip()
        for key, separator, value in (line.partition("=") for line in text.splitlines())
        if separator
    }

    def field(*names: str) -> str:
        for name in names:
            if name in fields:
                return fields[name]
        raise FileFormatError(f"the field {names[0]} is missing")

    try:
        _check_radial_basis(field("radial_basis_type"))
        n_species, n_beta = int(field("species_count")), int(field(*_BASIS_SIZE))
        n_radial = int(field("radial_funcs_count"))
        basis = Basis(
            np.array(_integers(field("alpha_index_basic")), dtype=np.int32).reshape(-1, 4),
            np.array(_integers(field("alpha_index_times")), dtype=np.int32).reshape(-1, 4),
            np.array(_integers(field("alpha_moment_mapping")), dtype=np.int32),
            int(field("alpha_moments_count")),
        )
        _check(basis)
        radial = _radial_coefficients(text, n_species, n_radial, n_beta)
        # The radial functions' count may exceed those that the basis uses.
        return MomentTensorPotential(
            basis,
            elements or _elements(fields.get("potential_tag", ""), n_species),
            float(field(*_MIN_DISTANCE)),
            float(field(*_CUTOFF)),
            radial[:, :, : basis.n_radial],
            np.array(_numbers(field("species_coeffs"))),
            np.array(_numbers(field("moment_coeffs"))),
            float(fields.get("scaling", "1")),
        )
    except (ValueError, HullscreenError) as error:
        raise FileFormatError(f"{source}: {error}") from error


def write_mtp(path: str | Path, potential: MomentTensorPotential) -> None:
    """Write a ``.mtp`` file that MLIP, motep and LAMMPS' MTP styles read."""
    Path(path).write_text(mtp_text(potential))


def mtp_text(potential: MomentTensorPotential) -> str:
    """The text of a ``.mtp`` file; with 17 digits, reading it gives the same potential."""
    basis = potential.basis
    lines = [
        "MTP",
        "version = 1.1.0",
        "potential_name = MTP",
        f"scaling = {potential.scaling:.17g}",
        f"species_count = {len(potential.elements)}",
        f"potential_tag = {' '.join(potential.elements)}",
        "radial_basis_type = RBChebyshev",
        f"\tmin_dist = {potential.min_distance:.17g}",
        f"\tmax_dist = {potential.cutoff:.17g}",
        f"\tradial_basis_size = {potential.radial.shape[3]}",
        f"\tradial_funcs_count = {potential.radial.shape[2]}",
        "\tradial_coeffs",
    ]
    for i, others in enumerate(potential.radial):
        for j, functions in enumerate(others):
            lines.append(f"\t\t{i}-{j}")
            lines += [f"\t\t\t{_braced(function)}" for function in functions]
    lines += [
        f"alpha_moments_count = {basis.n_moments}",
        f"alpha_index_basic_count = {len(basis.basic)}",
        f"alpha_index_basic = {_nested(basis.basic)}",
        f"alpha_index_times_count = {len(basis.products)}",
        f"alpha_index_times = {_nested(basis.products)}",
        f"alpha_scalar_moments = {len(basis.scalars)}",
        f"alpha_moment_mapping = {{{', '.join(map(str, basis.scalars.tolist()))}}}",
        f"species_coeffs = {_braced(potential.shifts)}",
        f"moment_coeffs = {_braced(potential.linear)}",
    ]
    return "\n".join(lines) + "\n"


def _check_radial_basis(kind: str) -> None:
    if kind != "RBChebyshev":
        raise FileFormatError(f"radial basis {kind} is unknown, expected RBChebyshev")


def _check(basis: Basis) -> None:
    """Raise FileFormatError if a kernel would read a moment that is not there or not complete."""
    n_basic, n = len(basis.basic), basis.n_moments
    left, right, _, target = basis.products.T
    named = np.concatenate([left, right, target, basis.scalars])
    strangers = named[(named < 0) | (named >= n)]
    if strangers.size or n_basic > n or not n_basic:
        raise FileFormatError(
            f"moment {strangers[0] if strangers.size else n_basic} is named, "
            f"but there are {n} in all and {n_basic} basic ones"
        )
    if basis.basic.min() < 0:
        raise FileFormatError("alpha_index_basic holds a negative number")
    place = np.arange(len(target))
    last_change = np.full(n, -1)
    np.maximum.at(last_change, target, place)
    early = np.flatnonzero(np.maximum(last_change[left], last_change[right]) >= place)
    if early.size or (target < n_basic).any():
        raise FileFormatError(
            f"alpha_index_times is out of order: product {early[0] if early.size else 0} needs "
            f"a moment that is not complete, or changes a basic one"
        )


def _elements(tag: str, n_species: int) -> tuple[str, ...]:
    names = tuple(tag.split())
    return names if len(names) == n_species else tuple(f"X{i}" for i in range(n_species))


def _integers(text: str) -> list[int]:
    return [int(word) for word in _INTEGERS.findall(text)]


def _numbers(text: str) -> list[float]:
    return [float(word) for word in _NUMBER.findall(text)]


def _radial_coefficients(text: str, n_species: int, n_radial: int, n_beta: int) -> FloatArray:
    block = text.partition("radial_coeffs")[2].partition("alpha_moments_count")[0]
    radial = np.full((n_species, n_species, n_radial, n_beta), np.nan)
    for part in re.split(r"\n\s*(?=\d+-\d+\s*\n)", block)[1:]:
        pair, _, rows = part.partition("\n")
        i, j = (int(word) for word in pair.split("-"))
        values = _numbers(" ".join(re.findall(r"\{[^}]*\}", rows)))
        radial[i, j] = np.reshape(values, (n_radial, n_beta))
    if np.isnan(radial).any():
        raise FileFormatError(f"radial coefficients of some of the {n_species}² pairs are missing")
    return radial


def _braced(values: FloatArray) -> str:
    return "{" + ", ".join(f"{value:.17g}" for value in values) + "}"


def _nested(rows: np.ndarray) -> str:
    return "{" + ", ".join("{" + ", ".join(map(str, row)) + "}" for row in rows.tolist()) + "}"
