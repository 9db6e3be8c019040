"""Names of prototypes that break lines, quotes, markup and paths break no format."""

import csv
import json
import re
import sqlite3
import zipfile

import ase.db
import ase.io
import pytest
from monty.serialization import loadfn
from pymatgen.core import Structure

from hullscreen.potentials.data_files import read_frames
from hullscreen.workflows.results import final_hull


@pytest.fixture
def exported(copied_directory, hostile_names, call, tmp_path):
    """Function that exports the campaign with hostile names and returns the path."""

    def run(form, name):
        path = tmp_path / "exports" / name
        path.parent.mkdir(exist_ok=True)
        code, _, err = call("export", copied_directory, "-o", path, "--format", form)
        assert code == 0, err
        # Nothing was written beside it.
        assert [one.name for one in path.parent.iterdir()] == [name]
        return path

    return run


def test_several_structures_make_all_names(hostile_names):
    assert len(set(hostile_names.values())) >= 18


def test_json_formats_keep_every_name(exported, hostile_names):
    entries = loadfn(exported("entries", "entries.json"))
    assert {e.data["structure_index"]: e.data["prototype"] for e in entries} == hostile_names


def test_optimade_keeps_every_name(exported, hostile_names):
    lines = exported("optimade", "a.jsonl").read_text(encoding="utf-8").split("\n")
    found = [json.loads(line)["attributes"] for line in lines[2:-1]]
    names = {one["_hullscreen_structure_index"]: one["_hullscreen_prototype"] for one in found}
    assert names == hostile_names


def test_the_database_keeps_every_name(exported, hostile_names):
    path = exported("ase-db", "a.db")
    with ase.db.connect(path) as database:
        names = {row.structure_index: row.data["prototype"] for row in database.select()}
    assert names == hostile_names
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_the_table_keeps_its_rows_and_holds_no_formula(exported, hostile_names):
    text = exported("csv", "a.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()[2:], quoting=csv.QUOTE_NONNUMERIC))
    assert sorted(int(row["structure_index"]) for row in rows) == sorted(hostile_names)
    assert len(rows) == len(hostile_names)
    for row in rows:
        assert not row["prototype"].startswith(("=", "+", "-", "@"))
        name = hostile_names[int(row["structure_index"])]
        if name.isprintable() and name.strip():
            assert row["prototype"].removeprefix("'") == name


@pytest.mark.parametrize("name", ["a.extxyz", "a.cfg"])
def test_labels_keep_their_structures(exported, copied_campaign, name):
    frames = read_frames(exported(name.partition(".")[2], name), ("Cu", "Pd"))
    entries = final_hull(copied_campaign).entries
    assert len(frames.configurations) == len(entries)
    for one, entry in zip(frames.configurations, entries, strict=True):
        assert one.energy == entry.result.energy
        assert one.features["structure_index"] == [str(entry.structure_index)]
        assert float(one.features["energy_above_hull"][0]) == entry.energy_above_hull


def test_other_programs_read_the_labels(exported, copied_campaign):
    from motep.io.mlip.cfg import read_cfg

    entries = final_hull(copied_campaign).entries
    frames = read_cfg(exported("cfg", "a.cfg"), index=":", species=["Cu", "Pd"])
    assert [atoms.get_potential_energy() for atoms in frames] == [e.result.energy for e in entries]


def test_ase_reads_the_labels(exported, copied_campaign):
    entries = final_hull(copied_campaign).entries
    frames = ase.io.read(exported("extxyz", "a.extxyz"), index=":")
    assert [atoms.get_potential_energy() for atoms in frames] == [e.result.energy for e in entries]
    assert [a.info["structure_index"] for a in frames] == [e.structure_index for e in entries]


# pymatgen says so of fractions such as 0.3333333333.
@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")
@pytest.mark.parametrize("form", ["cif", "poscar"])
def test_files_stay_in_their_folder(exported, hostile_names, form):
    folder = exported(form, "folder")
    files = [path for path in folder.rglob("*") if path.name != "provenance.json"]
    assert len(files) == len(hostile_names)
    for path in files:
        assert re.fullmatch(r"[A-Za-z0-9.+_-]{1,200}", path.name)
        assert path.parent == folder
        text = path.read_text(encoding="utf-8")
        assert Structure.from_str(text, fmt=form).composition.elements


def test_members_of_an_archive_stay_in_it(exported, hostile_names):
    with zipfile.ZipFile(exported("cif", "a.zip")) as archive:
        names = archive.namelist()
    assert len(names) == len(hostile_names) + 1
    assert not any("/" in name or "\\" in name or name.startswith(".") for name in names)


def test_a_figure_of_them(exported):
    assert exported("hull-figure", "a.svg").read_text(encoding="utf-8").startswith("<?xml")
