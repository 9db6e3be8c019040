import json

import ase.io
import numpy as np
import pytest

from hullscreen.launch.command_line import main
from hullscreen.workflows.prototypes import PrototypePool


def test_count_as_json_prints_one_document_only(capsys):
    words = "prototypes --elements Cu Ni Pt --lattices fcc bcc hcp --max-atoms 11 --count --json"
    assert main(words.split()) == 0
    printed = capsys.readouterr()
    assert printed.out == '{"fcc": 171825, "bcc": 171825, "hcp": 36963, "total": 380613}\n'
    assert printed.err == ""


def test_count_as_a_table(capsys):
    assert (
        main(["prototypes", "--elements", "Cu", "Pd", "--max-atoms", "4", "--aflow", "--count"])
        == 0
    )
    printed = capsys.readouterr()
    assert printed.out.split()[:6] == ["fcc", "29", "bcc", "29", "hcp", "13"]
    assert "decorations equal to another one" in printed.err


def test_written_file_holds_the_pool(tmp_path, capsys):
    file = tmp_path / "pool.xyz"
    file.write_text("what stood there before")
    words = "prototypes --elements Cu Pd --lattices hcp 9R --max-atoms 4 --aflow --json --output"
    assert main([*words.split(), str(file)]) == 0
    counts = json.loads(capsys.readouterr().out)
    frames = ase.io.read(file, ":", format="extxyz")
    assert list(tmp_path.iterdir()) == [file]
    batch = next(PrototypePool(("Cu", "Pd"), ("hcp", "9R"), 4, aflow=True).batches(10_000))
    assert len(frames) == counts["total"] == len(batch.prototypes)
    for i, frame in enumerate(frames):
        cell, positions, kinds = batch.structures.one(i)
        # Eight decimals are written.
        np.testing.assert_allclose(frame.cell[:], cell, atol=6e-9)
        np.testing.assert_allclose(frame.positions, positions, atol=6e-9)
        assert [("Cu", "Pd")[k] for k in kinds] == list(frame.symbols)
        assert frame.pbc.all()
        assert frame.info["prototype"] == batch.prototypes[i]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--elements Cu Xx --count", "'Xx' is not an element; the nearest symbol is"),
        ("--elements Cu --count", "expected 2 to 4 elements"),
        ("--elements Cu Pd --lattices bbc --count", "the nearest known one is 'bcc'"),
        ("--elements Cu,Pd --count", "--elements Cu Pd"),
        ("--elements Cu Pd --output pool.cif", "must end in .xyz or .extxyz"),
        ("--elements Cu Pd", "give --count, or --output FILE"),
        ("--elements Cu Pd --max-atoms 0 --count", "--max-atoms"),
    ],
)
def test_wrong_input_is_one_sentence(words, sentence, capsys):
    assert main(["prototypes", *words.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sentence in printed.err
    assert printed.err.count("\n") == 1


def test_a_directory_that_is_not_there(tmp_path, capsys):
    file = tmp_path / "missing" / "pool.xyz"
    words = ["prototypes", "--elements", "Cu", "Pd", "--max-atoms", "2", "--output", str(file)]
    assert main(words) == 7
    assert str(file) in capsys.readouterr().err


def test_nothing_remains_of_an_interrupted_file(tmp_path, monkeypatch):
    def interrupted(self, size=1000):
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(PrototypePool, "batches", interrupted)
    file = tmp_path / "pool.xyz"
    file.write_text("before")
    words = ["prototypes", "--elements", "Cu", "Pd", "--max-atoms", "2", "--output", str(file)]
    assert main(words) == 130
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
