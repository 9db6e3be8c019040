"""Files that appear whole or not at all, also when the disk fills up or the process is killed."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write ``text`` to ``path`` in one step; what stood there before is replaced.

    Parameters
    ----------
    path
        File to write; its directory must exist.
    text
        Content, stored as UTF-8.
    mode
        Permissions of the file, before the umask.

    Raises
    ------
    OSError
        The directory cannot be written to; ``path`` is as it was, and nothing else remains.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode & ~umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        # The user knows the file's own name, not the temporary one.
        error.filename = str(path)
        raise


def umask() -> int:
    """Permissions that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
