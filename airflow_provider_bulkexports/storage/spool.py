"""Where day files lie on this machine on their way: a folder that goes with its transfer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["remove_abandoned_spools", "spool_folder"]

PREFIX = "bulkexports-spool-"
ABANDONED_SECONDS = 60.0
"""Age from which an unlocked spool is abandoned; a younger one may be about to be locked."""


@contextlib.contextmanager
def spool_folder() -> Iterator[Path]:
    """
    Create a folder that its owner alone can read, as the records are personal, and lock it.

    It goes at the end, also where a thread that hangs still has files open in it.
    """
    with (
        tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as stack,
    ):
        with contextlib.suppress(OSError):  # where nothing can be locked, nothing is removed
            stack.enter_context(_locked(name))
        yield Path(name)


def remove_abandoned_spools() -> None:
    """Remove what workers that were killed have left on this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.lstat().st_mtime > ABANDONED_SECONDS:
                with _locked(folder):
                    shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(folder: Path | str) -> Iterator[None]:
    """Lock a folder, at the longest until this process is gone, or raise OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
