"""Progress for files and terminals."""

import sys

from hullscreen.launch.progress import SECONDS_BETWEEN_LINES, LineBoard, progress_board


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_lines_come_now_and_then():
    lines, clock = [], Clock()
    board = LineBoard(lines.append, clock)
    for step in range(101):
        clock.now = step * SECONDS_BETWEEN_LINES / 10
        board.show("relaxing", 10 * step, 1000)
    # The first, one per interval, and the last.
    assert len(lines) == 11
    assert lines[0] == "relaxing: 0 of 1,000"
    # 100 structures in 15 s; 900 are left.
    assert lines[1] == "relaxing: 100 of 1,000, 7/s, 0:02:15 left"
    assert lines[-1] == "relaxing: 1,000 of 1,000"


def test_work_that_continues_is_timed_from_where_it_began():
    lines, clock = [], Clock()
    board = LineBoard(lines.append, clock)
    board.show("DFT", 90, 100)
    clock.now = 3600.0
    board.show("DFT", 95, 100)
    assert lines[1] == "DFT: 95 of 100, 5.0/h, 1:00:00 left"


def test_the_time_left_is_what_the_work_says_if_it_knows():
    lines, clock = [], Clock()
    board = LineBoard(lines.append, clock)
    board.show("DFT", 0, 10, 7200.0)
    clock.now = 3600.0
    board.show("DFT", 5, 10, 600.0)
    clock.now = 7200.0
    board.show("DFT", 10, 10, 0.0)
    assert lines == [
        "DFT: 0 of 10, 2:00:00 left", "DFT: 5 of 10, 5.0/h, 0:10:00 left", "DFT: 10 of 10"
    ]  # fmt: skip


def test_the_end_is_said_once_and_an_unknown_total_is_no_end():
    lines, clock = [], Clock()
    board = LineBoard(lines.append, clock)
    board.show("a", 2, 2)
    board.show("a", 2, 2)
    board.show("b", 5, None)
    board.show("b", 6, None)
    board.note("[stage] one is done")
    assert lines == ["a: 2 of 2", "b: 5", "[stage] one is done"]


def test_lines_go_to_stderr_when_it_is_no_terminal(capsys):
    with progress_board() as board:
        board.show("a", 1, 2)
        board.note("[bold]x[/bold]" + "y" * 200)
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == "a: 1 of 2\n[bold]x[/bold]" + "y" * 200 + "\n"


def test_bars_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_board() as board:
        board.show("relaxing", 3, 10)
        board.show("relaxing", 10, 10)
        board.note("done")
    written = capsys.readouterr()
    assert written.out == ""
    assert "10/10" in written.err
    assert "done" in written.err
