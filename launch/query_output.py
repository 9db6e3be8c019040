"""What ``hullscreen query`` prints: a table for people, or comma-separated values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hullscreen.launch.result_tables import cell_text, print_table, result_console
from hullscreen.workflows.structure_search import STAGES

# Short forms for the table; the JSON has the whole words.
SOURCES = {
    "DFT, relaxed": "DFT",
    "DFT single point": "DFT point",
    "MTP of screen 1": "MTP 1",
    "MTP of screen 2": "MTP 2",
}


def show(rows: Sequence[Mapping[str, Any]], total: int, names: Sequence[str] | None) -> None:
    """Print a table: of the fields of these names, or of what says most."""
    console = result_console()
    if not rows:
        console.print("No structure matches.")
        return
    columns = names or [
        "number>", "formula", "prototype", "atoms>", "above hull\nmeV/atom>", "by",
        "MTP\neV/atom>", "DFT\neV/atom>", "fate",
    ]  # fmt: skip
    print_table(
        console,
        f"{total:,} structure{'s' * (total != 1)}"
        + (f", {len(rows):,} of them shown" if len(rows) < total else ""),
        columns,
        [_cells(row) if names is None else [_plain(row[name]) for name in names] for row in rows],
    )
    if len(rows) < total:
        console.print("`--limit 0` shows all.")


def csv_text(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Lines of comma-separated values with a header; lists and tables as JSON, None as nothing."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_plain(row[name]) for name in names] for row in rows)
    return file.getvalue()


def _plain(value: Any) -> Any:
    """A cell: a text that is no more than that, lists and tables as JSON."""
    if isinstance(value, str):
        return cell_text(value)
    return json.dumps(value) if isinstance(value, dict | list) else value


def _cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    mtp, dft, height = row["mtp"] or {}, row["dft"] or {}, row["energy_above_hull"]
    return (
        row["structure_index"],
        row["formula_pretty"],
        row["prototype"],
        row["nsites"],
        None if height is None else f"{1e3 * height:.2f}",
        SOURCES.get(row["energy_above_hull_from"]),
        _energy(mtp.get("energy_per_atom")),
        _energy(dft.get("energy_per_atom")),
        _fate(row),
    )


def _energy(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _fate(row: Mapping[str, Any]) -> str:
    if row["is_stable"]:
        return "stable"
    if row["dft"]:
        failed = row["dft"]["state"] != "done"
        return f"DFT failed: {row['dft']['reason']}" if failed else "relaxed with DFT"
    if row["dropped"]:
        return _dropped(row["dropped"])
    if row["mtp"] is None:
        return "not relaxed yet"
    return f"in {row['stage']}, {row['mtp']['outcome'].replace('_', ' ')}"


def _dropped(dropped: Mapping[str, Any]) -> str:
    if "same_as" in dropped:
        return f"the same as number {dropped['same_as']}"
    if "outcome" in dropped:
        return f"not converged: {dropped['outcome'].replace('_', ' ')}"
    return f"dropped, {STAGES[dropped['stage']]}"
