"""Run the sandbox: ``python -m airflow_provider_bulkexports.sandbox --port 8010``."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_bulkexports.sandbox.settings import (
    DEFAULT_ACCOUNT_SID,
    DEFAULT_AUTH_TOKEN,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_PROGRAM = "python -m airflow_provider_bulkexports.sandbox"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the sandbox until SIGINT or SIGTERM.

    :param arguments: the command line without the program's name.
    """
    options = _parser().parse_args(arguments)
    if options.list_faults:
        from airflow_provider_bulkexports.sandbox.faults.catalogue import list_faults

        print(list_faults())
        return 0
    try:
        from airflow_provider_bulkexports.sandbox.server import Sandbox
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "aiohttp":
            raise
        return _fail("aiohttp is missing: install airflow-provider-bulkexports[sandbox]")
    try:
        sandbox = Sandbox(
            port=options.port,
            host=options.host,
            account_sid=options.account_sid,
            auth_token=options.auth_token,
            faults=_faults(options.faults, options.lag),
            speed=options.speed,
            job_seconds=options.job_seconds,
            records=options.records,
            seed=options.seed,
            empty_every=options.empty_every,
            quota_days=options.quota_days,
        )
    except (OSError, ValueError) as error:
        return _fail(str(error))
    if options.host not in _LOOPBACK:
        print(
            f"Warning: {options.host} can be reached from other machines, and the sandbox's own "
            "routes need no login.",
            file=sys.stderr,
            flush=True,
        )
    try:
        asyncio.run(_serve(sandbox, options.auth_token == DEFAULT_AUTH_TOKEN))
    except OSError as error:
        return _fail(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}")
    return 0


async def _serve(sandbox: Any, show_token: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await sandbox.open()
    token = f", auth token {sandbox.auth_token}" if show_token else ""
    login = f"(account {sandbox.account_sid}{token})"
    print(f"BulkExport sandbox on {sandbox.url} {login}", flush=True)
    await stop.wait()
    await sandbox.close()


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_fail(f"{message}; see --help"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM, description="A BulkExport service on this machine, with synthetic records."
    )
    usual = Settings()
    for name, read, default, says in (
        ("--port", _port, 8010, "port to listen on, 0 for any free one"),
        ("--host", str, "127.0.0.1", "address to listen on"),
        ("--account-sid", _account_sid, DEFAULT_ACCOUNT_SID, "the account"),
        ("--auth-token", str, DEFAULT_AUTH_TOKEN, "its token"),
        ("--speed", float, usual.speed, "how many times faster jobs run"),
        ("--records", int, usual.records, "records in a day"),
        ("--seed", int, usual.seed, "another seed, other records"),
        ("--empty-every", int, usual.empty_every, "about one day in so many is empty, 0 for none"),
        ("--quota-days", int, usual.quota_days, "days that may be requested per UTC day"),
        ("--lag", float, 0.0, "seconds for which new jobs and files are not seen"),
    ):
        parser.add_argument(name, type=read, default=default, help=f"{says} (default {default})")
    parser.add_argument("--job-seconds", type=float, help="have every job take exactly this long")
    parser.add_argument("--faults", type=Path, metavar="FILE", help="JSON list of faults")
    parser.add_argument(
        "--list-faults", action="store_true", help="print which faults there are, and end"
    )
    return parser


def _port(text: str) -> int:
    if text.isdecimal() and int(text) < 2**16:
        return int(text)
    raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")


def _account_sid(text: str) -> str:
    if re.fullmatch("AC[0-9a-fA-F]{32}", text):
        return text
    raise argparse.ArgumentTypeError(
        f"an account SID is AC and 32 hexadecimal digits, not {text!r}"
    )


def _faults(path: Path | None, lag: float) -> list[dict[str, Any]]:
    faults = [{"kind": "lag", "seconds": lag, "times": -1}] if lag else []
    if path is None:
        return faults
    given = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(given, list):
        raise ValueError(  # noqa: TRY004 - the file is wrong, not a type of ours
            f"{path} must hold a JSON list of faults"
        )
    return faults + given


def _fail(reason: str) -> int:
    print(f"BulkExport sandbox: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
