"""Documents, every MongoDB call, and the embedded server.

For people: `structures_of`, a campaign's structures as a plain pymongo collection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hullscreen.database.plain_collection import structures_of

__all__ = ["structures_of"]


def __getattr__(name: str) -> Any:
    """Import what is offered when it is asked for: some workers do without pymongo."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hullscreen.database import plain_collection

    return getattr(plain_collection, name)
