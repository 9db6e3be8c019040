import gzip
import itertools
import json
import math
import re
import warnings

import numpy as np
import pytest

from hullscreen.potentials.errors import InputError
from hullscreen.workflows import aflow_prototypes as module
from hullscreen.workflows.aflow_prototypes import aflow_decorations, aflow_prototypes
from hullscreen.workflows.same_basin import same_crystal

# Prototypes that are the same crystal with two of their species exchanged.
SYMMETRIC_BINARIES = {
    *["AB_cF8_216_c_a", "AB_cF8_225_a_b", "AB_cP2_221_b_a", "AB_hP2_187_d_a", "AB_hR2_166_a_b"],
    *["AB_oF8_69_a_b", "AB_oI4_44_a_b", "AB_oP2_25_b_a", "AB_tP2_123_a_d", "AB_cF16_227_a_b"],
    *["AB_hP4_186_b_b", "AB_hP4_194_c_d", "AB_oP4_51_e_f", "AB_tI8_141_a_b", "AB_cP6_221_c_d"],
    *["AB_hR6_160_3a_3a", "AB_hP12_186_a2b_a2b"],
}
SYMMETRIC_TERNARIES = {
    *["ABC_cF12_216_b_c_a", "ABC_hP3_187_a_d_f", "AB2C_cF16_225_a_c_b", "ABC_hP6_194_c_d_a"],
}


@pytest.fixture(scope="module")
def library():
    return json.loads(gzip.decompress(module._library_file().read_bytes()))


def test_the_whole_library_is_read_primitive_and_named(library):
    prototypes = aflow_prototypes()
    assert len(prototypes) == len(library) == 288
    assert len({prototype.label for prototype in prototypes}) == 288
    assert sorted(prototype.n_atoms for prototype in prototypes) == sorted(
        len(entry["snl"]["sites"]) for entry in library
    )
    for prototype in prototypes:
        # One Å³ per atom, right-handed.
        assert np.linalg.det(prototype.cell) == pytest.approx(prototype.n_atoms, rel=1e-9)


def test_letters_of_the_label_count_the_species():
    for prototype in aflow_prototypes():
        formula = prototype.label.split("_")[0]
        if formula == "sigma":
            continue
        atoms = [int(number or 1) for number in re.findall(r"[A-Z](\d*)", formula)]
        units = math.gcd(*np.bincount(prototype.species).tolist())
        np.testing.assert_array_equal(np.bincount(prototype.species), np.array(atoms) * units)


def test_shared_labels_get_the_strukturbericht_symbol_or_the_mineral():
    labels = {prototype.label for prototype in aflow_prototypes()}
    assert {"A_tI2_139_a.A6", "AB_oP8_62_c_c.B27", "A_hR2_166_c.rhombohedral_graphite"} <= labels
    assert "AB_cF8_216_c_a" in labels


def test_a_ternary_has_1329_assignments_of_which_63_repeat_another():
    decorations = aflow_decorations(3, max_atoms=20)
    repeats = [name for name, why in decorations.left_out.items() if why.startswith("the same")]
    assert len(decorations.labels) + len(repeats) == 1329
    assert len(repeats) == 3 * len(SYMMETRIC_BINARIES) + 3 * len(SYMMETRIC_TERNARIES) == 63
    exchanged = {name.rsplit("-", 1)[0] for name in repeats}
    assert exchanged == SYMMETRIC_BINARIES | SYMMETRIC_TERNARIES
    assert len(set(decorations.labels)) == len(decorations.structures) == 1266


def test_nothing_is_left_out_silently():
    for n_colours, max_atoms in ((1, 20), (2, 12), (3, 20), (4, 8)):
        decorations = aflow_decorations(n_colours, max_atoms, {"fcc": 8, "bcc": 8, "hcp": 8})
        names = set(decorations.labels) | set(decorations.left_out)
        for prototype in aflow_prototypes():
            if prototype.label in decorations.left_out:
                continue
            for colours in itertools.permutations(range(n_colours), prototype.n_species):
                assert f"{prototype.label}-{''.join(map(str, colours))}" in names
        assert not set(decorations.labels) & set(decorations.left_out)


def test_no_two_decorations_are_one_crystal():
    # The peer: pymatgen's matcher at tolerances a tenth of a per cent wide.
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Lattice, Structure

    matcher = StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.1, primitive_cell=False)
    decorations = aflow_decorations(2, max_atoms=12)
    buckets = {}
    for i in range(len(decorations.labels)):
        cell, positions, kinds = decorations.structures.one(i)
        structure = Structure(
            Lattice(cell), [("Cu", "Au")[k] for k in kinds], positions, coords_are_cartesian=True
        )
        buckets.setdefault(structure.composition, []).append(structure)
    for bucket in buckets.values():
        for one, other in itertools.combinations(bucket, 2):
            assert not matcher.fit(one, other)


def test_repeats_are_what_they_are_said_to_be():
    prototypes = {prototype.label: prototype for prototype in aflow_prototypes()}
    left_out = aflow_decorations(3, 20).left_out
    for name, why in left_out.items():
        if not why.startswith("the same crystal as "):
            continue
        pair = []
        for decoration in (name, why.removeprefix("the same crystal as ")):
            label, digits = decoration.rsplit("-", 1)
            prototype = prototypes[label]
            kinds = np.array([int(digit) for digit in digits])[prototype.species]
            pair += [prototype.cell, prototype.positions, kinds]
        assert same_crystal(*pair, length_tolerance=2e-3, position_tolerance=5e-3)


def test_derivative_structures_of_the_pool_are_not_repeated():
    prototypes = {"A_cF4_225_a": "fcc", "AB3_cP4_221_a_c": "fcc", "AB_cP2_221_b_a": "bcc"}
    alone = aflow_decorations(2, 20)
    beside = aflow_decorations(2, 20, {"fcc": 4, "bcc": 4})
    for label, lattice in prototypes.items():
        assert any(name.startswith(label + "-") for name in alone.labels)
        assert beside.left_out[label] == f"a derivative structure of {lattice}"
    # Larger cells than those of the pool stay, and so does hcp with a real metal's axial ratio.
    assert any(name.startswith("A7B_cF32_225_bd_a-") for name in beside.labels)
    assert any(
        name.startswith("A_hP2_194_c-") for name in aflow_decorations(2, 20, {"hcp": 8}).labels
    )


def test_order_is_small_cells_first_and_repeatable():
    first, second = aflow_decorations(3, 20), aflow_decorations(3, 20)
    assert first.labels == second.labels
    assert (np.diff(first.structures.n_atoms) >= 0).all()


def test_reading_raises_no_warning():
    aflow_prototypes.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(aflow_prototypes()) == 288


def test_a_pymatgen_without_the_library(monkeypatch):
    monkeypatch.setattr(module, "LIBRARY_FILES", ("nothing.json.gz",))
    with pytest.raises(InputError, match="ships no AFLOW prototypes"):
        module._library_file()


def test_no_colours():
    with pytest.raises(InputError, match="n_colours must be at least 1, got 0"):
        aflow_decorations(0)
