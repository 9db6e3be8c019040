"""What the tables of settings are made of: documented fields, and no keys beside them."""

from typing import Any

from pydantic import ConfigDict, Field

KNOWN_KEYS = ConfigDict(extra="forbid", allow_inf_nan=False)


def setting(default: Any, description: str, **limits: Any) -> Any:
    """A documented field; numbers, flags and strings are taken as they are, never converted."""
    if isinstance(default, bool | int | float):
        limits["strict"] = True
    if isinstance(default, dict):
        return Field(default_factory=dict, description=description, **limits)
    return Field(default=default, description=description, **limits)
