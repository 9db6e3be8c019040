"""Imported by every Python process of a storm: lets those that talk to MongoDB keep a log."""

import os

if os.environ.get("HULLSCREEN_EVENT_LOG"):
    import event_log

    event_log.begin()
