"""
Run transfers in processes of their own and end them with SIGKILL.

One process imports Airflow and forks a child for each transfer. A child numbers its calls that can
be seen from outside, such as a write, a rename or a request. Given a number, it kills itself right
before that call, but not before its first download was answered.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, Self

STEPS = {
    "BufferedWriter.flush",
    "BufferedWriter.write",
    "TextIOWrapper.flush",
    "TextIOWrapper.write",
    "fsync",
    "link",
    "mkdir",
    "open",
    "remove",
    "replace",
    "rmdir",
    "socket.connect",
    "socket.sendall",
    "unlink",
}
"""As many in every run: the counts of those that wait for a socket's bytes differ."""
BLOCK = 16 * 1024


class Worker:
    """
    The process, from outside.

    :param temporary: where its temporary files go.
    """

    def __init__(self, temporary: Path) -> None:
        # The connections come from the environment.
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(temporary)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            pass

    def start(self, options: dict[str, Any], kill_at: int | None = None) -> int:
        """Start a transfer and return its process id."""
        print(json.dumps([options, kill_at]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self) -> dict[str, Any]:
        """
        Wait for the transfer's end and return what is known of it.

        ``killed`` says whether that was by SIGKILL; if it was its own, ``step`` and ``number`` are
        the call that did not come to pass. One that was left alone has made ``steps`` such calls,
        the first ``first`` of them before its first download was answered.
        """
        known: dict[str, Any] = {}
        while "killed" not in known:
            known |= json.loads(self._process.stdout.readline())
        return known


class _Steps:
    """The numbered calls of a transfer; a profile function."""

    def __init__(self, pipe: int, kill_at: int | None) -> None:
        from airflow_provider_bulkexports.api import download

        self._pipe, self._kill_at = pipe, kill_at
        self._download = download._Fetch._open.__code__
        self._numbers = itertools.count(1)
        self._last, self._first = 0, 0
        self._dying = threading.Lock()

    def __call__(self, frame: Any, event: str, called: Any) -> None:
        if event == "return" and frame.f_code is self._download:
            self._first = self._first or self._last
        elif event == "c_call" and called.__qualname__ in STEPS:
            number = next(self._numbers)  # threads do not tear this
            self._last = max(number, self._last)
            is_due = self._first and self._kill_at is not None and number >= self._kill_at
            if is_due and self._dying.acquire(blocking=False):
                self.report({"step": called.__qualname__, "number": number})
                os.kill(os.getpid(), signal.SIGKILL)

    def report(self, what: dict[str, Any] | None = None) -> None:
        line = what or {"first": self._first, "steps": next(self._numbers) - 1}
        os.write(self._pipe, f"{json.dumps(line)}\n".encode())


def _transfer(pipe: int, options: dict[str, Any], kill_at: int | None) -> None:
    from in_process import run_task

    from airflow_provider_bulkexports.storage import folders
    from airflow_provider_bulkexports.transfers import BulkExportsToObjectStorageOperator

    # A published file is written in pieces of a MiB; here in smaller ones, so that half is seen.
    folders.BLOCK = BLOCK
    task = BulkExportsToObjectStorageOperator(task_id="transfer", **options)
    steps = _Steps(pipe, kill_at)
    threading.setprofile(steps)
    run_task(task)
    steps.report()


def _run(pipe: int, options: dict[str, Any], kill_at: int | None) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        os.write(pipe, b"%d\n" % os.getpid())
        try:
            _transfer(pipe, options, kill_at)
            code = 0
        except BaseException:  # noqa: BLE001 - for whoever reads the test's output
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"a transfer ended with {code}")
    os.write(pipe, json.dumps({"killed": code != 0}).encode() + b"\n")


def _main() -> None:
    pipe = os.dup(1)
    os.dup2(2, 1)  # Airflow logs to the standard output
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "provider")]
    connections = {name: os.environ[name] for name in os.environ if "AIRFLOW_CONN_" in name}
    import in_process  # noqa: F401 - it begins with no connections

    os.environ |= connections
    from airflow_provider_bulkexports.compat import object_storage_path
    from airflow_provider_bulkexports.hooks import BulkExportsHook

    # What is imported or looked up at its first use only, the children find done.
    with contextlib.suppress(ImportError):
        for name in ("compute", "json", "parquet"):
            import_module(f"pyarrow.{name}")
    assert object_storage_path("file:///", None).fs
    BulkExportsHook().get_conn().close()
    for line in sys.stdin:
        _run(pipe, *json.loads(line))


if __name__ == "__main__":
    _main()
