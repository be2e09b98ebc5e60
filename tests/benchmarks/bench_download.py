"""Fetching a day's file and checking it: wall time against curl and igzip, and peak memory.

A local nginx serves the files. Every case runs in a process of its own; its peak is what it held
beyond what it held after its imports. Ways take turns, and a ratio is the median of the turns' own;
where other work shares the cores, the processor time says more than the wall time.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from datetime import date
from pathlib import Path

MB = 10**6
TURNS = 3
SIZES = {"50 MB": 50 * MB, "500 MB": 500 * MB, "5 GB": 5000 * MB}
DAY = date(2026, 1, 1)


def make_day(path: Path, size: int) -> None:
    """Write a gzip of about this size: one deflated stretch of records, again and again."""
    from isal import isal_zlib

    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.sandbox.records import FileKey, records

    key = FileKey("AC" + "5a" * 16, ResourceType.MESSAGES, DAY)
    made = (json.dumps(record, separators=(",", ":")) for record in records(0, key, 60_000))
    text = ("\n".join(made) + "\n").encode()
    press = zlib.compressobj(6, zlib.DEFLATED, -15)
    stretch = press.compress(text) + press.flush(zlib.Z_FULL_FLUSH)
    count, checksum = max(1, size // len(stretch)), 0
    with path.open("wb") as file:
        file.write(bytes.fromhex("1f8b0800000000000003"))
        for _ in range(count):
            file.write(stretch)
            checksum = isal_zlib.crc32(text, checksum)
        file.write(b"\x03\x00" + checksum.to_bytes(4, "little"))
        file.write((count * len(text) % 2**32).to_bytes(4, "little"))


@contextlib.contextmanager
def served(folder: Path):
    """Serve a folder's files with nginx, and links to them as the API does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inner = folder / "nginx"
    inner.mkdir()
    paths = "client_body proxy fastcgi uwsgi scgi"
    temporary = "".join(f"{name}_temp_path {inner};" for name in paths.split())
    (inner / "nginx.conf").write_text(
        f"daemon off; pid {inner}/pid; events {{}} http {{ access_log off; sendfile on; "
        f"{temporary} server {{ listen 127.0.0.1:{port}; root {folder}; "
        f"location ~ ^/v1/Exports/(.*)/Days/ {{ return 307 http://127.0.0.1:{port}/$1.gz; }} }} }}"
    )
    command = ["nginx", "-e", inner / "log", "-c", inner / "nginx.conf"]
    # Its workers must read files of a folder that is nobody else's.
    command += ["-g", "user root;"] if Path("/root").owner() == Path.home().owner() else []
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def fetch_ours(base_url: str, name: str, target: Path) -> None:
    """Fetch with this package."""
    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.download import fetch_day_file
    from airflow_provider_bulkexports.api.stop import Stop

    with Client("AC" + "5a" * 16, "token", base_url=base_url) as client, target.open("w+b") as file:
        fetch_day_file(client, name, DAY, file, may_be_empty=False, stop=Stop())


def fetch_with_requests(base_url: str, name: str, target: Path) -> None:
    """Fetch as a careful script does: stream to disk, then read the gzip to its end."""
    import gzip

    import requests

    with requests.get(f"{base_url}/{name}.gz", stream=True, timeout=30) as answer:
        answer.raise_for_status()
        with target.open("wb") as file:
            for block in answer.iter_content(65_536):
                file.write(block)
    with gzip.open(target) as file:
        while file.read(1024 * 1024):
            pass


def fetch_with_curl(base_url: str, name: str, target: Path) -> None:
    """Fetch with curl, then test with igzip."""
    subprocess.run(["curl", "-sSf", "-o", target, f"{base_url}/{name}.gz"], check=True)
    subprocess.run(["igzip", "-t", target], check=True)


def fetch_with_digest(base_url: str, name: str, target: Path) -> None:
    """Fetch with curl, then take the digest and test with igzip, as this package does both."""
    subprocess.run(["curl", "-sSf", "-o", target, f"{base_url}/{name}.gz"], check=True)
    subprocess.run(["sha256sum", target], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["igzip", "-t", target], check=True)


WAYS = {
    "ours": fetch_ours,
    "requests": fetch_with_requests,
    "curl": fetch_with_curl,
    "digest": fetch_with_digest,
}


def status(field: str) -> int:
    """Return a figure in bytes of this process's memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def processor_seconds() -> float:
    """Return the processor time of this process and its children."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


def run_case(way: str, count: int, base_url: str, name: str, folder: str) -> None:
    """Be the process of one case, and print its seconds and bytes."""
    import gzip  # noqa: F401 - imports are no part of a case

    import airflow_provider_bulkexports.api.download  # noqa: F401

    targets = [Path(folder) / f"{way}-{number}.gz" for number in range(count)]
    threads = [
        threading.Thread(target=WAYS[way], args=(base_url, name, target)) for target in targets
    ]
    Path("/proc/self/clear_refs").write_text("5")
    spent = processor_seconds()
    before, began = status("VmRSS"), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, peak = time.perf_counter() - began, status("VmHWM") - before
    cpu = processor_seconds() - spent
    sizes = [target.stat().st_size for target in targets]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "sizes": sizes}))


def case(
    way: str, count: int, base_url: str, name: str, folder: Path
) -> tuple[float, float, float]:
    """Run a case in a process of its own; return its seconds, processor seconds and MB."""
    out = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, __file__, "--case", way, str(count), base_url, name, str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(out)
    got = json.loads(done.stdout)
    whole = (folder / f"{name}.gz").stat().st_size
    if set(got["sizes"]) != {whole}:
        raise SystemExit(f"{way} brought {got['sizes']} of {whole} bytes")
    return got["seconds"], got["cpu"], got["peak"] / MB


def compare(title: str, count: int, base_url: str, folder: Path) -> None:
    """Print one table of times."""
    runs = {way: [] for way in WAYS}
    for _ in range(TURNS):
        for way in WAYS:
            runs[way].append(case(way, count, base_url, "Messages", folder))
    print(
        f"\n{title:<34}{'median s':>10}{'all s':>26}{'ours is':>10}"
        f"{'cpu s':>8}{'ours is':>10}{'peak MB':>10}"
    )
    shown = {
        "ours": "ours",
        "requests": "requests, then gzip",
        "curl": "curl, then igzip -t",
        "digest": "curl, sha256sum, igzip -t",
    }
    for way, runs_of_way in runs.items():
        times, spent, peaks = zip(*runs_of_way, strict=True)
        every = " ".join(f"{seconds:.2f}" for seconds in times)
        ratio = f"{_ratio(runs['ours'], runs_of_way, 0):.2f} x"
        cpu_ratio = f"{_ratio(runs['ours'], runs_of_way, 1):.2f} x"
        peak = f"{max(peaks):.1f}" if way in {"ours", "requests"} else "-"
        print(
            f"{shown[way]:<34}{statistics.median(times):>10.2f}{every:>26}{ratio:>10}"
            f"{statistics.median(spent):>8.2f}{cpu_ratio:>10}{peak:>10}",
            flush=True,
        )


def _ratio(ours: list[tuple], theirs: list[tuple], figure: int) -> float:
    return statistics.median(
        one[figure] / other[figure] for one, other in zip(ours, theirs, strict=True)
    )


def main() -> None:
    """Print the tables."""
    if missing := [tool for tool in ("nginx", "curl", "igzip") if shutil.which(tool) is None]:
        print(f"Skipped: there is no {', '.join(missing)} here (Debian: nginx-light, curl, isal).")
        return
    with tempfile.TemporaryDirectory(prefix="bench_download_") as name:
        folder = Path(name)
        make_day(folder / "Messages.gz", SIZES["500 MB"])
        make_day(folder / "Calls.gz", SIZES["50 MB"])
        with served(folder) as base_url:
            compare("one day of 500 MB", 1, base_url, folder)
            compare("four days of 500 MB at once", 4, base_url, folder)
            print(f"\n{'memory beyond the imports':<34}{'s':>10}{'peak MB':>10}")
            for size, kind in (
                ("50 MB", "Calls"),
                ("500 MB", "Messages"),
                ("5 GB", "Participants"),
            ):
                if size == "5 GB":
                    if shutil.disk_usage(folder).free < 12_000 * MB:
                        print(f"{size:<34}{'skipped: less than 12 GB of disk are free':>10}")
                        continue
                    with (folder / "Participants.gz").open("wb") as file:
                        for _ in range(10):
                            with (folder / "Messages.gz").open("rb") as part:
                                shutil.copyfileobj(part, file, MB)
                seconds, _, peak = case("ours", 1, base_url, kind, folder)
                print(f"{size:<34}{seconds:>10.1f}{peak:>10.1f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        run_case(sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
    else:
        main()
