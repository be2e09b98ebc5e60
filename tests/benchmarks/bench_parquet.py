"""A day of 2 million messages to Parquet, beside DuckDB and plain pyarrow; memory by size of day.

The second table is of messages with ten new fields, of which DuckDB writes the same JSON column;
the third of days of 100,000 that are odd in other ways. ``--rounds`` says how often the cases of
the first two are repeated, in turns. Each case is a process of its own; the peak counts from after
its imports. What is to be reached is printed with what is.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

PART_RECORDS = 500_000
PARTS = 4
MEGABYTE = 10**6
DAYS = {"50 MB": 50 * MEGABYTE, "500 MB": 500 * MEGABYTE, "5 GB": 5000 * MEGABYTE}
BODIES = (
    "Your parcel is on its way and will be at your door before noon. Reply STOP to end.",
    "Code {} is for the sandbox only",
    "Réunion à 9 h ☕ {}",
    'Line one\\nline two, \\"quoted\\" {}',
)
STRINGS = [
    "sid",
    "account_sid",
    "messaging_service_sid",
    "from",
    "to",
    "body",
    "status",
    "direction",
]
INTEGERS = ["num_segments", "num_media", "error_code", "flags"]
TIMES = ["date_created", "date_sent", "date_updated"]
NEW = {
    "carrier": lambda bits: f'"carrier {bits % 40}"',
    "channel": lambda _: '"sms"',
    "fee": lambda bits: f"{bits % 1000 / 1000:.3f}",
    "latency_ms": lambda bits: f"{bits % 3000}",
    "media_url": lambda bits: f'"https://media.example/{bits % 2**128:032x}"',
    "optimised": lambda bits: ("true", "false")[bits & 1],
    "price_unit": lambda _: '"USD"',
    "queue_depth": lambda bits: f"{bits % 7}",
    "retries": lambda bits: f"{bits % 4}",
    "score": lambda bits: f"{bits % 10**6 / 10**6:.6f}",
}
"""Fields that are no columns: four of text, three of integers, two of decimals, one truth value."""
RATE_TO_REACH = 1.0
NEW_RATE_TO_REACH = 0.8
MEMORY_TO_REACH = 0.5


def part(path: Path, seed: int, new: bool, count: int = PART_RECORDS) -> None:
    """Write messages as one gzip member, with new fields or without."""
    from isal import igzip

    rng = random.Random(seed)
    moments = [
        (datetime(2026, 1, 5, tzinfo=UTC) + timedelta(seconds=second)).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        )
        for second in range(86_500)
    ]
    with igzip.open(path, "wb", compresslevel=3) as file:
        for _ in range(count // 5000):
            lines = [message(rng, moments) for _ in range(5000)]
            if new:
                lines = [with_new_fields(line, rng.getrandbits(160)) for line in lines]
            file.write("".join(lines).encode())


def with_new_fields(line: str, bits: int) -> str:
    """Return a message with the new fields at its end."""
    return line[:-2] + "".join(f',"{name}":{made(bits)}' for name, made in NEW.items()) + "}\n"


def message(rng: random.Random, moments: list[str]) -> str:
    """Return a message as the API's files have it."""
    bits = rng.getrandbits(288)
    second = bits % 86_400
    service = f'"MG{bits >> 160:032x}"' if bits >> 20 & 3 == 0 else "null"
    inbound = bits >> 22 & 3 == 0
    status = "received" if inbound else ("delivered", "delivered", "sent", "failed")[bits >> 24 & 3]
    body = BODIES[bits >> 26 & 3].format(bits >> 28 & 0xFFFFF)
    price = ("", ',"price":null', ',"price":"-0.00750"', ',"price":"-0.01500"')[bits >> 48 & 3]
    return (
        f'{{"sid":"SM{rng.getrandbits(128):032x}","account_sid":"AC{7:032x}",'
        f'"messaging_service_sid":{service},"from":"+1555{bits % 9999991:07d}",'
        f'"to":"+1555{bits % 9999973:07d}","body":"{body}","status":"{status}",'
        f'"direction":"{"inbound" if inbound else "outbound-api"}","num_segments":{1 + bits % 3},'
        f'"num_media":0,"error_code":{"null" if bits & 1 else 0},'
        f'"date_created":"{moments[second]}","date_sent":"{moments[second + 1]}",'
        f'"date_updated":"{moments[second + 2 + bits % 90]}","flags":{(17, 65618)[bits >> 50 & 1]},'
        f'"start":"2026-01-05"{price}}}\n'
    )


def ours(source: Path, target: Path, *, new: bool):
    """Convert as the package does, which does not have to know of new fields."""
    del new
    import pyarrow.compute  # noqa: F401
    import pyarrow.json  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    from isal import igzip  # noqa: F401

    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.storage.parquet import write_parquet

    def run() -> int:
        refused = target.with_suffix(".jsonl")
        return write_parquet(source, target, refused, ResourceType.MESSAGES).records

    return run


def duckdb(source: Path, target: Path, *, new: bool):
    """
    Convert by DuckDB's read_json and COPY, with given columns; it checks only their types.

    It must be told of the new fields.
    """
    import duckdb

    columns = (
        dict.fromkeys(STRINGS, "VARCHAR")
        | dict.fromkeys(INTEGERS, "BIGINT")
        | dict.fromkeys(TIMES, "TIMESTAMPTZ")
        | {"price": "DECIMAL(18,6)", "start": "DATE"}
    )
    selected = ", ".join(f'"{name}"' for name in columns)
    if new:
        columns |= dict.fromkeys(NEW, "JSON")
        pairs = ", ".join(f"'{name}', {name}" for name in NEW)
        selected += f", json_object({pairs}) AS _extra"
    connection = duckdb.connect()
    connection.execute("SET TimeZone='UTC'")

    def run() -> int:
        reading = f"read_json('{source}', format='newline_delimited', columns={columns})"
        copied = f"(SELECT {selected} FROM {reading})"  # noqa: S608
        answer = connection.execute(f"COPY {copied} TO '{target}' (FORMAT parquet, CODEC zstd)")
        return answer.fetchall()[0][0]

    return run


def pyarrow(source: Path, target: Path, *, new: bool):
    """Convert by pyarrow's streaming JSON reader and ParquetWriter, without any check."""
    del new
    import pyarrow as pa
    import pyarrow.json as arrow_json
    from isal import igzip
    from pyarrow import parquet

    schema = pa.schema(
        [(name, pa.string()) for name in STRINGS]
        + [(name, pa.int64()) for name in INTEGERS]
        + [(name, pa.timestamp("us", "UTC")) for name in TIMES]
        + [("price", pa.decimal128(18, 6)), ("start", pa.string())]
    )

    def run() -> int:
        rows, waiting = 0, []
        with (
            igzip.open(source) as file,
            parquet.ParquetWriter(target, schema, compression="zstd") as writer,
        ):
            reader = arrow_json.open_json(
                file,
                read_options=arrow_json.ReadOptions(block_size=4 * 2**20),
                parse_options=arrow_json.ParseOptions(explicit_schema=schema),
            )
            for batch in reader:
                rows += batch.num_rows
                waiting.append(batch)
                if sum(len(one) for one in waiting) >= 2**18:
                    writer.write_table(pa.Table.from_batches(waiting))
                    waiting = []
            writer.write_table(pa.Table.from_batches(waiting, schema))
        return rows

    return run


CASES = {"ours": ours, "duckdb": duckdb, "pyarrow": pyarrow}


def peak() -> int:
    """Return the most memory this process has had, in kB; a parent's does not count."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def case(name: str, source: Path, target: Path, *, new: bool) -> None:
    """Run one case in this process and print its figures."""
    run = CASES[name](source, target, new=new)
    baseline = peak()
    began, worked = time.perf_counter(), time.process_time()
    rows = run()
    figures = {
        "rows": rows,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - worked,
        "peak": (peak() - baseline) / 1024,
        "size": target.stat().st_size / MEGABYTE,
    }
    print(json.dumps(figures))


def measured(name: str, source: Path, *, new: bool = False) -> dict:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, "--case", name, str(source), "new" if new else ""]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(answer.stdout)


def joined(target: Path, parts: list[Path], size: int | None = None) -> Path:
    """Join gzip members to one file, over and over until it has ``size`` bytes."""
    with target.open("wb") as file:
        number = 0
        while number < len(parts) if size is None else file.tell() < size:
            with parts[number % len(parts)].open("rb") as member:
                shutil.copyfileobj(member, file, 2**20)
            number += 1
    return target


def rates(source: Path, names: list[str], rounds: int, *, new: bool = False) -> None:
    """Print a table: how fast, beside the references that are installed."""
    runs: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            runs[name].append(measured(name, source, new=new))
    what = "ten new fields" if new else "plain"
    print(f"\n{what}: {source.stat().st_size / MEGABYTE:.0f} MB compressed, median of {rounds}")
    print("way      records      s   records/s  CPU s  peak MiB  file MB")
    for name in names:
        seconds = statistics.median(run["seconds"] for run in runs[name])
        cpu = statistics.median(run["cpu"] for run in runs[name])
        most = max(run["peak"] for run in runs[name])
        rows, size = runs[name][0]["rows"], runs[name][0]["size"]
        print(
            f"{name:8} {rows:7} {seconds:6.2f} {rows / seconds:11,.0f} {cpu:6.2f} {most:9.0f} "
            f"{size:8.1f}"
        )
    if "duckdb" in names:
        compared(runs["ours"], runs["duckdb"], NEW_RATE_TO_REACH if new else RATE_TO_REACH)


def compared(ours: list[dict], theirs: list[dict], rate_to_reach: float) -> None:
    """Print what is to be reached beside DuckDB, and what is, round by round."""
    each = [two["seconds"] / one["seconds"] for one, two in zip(ours, theirs, strict=True)]
    best = min(run["seconds"] for run in theirs) / min(run["seconds"] for run in ours)
    cpu = min(run["cpu"] for run in theirs) / min(run["cpu"] for run in ours)
    memory = max(run["peak"] for run in ours) / max(run["peak"] for run in theirs)
    print(
        f"rate / DuckDB's: {statistics.median(each):.2f} (per round "
        f"{', '.join(f'{value:.2f}' for value in each)}; best of each {best:.2f}; "
        f"by CPU time {cpu:.2f}); to reach: {rate_to_reach}"
    )
    print(f"peak / DuckDB's: {memory:.2f}; to reach: {MEMORY_TO_REACH}")


def odd_days(folder: Path) -> None:
    """Print the third table: days of 100,000 messages that are not as expected."""
    from isal import igzip

    plain = folder / "odd.json.gz"
    part(plain, 99, new=False, count=100_000)
    lines = igzip.decompress(plain.read_bytes()).splitlines()

    def with_fields(number: int, fields: str) -> bytes:
        return lines[number][:-1] + fields.encode() + b"}"

    many = ",".join(f'"new_{field}":{field}.5' for field in range(20))
    many += "".join(f',"text_{field}":"value {field}"' for field in range(50))
    odd = {
        "as expected": lambda n: lines[n],
        "one new string": lambda n: with_fields(n, f',"carrier":"carrier {n % 40}"'),
        "one new decimal": lambda n: with_fields(n, f',"fee":{n % 1000 / 1000:.3f}'),
        "70 new fields": lambda n: with_fields(n, "," + many),
        "a new list": lambda n: with_fields(n, ',"tags":["a","b"]'),
        "empty strings": lambda n: lines[n].replace(b'"error_code":null', b'"error_code":""'),
        "1 % without a day": lambda n: (
            lines[n].replace(b"2026-01-05T", b"2026-01-055T") if n % 100 == 0 else lines[n]
        ),
        "1 % with a wrong price": lambda n: (
            with_fields(n, "").replace(b'"price":"', b'"price":"x') if n % 100 == 0 else lines[n]
        ),
        "1 % cut off": lambda n: lines[n][:-9] if n % 100 == 0 else lines[n],
    }
    print("\n100,000 messages         CPU s   records/s of CPU")
    for name, line in odd.items():
        plain.write_bytes(igzip.compress(b"".join([line(n) + b"\n" for n in range(len(lines))]), 3))
        cpu = min(measured("ours", plain)["cpu"] for _ in range(3))
        print(f"{name:24} {cpu:5.2f} {100_000 / cpu:11,.0f}")


def memory(folder: Path, parts: list[Path]) -> None:
    """Print the last table: peak memory by the size of the day."""
    print("\nday     records       s  peak MiB above imports")
    for name, size in DAYS.items():
        if shutil.disk_usage(folder).free < 2 * size + 1000 * MEGABYTE:
            print(f"{name:6} skipped: the disk has no room for the day and its Parquet file")
            continue
        source = joined(folder / "memory.json.gz", parts, size)
        run = measured("ours", source)
        print(f"{name:6} {run['rows']:9} {run['seconds']:7.1f} {run['peak']:9.0f}")


def main() -> None:
    """Generate the days, run the cases, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["rates", "odd", "memory"])
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        name, source, new = arguments.case
        case(name, Path(source), Path(source).with_suffix(f".{name}.parquet"), new=bool(new))
        return
    names = [name for name in CASES if importlib.util.find_spec(name) or name == "ours"]
    for missing in CASES.keys() - set(names):
        print(f"{missing} is not installed: its rows are left out")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench_parquet_") as name:
        folder = Path(name)
        parts = [folder / f"part{number}.gz" for number in range(PARTS)]
        new_parts = [folder / f"new{number}.gz" for number in range(PARTS)]
        with ProcessPoolExecutor(min(PARTS, os.cpu_count() or 1)) as pool:
            list(pool.map(part, parts, range(PARTS), [False] * PARTS))
            if arguments.only in {None, "rates"}:
                list(pool.map(part, new_parts, range(PARTS), [True] * PARTS))
        if arguments.only in {None, "rates"}:
            rates(joined(folder / "rates.json.gz", parts), names, arguments.rounds)
            known = [name for name in names if name != "pyarrow"]
            source = joined(folder / "new.json.gz", new_parts)
            rates(source, known, arguments.rounds, new=True)
        if arguments.only in {None, "odd"}:
            odd_days(folder)
        if arguments.only in {None, "memory"}:
            memory(folder, parts)


if __name__ == "__main__":
    main()
