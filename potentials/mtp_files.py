"""MLIP's text files of potentials: ``.mtp``, version 1.1.0, for MLIP-2 and -3, motep and LAMMPS.

A potential of ours is written with the products and in the order of the published template of its
level (see ``published_order``); with 17 digits nothing is lost. MLIP's and LAMMPS' readers go by
fixed names in a fixed order, one field a line, and know neither comments nor other fields: element
names, which the format lacks, are kept in ``potential_tag``. LAMMPS makes room for a line by the
number of products, which for levels 2 and 4 is too little whoever wrote the file.

Read are files of any template, and the later forms of the fields that motep writes. A published
template comes back with the fewer products of our basis; its functions keep the file's order. Only
a potential that was made here comes back in the order in which it was made: `OUR_NAME` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hullscreen.potentials.basis import Basis
from hullscreen.potentials.errors import FileFormatError, InputError
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.mtp_fields import Fields, radial_coefficients
from hullscreen.potentials.published_order import generated_places, level_of, published_places
from hullscreen.potentials.structures import IndexArray

ACTIVE_SET_MARK = b"#MVS_v1.1"
"""Where the potential of an ``.almtp`` file ends and its active set begins."""
OUR_NAME = "hullscreen"
"""``potential_name`` of files whose functions `read_mtp` puts in the order of `generate_basis`."""
MLIP_NAME = "MTP1m"

# Generating the products of higher levels takes longer than they save.
FEWER_PRODUCTS_UP_TO_LEVEL = 22
# Programs and versions name these differently; ours is the first.
_MIN_DISTANCE = ("min_dist", "min", "min_val")
_CUTOFF = ("max_dist", "max", "max_val")
_BASIS_SIZE = ("radial_basis_size", "size", "basis_size")


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
    try:
        fields = Fields(text)
        kind = fields.text("radial_basis_type")
        if kind != "RBChebyshev":
            raise FileFormatError(f"radial basis {kind} is unknown, expected RBChebyshev")
        if "magnetic_basis_type" in fields:
            raise FileFormatError("the potential is a magnetic one; expected one without moments")
        n_species = fields.count("species_count")
        n_radial, n_beta = fields.count("radial_funcs_count"), fields.count(*_BASIS_SIZE)
        basis, places = _basis(fields)
        radial = radial_coefficients(text, n_species, n_radial, n_beta)
        linear = fields.numbers("moment_coeffs", len(places), "basis functions")
        # The radial functions' count may exceed those that the basis uses.
        return MomentTensorPotential(
            basis,
            elements or _elements(fields.text("potential_tag", default=""), n_species),
            fields.number(*_MIN_DISTANCE),
            fields.number(*_CUTOFF),
            np.ascontiguousarray(radial[:, :, : basis.n_radial]),
            fields.numbers("species_coeffs", n_species, "species"),
            linear[places],
            fields.scaling(),
        )
    except InputError as error:
        raise FileFormatError(f"{source}: {error}") from error


def write_mtp(path: str | Path, potential: MomentTensorPotential) -> None:
    """Write a ``.mtp`` file that MLIP, motep and LAMMPS' MTP styles read.

    Raises
    ------
    InputError
        A parameter is not finite, or the name of a species cannot be written.
    """
    Path(path).write_text(mtp_text(potential))


def mtp_text(potential: MomentTensorPotential) -> str:
    """The text of a ``.mtp`` file, which reads back to the same; errors as in `write_mtp`."""
    for name, values in (
        ("its radial functions", potential.radial),
        ("its species", potential.shifts),
        ("its basis functions", potential.linear),
        ("its scaling and distances", [potential.scaling, potential.cutoff]),
    ):
        strange = np.ravel(values)[~np.isfinite(np.ravel(values))]
        if strange.size:
            raise InputError(
                f"cannot write a potential with {strange[0]} among the coefficients of {name}; "
                f"expected finite numbers, fit it again"
            )
    basis, places, ours = _written_basis(potential)
    lines = [
        "MTP",
        "version = 1.1.0",
        f"potential_name = {OUR_NAME if ours else MLIP_NAME}",
        f"scaling = {_written(potential.scaling)}",
        f"species_count = {len(potential.elements)}",
        f"potential_tag = {_tag(potential.elements)}",
        "radial_basis_type = RBChebyshev",
        f"\tmin_dist = {_written(potential.min_distance)}",
        f"\tmax_dist = {_written(potential.cutoff)}",
        f"\tradial_basis_size = {potential.radial.shape[3]}",
        f"\tradial_funcs_count = {potential.radial.shape[2]}",
        "\tradial_coeffs",
    ]
    for i, others in enumerate(potential.radial):
        for j, functions in enumerate(others):
            lines.append(f"\t\t{i}-{j}")
            lines += [f"\t\t\t{_braced(map(_written, function))}" for function in functions]
    lines += [
        f"alpha_moments_count = {basis.n_moments}",
        f"alpha_index_basic_count = {len(basis.basic)}",
        f"alpha_index_basic = {_braced(map(_braced_row, basis.basic.tolist()))}",
        f"alpha_index_times_count = {len(basis.products)}",
        f"alpha_index_times = {_braced(map(_braced_row, basis.products.tolist()))}",
        f"alpha_scalar_moments = {len(basis.scalars)}",
        f"alpha_moment_mapping = {_braced_row(basis.scalars.tolist())}",
        f"species_coeffs = {_braced(map(_written, potential.shifts))}",
        f"moment_coeffs = {_braced(map(_written, potential.linear[places]))}",
    ]
    return "\n".join(lines) + "\n"


def places_in_file(potential: MomentTensorPotential) -> IndexArray:
    """Which of ``potential.parameters`` is each parameter of the file, shape (n_parameters,)."""
    first = potential.radial.size + potential.shifts.size
    places = _written_basis(potential)[1]
    return np.concatenate([np.arange(first), first + places])


def _written_basis(potential: MomentTensorPotential) -> tuple[Basis, IndexArray, bool]:
    """Basis of the file, number of each of its functions, and whether their order is ours alone."""
    unchanged: IndexArray = np.arange(potential.linear.size)
    found = published_places(potential.basis)
    if found is None:
        return potential.basis, unchanged, False
    published, places = found
    return published, places, not np.array_equal(places, unchanged)


def _basis(fields: Fields) -> tuple[Basis, IndexArray]:
    """The basis to evaluate, and which of the file's functions each of its functions is."""
    rows = []
    for name in ("alpha_index_basic", "alpha_index_times"):
        table = fields.integers(name)
        rows.append(np.array(table, dtype=np.int32).reshape(-1, 4))
        fields.check_count(f"{name}_count", len(table) / 4)
    mapping = np.array(fields.integers("alpha_moment_mapping"), dtype=np.int32)
    fields.check_count("alpha_scalar_moments", len(mapping))
    given = Basis(rows[0], rows[1], mapping, fields.count("alpha_moments_count"))
    _check(given)
    unchanged: IndexArray = np.arange(mapping.size)
    ours = fields.text("potential_name", default="") == OUR_NAME
    if not ours and level_of(given) > FEWER_PRODUCTS_UP_TO_LEVEL:
        return given, unchanged
    found = generated_places(given)
    if found is None:
        return given, unchanged
    generated, places = found
    if ours:
        return generated, places
    scalars = np.empty_like(generated.scalars)
    scalars[places] = generated.scalars
    return Basis(generated.basic, generated.products, scalars, generated.n_moments), unchanged


def _check(basis: Basis) -> None:
    """Raise FileFormatError if a kernel would read a moment that is not there or not complete."""
    n_basic, n = len(basis.basic), basis.n_moments
    if n > n_basic + len(basis.products):
        raise FileFormatError(
            f"alpha_moments_count says {n}, but {n_basic} basic moments and {len(basis.products)} "
            f"products make no more than {n_basic + len(basis.products)}"
        )
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
    return names if len(names) == n_species else _unnamed(n_species)


def _unnamed(n_species: int) -> tuple[str, ...]:
    return tuple(f"X{i}" for i in range(n_species))


def _tag(elements: Sequence[str]) -> str:
    """Names of species for ``potential_tag``; none of those that `read_mtp` gives by itself."""
    for name in elements:
        # Elsewhere "=" separates, and "#" begins a comment or the active set.
        if name.split() != [name] or set("=#") & set(name):
            raise InputError(
                f"the name of a species in a file has no blanks, '=' or '#', came {name!r}; "
                f"give it another one"
            )
    return "" if tuple(elements) == _unnamed(len(elements)) else " ".join(elements)


def _written(value: float) -> str:
    """17 digits, which tell every double from all others."""
    return f"{value:.16e}"


def _braced(texts: map[str]) -> str:
    return "{" + ", ".join(texts) + "}"


def _braced_row(row: Sequence[int]) -> str:
    return _braced(map(str, row))
