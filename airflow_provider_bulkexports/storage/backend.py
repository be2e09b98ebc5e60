"""What publishing needs of a storage, in the few words that each kind of storage keeps.

Listings are always fresh. What is written appears whole or not at all. "Not there" is said only
where the storage said so: all else that goes wrong is a :class:`StorageError` with its words.
"""

from __future__ import annotations

import contextlib
import copy
import errno
from abc import ABC, abstractmethod
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

from airflow_provider_bulkexports.api.errors import BulkExportsError, StorageError
from airflow_provider_bulkexports.api.redact import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["Backend", "Entry"]


class Entry(NamedTuple):
    """A file as a listing shows it: its size, and when it was written by the storage's clock."""

    bytes: int
    modified: float


class Backend(ABC):
    """
    A kind of storage. Paths are the filesystem's own, without a scheme.

    :param fs: the filesystem.
    """

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._check: Callable[[], None] = lambda: None

    def stopped_by(self, check: Callable[[], None]) -> Self:
        """Return the same storage, but calls end when ``check``, called a lot, raises."""
        other = copy.copy(self)
        other._check = check  # noqa: SLF001 - its own copy
        return other

    def list_folders(self, root: str, first: str, last: str) -> dict[str, dict[str, Entry]]:
        """Return the folders right below ``root``, named from first to last, with their files."""
        with self._told("list", root):
            listed: dict[str, dict[str, Entry]] = {}
            for path, entry in self._list_below(root, first, last):
                folder, _, name = path.partition("/")
                # A folder inside a folder is not ours; nor is an object that stands for a folder.
                if first <= folder <= last and name and "/" not in name:
                    listed.setdefault(folder, {})[name] = entry
            return listed

    def list_folder(self, path: str) -> dict[str, Entry]:
        """Return the files right in a folder; none where there is no such folder."""
        with self._told("list", path):
            found = self._list_below(path)
            return {name: entry for name, entry in found if name and "/" not in name}

    def read(self, path: str) -> bytes | None:
        """Return a small file's content, None where there is no such file."""
        with self._told("read", path):
            return self._read(path)

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file and return True, or False where one of that name is there."""
        with self._told("create", path):
            return self._create(path, content)

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, in the place of one that may be there."""
        with self._told("write", path):
            self._write(path, content)

    def put(self, path: str, source: Path) -> None:
        """Copy a local file, in the place of one that may be there."""
        with self._told("write", path):
            self._put(path, source)

    def get(self, path: str, target: Path) -> None:
        """Copy a file to a local one."""
        with self._told("read", path):
            self._get(path, target)

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for reading a part at a time."""
        with self._told("read", path):
            self._fs.invalidate_cache()  # a size from an earlier listing would cut the file
            with self._fs.open(path, "rb") as file:
                yield file

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with self._told("remove", path):
            self._remove(path)

    def clean(self, folder: str) -> None:
        """End what dead publishers have begun in a folder; none may live."""
        with self._told("clean", folder):
            self._clean(folder)

    def is_over(self, error: BaseException) -> bool:
        """Return whether nothing of a call that ended in an error can come to pass any more."""
        return isinstance(error, StorageError) and isinstance(error.__cause__, PermissionError)

    @abstractmethod
    def _list_below(
        self, root: str, first: str = "", last: str = ""
    ) -> Iterable[tuple[str, Entry]]:
        """Return at least the files below root of folders from first to last, relative to it."""

    @abstractmethod
    def _read(self, path: str) -> bytes | None: ...

    @abstractmethod
    def _create(self, path: str, content: bytes) -> bool: ...

    @abstractmethod
    def _write(self, path: str, content: bytes) -> None: ...

    @abstractmethod
    def _put(self, path: str, source: Path) -> None: ...

    @abstractmethod
    def _get(self, path: str, target: Path) -> None: ...

    @abstractmethod
    def _remove(self, path: str) -> None: ...

    def _clean(self, folder: str) -> None:  # noqa: B027 - a choice, not a gap
        """Do nothing: unfinished uploads are seen by nobody and go by themselves."""

    def _words(self, error: BaseException) -> str:
        """Return what the storage said."""
        if isinstance(error, OSError) and error.strerror:
            return f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
        return f"{type(error).__name__}: {error}"

    @contextlib.contextmanager
    def _told(self, what: str, path: str) -> Iterator[None]:
        try:
            yield
        except BulkExportsError:
            raise
        except Exception as error:  # every kind of storage has its own errors, and its own bases
            words = safe_text(self._words(error), [])
            address = self._fs.unstrip_protocol(path)
            raise StorageError(f"Could not {what} {address}: {words.rstrip('.')}.") from error
