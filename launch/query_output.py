"""What ``hullscreen query`` prints: a table for people, or comma-separated values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hullscreen.launch.result_tables import cell_text, print_table, result_console
from hullscreen.workflows.structure_rows import STAGES

# Short forms for the table; the JSON has the whole words.
SOURCES = {
    "DFT, relaxed": "DFT",
    "DFT single point": "DFT point",
    "MTP of screen 1": "MTP 1",
    "MTP of screen 2": "MTP 2",
}

# Fields that the table has anyway, under other names.
IN_THE_TABLE = {
    "structure_index", "prototype", "formula_pretty", "nsites", "stage", "is_stable", "outcome",
    "energy_per_atom", "energy_above_hull", "energy_above_hull_from", "dropped",
}  # fmt: skip
FINAL = 3


def show(
    rows: Sequence[Mapping[str, Any]],
    total: int,
    names: Sequence[str] | None,
    ordered_by: str | None = None,
) -> None:
    """Print a table: of the fields of these names, or of what says most and the order follows."""
    console = result_console()
    if not rows:
        console.print("No structure matches.")
        return
    also = [] if ordered_by is None or ordered_by in IN_THE_TABLE else [ordered_by]
    columns = names or [
        "number>", "formula", "prototype", "atoms>", "above hull\nmeV/atom>", "by",
        "MTP\neV/atom>", "DFT\neV/atom>", *(f"{name}>" for name in also), "fate",
    ]  # fmt: skip
    print_table(
        console,
        f"{total:,} structure{'s' * (total != 1)}"
        + (f", {len(rows):,} of them shown" if len(rows) < total else ""),
        columns,
        [
            _cells(row, also) if names is None else [_short(row[name]) for name in names]
            for row in rows
        ],
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


def _short(value: Any) -> Any:
    """A cell of a table: digits that a person reads; whole numbers without separators."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if isinstance(value, int) else _plain(value)


def _cells(row: Mapping[str, Any], also: Sequence[str]) -> tuple[Any, ...]:
    mtp, dft, height = row["mtp"] or {}, row["dft"] or {}, row["energy_above_hull"]
    return (
        str(row["structure_index"]),
        row["formula_pretty"],
        row["prototype"],
        row["nsites"],
        None if height is None else f"{1e3 * height:.2f}",
        SOURCES.get(row["energy_above_hull_from"]),
        _energy(mtp.get("energy_per_atom")),
        _energy(dft.get("energy_per_atom")),
        *(_short(row[name]) for name in also),
        _fate(row),
    )


def _energy(value: float | None) -> str | None:
    return None if value is None else f"{value:z.4f}"


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
    # A single point tells without a relaxation: such a structure never entered the final stage.
    return f"dropped, {'DFT point' if dropped['stage'] == FINAL else STAGES[dropped['stage']]}"
