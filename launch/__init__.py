"""The `hullscreen` command, its settings and its start scripts."""
