"""The result of a calculation as a file in its folder, whole or not there."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from hullscreen.dft_adapters.atomic_json import write_json
from hullscreen.dft_adapters.engine import DFTResult

RESULT_FILE = "result.json"


def read_result_file(path: Path, inputs_hash: str) -> DFTResult | None:
    """The stored result if it belongs to these inputs; an unreadable file counts as none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    names = {field.name for field in fields(DFTResult)}
    if not isinstance(document, dict) or document.get("inputs_hash") != inputs_hash:
        return None
    values: dict[str, Any] = document.get("result", {})
    if set(values) != names:
        return None
    for name in ("forces", "stress", "cell", "positions"):
        values[name] = np.array(values[name], dtype=np.float64)
    values["corrections"] = tuple(values["corrections"])
    return DFTResult(**values)


def write_result_file(path: Path, result: DFTResult, inputs_hash: str) -> None:
    """Write atomically: a reader finds the whole result or none, also after a power cut."""
    values = {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in asdict(result).items()
    }
    write_json(path, {"inputs_hash": inputs_hash, "result": values})
