"""Potentials and their labels, read back by motep."""

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


def test_quarantined_labels_are_left_out(copied_directory, copied_campaign, call, tmp_path):
    number = max(one["number"] for one in copied_campaign.potentials(["number"]))
    one = copied_campaign.selected(round={"$lte": number})[-1]
    before = len(training_set(open_campaign(copied_campaign), until=number))
    copied_campaign.quarantine(one.key, reason="wrong", judged="range", judged_by="a test")
    path = tmp_path / "labels.extxyz"
    words = ("export", copied_directory, "--format", "training-set", "-o", path)
    assert call(*words)[0] == 0
    frames = ase.io.read(path, index=":")
    assert len(frames) == before - 1
    assert one.key not in {atoms.info["dft_key"] for atoms in frames}


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
