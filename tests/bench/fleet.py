"""The ledger of a fleet beside a host's own: one more name, a sync without a change, and many clients. As root:

    python -m tests.bench.fleet                       # 1, 10 and 100 hosts with 10,000 names each
    python -m tests.bench.fleet --hosts 1,100 --names 1000 --clients 20

The server is Debian's, on loopback with scram, and it writes to the disk before it acknowledges (fsync is on). The other
hosts' rows are written straight into its tables, as their own commands would have left them. Our host has --own names;
a host of its own with as many is the peer, in turns with it. Seconds are of whole commands, the start of the program
included; ``start`` is that of --version.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from tests.postgres import FleetOfRoots, Postgres

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 1000
POOL = "589824-1879048191"
ONE = ("allocate", "--strategy", "per-container", "--size", str(SIZE), "--pool", POOL)
# Rows of other hosts: fleet-wide names would not fit a hundred times 10,000.
FILL = """
WITH h AS (
    INSERT INTO usernsplan.host (name, role, machine, version, event, stamp)
    SELECT 'other' || n, 'nobody', 'm' || n, '0', 1, '1 ' FROM generate_series(1, {hosts}) n RETURNING number
), c AS (
    INSERT INTO usernsplan.claim (name, hosts, kind, ids)
    SELECT 'c' || k, int4range(h.number, h.number + 1), kind,
        int8range(1200000000 + k * {size}, 1200000000 + (k + 1) * {size})
    FROM h, generate_series(1, {names}) k, unnest(ARRAY['uid', 'gid']) kind RETURNING id, hosts
), s AS (
    INSERT INTO usernsplan.content (host, what, key, value)
    SELECT h.number, 'allocation', 'c' || k, {row}
    FROM h, generate_series(1, {names}) k
)
INSERT INTO usernsplan.hold (claim, host, state) SELECT id, lower(hosts), 'held' FROM c
"""
ROW = (
    """format('["c%1$s", "usernsplan-c%1$s", "per-container", "[[0, %2$s, {size}]]", "[[0, %2$s, {size}]]", %2$s, {size}, """
    """"2026-01-01T00:00:00Z", 1, "[]", "[]", "[]", 1, "userdb", "[]", "", 0, "", 1]', k, 1200000000 + k * {size})"""
)


def command(root: Path, *words: str) -> float:
    """Seconds of a command below a root."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "usernsplan", *words, "--root", str(root)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return time.perf_counter() - begun


def start() -> float:
    """Seconds of a start of the program."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "usernsplan", "--version"], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - begun


def spread(times: Sequence[float]) -> str:
    """The median and the 99th percentile."""
    last = sorted(times)[min(int(len(times) * 0.99), len(times) - 1)]
    return f"{statistics.median(times):.3f} (p99 {last:.3f})"


def give(root: Path, count: int) -> None:
    """Give a host this many names."""
    names = root.parent / f"{root.name}.names"
    names.write_text("".join(f"own{n}\n" for n in range(count)))
    if count:
        command(root, *ONE, "--publish", "none", "--names-from", str(names))


def measured(server: Postgres, folder: Path, hosts: int, asked: argparse.Namespace) -> list[str]:
    """One row of the table: a fleet with this many other hosts."""
    fleet = FleetOfRoots(server, folder)
    ours, alone = fleet.host("ours"), fleet.root("alone", "")
    if hosts > 1:
        row = ROW.format(size=SIZE)
        # All at once takes half as long as row by row.
        fleet.query("ALTER TABLE usernsplan.claim DROP CONSTRAINT no_overlap")
        fleet.query(FILL.format(hosts=hosts - 1, names=asked.names, size=SIZE, row=row))
        fleet.query(
            "ALTER TABLE usernsplan.claim ADD CONSTRAINT no_overlap "
            "EXCLUDE USING gist (hosts WITH &&, kind WITH =, ids WITH &&)"
        )
    fleet.query("ANALYZE")
    for root in (ours, alone):
        give(root, asked.own)

    operator = fleet.host("operator", "usernsplan_operator")
    one, peer, sync, changes, starts = [], [], [], [], []
    for n in range(asked.runs):
        one.append(command(ours, *ONE, f"new{n}"))
        peer.append(command(alone, *ONE, f"new{n}"))
        sync.append(command(ours, "sync"))
        if n < asked.runs // 4:
            command(operator, *ONE, *(f"asked{n}-{m}" for m in range(10)), "--on", "ours")
            changes.append(command(ours, "sync"))
        starts.append(start())
    [[size, rows]] = fleet.query(
        "SELECT sum(pg_total_relation_size(c.oid))::bigint, (SELECT count(*) FROM usernsplan.content) "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'usernsplan' AND relkind = 'r'"
    )
    before = errors(server)
    at_once, failed = together(fleet, asked.clients)
    # Each time that another host was faster, the server said so, and the command decided again.
    retries = errors(server) - before
    return [
        f"{hosts} x {asked.names}",
        spread(one),
        spread(peer),
        f"{statistics.median(one) / statistics.median(peer):.2f}",
        f"{statistics.median(sync) - statistics.median(starts):.3f}",
        f"{statistics.median(changes) - statistics.median(starts):.3f}",
        f"{statistics.median(starts):.3f}",
        f"{asked.clients / at_once:.1f}/s, {retries} again, {failed} failed",
        f"{size / max(rows, 1):.0f}",
    ]


def errors(server: Postgres) -> int:
    """How often the server has refused something so far."""
    return (server.folder / "log").read_text().count("ERROR:")


def together(fleet: FleetOfRoots, clients: int) -> tuple[float, int]:
    """Seconds for this many hosts that allocate one name each at once, and how many failed."""
    roots = [fleet.host(f"client{n}") for n in range(clients)]

    def one(root: Path) -> int:
        words = [sys.executable, "-m", "usernsplan", *ONE, f"of-{root.name}", "--root", str(root)]
        return subprocess.run(words, capture_output=True, check=False).returncode

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        failed = sum(map(bool, pool.map(one, roots)))
    return time.perf_counter() - begun, failed


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", default="1,10,100")
    parser.add_argument("--names", type=int, default=10_000, help="of each other host")
    parser.add_argument("--own", type=int, default=100, help="names of our host and of its peer")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--clients", type=int, default=100)
    asked = parser.parse_args()

    server, folder = Postgres(durable=True), Path(tempfile.mkdtemp(prefix="usernsplan-fleet-"))
    try:
        rows = []
        for hosts in map(int, asked.hosts.split(",")):
            place = folder / str(hosts)
            place.mkdir()
            rows.append(measured(server, place, hosts, asked))
    finally:
        server.remove()
        shutil.rmtree(folder)
    heads = [
        "hosts x names",
        "one more name, s",
        "alone, s",
        "ratio",
        "sync above start, s",
        "with ten changes, s",
        "start, s",
        "at once",
        "bytes each",
    ]
    print(tabulate(rows, heads))


if __name__ == "__main__":
    main()
