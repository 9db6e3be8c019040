import os

import pytest

from hullscreen.workflows.output_tails import (
    LONGEST_LINE,
    MOST_BYTES,
    folders_of,
    safe_line,
    tails,
)

KEY = "ab" + "0" * 62


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "calculations" / KEY[:2] / KEY
    path.mkdir(parents=True)
    return path


def test_the_last_lines_of_a_file_of_any_size(folder):
    lines = [f"line {n} {'x' * 90}" for n in range(20_000)]
    (folder / "output.txt").write_text("\n".join(lines) + "\n")
    (tail,) = tails(folder, 3)
    assert tail.lines == tuple(lines[-3:])
    assert tail.size == (folder / "output.txt").stat().st_size > MOST_BYTES
    (folder / "output.txt").write_bytes(b"y" * (3 * MOST_BYTES))
    (tail,) = tails(folder, 3)
    assert len(tail.lines) == 1
    assert len(tail.lines[0]) == LONGEST_LINE


def test_nothing_that_a_terminal_would_obey(folder):
    written = b"\x1b[2J\x1b]0;title\x07 caf\xc3\xa9 \xff \xc2\x9b31m\tend\n"
    (folder / "errors.txt").write_bytes(written)
    (tail,) = tails(folder, 5)
    assert tail.lines == ("\\x1b[2J\\x1b]0;title\\x07 café � \\x9b31m end",)
    # Marks that turn the direction of writing.
    assert safe_line("a\u202eb") == "a\\u202eb"


def test_only_plain_files_are_read(folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "output.txt").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "errors.txt")
    (folder / "CRASH").mkdir()
    (folder / "vasp.out").write_text("")
    assert tails(folder, 5) == []


def test_folders_of_a_calculation_and_nothing_else(folder, tmp_path):
    root = tmp_path / "calculations"
    beside = folder.with_name(f"{KEY}-2")
    beside.mkdir()
    folder.with_name("ab" + "1" * 62).mkdir()
    folder.with_name(f"{KEY}.link").symlink_to(tmp_path)
    assert folders_of(root, KEY) == [folder, beside]
    for key in ("../../secret", "ab/../..", "", "*"):
        assert folders_of(root, key) == []
    assert folders_of(tmp_path / "elsewhere", KEY) == []


def test_no_lines_are_wanted(folder):
    (folder / "output.txt").write_text("something\n")
    assert tails(folder, 0) == []
