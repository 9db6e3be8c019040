"""Documents, every MongoDB call, and the embedded server."""
