"""Days in folders, and in memory."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import shutil
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.storage.backend import Backend, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["LocalBackend", "MemoryBackend"]

BLOCK = 1 << 20
PART_COPY = "_part."
OTHER_COPY = "_copy."
"""Begin the names of files that are being written; scanners of folders pass over them."""
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


class LocalBackend(Backend):
    """Folders of this machine, or shared ones that are mounted here."""

    def is_over(self, error: BaseException) -> bool:  # noqa: ARG002
        """Return True: what failed here is over."""
        return True

    def _list_below(
        self, root: str, first: str = "", last: str = ""
    ) -> Iterable[tuple[str, Entry]]:
        if not last:
            return self._scan(root)
        try:
            names = [name for name in os.listdir(root) if first <= name <= last]  # noqa: PTH208
        except FileNotFoundError:
            return []
        return [
            (f"{name}/{inner}", entry)
            for name in names
            for inner, entry in self._scan(posixpath.join(root, name))
        ]

    def _scan(self, path: str) -> list[tuple[str, Entry]]:
        listed = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as found:
            for item in found:
                # It may be renamed or removed meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    if item.is_file():
                        status = item.stat()
                        listed.append((item.name, Entry(status.st_size, status.st_mtime)))
        return listed

    def _read(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None

    def _create(self, path: str, content: bytes) -> bool:
        with self._copy(path, OTHER_COPY) as copied:
            _write_synced(copied, [content])
            try:
                # Unlike a file that is opened to be new, it is never seen half.
                os.link(copied, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return _create_without_link(path, content)
            _sync_folder(path)
            return True

    def _write(self, path: str, content: bytes) -> None:
        self._replace(path, [content], OTHER_COPY)

    def _put(self, path: str, source: Path) -> None:
        with source.open("rb") as data:
            self._replace(path, iter(lambda: data.read(BLOCK), b""), PART_COPY)

    def _get(self, path: str, target: Path) -> None:
        shutil.copyfile(path, target)

    def _remove(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def _clean(self, folder: str) -> None:
        for name, _ in self._scan(folder):
            if name.startswith(PART_COPY):
                self._remove(posixpath.join(folder, name))

    def _replace(self, path: str, blocks: Iterable[bytes], prefix: str) -> None:
        with self._copy(path, prefix) as copied:
            _write_synced(copied, blocks, self._check)
            self._check()
            copied.replace(path)
            _sync_folder(path)

    @contextlib.contextmanager
    def _copy(self, path: str, prefix: str) -> Iterator[Path]:
        # Process ids are equal in containers that share a folder; these names never are.
        copied = Path(posixpath.dirname(path), f"{prefix}{uuid.uuid4().hex}")
        copied.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield copied
        finally:
            copied.unlink(missing_ok=True)


def _write_synced(
    path: Path, blocks: Iterable[bytes], check: Callable[[], None] = lambda: None
) -> None:
    with path.open("wb") as file:
        for block in blocks:
            check()
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: str) -> None:
    # Some network folders cannot; what is renamed is there all the same, so nothing has failed.
    with contextlib.suppress(OSError):
        handle = os.open(posixpath.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _create_without_link(path: str, content: bytes) -> bool:
    # One that is seen before its content is there counts as a lock of the usual length.
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)
    return True


class MemoryBackend(Backend):
    """A dictionary of this process, for trials."""

    _exclusive = threading.Lock()

    def is_over(self, error: BaseException) -> bool:  # noqa: ARG002
        """Return True: what failed here is over."""
        return True

    def _list_below(
        self,
        root: str,
        first: str = "",  # noqa: ARG002
        last: str = "",  # noqa: ARG002
    ) -> Iterable[tuple[str, Entry]]:
        with self._exclusive:
            return [
                (path.removeprefix(f"{root}/"), Entry(file.size, file.modified.timestamp()))
                for path, file in self._fs.store.items()
                if path.startswith(f"{root}/")
            ]

    def _read(self, path: str) -> bytes | None:
        with self._exclusive, contextlib.suppress(FileNotFoundError):
            return bytes(self._fs.cat_file(path))
        return None

    def _create(self, path: str, content: bytes) -> bool:
        with self._exclusive, contextlib.suppress(FileExistsError):
            self._fs.pipe_file(path, content, mode="create")
            return True
        return False

    def _write(self, path: str, content: bytes) -> None:
        with self._exclusive:
            self._fs.pipe_file(path, content)

    def _put(self, path: str, source: Path) -> None:
        self._write(path, source.read_bytes())

    def _get(self, path: str, target: Path) -> None:
        target.write_bytes(self._fs.cat_file(path))

    def _remove(self, path: str) -> None:
        with self._exclusive, contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)
