"""Where exports go: whole or not at all, nothing replaced unasked."""

import os
import stat
import subprocess
import sys

import pytest

from hullscreen.launch.exports.formats import FORMATS, format_name
from hullscreen.launch.exports.unfinished import unfinished_file, unfinished_folder
from hullscreen.potentials.errors import InputError

LITTLE_ROOM = """
import resource, sys
from hullscreen.launch.command_line import main
from matplotlib import font_manager  # it may write its list of fonts first
directory, folder, *forms = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
for form in forms:
    name, _, output = form.partition(":")
    print(name, main(["export", directory, "--format", name, "--output", f"{folder}/{output}"]))
"""
OUTPUTS = {
    name: "out" if form.several else f"out{form.suffixes[0]}" for name, form in FORMATS.items()
}


def test_a_full_disk_leaves_nothing(directory, tmp_path):
    forms = [f"{name}:{output}" for name, output in OUTPUTS.items()] + ["cif:out.zip"]
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_ROOM, directory, tmp_path, *forms],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.split() == [word for name in [*OUTPUTS, "cif"] for word in (name, "7")], (
        done.stderr
    )
    sentences = done.stderr.splitlines()
    assert len(sentences) == len(forms)
    for sentence in sentences:
        assert sentence.startswith("hullscreen: ")
        assert str(tmp_path / "out") in sentence
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from hullscreen.launch.exports.unfinished import unfinished_file, unfinished_folder
kind, output = sys.argv[1:]
with {"file": unfinished_file, "folder": unfinished_folder}[kind](Path(output)) as path:
    print(path, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_export_left_goes_with_the_next_one(tmp_path, kind):
    begin = {"file": unfinished_file, "folder": unfinished_folder}[kind]
    output = tmp_path / "out.zip"
    others = [tmp_path / name for name in (".out.zip", ".other123.in.zip", ".out.zip.notes")]
    for one in others:
        one.write_text("mine")
    # Named as tempfile might have named them.
    own = [tmp_path / ".out.zip.settings", tmp_path / ".settings.out.zip"]
    for one in own:
        one.mkdir()
        (one / "kept").write_text("mine")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, kind, output],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE, text=True,
    ) as writer:  # fmt: skip
        left = tmp_path / writer.stdout.readline().strip()
        with begin(output):
            assert left.exists(), "it is being written"
        writer.kill()
    assert left.exists()
    with begin(output):
        assert not left.exists()
    assert {*others, *own} <= set(tmp_path.iterdir())
    assert all((one / "kept").exists() for one in own)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_replaced_unasked(directory, call, tmp_path, name):
    path = tmp_path / OUTPUTS[name]
    words = ("export", directory, "--format", name, "--output", path)
    if FORMATS[name].several:
        path.mkdir()
        path = path / "mine"
    path.write_text("mine")
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert "--force replaces" in err
    assert path.read_text() == "mine"
    assert call(*words, "--overwrite")[0] == 0
    if FORMATS[name].several:
        assert path.read_text() == "mine"
        assert len(list(path.parent.iterdir())) > 2
    else:
        assert path.read_bytes() != b"mine"
        assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_the_provenance_beside_a_file_is_not_replaced_unasked(directory, hull, call, tmp_path):
    beside = tmp_path / "a.cif.provenance.json"
    beside.write_text("mine")
    number = hull.entries[0].structure_index
    words = ("export", directory, "-o", tmp_path / "a.cif", "--number", number)
    assert call(*words)[0] == 2
    assert beside.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [beside.name]


def test_an_empty_folder_is_taken(export, tmp_path):
    (tmp_path / "out").mkdir()
    folder = export("cif", "out")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_archives_of_the_same_are_the_same_but_for_the_time(export):
    import zipfile

    def members(path):
        with zipfile.ZipFile(path) as archive:
            return {one.filename: (one.file_size, one.date_time) for one in archive.infolist()}

    assert members(export("poscar", "a.zip")) == members(export("poscar", "b.zip"))


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.text and not f.several])
def test_text_goes_to_standard_output(directory, call, tmp_path, name):
    code, out, err = call("export", directory, "--format", name, "--output", "-")
    assert (code, err) == (0, "")
    path = tmp_path / OUTPUTS[name]
    assert call("export", directory, "--format", name, "--output", path)[0] == 0

    def timeless(text):
        return [line for line in text.splitlines() if "exported_at" not in line][1:]

    assert timeless(out) == timeless(path.read_text(encoding="utf-8"))
    assert out.strip()


@pytest.mark.parametrize("name", ["ase-db", "cif", "poscar", "potential", "hull-figure"])
def test_what_is_no_text_does_not(directory, call, name):
    code, out, err = call("export", directory, "--format", name)
    assert (code, out) == (2, "")
    assert "cannot go to standard output; expected --output" in err


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("a.csv", "csv"), ("a.jsonl", "optimade"), ("a.extxyz", "extxyz"), ("a.XYZ", "extxyz"),
        ("a.cfg", "cfg"), ("a.db", "ase-db"), ("a.mtp", "potential"), ("a.cif", "cif"),
        ("a.vasp", "poscar"), ("a.pdf", "hull-figure"), ("a.svg", "hull-figure"),
    ],
)  # fmt: skip
def test_the_name_tells_the_format(tmp_path, output, expected):
    assert format_name(None, tmp_path / output) == expected
    assert format_name("json", tmp_path / output) == "json"


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("a.json", "may be entries or json; say which"),
        ("a.zip", "does not tell a format"),
        ("a.jsn", "did you mean .json"),
        ("folder", "does not tell a format"),
    ],
)
def test_a_name_that_tells_none(directory, call, tmp_path, output, sentence):
    code, out, err = call("export", directory, "--output", tmp_path / output)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_neither_format_nor_output(directory, call):
    code, out, err = call("export", directory)
    assert (code, out) == (2, "")
    assert "expected --format, or --output" in err
    with pytest.raises(InputError):
        format_name(None, None)


@pytest.mark.parametrize(
    ("form", "name", "sentence"),
    [
        ("json", ".", "is a directory"),
        ("cif", "a-file", "is a file"),
        ("entries", "no/entries.json", "make it first"),
        ("csv", "a.txt", "ends in .csv"),
    ],
)
def test_outputs_that_do_not_fit_the_format(directory, call, tmp_path, form, name, sentence):
    (tmp_path / "a-file").write_text("")
    code, out, err = call("export", directory, "--format", form, "--output", tmp_path / name)
    assert (code, out) == (2, "")
    assert sentence in err
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


def test_several_structures_are_not_one_file(directory, call, tmp_path):
    code, _, err = call("export", directory, "--output", tmp_path / "a.cif")
    assert code == 2
    assert "choose one of them" in err
    assert list(tmp_path.iterdir()) == []
