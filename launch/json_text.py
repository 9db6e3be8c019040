"""JSON that every program reads: Python's own would write NaN and Infinity, which are none."""

from __future__ import annotations

import json
from typing import Any


def json_text(value: Any, **options: Any) -> str:
    """A value as JSON; numbers that are not finite become null.

    Parameters
    ----------
    value, options
        As `json.dumps` takes them.

    Examples
    --------
    >>> json_text({"loss": float("nan"), "stage": 1})
    '{"loss": null, "stage": 1}'
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        plain = json.loads(json.dumps(value, **options), parse_constant=lambda _: None)
        return json.dumps(plain, **options)
