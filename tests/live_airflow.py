"""Start a real Airflow on SQLite, talk to it, and stop it without leaving a process behind.

Works with Airflow 2.11 and 3.x. Nothing else is needed: no broker, no database server.
The components run as separate processes, because ``airflow standalone`` neither restarts a
component that died nor exits, and leaves orphans behind when it is terminated.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType, TracebackType

__all__ = ["AirflowFailure", "LiveAirflow"]

T = TypeVar("T")

FINISHED_RUN = frozenset({"success", "failed"})

# Seconds without a heartbeat after which a killed worker counts as dead. Airflow's own is 300.
# Much less than this would fail healthy tasks on a busy machine.
WORKER_LOST_AFTER = 20
MOST_RESTARTS = 3

_MARK_FAILED_2 = """
import sys
from airflow.models.dagbag import DagBag
from airflow.utils.state import TaskInstanceState
dag_id, run_id, task_id, map_index = sys.argv[1:]
dag = DagBag(read_dags_from_db=True).get_dag(dag_id)
altered = dag.set_task_instance_state(
    task_id=task_id, run_id=run_id, state=TaskInstanceState.FAILED, commit=True,
    map_indexes=None if int(map_index) < 0 else [int(map_index)],
)
sys.exit(0 if altered else "no task instance was altered")
"""


class AirflowFailure(Exception):
    """Report that Airflow did not do what was asked, with the tails of its logs."""


@dataclass
class _Component:
    """One process of Airflow, the leader of a session of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    may_end: bool = False


@dataclass(frozen=True)
class _Process:
    """One line of the process table."""

    pid: int
    parent: int
    command: str


@dataclass
class LiveAirflow:
    """Run a real Airflow for the length of a ``with`` block.

    :param home: directory for the database, the logs and the settings; made if missing.
    :param dags_folder: directory with the DAG files.
    :param env: further environment variables, such as ``AIRFLOW_CONN_...``; they win.
    :param python: interpreter of the environment that has Airflow.
    :param say: called with one line per step.
    :param triggerer: whether to start a triggerer.
    :param ui: whether 2.11 gets a webserver; 3.x has its pages in any case.
    :param login: name and password for the pages; without it everyone is admin on 3.x.
    :param executor: class name. With SequentialExecutor, 2.11 runs one task at a time and schedules
        nothing meanwhile.
    :param port: port of the pages; a free one by default.
    """

    home: Path
    dags_folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    say: Callable[[str], None] = lambda _line: None
    triggerer: bool = True
    ui: bool = False
    login: tuple[str, str] | None = None
    executor: str | None = None
    port: int = 0
    start_timeout: float = 180

    def __post_init__(self) -> None:
        """Find the version; nothing is started yet."""
        self.home = Path(self.home).resolve()
        self.dags_folder = Path(self.dags_folder).resolve()
        self.logs_folder = self.home / "logs"
        self.database = self.home / "airflow.db"
        self._components: dict[str, _Component] = {}
        self._sessions: set[int] = set()
        self._handlers: dict[int, Any] = {}
        self._restarts = 0
        self._http = requests.Session()
        # A proxy of the machine must not stand between the tests and the loopback address.
        self._http.trust_env = False
        version = subprocess.run(
            [
                self.python,
                "-c",
                "from importlib.metadata import version; print(version('apache-airflow'))",
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        self.version = version.stdout.strip()
        self.is_3 = int(self.version.split(".")[0]) >= 3
        if self.executor is None:
            self.executor = "LocalExecutor"
        self._environment: dict[str, str] = {}
        self._began = datetime.now(UTC)

    # Start and stop

    def __enter__(self) -> Self:
        """Migrate the database, start every component and wait until all are healthy."""
        began = time.monotonic()
        self._began = datetime.now(UTC)
        self._catch_signals()
        try:
            self.port = _claim_port(self.port)
            self._prepare()
            self._run([self.python, "-m", "airflow", "db", "migrate"], timeout=120)
            # 2.11 leaves SQLite in the mode where a reader blocks a writer. The file keeps this.
            with contextlib.closing(sqlite3.connect(self.database, timeout=60)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            self.say(f"database ready after {time.monotonic() - began:.0f} s")
            self._start_components()
            self._wait_healthy(self.start_timeout)
            spent = time.monotonic() - began
            self.say(f"Airflow {self.version} ready after {spent:.0f} s: {self.ui_address}")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop everything, whatever happened inside the block."""
        self.stop()

    def stop(self, patience: float = 8) -> None:
        """End every process that was started here and make sure that none is left.

        :param patience: seconds between the polite signal and SIGKILL.
        """
        main = threading.current_thread() is threading.main_thread()
        # A second Ctrl-C must not cut the clean-up short.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        try:
            for component in self._components.values():
                component.may_end = True
                with contextlib.suppress(ProcessLookupError):
                    if component.process.poll() is None:
                        component.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + patience
            while self._reap() and self._own_processes() and time.monotonic() < deadline:
                time.sleep(0.2)
            left = self._kill_sessions(self._sessions)
            self._components.clear()
            if left:
                message = f"processes survived SIGKILL: {left}"
                raise AirflowFailure(message)
            self._sessions.clear()
        finally:
            self._http.close()
            if main:
                signal.signal(signal.SIGINT, previous)
                for number, handler in self._handlers.items():
                    signal.signal(number, handler)
                self._handlers.clear()

    def _catch_signals(self) -> None:
        """Turn a polite end of this process into an exception, so that the block ends in order."""

        def leave(number: int, _frame: FrameType | None) -> None:
            raise SystemExit(128 + number)

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, leave)

    def _prepare(self) -> None:
        """Make the directories, the secrets and the environment of all processes."""
        self.logs_folder.mkdir(parents=True, exist_ok=True)
        kept = self.home / "secrets.json"
        if not kept.exists():
            # Kept beside the database, so that a second start can still read encrypted connections.
            fresh = {
                "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                "jwt": secrets.token_urlsafe(64),
                "session": secrets.token_urlsafe(32),
            }
            kept.touch(mode=0o600)
            kept.write_text(json.dumps(fresh))
        keys = json.loads(kept.read_text())
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW_", "_AIRFLOW_"))
        }
        loopback = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost"]))
        settings = self._settings_3(keys) if self.is_3 else self._settings_2(keys)
        self._environment = {
            **inherited,
            "NO_PROXY": loopback,
            "no_proxy": loopback,
            # 2.11 starts tasks with the bare word "airflow".
            "PATH": os.pathsep.join([str(Path(self.python).parent), os.environ.get("PATH", "")]),
            "PYTHONUNBUFFERED": "1",
            "SCARF_ANALYTICS": "false",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": str(self.executor),
            # SQLite has one writer: more tasks at once end in "database is locked".
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__FERNET_KEY": keys["fernet"],
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}?timeout=60",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.logs_folder),
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            # How soon a new triggerer takes over the triggers of a killed one.
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            # Airflow's own 300 s between two tries is long for a test.
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "3",
            **settings,
            **self.env,
        }

    def _settings_3(self, keys: Mapping[str, str]) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.port}"
        settings = {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": address,
            "AIRFLOW__API__SECRET_KEY": keys["session"],
            "AIRFLOW__API_AUTH__JWT_SECRET": keys["jwt"],
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            # Without this the end of a task is noticed up to 5 s late, and a shorter deferral
            # can be taken for a failure (apache/airflow#66374).
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(WORKER_LOST_AFTER),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        }
        if self.login is not None:
            name, password = self.login
            passwords = self.home / "passwords.json"
            passwords.touch(mode=0o600)
            passwords.write_text(json.dumps({name: password}))
            settings |= {
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{name}:admin",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            }
        return settings

    def _settings_2(self, keys: Mapping[str, str]) -> dict[str, str]:
        settings = {
            "AIRFLOW__WEBSERVER__SECRET_KEY": keys["session"],
            "AIRFLOW__WEBSERVER__BASE_URL": f"http://127.0.0.1:{self.port}",
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": str(WORKER_LOST_AFTER),
            "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "3",
        }
        if self.executor != "SequentialExecutor":
            # 2.11 refuses any other executor on SQLite unless its own tests' switch is set.
            settings["_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK"] = "1"
        return settings

    def _start_components(self) -> None:
        # Every log is read from the shared directory: log servers would only cost ports and time.
        if self.is_3:
            self._start("api-server", "api-server", "--workers", "1")
            self._start("dag-processor", "dag-processor")
        elif self.ui:
            if self.login is not None:
                name, password = self.login
                self.cli(
                    "users", "create", "--username", name, "--password", password,
                    "--role", "Admin",
                    "--firstname", name, "--lastname", name, "--email", f"{name}@example.com",
                )  # fmt: skip
            self._start("webserver", "webserver", "--port", str(self.port), "--workers", "1",
                        "--hostname", "127.0.0.1")  # fmt: skip
        self._start("scheduler", "scheduler", "--skip-serve-logs")
        if self.triggerer:
            self.start_triggerer()

    def _start(self, name: str, *args: str) -> None:
        log = self.logs_folder / f"{name}.log"
        with log.open("ab") as output:
            self._launch(name, [self.python, "-m", "airflow", *args], log, output)

    def _launch(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        output: IO[bytes],
        *,
        may_end: bool = False,
    ) -> _Component:
        process = subprocess.Popen(
            command,
            cwd=self.home,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A session of its own keeps the terminal's Ctrl-C away and names all descendants.
            start_new_session=True,
        )
        self._sessions.add(process.pid)
        component = _Component(name, process, log, may_end)
        self._components[name] = component
        return component

    def _wait_healthy(self, timeout: float) -> None:
        jobs = {"SchedulerJob"}
        if self.is_3:
            jobs.add("DagProcessorJob")
        if self.triggerer:
            jobs.add("TriggererJob")
        self.wait(lambda: jobs <= self._live_jobs(), timeout, f"heartbeats of {sorted(jobs)}")
        if self.is_3 or self.ui:
            self.wait(self._pages_answer, timeout, "an answer of the API")
        self.wait(self._files_parsed, timeout, "the DAG files to be parsed")

    def _live_jobs(self) -> set[str]:
        rows = self._select("SELECT job_type, state, latest_heartbeat FROM job")
        return {
            row["job_type"]
            for row in rows
            if row["state"] == "running" and _instant(row["latest_heartbeat"]) > self._began
        }

    def _pages_answer(self) -> bool:
        path = "/api/v2/monitor/health" if self.is_3 else "/health"
        try:
            answer = self._http.get(f"{self.ui_address}{path}", timeout=10)
        except requests.RequestException:
            return False
        if not answer.ok:
            return False
        parts = answer.json()
        needed = {"metadatabase", "scheduler"} | ({"dag_processor"} if self.is_3 else set())
        return all((parts.get(name) or {}).get("status") == "healthy" for name in needed)

    def _files_parsed(self) -> bool:
        """Tell whether every file that defines a DAG was read; a broken one is an error at once."""
        broken = self._select("SELECT filename, stacktrace FROM import_error")
        if broken:
            message = "\n".join(f"{row['filename']}:\n{row['stacktrace']}" for row in broken)
            raise AirflowFailure(message)
        known = {Path(row["fileloc"]).resolve() for row in self._select("SELECT fileloc FROM dag")}
        return self._dag_files() <= known

    def _dag_files(self) -> set[Path]:
        found = set()
        for path in self.dags_folder.rglob("*.py"):
            text = path.read_text(errors="replace")
            if "airflow" in text and ("DAG(" in text or "@dag" in text):
                found.add(path.resolve())
        return found

    # Talk to Airflow

    @property
    def ui_address(self) -> str:
        """Give the address of the pages and the REST API."""
        return f"http://127.0.0.1:{self.port}"

    def cli(
        self, *args: str, check: bool = True, retries_on_lock: int = 5, timeout: float = 180
    ) -> str:
        """Run one ``airflow`` command in the same environment and give its standard output.

        :param args: the words after ``airflow``.
        :param check: raise if the command fails.
        :param retries_on_lock: how often to repeat a command that met a locked SQLite.
        :param timeout: seconds for one try.
        """
        return self._run([self.python, "-m", "airflow", *args], check, retries_on_lock, timeout)

    def _run(
        self,
        command: Sequence[str],
        check: bool = True,
        retries_on_lock: int = 5,
        timeout: float = 180,
    ) -> str:
        for left in range(retries_on_lock, -1, -1):
            process = subprocess.Popen(
                command,
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._sessions.add(process.pid)
            try:
                output, errors = process.communicate(timeout=timeout)
            except BaseException:
                self._kill_sessions({process.pid})
                process.wait()
                raise
            if process.returncode == 0 or not check:
                return output
            if left == 0 or "database is locked" not in output + errors:
                break
            time.sleep(1)
        shown = " ".join(command[1:5])
        message = f"{shown} ... ended with {process.returncode}:\n{_tail_of(output + errors, 30)}"
        raise AirflowFailure(message)

    def _rest(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        if self.login is not None and "Authorization" not in self._http.headers:
            name, password = self.login
            answer = self._http.post(
                f"{self.ui_address}/auth/token",
                json={"username": name, "password": password},
                timeout=30,
            )
            answer.raise_for_status()
            self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        for left in range(5, -1, -1):
            answer = self._http.request(
                method, f"{self.ui_address}/api/v2{path}", json=body, timeout=90
            )
            # SQLite refuses at once, whatever its timeout, a read that turns into a write too late.
            if answer.status_code < 500 or left == 0:
                break
            time.sleep(1)
        if not answer.ok:
            message = f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
            raise AirflowFailure(message)
        return answer.json() if answer.content else None

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run a DAG; waits until Airflow has read its file.

        :param dag_id: the DAG.
        """
        self._set_paused(dag_id, paused=False)

    def pause(self, dag_id: str) -> None:
        """Keep the scheduler from running a DAG.

        :param dag_id: the DAG.
        """
        self._set_paused(dag_id, paused=True)

    def _set_paused(self, dag_id: str, *, paused: bool) -> None:
        self._wait_known(dag_id)
        if self.is_3:
            self._rest("PATCH", f"/dags/{dag_id}", {"is_paused": paused})
        else:
            self.cli("dags", "pause" if paused else "unpause", dag_id)

    def _wait_known(self, dag_id: str) -> None:
        query = "SELECT 1 FROM serialized_dag WHERE dag_id = ?"
        self.wait(lambda: self._select(query, dag_id), 60, f"the file of {dag_id} to be parsed")

    def trigger(
        self,
        dag_id: str,
        *,
        logical_date: str | None = None,
        conf: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> str:
        """Start a manual run and give its id.

        :param dag_id: the DAG.
        :param logical_date: ISO instant. None is "no date" on 3.x and "now" on 2.11.
        :param conf: the run's configuration.
        :param run_id: id of the run; a unique one by default.
        """
        self._wait_known(dag_id)
        run_id = run_id or f"manual__{datetime.now(UTC).isoformat()}"
        if self.is_3:
            body = {"dag_run_id": run_id, "logical_date": logical_date, "conf": dict(conf or {})}
            self._rest("POST", f"/dags/{dag_id}/dagRuns", body)
        else:
            args = [
                "dags",
                "trigger",
                dag_id,
                "--run-id",
                run_id,
                "--conf",
                json.dumps(dict(conf or {})),
            ]
            self.cli(*args, *(["--exec-date", logical_date] if logical_date else []))
        return run_id

    def backfill(
        self,
        dag_id: str,
        first: date,
        last: date,
        *options: str,
        wait: bool = True,
        timeout: float = 600,
    ) -> list[dict[str, Any]]:
        """Run a range of days of a DAG, which is unpaused, and give the runs of the backfill.

        On 2.11 the command itself schedules the tasks, so it lives until the last run is done.

        :param dag_id: the DAG.
        :param first: first logical date.
        :param last: last logical date, included.
        :param options: further words for the command of this version.
        :param wait: wait until all runs are finished, well or not.
        :param timeout: seconds to wait.
        """
        self._wait_known(dag_id)
        if self.is_3:
            # On SQLite a scheduler that takes up the first runs while the rest are still being made
            # can lose some; those of a paused DAG it leaves alone until all are there.
            self.pause(dag_id)
            self.cli(
                "backfill", "create", "--dag-id", dag_id, "--from-date", first.isoformat(),
                "--to-date", last.isoformat(), *options,
            )  # fmt: skip
            self.unpause(dag_id)
        else:
            log = self.logs_folder / "backfill.log"
            command = [
                "dags",
                "backfill",
                dag_id,
                "-s",
                first.isoformat(),
                "-e",
                last.isoformat(),
                *options,
            ]
            with log.open("ab") as output:
                component = self._launch(
                    "backfill", [self.python, "-m", "airflow", *command], log, output, may_end=True
                )
            if wait:
                self.wait(
                    lambda: component.process.poll() is not None, timeout, f"backfill of {dag_id}"
                )
        if wait:
            self.wait(lambda: self._backfill_done(dag_id), timeout, f"backfill of {dag_id}")
        return self._backfill_runs(dag_id)

    def _backfill_runs(self, dag_id: str) -> list[dict[str, Any]]:
        return [run for run in self.runs(dag_id) if run["run_type"] == "backfill"]

    def _backfill_done(self, dag_id: str) -> bool:
        return all(run["state"] in FINISHED_RUN for run in self._backfill_runs(dag_id))

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """List the runs of a DAG: run_id, state, logical_date, run_type.

        :param dag_id: the DAG.
        """
        column = "logical_date" if self.is_3 else "execution_date AS logical_date"
        query = (
            f"SELECT run_id, state, {column}, run_type FROM dag_run WHERE dag_id = ? ORDER BY id"  # noqa: S608
        )
        return self._select(query, dag_id)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """List the task instances of a run: task_id, map_index, state, try_number, pid.

        :param dag_id: the DAG.
        :param run_id: the run.
        """
        query = (
            "SELECT task_id, map_index, state, try_number, pid FROM task_instance"
            " WHERE dag_id = ? AND run_id = ? ORDER BY task_id, map_index"
        )
        return self._select(query, dag_id, run_id)

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1
    ) -> Any:
        """Give a value that a task left behind, or None.

        :param dag_id: the DAG.
        :param run_id: the run.
        :param task_id: the task.
        :param key: name of the value.
        :param map_index: index of a mapped task.
        """
        rows = self._select(
            "SELECT value FROM xcom WHERE dag_id = ? AND run_id = ? AND task_id = ? AND key = ?"
            " AND map_index = ?",
            dag_id, run_id, task_id, key, map_index,
        )  # fmt: skip
        if not rows:
            return None
        value = json.loads(rows[0]["value"])
        # 3.x keeps some values as JSON text inside a JSON column.
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return json.loads(value)
        return value

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Let a task of a run start again.

        :param dag_id: the DAG.
        :param run_id: the run.
        :param task_id: the task.
        """
        if self.is_3:
            body = {
                "dry_run": False, "dag_run_id": run_id, "task_ids": [task_id],
                "only_failed": False, "reset_dag_runs": True,
            }  # fmt: skip
            self._rest("POST", f"/dags/{dag_id}/clearTaskInstances", body)
        else:
            day = next(run["logical_date"] for run in self.runs(dag_id) if run["run_id"] == run_id)
            self.cli("tasks", "clear", "-y", "-t", f"^{task_id}$", "-s", day, "-e", day, dag_id)

    def mark_failed(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> None:
        """Mark a task as failed, as a person does in the pages.

        :param dag_id: the DAG.
        :param run_id: the run.
        :param task_id: the task.
        :param map_index: index of a mapped task.
        """
        if self.is_3:
            mapped = f"/{map_index}" if map_index >= 0 else ""
            run = f"/dags/{dag_id}/dagRuns/{quote(run_id)}"
            path = f"{run}/taskInstances/{task_id}{mapped}"
            self._rest("PATCH", path, {"new_state": "failed"})
        else:
            # 2.11 has no command for this, and its REST API needs a webserver with users.
            self._run([self.python, "-c", _MARK_FAILED_2, dag_id, run_id, task_id, str(map_index)])

    # Wait and report

    def wait(self, predicate: Callable[[], T], timeout: float, what: str) -> T:
        """Poll until something is true and give it.

        :param predicate: called twice a second.
        :param timeout: seconds until this gives up, with the state of the tasks and the logs.
        :param what: what is waited for, in words.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.check_alive()
            found = predicate()
            if found:
                return found
            if time.monotonic() > deadline:
                message = f"waited {timeout:.0f} s in vain for {what}\n{self.report()}"
                raise AirflowFailure(message)
            time.sleep(0.5)

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = 120) -> str:
        """Wait until a run is finished and give its state.

        :param dag_id: the DAG.
        :param run_id: the run.
        :param timeout: seconds.
        """

        def finished() -> str | None:
            states = (run["state"] for run in self.runs(dag_id) if run["run_id"] == run_id)
            return next((state for state in states if state in FINISHED_RUN), None)

        return str(self.wait(finished, timeout, f"the end of run {run_id} of {dag_id}"))

    def wait_for_task(
        self, dag_id: str, run_id: str, task_id: str, *states: str, timeout: float = 120
    ) -> dict[str, Any]:
        """Wait until a task is in one of some states and give the task instance.

        :param dag_id: the DAG.
        :param run_id: the run.
        :param task_id: the task.
        :param states: the wanted states.
        :param timeout: seconds.
        """

        def reached() -> dict[str, Any] | None:
            tasks = self.task_instances(dag_id, run_id)
            wanted = (ti for ti in tasks if ti["task_id"] == task_id and ti["state"] in states)
            return next(wanted, None)

        found = self.wait(reached, timeout, f"{dag_id}.{task_id} to be {' or '.join(states)}")
        return found or {}

    def check_alive(self) -> None:
        """Raise if a component ended by itself."""
        for component in list(self._components.values()):
            code = component.process.poll()
            if (
                code is not None
                and component.name == "scheduler"
                and self._restarts < MOST_RESTARTS
            ):
                # Airflow's scheduler may give up on a locked SQLite; a service manager restarts it.
                self._restarts += 1
                self.say(f"the scheduler ended with {code}; starting it again")
                self._start("scheduler", "scheduler", "--skip-serve-logs")
            elif code is not None and not component.may_end:
                tail = _tail_of(component.log.read_text(errors="replace"), 40)
                message = f"{component.name} ended with {code}:\n{tail}"
                raise AirflowFailure(message)

    def report(self) -> str:
        """Describe the state of all runs and tasks, with the tails of the logs."""
        lines = []
        with contextlib.suppress(sqlite3.Error):
            query = (
                "SELECT dag_id, run_id, task_id, map_index, state, try_number FROM task_instance"
                " ORDER BY start_date DESC LIMIT 60"
            )
            lines += [" ".join(str(value) for value in row.values()) for row in self._select(query)]
        components = {component.log for component in self._components.values()}
        tasks = sorted(self._task_logs(), key=lambda path: path.stat().st_mtime)[-3:]
        for path in [*sorted(components), *tasks]:
            lines += [f"--- {path}", _tail_of(path.read_text(errors="replace"), 15)]
        return "\n".join(lines)

    def log_text(self, dag_id: str = "") -> str:
        """Give the text of all logs: those of the components, or those of one DAG's tasks.

        :param dag_id: the DAG; all logs without it.
        """
        paths = sorted(self._task_logs() if dag_id else self.logs_folder.rglob("*.log"))
        kept = [path for path in paths if not dag_id or f"dag_id={dag_id}" in path.parts]
        return "\n".join(path.read_text(errors="replace") for path in kept)

    def _task_logs(self) -> Iterator[Path]:
        return (path for path in self.logs_folder.glob("dag_id=*/**/*") if path.is_file())

    def _select(self, query: str, *values: object) -> list[dict[str, Any]]:
        # Read from the file: cheap, possible without a server, and the same on both versions.
        connection = sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=60)
        with contextlib.closing(connection):
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    # Break things

    def start_triggerer(self) -> None:
        """Start a triggerer; it takes over what a killed one left, after some seconds."""
        self._start("triggerer", "triggerer", "--skip-serve-logs")

    def kill_triggerer(self) -> None:
        """Kill the triggerer with all its children, as a lost machine would."""
        self._kill_component("triggerer")

    def stop_triggerer(self, timeout: float = 40) -> None:
        """Stop the triggerer politely, as a deployment does.

        :param timeout: seconds to wait for its end.
        """
        component = self._components["triggerer"]
        component.may_end = True
        component.process.terminate()
        component.process.wait(timeout)

    @contextlib.contextmanager
    def frozen_triggerer(self) -> Iterator[None]:
        """Let the triggerer with all its children stand still for the length of a block."""
        session = {self._components["triggerer"].process.pid}
        for process in self._own_processes(session):
            os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self._own_processes(session):
                os.kill(process.pid, signal.SIGCONT)

    def _kill_component(self, name: str) -> None:
        component = self._components[name]
        component.may_end = True
        self._kill_sessions({component.process.pid})
        component.process.wait()

    def task_processes(self) -> list[int]:
        """List the processes in which tasks run now."""
        return sorted(row["pid"] for row in self._running_tasks())

    def _running_tasks(self, dag_id: str | None = None) -> list[dict[str, Any]]:
        query = (
            "SELECT dag_id, task_id, pid FROM task_instance"
            " WHERE state = 'running' AND pid IS NOT NULL"
        )
        alive = {process.pid for process in self._own_processes()}
        rows = self._select(query)
        return [row for row in rows if row["pid"] in alive and dag_id in {None, row["dag_id"]}]

    def kill_task(self, dag_id: str, *, supervisor: bool = True, timeout: float = 60) -> list[int]:
        """Kill the processes that run a DAG's tasks now, and give their ids.

        :param dag_id: the DAG.
        :param supervisor: also kill the process that watches the task, as a lost machine would.
            Without it the watcher reports the failure at once.
        :param timeout: seconds to wait for a running task.
        """
        rows = self.wait(
            lambda: self._running_tasks(dag_id), timeout, f"a running task of {dag_id}"
        )
        processes = {process.pid: process for process in self._own_processes()}
        scheduler = self._components["scheduler"].process.pid
        victims = []
        for row in rows:
            family = [row["pid"]]
            process = processes.get(row["pid"])
            watchers = processes.keys() - {scheduler}
            if supervisor and process and process.parent in watchers:
                family.insert(0, process.parent)
            # The watcher dies first, so that it cannot report the death of the task.
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            victims += family
        gone = lambda: not {process.pid for process in self._own_processes()} & set(victims)  # noqa: E731
        self.wait(gone, timeout, f"the killed processes {victims} to be gone")
        return victims

    # Processes

    def _reap(self) -> bool:
        for component in self._components.values():
            component.process.poll()
        return True

    def _own_processes(self, sessions: set[int] | None = None) -> list[_Process]:
        wanted = self._sessions if sessions is None else sessions
        found = []
        for process in _process_table():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(process.pid) in wanted:
                    found.append(process)
        return found

    def _kill_sessions(self, sessions: set[int], timeout: float = 10) -> list[_Process]:
        deadline = time.monotonic() + timeout
        while True:
            self._reap()
            left = self._own_processes(sessions)
            if not left or time.monotonic() > deadline:
                return left
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.1)


def _claim_port(port: int) -> int:
    """Give a port that nothing listens on; the wanted one if it is not 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            message = f"port {port} is taken"
            raise AirflowFailure(message) from error
        return int(probe.getsockname()[1])


def _process_table() -> Iterator[_Process]:
    """List all processes that still run; a dead one that nobody collected is not one of them."""
    if Path("/proc/self/stat").exists():
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    name, _, rest = (entry / "stat").read_text(errors="replace").rpartition(")")
                    state, parent = rest.split()[:2]
                    if state not in "ZX":
                        yield _Process(int(entry.name), int(parent), name)
        return
    # A machine without /proc, such as a Mac.
    listing = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,stat=,command="],
        check=True,
        capture_output=True,
        text=True,
    )
    for line in listing.stdout.splitlines():
        pid, parent, state, command = [*line.split(maxsplit=3), ""][:4]
        if not state.startswith("Z"):
            yield _Process(int(pid), int(parent), command)


def _instant(stamp: str) -> datetime:
    """Read an instant as SQLite holds it: in UTC, without saying so."""
    instant = datetime.fromisoformat(stamp)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _tail_of(text: str, lines: int) -> str:
    return "\n".join(text.splitlines()[-lines:])
