"""Potentials and their labels, read back by motep."""

import json

import ase.io
import numpy as np
import pytest

from hullscreen.potentials.data_files import read_frames, read_potential
from hullscreen.workflows.campaign import open_campaign
from hullscreen.workflows.potential_steps import training_set

# Sums of some hundred terms of order one in another order, eV and eV/Å.
ROUNDING = 1e-9


@pytest.fixture(scope="module")
def newest(small_campaign):
    """Number of the newest potential of each stage."""
    known = small_campaign.store.potentials(["number", "stage"])
    return {one["stage"]: one["number"] for one in known}


def test_the_newest_potential_of_each_stage(export, newest, small_campaign):
    folder = export("potential", "potentials")
    assert {path.name for path in folder.glob("*.mtp")} == {
        f"cu-pd-screen-{stage}-round-{number}.mtp" for stage, number in newest.items()
    }
    for stage, number in newest.items():
        text = (folder / f"cu-pd-screen-{stage}-round-{number}.mtp").read_text()
        assert text == small_campaign.store.potential(number).text


def test_motep_finds_the_energies_of_the_potential(export, newest, tmp_path):
    from motep.calculator import MTP
    from motep.io.mlip.cfg import read_cfg
    from motep.io.mlip.mtp import read_mtp

    path = export("potential", "a.mtp", "--stage", "2")
    labels = export("training-set", "labels.cfg", "--stage", "2")
    ours, _ = read_potential(path)
    frames = read_frames(labels, ("Cu", "Pd"))
    result = ours.evaluate(frames.structures)
    theirs = read_mtp(path)
    # motep numbers species by atomic number.
    theirs.species = [29, 46]
    read = read_cfg(labels, index=":", species=["Cu", "Pd"])
    forces = np.split(result.forces, frames.structures.offsets[1:-1])
    for i in (0, len(read) // 2, -1):
        atoms = read[i]
        atoms.calc = MTP(theirs, engine="numpy")
        assert atoms.get_potential_energy() == pytest.approx(result.energies[i], abs=ROUNDING)
        np.testing.assert_allclose(atoms.get_forces(), forces[i], atol=ROUNDING)


def test_the_training_set_is_what_was_learnt(export, newest, small_campaign):
    campaign = open_campaign(small_campaign.store)
    number = max(newest.values())
    expected = training_set(campaign, until=number)
    assert len(expected) == small_campaign.store.potential(number).n_training
    for name in ("labels.extxyz", "labels.cfg"):
        data = read_frames(export("training-set", name), ("Cu", "Pd")).training_set(name)
        np.testing.assert_array_equal(data.structures.positions, expected.structures.positions)
        np.testing.assert_array_equal(data.energies, expected.energies)
        np.testing.assert_array_equal(data.forces, expected.forces)
        # Through the volume and back, eV/Å³.
        np.testing.assert_allclose(data.stresses, expected.stresses, atol=1e-15)
    frames = ase.io.read(export("training-set", "again.extxyz"), index=":")
    energies = [atoms.get_potential_energy() for atoms in frames]
    np.testing.assert_array_equal(energies, expected.energies)
    assert {atoms.info["purpose"] for atoms in frames} >= {"seed"}


def test_an_earlier_potential_and_its_labels(export, small_campaign):
    first = small_campaign.store.potentials(["number"])[0]["number"]
    path = export("potential", "first.mtp", "--potential", first)
    assert path.read_text() == small_campaign.store.potential(first).text
    labels = export("training-set", "first.cfg", "--potential", first)
    n_training = small_campaign.store.potential(first).n_training
    assert len(read_frames(labels).configurations) == n_training


@pytest.fixture
def learnt_now(copied_directory, call, tmp_path):
    """Function: keys and energies of the exported training set, its provenance, what is said."""

    def run():
        path = tmp_path / "labels.extxyz"
        words = ("export", copied_directory, "--format", "training-set", "-o", path, "--force")
        code, _, err = call(*words)
        assert code == 0, err
        frames = ase.io.read(path, index=":")
        found = [(atoms.info["dft_key"], atoms.get_potential_energy()) for atoms in frames]
        return found, json.loads(frames[0].info["provenance"])["training_set"], err

    return run


def test_what_became_of_labels_since_changes_no_training_set(copied_campaign, mongo, learnt_now):
    before, known, err = learnt_now()
    n, number = len(before), max(one["number"] for one in copied_campaign.potentials(["number"]))
    assert known == {
        "potential": number, "n_fitted": n, "n_written": n, "n_put_aside_since": 0
    }  # fmt: skip
    assert "fitted" not in err
    copied_campaign.quarantine(before[-1][0], reason="", judged="range", judged_by="a test")
    # One that had failed, and was computed when the potential was there.
    asked = copied_campaign.selected()[-1]
    other = mongo.database.dft_results.find_one({"key": asked.key}, {"_id": 0})
    mongo.database.dft_results.insert_one({**other, "key": "mended"})
    late = mongo.database.selected.find_one({"round": number}, {"_id": 0})
    mongo.database.selected.insert_one({**late, "number": 10_000, "key": "mended"})
    found, known, err = learnt_now()
    assert found == before
    assert known["n_put_aside_since"] == 1
    assert "remark" not in known


def test_labels_that_are_not_as_they_were_are_said_to_be_lacking(
    copied_campaign, mongo, learnt_now
):
    before, _, _ = learnt_now()
    removed, changed = before[-1][0], before[-2][0]
    copied_campaign.remove_dft(copied_campaign.dft_result(removed))
    mongo.database.dft_results.update_one({"key": changed}, {"$inc": {"energy": 1e-6}})
    found, known, err = learnt_now()
    assert found == before[:-2]
    assert known["n_written"] == known["n_fitted"] - 2
    assert f"2 of the {len(before)} labels that potential" in known["remark"]
    assert known["remark"] in err


def test_a_potential_of_an_earlier_version_does_not_know_its_labels(mongo, learnt_now):
    before, _, _ = learnt_now()
    mongo.database.potentials.update_many({}, {"$unset": {"labels": ""}})
    found, known, err = learnt_now()
    assert found == before
    assert "An earlier version has fitted potential" in known["remark"]
    assert known["remark"] in err


def test_a_potential_that_is_not_there(directory, call, tmp_path):
    words = ("export", directory, "--format", "potential", "--output", tmp_path / "a")
    code, out, err = call(*words, "--potential", "12345")
    assert (code, out) == (2, "")
    assert "has no such potential; by round it has" in err
    code, _, err = call(*words[:-1], tmp_path / "a.mtp")
    assert code == 2
    assert "2 files are asked for" in err
    assert "--stage or --potential" in err
    assert list(tmp_path.iterdir()) == []


def test_before_the_first_fit(copied_directory, mongo, call, tmp_path):
    mongo.database.potentials.delete_many({})
    for form in ("potential", "training-set"):
        words = ("export", copied_directory, "--format", form, "--output", tmp_path / "a.zip")
        words = words if form == "potential" else (*words[:-1], tmp_path / "a.cfg")
        code, out, err = call(*words)
        assert (code, out) == (6, "")
        assert "has fitted no potential yet" in err
