"""``python -m hullscreen.launch``: the `hullscreen` command."""

import sys

from hullscreen.launch.command_line import main

sys.exit(main())
