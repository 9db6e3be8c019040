"""Every error that hullscreen raises on purpose.

```
HullscreenError
├── InputError (ValueError)          what a user typed or a file holds
│   ├── SettingsError                hullscreen.toml
│   ├── CompositionError             fractions, elements
│   └── FileFormatError              .mtp, .cfg, extxyz, ...
├── PotentialError (RuntimeError)    fitting or selecting failed
├── DFTError (RuntimeError)          an engine is missing or its result is no result
├── DatabaseError (RuntimeError)     no server, or it went away
└── CampaignError (RuntimeError)     a campaign cannot go on as asked
```

A message is one sentence: what was expected, what came, where, what to do.
"""


class HullscreenError(Exception):
    """Root of the tree; the command line prints its message and exits with ``exit_code``."""

    exit_code = 1

    def to_dict(self) -> dict[str, str]:
        """What FireWorks keeps of an exception, and shows as its details."""
        return {"reason": str(self)}


class InputError(HullscreenError, ValueError):
    """Something a user gave is not what is expected there."""

    exit_code = 2


class SettingsError(InputError):
    """A key or value of ``hullscreen.toml`` is wrong."""


class CompositionError(InputError):
    """Atomic fractions or elements do not describe a phase diagram."""


class FileFormatError(InputError):
    """A file is unreadable or does not follow its format."""


class PotentialError(HullscreenError, RuntimeError):
    """A potential could not be fitted, or cannot be used for these structures."""

    exit_code = 3


class DFTError(HullscreenError, RuntimeError):
    """A DFT engine is missing, failed, or gave a result that is none."""

    exit_code = 4


class DatabaseError(HullscreenError, RuntimeError):
    """The MongoDB server cannot be started, reached or written to."""

    exit_code = 5


class CampaignError(HullscreenError, RuntimeError):
    """A campaign cannot be continued as asked."""

    exit_code = 6


class ClaimLostError(CampaignError):
    """The step was taken away from this process, which was not heard of for too long."""
