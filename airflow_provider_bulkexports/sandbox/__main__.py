"""Run the sandbox: ``python -m airflow_provider_bulkexports.sandbox --port 8010``."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.sandbox.settings import (
    DEFAULT_ACCOUNT_SID,
    DEFAULT_AUTH_TOKEN,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the sandbox until SIGINT or SIGTERM.

    :param arguments: the command line without the program's name.
    """
    options = _parser().parse_args(arguments)
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
            faults=_faults(options.faults),
            speed=options.speed,
            job_seconds=options.job_seconds,
            records=options.records,
            seed=options.seed,
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_bulkexports.sandbox",
        description="A BulkExport service on this machine, with synthetic records.",
    )
    parser.add_argument("--port", type=int, default=8010, help="default 8010; 0 for any free one")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    parser.add_argument("--account-sid", default=DEFAULT_ACCOUNT_SID)
    parser.add_argument("--auth-token", default=DEFAULT_AUTH_TOKEN)
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster jobs run")
    parser.add_argument("--job-seconds", type=float, help="make every job take exactly this long")
    parser.add_argument("--records", type=int, default=1000, help="records in a day; default 1000")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other records")
    parser.add_argument("--faults", type=Path, metavar="FILE", help="JSON list of faults")
    return parser


def _faults(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    faults = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(faults, list):
        raise ValueError(  # noqa: TRY004 - the file is wrong, not a type of ours
            f"{path} must hold a JSON list of faults"
        )
    return faults


def _fail(reason: str) -> int:
    print(f"BulkExport sandbox: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
