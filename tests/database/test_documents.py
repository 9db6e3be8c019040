"""Documents come back from BSON as they went in, arrays to the last bit."""

import dataclasses
from datetime import UTC, datetime

import bson
import numpy as np
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st

from hullscreen.database.dft_documents import DFTDocument, ReferenceRelaxation
from hullscreen.database.documents import (
    Geometry,
    Prototype,
    Relaxed,
    now,
    pack_species,
    unpack_species,
)

AWARE = CodecOptions(tz_aware=True, tzinfo=UTC)


def through_bson(document):
    return bson.decode(bson.encode(document), codec_options=AWARE)


def awkward_geometry(n_atoms=5):
    """Numbers that a text or a float32 would spoil."""
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(n_atoms, 3))
    positions[0] = [-0.0, 5e-324, 1.0 / 3.0]
    return Geometry(np.nextafter(4.0 * np.eye(3), 5.0), positions)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(st.binary(min_size=72, max_size=72), st.binary(min_size=24, max_size=24))
def test_any_geometry_comes_back_bit_by_bit(cell, positions):
    geometry = Geometry(np.frombuffer(cell).reshape(3, 3), np.frombuffer(positions).reshape(1, 3))
    back = Geometry.from_bson(through_bson(geometry.to_bson()))
    assert same_bits(back.cell, geometry.cell)
    assert same_bits(back.positions, geometry.positions)


def test_arrays_come_back_whatever_their_layout():
    positions = np.asfortranarray(np.arange(12.0).reshape(4, 3))[::-1]
    back = Geometry.from_bson(Geometry(np.eye(3).T, positions).to_bson())
    assert np.array_equal(back.positions, positions)
    assert back.positions.flags.c_contiguous
    assert back.positions.flags.writeable


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_species_come_back(kinds):
    species = np.array(kinds, dtype=np.int32)
    assert same_bits(unpack_species(pack_species(species)), species)


def dft_document(**changes):
    values = {
        "key": "k", "kind": "single_point", "state": "done", "campaign": "c", "purpose": "learn",
        "structure_index": 3, "chemsys": "Cu-Pd", "engine": "e", "numbers": (29, 46, 46, 29, 29),
        "geometry": awkward_geometry(), "energy": 1.0 / 3.0,
        "forces": awkward_geometry().positions, "stress": awkward_geometry().cell,
        "converged": True, "n_evaluations": 4, "cpu_seconds": 0.1,
    }  # fmt: skip
    return DFTDocument(**{**values, **changes})


@pytest.mark.parametrize(
    "document",
    [
        dft_document(),
        dft_document(state="failed", energy=None, forces=None, stress=None, reason="no σ"),
    ],
)
def test_dft_results_come_back(document):
    # MongoDB adds _id, and a newer version may add fields.
    stored = {**through_bson(document.to_bson()), "_id": 1, "of_a_newer_version": True}
    back = DFTDocument.from_bson(stored)
    for entry in dataclasses.fields(DFTDocument):
        mine, theirs = getattr(back, entry.name), getattr(document, entry.name)
        if isinstance(theirs, Geometry):
            assert same_bits(mine.cell, theirs.cell)
            assert same_bits(mine.positions, theirs.positions)
        elif isinstance(theirs, np.ndarray):
            assert same_bits(mine, theirs)
        else:
            assert mine == theirs


def test_reference_relaxations_come_back():
    document = ReferenceRelaxation(
        key="k", state="failed", engine="e", numbers=(29, 46), geometry=awkward_geometry(2),
        energy=None, reason="collapsed", message="It collapsed.", n_evaluations=7, max_steps=200,
        cpu_seconds=0.5, wall_seconds=0.6,
    )  # fmt: skip
    back = ReferenceRelaxation.from_bson(through_bson(document.to_bson()))
    assert dataclasses.replace(back, geometry=None) == dataclasses.replace(document, geometry=None)
    assert same_bits(back.geometry.positions, document.geometry.positions)


def test_nested_geometries_are_documents_of_their_own():
    relaxed = Relaxed(1, 2, "converged", -0.1, 12, 1.5, 3.0, awkward_geometry(), snapshot=None)
    stored = through_bson(relaxed.to_bson())
    assert set(stored["geometry"]) == {"cell", "positions"}
    assert stored["snapshot"] is None
    prototype = Prototype(
        "c", 0, 5, "fcc-1", 2, (1, 1), "CuPd", "Cu-Pd", ("Cu", "Pd"), 2, {"Cu": 1, "Pd": 1},
        np.array([0, 1], dtype=np.int32), awkward_geometry(2),
    )  # fmt: skip
    stored = through_bson(prototype.to_bson())
    assert stored["counts"] == [1, 1]
    assert np.array_equal(unpack_species(stored["species"]), [0, 1])
    assert same_bits(Geometry.from_bson(stored["start"]).positions, prototype.start.positions)


def test_times_survive_bson_as_they_are():
    moment = now()
    assert moment.tzinfo is UTC
    assert through_bson({"at": moment})["at"] == moment
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 10
