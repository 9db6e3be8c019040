"""A campaign as one HTML file: funnel, hull with its structures, learning, costs, provenance."""

from __future__ import annotations

from pathlib import Path

from hullscreen.launch.dashboard.report_file import report_html
from hullscreen.launch.exports.contents import Contents


def write(contents: Contents, path: Path) -> None:
    """Write the page.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    path.write_text(report_html(contents.store, contents.store.connection), encoding="utf-8")
