"""Documents, every MongoDB call, and the embedded server."""

from hullscreen.database.plain_collection import structures_of

__all__ = ["structures_of"]
