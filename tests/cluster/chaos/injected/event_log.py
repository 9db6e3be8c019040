"""What processes did, line by line, in a file that outlives them: the witness of a storm.

A line is written with one call, after the server has acknowledged what it tells of, or before DFT
begins. So whatever stands there has happened, however its process ended.
"""

import json
import os
import time

from pymongo import monitoring


def write(what, **fields):
    """Add a line."""
    line = json.dumps({"time": time.time(), "pid": os.getpid(), "what": what, **fields}) + "\n"
    file = os.open(
        os.environ["HULLSCREEN_EVENT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
    )
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


class Witness(monitoring.CommandListener):
    """Notes DFT results that were stored, and claims that were taken."""

    def __init__(self):
        self.under_way = {}

    def started(self, event):
        collection = str(event.command.get(event.command_name))
        if (event.command_name, collection) in {
            ("update", "dft_results"),
            ("findAndModify", "claims"),
        }:
            self.under_way[event.request_id] = event.command

    def failed(self, event):
        self.under_way.pop(event.request_id, None)

    def succeeded(self, event):
        command = self.under_way.pop(event.request_id, None)
        if command is None or event.reply.get("writeErrors"):
            return
        if event.reply.get("writeConcernError"):
            return
        if event.command_name == "update":
            for update in command["updates"]:
                document = update["u"]
                if "energy" in document and "key" in document:
                    write("stored", key=document["key"], state=document["state"])
        elif (value := event.reply.get("value")) is not None:
            write("taken", fw_id=value["_id"], token=value["token"])


def begin():
    """Listen to all clients that are made from now on."""
    monitoring.register(Witness())
