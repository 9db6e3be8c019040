"""What a campaign costs against the size of its pool: runs one for each size, then draws them.

python tests/benchmarks/pool_costs.py FOLDER --max-atoms 8 9 10 11

A campaign that is in FOLDER already is not repeated. EMT stands for DFT, so that what is measured
is everything else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ELEMENTS = ["Cu", "Ni", "Pt"]
# What is done once for every structure of the pool; the rest is learning and DFT.
PER_STRUCTURE = ["prototypes", "relaxation", "database", "mongod", "fireworks", "selection"]
NAMES = {
    "prototypes": "prototypes",
    "relaxation": "relaxation",
    "database": "database, our side",
    "mongod": "database server",
    "fireworks": "FireWorks",
    "selection": "decisions",
    "training": "training",
    "dft_labels": "DFT labels",
    "dft_final": "final DFT",
}


def hullscreen(*arguments: str) -> str:
    """What a command of hullscreen prints."""
    done = subprocess.run(
        [sys.executable, "-m", "hullscreen.launch", *arguments],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return done.stdout


def campaign_report(folder: Path, max_atoms: int) -> dict[str, Any]:
    """Run the campaign of all cells up to a size, and give its report."""
    directory = folder / f"max-atoms-{max_atoms}"
    if not directory.exists():
        hullscreen("init", str(directory), "--elements", *ELEMENTS, "--max-atoms", str(max_atoms))
        settings = directory / "hullscreen.toml"
        text = settings.read_text(encoding="utf-8")
        settings.write_text(text.replace("aflow = true", "aflow = false"), encoding="utf-8")
    hullscreen("run", str(directory))
    report: dict[str, Any] = json.loads(hullscreen("report", str(directory), "--json"))
    counted = hullscreen(
        "prototypes", "--elements", *ELEMENTS, "--max-atoms", str(max_atoms), "--count", "--json"
    )
    assert json.loads(counted)["total"] == report["funnel"]["prototypes"]["total"]
    return report


def row(report: dict[str, Any]) -> dict[str, float]:
    """Sizes, and processor time in ms per structure by part."""
    n = report["funnel"]["prototypes"]["total"]
    parts = {name: 1e3 * report["cpu_seconds"].get(name, 0.0) / n for name in NAMES}
    return {
        "structures": n,
        "minutes": report["wall_seconds"]["working"] / 60,
        "DFT evaluations": report["dft_evaluations"]["total"],
        **parts,
        "every structure": sum(parts[name] for name in PER_STRUCTURE),
        "all": sum(parts.values()),
    }


def table(rows: list[dict[str, float]]) -> str:
    """A Markdown table, one campaign a column."""
    lines = ["| | " + " | ".join(f"{r['structures']:,.0f}" for r in rows) + " |"]
    lines.append("|---|" + "---:|" * len(rows))
    for name in list(rows[0])[1:]:
        label = f"{NAMES[name]}, ms" if name in NAMES else name
        label += ", ms" if name in ("every structure", "all") else ""
        digits = 0 if name == "DFT evaluations" else 1 if name == "minutes" else 3
        lines.append(f"| {label} | " + " | ".join(f"{r[name]:,.{digits}f}" for r in rows) + " |")
    return "\n".join(lines)


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Processor time per structure by part, stacked, against the size of the pool."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    bottom = [0.0] * len(rows)
    for part, name in NAMES.items():
        heights = [r[part] for r in rows]
        axes.bar([f"{r['structures']:,}" for r in rows], heights, 0.6, bottom, label=name)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.set_xlabel("structures in the pool")
    axes.set_ylabel("processor time per structure (ms)")
    axes.legend(frameon=False, fontsize="small", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the campaigns and the picture go")
    parser.add_argument("--max-atoms", type=int, nargs="+", default=[8, 9, 10, 11])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = [row(campaign_report(given.folder, n)) for n in given.max_atoms]
    print(table(rows))
    draw(rows, given.folder / "pool_costs.png")


if __name__ == "__main__":
    main()
