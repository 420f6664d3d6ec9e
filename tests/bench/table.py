"""The whole table: plain and worst cases, each beside a peer, on file systems of their own. As root:

    python -m tests.bench.table                    # all rows, medians of five
    python -m tests.bench.table --rows shift-ext4,chain --runs 1 --syscalls
    python -m tests.bench.table --small            # a hundredth of each size: does it work? --small 10: a tenth

We and the peers take turns, each from the same owners, with nothing left to write back. Making that state, and looking
whether the owners came out right, is not in the time. Seconds and ratios are medians. The CPU seconds have all
processes of a command in them. Memory is that of one more run, sampled: the sum of PSS over our processes, and the
largest RSS. With --syscalls, one more run under strace counts the system calls of all our processes for each entry (a
name, or a line), the start of the program included.

ext4 is in a loop-mounted image in memory (--images says where else): with the image on a disk, we and the peer would
both wait for it, and for whoever else uses it. Our journal, which the peers have not, is below TMPDIR, on a real disk
as on any host: we wait until it is written, and that is in our time. All mounts are in a mount namespace of their own.

What is measured is this checkout. USERNSPLAN_PURE=1 measures it without compiled code.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import functools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate

from tests.bench import timing, trees
from tests.bench.timing import Peak, Taken, cpu, program, wall
from tests.volume.tree import unshare_mounts

SHIFTED = 100_000
MAPS = ("--uid-map", f"0:{SHIFTED}:65536", "--gid-map", f"0:{SHIFTED}:65536")
# The default pool ends at 600100000 and holds 9147 ranges of 65536.
POOL = "589824-1879048191"
# The ids that the host's allocations get: the first is released, and its range quarantined.
QUARANTINED, STANDING = 589_824, 655_360
# What a tree of any shape may take, in MB.
MEMORY = 150
BARE = "python -c pass"


@dataclass(frozen=True)
class Peer:
    """What a row stands beside; ``most`` is the ratio of wall seconds that was asked for."""

    name: str
    words: Sequence[str]
    most: float | None = None
    # Where it does a part of the work only.
    times: int = 1


@dataclass(frozen=True)
class Asked:
    """A bound beside the ratios."""

    unit: str
    most: float

    def value(self, row: Row) -> float:
        ours = wall(row.ours)
        return {
            "s": ours,
            "MB": max(row.peak.together, row.peak.largest),
            "µs each": ours / row.case.entries * 1e6,
        }[self.unit]


@dataclass(frozen=True)
class Case:
    """One row to be measured. ``before`` gets the name of the peer that is next, or "ours"."""

    key: str
    what: str
    ours: Sequence[str]
    peers: Sequence[Peer]
    entries: int = 1
    asked: Sequence[Asked] = ()
    prepare: Callable[[], object] = lambda: None
    before: Callable[[str], object] = lambda _: None
    after: Callable[[], object] = lambda: None
    statuses: Collection[int] = (0,)
    # Short commands are run more often.
    rounds: int = 1


@dataclass(frozen=True)
class Row:
    """What was found."""

    case: Case
    ours: list[Taken]
    theirs: Mapping[str, list[Taken]]
    peak: Peak
    calls: Mapping[str, int] | None


class Bench:
    """One host of ours below a temporary folder, and what was asked for."""

    def __init__(self, host: Path, images: Path, words: argparse.Namespace) -> None:
        self.host, self.images = host, images
        self.runs: int = words.runs
        self.small: int = words.small
        self.syscalls: bool = words.syscalls
        (host / "etc").mkdir()
        allocate = ["allocate", "--strategy", "per-container"]
        timing.run(self.ours(*allocate, "old", "web"))
        timing.run(self.ours("release", "old", "--yes"))

    def size(self, full: int) -> int:
        return max(full // self.small, 1)

    def ours(self, *words: str | Path) -> list[str]:
        return [*program(), *map(str, words), "--root", str(self.host)]

    def shift(self, tree: Path, *more: str) -> list[str]:
        return self.ours("fix-volume", tree, *MAPS, *more)

    def forget(self) -> None:
        """As if no run was ever made."""
        shutil.rmtree(self.host / "var/lib/usernsplan/runs", ignore_errors=True)

    def fresh(self, tree: Path) -> None:
        """All is root's, and no run was ever made."""
        timing.run(["chown", "-hR", "0:0", str(tree)])
        self.forget()

    def mounted(self, kind: str, key: str, files: int) -> contextlib.AbstractContextManager[Path]:
        # A path of its own: the ledger remembers whose a volume is.
        return trees.mounted(kind, self.host / "srv" / key, files, self.images)

    def measure(self, case: Case) -> Row:
        peers = [peer for peer in case.peers if shutil.which(peer.words[0])]
        case.prepare()
        commands = {"ours": case.ours, **{peer.name: peer.words for peer in peers}}
        rounds = self.runs * case.rounds
        taken = timing.by_turns(commands, case.before, case.after, rounds, case.statuses)

        case.before("ours")
        peak = timing.peak(case.ours, case.statuses)
        calls = None
        if self.syscalls:
            case.before("ours")
            calls = timing.counted(case.ours, case.statuses)
        return Row(case, taken.pop("ours"), taken, peak, calls)


def owned_by(tree: Path, owner: int) -> None:
    """A run that is fast because it leaves something out is no result."""
    is_right = ["(", "-uid", f"{owner}", "-gid", f"{owner}", ")"]
    wrong = subprocess.check_output(["find", tree, "!", *is_right, "-print", "-quit"])
    if wrong:
        sys.exit(f"not owned by {owner}: {os.fsdecode(wrong)[:200]}")


def chown(tree: Path, owner: int, most: float | None) -> Peer:
    return Peer("`chown -hR`", ["chown", "-hR", f"{owner}:{owner}", str(tree)], most)


def parallel(tree: Path, owner: int) -> Peer:
    script = f'find "$1" -print0 | xargs -0 -P2 chown -h {owner}:{owner}'
    return Peer("`find -print0 \\| xargs -0 -P2 chown -h`", ["sh", "-c", script, "sh", str(tree)])


# Scenes: each makes its file system or host once, and yields the rows that are measured there.

Scene = Callable[[Bench], Generator[Case, None, None]]


def on_plain(bench: Bench, kind: str) -> Generator[Case, None, None]:
    """Everything that is done to a plain tree."""
    files = bench.size(300_000)
    first, again = {"ext4": (1.0, 0.4), "tmpfs": (1.3, 0.6)}[kind]
    with bench.mounted(kind, f"plain-{kind}", files) as tree:
        entries = trees.plain(tree, files)
        what = f"{files:,} plain files, {kind}"
        shift, shifted = bench.shift(tree), functools.partial(owned_by, tree, SHIFTED)

        def fresh(_: str) -> None:
            bench.fresh(tree)

        def done() -> None:
            bench.fresh(tree)
            timing.run(shift)

        fuidshift = Peer("`fuidshift`", ["fuidshift", str(tree), f"b:0:{SHIFTED}:65536"], 1 / 5.5)
        yield Case(
            f"shift-{kind}",
            f"{what}: shift",
            shift,
            [chown(tree, SHIFTED, first), parallel(tree, SHIFTED), fuidshift],
            entries,
            [Asked("MB", MEMORY)],
            before=fresh,
            after=shifted,
        )
        yield Case(
            f"again-{kind}",
            f"{what}: the second run",
            shift,
            [chown(tree, SHIFTED, again)],
            entries,
            prepare=done,
            after=shifted,
        )
        yield Case(
            f"undo-{kind}",
            f"{what}: undo",
            bench.ours("undo", "--last", "--yes"),
            [Peer("the run itself", shift, 1.3)],
            entries,
            before=lambda name: done() if name == "ours" else bench.fresh(tree),
            after=functools.partial(owned_by, tree, 0),
        )

        def some() -> None:
            bench.fresh(tree)
            trees.give_some(tree, QUARANTINED + 33)

        above, below = f"+{QUARANTINED - 1}", f"-{QUARANTINED + 65536}"
        is_in = ["(", "-uid", above, "-uid", below, "-o", "-gid", above, "-gid", below, ")"]
        find = Peer("`find -uid … -o -gid …`", ["find", str(tree), "-xdev", *is_in], 1.2)
        both = 'top=$1; shift; "$@"; getfacl -RPns "$top"'
        acls_too = Peer(
            "`find`, and `getfacl -R` for ACLs", ["sh", "-c", both, "sh", str(tree), *find.words]
        )
        rows: tuple[tuple[str, str, list[str], list[Peer]], ...] = (
            ("find-owned", "find-owned", ["find-owned", "old", str(tree)], [find, acls_too]),
            ("scan", "check --scan", ["check", "--scan", str(tree)], [find]),
        )
        for key, name, command, peers in rows:
            yield Case(
                f"{key}-{kind}",
                f"{what}: {name}",
                bench.ours(*command),
                peers,
                entries,
                prepare=some,
                statuses=(0, 1),
            )

        # The last: the ledger remembers whose the volume is.
        yield Case(
            f"own-{kind}",
            f"{what}: own",
            bench.ours("fix-volume", tree, "--mode", "own", "--container", "web"),
            [chown(tree, STANDING, None)],
            entries,
            before=fresh,
            after=functools.partial(owned_by, tree, STANDING),
        )


@dataclass(frozen=True)
class Shape:
    """A tree of another shape, shifted beside chown."""

    key: str
    what: str
    kind: str
    full: int
    build: Callable[[Path, int], int]
    # Of chown's wall seconds; and further bounds.
    most: float | None = None
    asked: Sequence[Asked] = (Asked("MB", MEMORY),)
    # What chown destroys, and has to be made again.
    restore: Callable[[Path], object] = lambda _: None

    def scene(self, bench: Bench) -> Generator[Case, None, None]:
        files = bench.size(self.full)
        with bench.mounted(self.kind, self.key, files * 2) as tree:
            entries = self.build(tree, files)

            def fresh(_: str) -> None:
                bench.fresh(tree)
                self.restore(tree)

            yield Case(
                self.key,
                f"{self.what.format(files, files * trees.NAMES_EACH)}, {self.kind}",
                bench.shift(tree),
                [chown(tree, SHIFTED, self.most)],
                entries,
                self.asked,
                before=fresh,
                after=functools.partial(owned_by, tree, SHIFTED),
            )


SHAPES = (
    Shape(
        "open-ext4",
        "{:,} plain files, others may write to each folder",
        "ext4",
        300_000,
        trees.open_to_all,
        1.5,
    ),
    Shape(
        "open-tmpfs",
        "{:,} plain files, others may write to each folder",
        "tmpfs",
        300_000,
        trees.open_to_all,
        1.5,
    ),
    Shape(
        "names",
        "{1:,} names of {0:,} inodes",
        "ext4",
        10_000,
        trees.many_named,
        2,
        [Asked("MB", 100)],
    ),
    Shape(
        "two-named",
        "{:,} inodes with two names",
        "ext4",
        200_000,
        trees.two_named,
        asked=[Asked("MB", 100)],
    ),
    Shape(
        "setuid",
        "{:,} setuid files",
        "ext4",
        100_000,
        trees.with_setuid,
        restore=trees.set_setuid,
    ),
    Shape("chain", "a chain of {:,} folders", "ext4", 10_000, trees.chain, asked=[Asked("s", 1)]),
    Shape("comb", "the same, and a second folder in each", "ext4", 10_000, trees.comb),
    Shape("flat", "one folder with {:,} files", "ext4", 1_000_000, trees.flat),
    Shape(
        "long-names", "one folder with {:,} names of 255 bytes", "ext4", 200_000, trees.long_named
    ),
    Shape("million", "{:,} plain files", "ext4", 1_000_000, trees.plain, asked=[Asked("MB", 60)]),
)


def on_acls(bench: Bench) -> Generator[Case, None, None]:
    """ACLs, beside chown, which leaves them as they are, and setfacl with a list made beforehand."""
    files = bench.size(50_000)
    with bench.mounted("tmpfs", "acls", files) as tree:
        entries = trees.with_acls(tree, files)
        before, wanted = bench.host / "before.acl", bench.host / "wanted.acl"
        before.write_text(acls(tree))
        wanted.write_text(
            re.sub(
                r"(?m)^(# owner: |# group: |user:|group:)(\d+)",
                lambda found: f"{found[1]}{int(found[2]) + SHIFTED}",
                before.read_text(),
            )
        )

        def fresh(_: str) -> None:
            timing.run(["setfacl", f"--restore={before}"])
            bench.forget()

        def shifted() -> None:
            if acls(tree) != wanted.read_text():
                sys.exit("the ACLs are not those that were expected")

        setfacl = ["setfacl", f"--restore={wanted}"]
        yield Case(
            "acls",
            f"{files:,} files with 12 named ACL entries each, tmpfs",
            bench.shift(tree),
            [Peer("`setfacl --restore` of a list", setfacl), chown(tree, SHIFTED, None)],
            entries,
            [Asked("µs each", 15), Asked("MB", MEMORY)],
            before=fresh,
            after=shifted,
        )


def acls(tree: Path) -> str:
    return subprocess.check_output(["getfacl", "-RPnp", tree], text=True)


def of_starts(bench: Bench) -> Generator[Case, None, None]:
    """What a command takes where there is next to nothing to do."""
    bare = [sys.executable, "-c", "pass"]
    yield Case("list", "`list`", bench.ours("list"), [Peer(BARE, bare, 6)], rounds=5)

    commands = ("show web", "render podman web", f"whois {STANDING}", "check", "map", "volumes")
    took = {
        words: cpu([timing.run(bench.ours(*words.split()), (0, 1)) for _ in range(3)])
        for words in (*commands, "history", "capacity", "allocate web")
    }
    slowest = max(took, key=lambda words: took[words])
    yield Case(
        "start",
        f"`{slowest}`, the slowest of {len(took)} commands",
        bench.ours(*slowest.split()),
        [Peer(BARE, bare, 7)],
        statuses=(0, 1),
        rounds=5,
    )


def of_names(bench: Bench) -> Generator[Case, None, None]:
    """Many allocations, beside usermod, which takes the same locks and rewrites the same files once for each."""
    count, sample = bench.size(10_000), bench.size(200)
    root, used, theirs = (bench.host / name for name in ("many", "used", "theirs"))
    names = [f"c{number:05}" for number in range(count)]
    allocate = [*program(), "allocate", "--strategy", "per-container", "--pool", POOL, "--root"]
    sbin = "/usr/sbin:/sbin"
    useradd = shutil.which("useradd", path=sbin) or "useradd"
    usermod = shutil.which("usermod", path=sbin) or "usermod"

    def script(folder: Path, firsts: range) -> list[str]:
        words = f"{usermod} --prefix {folder} --add-subuids $r --add-subgids $r peer"
        ranges = " ".join(f"{first}-{first + 65535}" for first in firsts)
        return ["sh", "-c", f"for r in {ranges}; do {words} || exit; done"]

    def account(folder: Path) -> None:
        (folder / "etc").mkdir(parents=True, exist_ok=True)
        for name in ("subuid", "subgid"):
            (folder / "etc" / name).touch()
        subprocess.run([useradd, "--prefix", folder, "peer"], check=True, capture_output=True)

    def empty(_: str) -> None:
        for folder in (root, theirs):
            shutil.rmtree(folder, ignore_errors=True)
        account(theirs)

    firsts = range(589_824, 589_824 + 65_536 * sample, 65_536)
    yield Case(
        "many",
        f"allocate {count:,} names",
        [*allocate, str(root), *names],
        [
            Peer(
                f"`usermod`, {sample} runs scaled",
                script(theirs, firsts),
                times=count // sample,
            )
        ],
        count,
        [Asked("s", 1.5)],
        before=empty,
    )

    def begin() -> None:
        empty("")
        timing.run([*allocate, str(root), *names])
        account(root)

    def copied(_: str) -> None:
        shutil.rmtree(used, ignore_errors=True)
        shutil.copytree(root, used, symlinks=True)

    last = 589_824 + 65_536 * (count + 1)
    yield Case(
        "one-more",
        f"one more beside {count:,} names",
        [*allocate, str(used), "more"],
        [Peer("`usermod`", script(used, range(last, last + 1, 65_536)))],
        asked=[Asked("s", 0.25)],
        prepare=begin,
        before=copied,
        rounds=3,
    )


def of_lines(bench: Bench) -> Generator[Case, None, None]:
    """A host where others wrote very many lines, and none of the owners has an account: a finding for each line."""
    count, root = bench.size(100_000), bench.host / "lines"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    lines = (f"u{number:06}:{100_000 + number * 20_000}:20000\n" for number in range(count))
    for name, text in dict.fromkeys(("subuid", "subgid"), "".join(lines)).items():
        (root / "etc" / name).write_text(text)
    for key, option in (("check", []), ("check-json", ["--json"])):
        yield Case(
            key,
            f"`{' '.join(['check', *option])}`, {count:,} lines in each file, a finding for each",
            [*program(), "check", *option, "--root", str(root)],
            [],
            count,
            [Asked("s", 3), Asked("MB", 200)],
            statuses=(0, 1),
        )


PLAIN = ("shift", "again", "undo", "find-owned", "scan", "own")
SCENES: tuple[tuple[Scene, tuple[str, ...]], ...] = (
    *(
        (functools.partial(on_plain, kind=kind), tuple(f"{key}-{kind}" for key in PLAIN))
        for kind in ("ext4", "tmpfs")
    ),
    *((shape.scene, (shape.key,)) for shape in SHAPES),
    (on_acls, ("acls",)),
    (of_starts, ("list", "start")),
    (of_names, ("many", "one-more")),
    (of_lines, ("check", "check-json")),
)
KEYS = tuple(key for _, keys in SCENES for key in keys)


# What is printed.

HEADERS = (
    "",
    "beside",
    "we, s (CPU)",
    "peer, s (CPU)",
    "ratio (CPU)",
    "asked",
    "MB (largest)",
    "calls",
)


def seconds(taken: list[Taken], times: int = 1) -> str:
    both = (wall(taken) * times, cpu(taken) * times)
    return "{} ({})".format(*(f"{each:.{2 if each >= 1 else 3}f}" for each in both))


def verdict(bound: str, met: bool) -> str:
    return f"≤ {bound}{'' if met else ', **missed**'}"


def lines(row: Row) -> Iterator[list[str]]:
    """The lines of a row, one for each peer."""
    ours = row.ours
    asked = [
        verdict(f"{one.most:g} {one.unit}", one.value(row) <= one.most)
        + (f": {one.value(row):.0f}" if one.unit == "µs each" else "")
        for one in row.case.asked
    ]
    calls = "" if row.calls is None else f"{sum(row.calls.values()) / row.case.entries:.2f}"
    memory = f"{row.peak.together:.0f} ({row.peak.largest:.0f})"
    peers = [peer for peer in row.case.peers if peer.name in row.theirs]
    for number, peer in enumerate(peers or [Peer("", [])]):
        theirs = row.theirs.get(peer.name)
        ratio, bounds = "", list(asked if number == 0 else [])
        if theirs:
            by_wall = wall(ours) / (wall(theirs) * peer.times)
            ratio = f"{by_wall:.2f} ({cpu(ours) / (cpu(theirs) * peer.times):.2f})"
            if peer.most is not None:
                bounds.insert(0, verdict(f"{peer.most:.2g} of it", by_wall <= peer.most))
        yield [
            row.case.what if number == 0 else "",
            peer.name,
            seconds(ours) if number == 0 else "",
            seconds(theirs, peer.times) if theirs else "",
            ratio,
            "; ".join(bounds),
            memory if number == 0 else "",
            calls if number == 0 else "",
        ]


def markdown(rows: Sequence[Row]) -> str:
    table = [line for row in rows for line in lines(row)]
    return tabulate(table, HEADERS, tablefmt="github", disable_numparse=True)


def broken_down(row: Row) -> str:
    """The calls that are made most."""
    calls = sorted((row.calls or {}).items(), key=lambda call: -call[1])[:8]
    told = ", ".join(f"{name} {count / row.case.entries:.2f}" for name, count in calls)
    return f"- {row.case.what}: {told}"


def document(rows: Sequence[Row], about: str) -> str:
    return json.dumps(
        {
            "about": about,
            "rows": [
                {
                    "key": row.case.key,
                    "what": row.case.what,
                    "entries": row.case.entries,
                    "ours": [asdict(each) for each in row.ours],
                    "asked": [asdict(each) for each in row.case.asked],
                    "peers": [
                        {
                            "name": peer.name,
                            "most": peer.most,
                            "times": peer.times,
                            "taken": [asdict(each) for each in row.theirs[peer.name]],
                        }
                        for peer in row.case.peers
                        if peer.name in row.theirs
                    ],
                    "peak_mb": asdict(row.peak),
                    "calls": row.calls,
                }
                for row in rows
            ],
        },
        indent=1,
    )


def machine(runs: int) -> str:
    version = subprocess.check_output(
        [*program(), "--version"], text=True, env=timing.environment()
    )
    return (
        f"{version.strip()}; Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} cores, "
        f"load average {os.getloadavg()[0]:.2f} at the start; medians of {runs}"
    )


def measured(words: argparse.Namespace, wanted: Collection[str]) -> Generator[Row, None, None]:
    """The rows that are wanted, one after the other."""
    with tempfile.TemporaryDirectory() as host, tempfile.TemporaryDirectory(dir=words.images) as to:
        bench = Bench(Path(host), Path(to), words)
        for scene, keys in SCENES:
            if not set(keys).isdisjoint(wanted):
                with contextlib.closing(scene(bench)) as cases:
                    yield from (bench.measure(case) for case in cases if case.key in wanted)


def print_all(about: str, rows: Sequence[Row]) -> None:
    """The table, and what it cannot say."""
    print(f"{about}\n\n{markdown(rows)}")
    if counted := [row for row in rows if row.calls and row.case.entries > 1]:
        print("\nSystem calls for each entry:\n\n" + "\n".join(map(broken_down, counted)))
    missing = {peer.name for row in rows for peer in row.case.peers} - {
        name for row in rows for name in row.theirs
    }
    if missing:
        print(f"\nNot installed, and left out: {', '.join(sorted(missing))}")


def main() -> None:
    """Measure the rows that were asked for, and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", help=f"of {','.join(KEYS)}", default=",".join(KEYS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--small", nargs="?", type=int, const=100, default=1, metavar="N", help="divide each size"
    )
    parser.add_argument("--syscalls", action="store_true", help="count system calls, too (slow)")
    parser.add_argument("--images", default="/dev/shm", help="where the image of ext4 is")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    words = parser.parse_args()
    wanted = set(words.rows.split(","))
    if unknown := wanted - set(KEYS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    if os.geteuid():
        sys.exit("only root can mount and chown")

    # Killed, too, it takes its images out of memory.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    unshare_mounts()
    compileall.compile_dir(timing.REPOSITORY / "usernsplan", quiet=1)
    about = machine(words.runs)
    print(about, file=sys.stderr)
    rows: list[Row] = []
    try:
        with contextlib.closing(measured(words, wanted)) as found:
            for row in found:
                rows.append(row)
                print(*lines(row), sep="\n", file=sys.stderr, flush=True)
    finally:
        # Of a run that was ended early, too: it may have taken an hour.
        print_all(about, rows)
        if words.json:
            Path(words.json).write_text(document(rows, about))


if __name__ == "__main__":
    main()
