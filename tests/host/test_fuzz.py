"""Random damage to every file that usernsplan reads, and random arguments: no command breaks.

Every command ends with a documented status and a message; an exception is a failure. The default run
has a budget of seconds; slow tests and USERNSPLAN_FUZZ=SECONDS give it more. A failure prints its
seed, and USERNSPLAN_FUZZ_SEED=SEED repeats that one case.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tests.command import here, needs_root
from usernsplan.ledger import codec
from usernsplan.model import Actor, LedgerChange
from usernsplan.volume import moving as moving_

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = float(os.environ.get("USERNSPLAN_FUZZ", "4"))
STATUSES = {*range(10), 130}
PLAN = "strategy: per-container\ncontainers:\n- name: web\n  volumes:\n  - {path: /srv/web, mode: shift}\n- db\n"
OTHER = (
    "strategy: per-container\ncontainers:\n- {name: alice, adopt: true}\n- {name: web2, was: web}\n"
    "- {name: media, pass: ['u:1000', 'g:104:107']}\n- {name: cut, within: bob, size: 1000}\n"
    "- {name: alice-app, adopt: true, within: alice, map: ['b 0 102000 50', 'u 100 1000 1']}\n"
)
FILES = {
    "etc/subuid": "alice:100000:65536\nbob:200000:65536\n",
    "etc/subgid": "alice:100000:65536\n# people\nbob:200000:65536\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\ndockremap:x:990:990::/:\n",
    "etc/group": "root:x:0:\nalice:x:1000:\ndockremap:x:990:\n",
    "etc/login.defs": "UID_MIN 1000\nSUB_UID_MIN 100000\nSUB_UID_COUNT 65536\nUID_MAX 60000\n",
    "etc/nsswitch.conf": "passwd: files systemd\nsubid: files\n",
    "etc/docker/daemon.json": '{"debug": true, "userns-remap": "default"}',
    "etc/containers/storage.conf": '[storage]\ndriver = "overlay"\n[storage.options]\nremap-user = "containers"\n',
    "etc/lxc/lxc.conf": "lxc.lxcpath = /var/lib/lxc\n",
    "etc/pve/lxc/105.conf": "unprivileged: 1\nlxc.idmap: u 0 300000 65536\n[old]\narch: amd64\n",
    "var/lib/lxc/box/config": "lxc.include = /etc/lxc/box.conf\nlxc.idmap = g 0 400000 65536\n",
    "etc/lxc/box.conf": "lxc.idmap = u 0 0x61a80 65536\n",
    "home/alice/.local/share/lxc/a/config": "lxc.idmap = u 0 100000 65536\n",
    "home/alice/.config/containers/systemd/app.container": "[Container]\nUIDMap=0:2001:50\nGIDMap=0:2001:50\n",
    "home/alice/.config/containers/systemd/app.container.d/a.conf": "[Container]\nUIDMap=100:@1000:1\n",
    "etc/containers/systemd/pod.pod": "[Pod]\nUserNS=auto\nUIDMap=0:7000000:1000\n",
    "etc/usernsplan.yaml": PLAN,
    "other.yaml": OTHER,
    "bundle/config.json": '{"ociVersion": "1.0.2", "process": {"user": {"uid": 0}}, "linux": {"namespaces": []}}',
    "image/passwd": "root:x:0:0::/:/bin/sh\nwww:x:33:33::/:/bin/sh\n",
}
LEDGER = "var/lib/usernsplan/ledger.sqlite3"
SWAP = "--uid-map 33:34:1 --uid-map 34:33:1 --gid-map 33:34:1 --gid-map 34:33:1"
COMMANDS = (
    *(
        "list",
        "list --json",
        "show web",
        "show web --json",
        "history",
        "history --json",
        "map",
        "map --json",
    ),
    *(
        "map --svg -",
        "capacity",
        "capacity --json",
        "check",
        "check --json",
        "check --volumes",
        "export",
    ),
    *(
        "check --fix --yes",
        "check --passwd ROOT/image/passwd",
        "export --json",
        "whois 1310753 589825 --json",
    ),
    *(
        "whois --container web 33",
        "whois --file ROOT/srv/web/a",
        "find-owned web ROOT/srv",
        "plan",
        "plan --json",
    ),
    *(
        "plan --prune --check",
        "plan --out ROOT/new.plan",
        "apply --yes",
        "apply --yes --fix-volumes --json",
    ),
    *(
        "apply --plan ROOT/saved.plan --yes",
        "allocate --strategy per-container more",
        "allocate --dry-run",
    ),
    *(
        "allocate --strategy shared --dry-run --json",
        "release db",
        "allocate media --pass u:1000 --pass g:104:107",
        "allocate more --pass b:1000-1005 --pass g:44:44 --size 4096",
        "release --forget old",
        "render --list web",
    ),
    *(
        "render podman web --volume ROOT/srv/web:/data",
        "render docker web",
        "render oci web --bundle ROOT/bundle",
    ),
    *(
        "render podman-auto web --json",
        "render kubernetes web",
        "render quadlet web --rootless",
        "undo RUN",
    ),
    *(
        "render lxc web --out ROOT/out",
        "fix-volume /srv/web --jobs 1",
        "fix-volume /srv/web --container db --take",
    ),
    *(
        "fix-volume /srv/other --container db --mode shift --jobs 1 --json",
        "undo RUN --dry-run --json",
    ),
    f"fix-volume /srv/third {SWAP} --unmapped keep --jobs 1",
    *(
        "fix-volume /srv/web --dry-run --passwd ROOT/image/passwd --user www",
        "history --prune-runs --older-than 0h",
    ),
    *("adopt", "adopt --json", "adopt alice", "adopt --all", "adopt --all --dry-run --json"),
    *("adopt alice-app 105 box --pass-privileged", "plan ROOT/other.yaml", "export --json"),
    *("apply ROOT/other.yaml --yes", "apply ROOT/other.yaml --prune --yes --fix-volumes"),
    *("allocate more --within alice --size 9", "allocate cut --within bob", "release cut"),
    *("release alice", "release alice --with-lines", "rename web web2", "rename cut cut2"),
    *("rename db media", "remap web --size 131072 --yes", "remap web --undo --yes"),
    *("remap web --pass u:1000 --yes --json", "remap media --no-pass --yes", "remap web --yes"),
    *("remap moved --yes", "remap moved --undo --yes", "remap media --dry-run --json --start 7"),
    *("render podman cut --rootless", "render lxc cut", "show cut --json", "show moved"),
    *("fix-volume /srv/moved", "fix-volume /srv/moved --dry-run --json", "check --select USN0"),
    "fix-volume /srv/other --container db --from-map b:0:589824:9 --from-map x",
    *("ledger rebuild --dry-run", "ledger rebuild --yes", "ledger rebuild --json"),
)
WORDS = (
    *" ".join(COMMANDS).split(),
    *(
        "--root",
        "ROOT",
        "-",
        "",
        "\0",
        "\udcff",
        "..",
        "/",
        "//",
        "/proc/1/mem",
        "1e999",
        "-1",
        "4294967295",
        "9" * 99,
    ),
    *(
        "--pool",
        "0-1",
        "5-4",
        "--size",
        "--start",
        "--owner",
        "a:b",
        "--engine",
        "all",
        "none",
        "--from",
        "--uid-map",
    ),
    *(
        "0:1:2",
        "0:4294967295:1",
        "::",
        "--gid-map",
        "--yes",
        "--dry-run",
        "--strategy",
        "shared",
        "single-uid",
        "--pass",
        "u:1000",
        "g:104:107",
        "b:0-1",
        "--pass-privileged",
        "--within",
        "alice",
        "--from-map",
        "u 0 589824 65536",
        "--no-pass",
        "--undo",
        "--with-lines",
    ),
    *(
        "--max",
        "--identity",
        "--block",
        "--container-id",
        "--pods",
        "--auto-containers",
        "--user",
        "--mode",
        "own",
    ),
    *(
        "--width",
        "--scan",
        "--explain",
        "USN001",
        "--select",
        "--help",
        "--format",
        "github",
        "x" * 5000,
        "é",
        "\n",
    ),
)
NUMBERS = (
    -1,
    0,
    1,
    0.5,
    65536,
    2**31,
    2**32 - 1,
    2**32,
    2**63,
    2**64,
    10**400,
    float("inf"),
    float("nan"),
)
STATES = ("looking", "changing", "done", "undoing", "undone")
VALUES: tuple[Any, ...] = (
    *STATES,
    None,
    True,
    False,
    "",
    "0",
    "x",
    "\ud800",
    "\0",
    "/",
    "../..",
    [],
    {},
    [[]],
    [1, 2, 3],
    {"": None},
    *NUMBERS,
)
TEXTS = (
    *(
        b"",
        b"\0",
        b"\0" * 4096,
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b"{}",
        b"\n\n\r\n",
    ),
    *(
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"x": 1e999}',
        b"1" * 5000,
        b"a: &a [*a]",
        b":::",
        b"a:1:2:3:4",
        b"=",
        b"\\",
    ),
    *(
        b"a:" + b"9" * 4999 + b":1\n",
        b"SUB_UID_MIN " + b"9" * 4999,
        b"- " * 2000,
        b"!!python/object:os.system {}",
    ),
)


class Sane:
    """Random actions from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.done: list[str] = []

    def damage(self, root: Path) -> None:
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        own = [path for path in files if "usernsplan" in str(path.relative_to(root))]
        path = self.random.choice(self.random.choice((files, own)))
        ways: list[Callable[[Path], object]] = [
            self.cut,
            self.holed,
            self.flipped,
            self.whole,
            self.other,
            self.kind,
        ]
        if path.suffix == ".sqlite3":
            ways = [self.rows, self.rows, self.rows, self.tables, *ways]
        elif path.read_bytes()[:1] == b"{":
            ways = [self.json, self.json, self.json, *ways]
        way = self.random.choice(ways)
        self.done.append(f"{way.__name__} {path.relative_to(root)}: {way(path)!r}"[:300])

    def cut(self, path: Path) -> object:
        at = self.random.randrange(path.stat().st_size + 1)
        os.truncate(path, at)
        return at

    def holed(self, path: Path) -> object:
        raw = bytearray(path.read_bytes())
        at, size = self.random.randrange(len(raw) + 1), self.random.choice((1, 16, 512, 4096))
        raw[at : at + size] = bytes(len(raw[at : at + size]))
        path.write_bytes(raw)
        return at, size

    def flipped(self, path: Path) -> object:
        raw = bytearray(path.read_bytes())
        places = [
            self.random.randrange(len(raw)) for _ in range(self.random.randrange(1, 9)) if raw
        ]
        for at in places:
            raw[at] = self.random.choice((self.random.randrange(256), *b'0:-{}[]"\n '))
        path.write_bytes(raw)
        return places

    def whole(self, path: Path) -> object:
        text = self.random.choice(TEXTS)
        path.write_bytes(text)
        return text

    def other(self, path: Path) -> object:
        raw = path.read_bytes()
        at, text = self.random.randrange(len(raw) + 1), self.random.choice(TEXTS)
        path.write_bytes(raw[:at] + text + raw[at:])
        return at, text

    def kind(self, path: Path) -> object:
        path.unlink()
        # A command that gets a pipe waits for its data.
        is_named = path.name == "saved.plan" or path.parent.name == "image"
        kind = self.random.choice(
            ("folder", "loop", "dangling", "gone", "gone" if is_named else "fifo")
        )
        if kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "loop":
            path.symlink_to(path.name)
        elif kind == "dangling":
            path.symlink_to("/nowhere/at/all")
        return kind

    def json(self, path: Path) -> object:
        """Another value at a random place of a JSON document, or of one of its lines."""
        lines = path.read_text().splitlines(keepends=True)
        number = (
            self.random.randrange(len(lines)) if path.name.startswith(("folders", "late")) else None
        )
        document: Any = json.loads(lines[number] if number is not None else "".join(lines))
        places: list[tuple[Any, Any]] = []

        def walk(node: Any) -> None:  # noqa: ANN401 - JSON
            for key in (
                node
                if isinstance(node, dict)
                else range(len(node))
                if isinstance(node, list)
                else ()
            ):
                places.append((node, key))
                walk(node[key])

        walk(document)
        node, key = self.random.choice(places)
        if self.random.random() < 0.2:
            del node[key]
            value: Any = "(gone)"
        else:
            node[key] = value = self.random.choice(VALUES)
        text = json.dumps(document)
        if number is not None:
            lines[number] = text + "\n"
            text = "".join(lines)
        path.write_text(text)
        return key, value

    def rows(self, path: Path) -> object:
        said: object = None
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as db:
            table = self.random.choice(
                [
                    row[0]
                    for row in db.execute(
                        "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE TABLE%'"
                    )
                ]
            )
            column = self.random.choice(
                [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            )
            value = self.random.choice(
                (
                    b"\xff\0",
                    b"",
                    None,
                    "",
                    "[[",
                    "[" * 100_000,
                    "[[1e999,0,1]]",
                    "[[0,0,99999999999]]",
                    '[["u", 0, 0, 1]]',
                    '[["gid", 107, 104, 1]]',
                    '[["gid", 107, 104, 1], ["gid", 107, 104, 1]]',
                    "[[[0, 589824, 9]], [[0, 589824, 9]]]",
                    "[[], []]",
                    "[[[0, 0, 1], [0, 0, 1]], 5]",
                    "alice",
                    "\0",
                    0,
                    -1,
                    2**40,
                    0.5,
                    "x",
                )
            )
            if table == "intent":
                bad = ('{"add": 5}', '{"rename": [["web", "web2"]]}', '{"rename": [[1]]}')
                change = ("{}", "null", "[" * 100_000, b"\xff", INTENT, *bad)
                files = ("[]", '[["/etc/subuid", null, "eJwDAAAAAAE="]]', "null", "[[]]")
                db.execute(
                    "INSERT OR REPLACE INTO intent VALUES (1, 'x', ?, ?, ?)",
                    (
                        codec.actor_text(Actor(0)),
                        self.random.choice(change),
                        self.random.choice(files),
                    ),
                )
            said = table, column, value
            db.execute(f"UPDATE {table} SET {column} = ?", (value,))  # noqa: S608 - names that the ledger has
            db.commit()
        return str(said)[:80]

    def tables(self, path: Path) -> object:
        words: str | None = None
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as db:
            table = self.random.choice(
                [
                    row[0]
                    for row in db.execute(
                        "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE TABLE%'"
                    )
                ]
            )
            column = self.random.choice(
                [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            )
            words = self.random.choice(
                (
                    f"DROP TABLE {table}",
                    f"ALTER TABLE {table} DROP COLUMN {column}",
                    f"ALTER TABLE {table} RENAME COLUMN {column} TO other",
                    f"PRAGMA user_version = {self.random.choice((-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 99))}",
                    f"INSERT INTO {table} SELECT * FROM {table}",  # noqa: S608 - the same
                )
            )
            db.execute(words)
            db.commit()
        return words

    def words(self, root: Path) -> list[str]:
        if self.random.random() < 0.75:
            words = self.random.choice(COMMANDS).split()
        else:
            first = self.random.choice(COMMANDS).split()[0]
            words = [first, *(self.random.choice(WORDS) for _ in range(self.random.randrange(6)))]
        runs = root / "var/lib/usernsplan/runs"
        names = sorted(os.listdir(runs)) if runs.is_dir() else ["none"]
        run = self.random.choice([name for name in names if name != "lock"] or ["none"])
        words = [word.replace("ROOT", str(root)).replace("RUN", run) for word in words]
        if words[0] == "inspect":
            return ["list", "--root", str(root)]
        # The last --root counts: nothing of this machine is touched.
        return [*words, "--root", str(root)]


INTENT = codec.change_text(LedgerChange())


def host(root: Path) -> None:
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for volume in ("web", "other", "third"):
        for name in ("a", "b/c", "b/setuid"):
            place = root / "srv" / volume / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(name)
            os.chown(place, 33, 33)
            place.chmod(0o4755 if name == "b/setuid" else 0o644)
    here("allocate", "--strategy", "per-container", "web", "db", "old", "--root", root)
    here(
        "fix-volume",
        "/srv/web",
        "--container",
        "web",
        "--mode",
        "shift",
        "--jobs",
        "1",
        "--root",
        root,
    )
    here(
        "fix-volume",
        "/srv/third",
        *SWAP.split(),
        "--drop-power",
        "--unmapped",
        "keep",
        "--jobs",
        "1",
        "--root",
        root,
    )
    here("release", "old", "--root", root)
    here("allocate", "media", "--pass", "u:1000", "--pass", "g:104:107", "--root", root)
    here("allocate", "cut", "--within", "alice", "--size", "1000", "--root", root)
    here("adopt", "105", "--root", root, status=None)
    moving(root)
    here("plan", "--out", root / "saved.plan", "--root", root)


def moving(root: Path) -> None:
    """A remap that was killed before it moved the volume."""
    here("allocate", "moved", "--root", root)
    place = root / "srv/moved"
    place.mkdir()
    here("fix-volume", "/srv/moved", "--container", "moved", "--jobs", "1", "--root", root)

    def killed(*words: Any, dry_run: bool = False, **more: Any) -> object:
        if not dry_run:
            raise KeyboardInterrupt
        return moving_.move(*words, dry_run=True, **more)

    with mock.patch("usernsplan.remapping.move", killed):
        here("remap", "moved", "--start", "40108032", "--yes", "--root", root, status=130)
    assert "USN067" in here("check", "--root", root, status=None)[0]


def put_back(root: Path, template: Path) -> None:
    """Copy everything except the volumes: the runs know their inodes."""
    for path in root.iterdir():
        if path.name != "srv":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(template, root, symlinks=True, dirs_exist_ok=True)


@needs_root
@pytest.mark.parametrize("seconds", [SECONDS, pytest.param(20.0, marks=pytest.mark.slow)])
def test_whatever_is_damaged_every_command_ends_with_words(tmp_path: Path, seconds: float) -> None:
    root, template = tmp_path / "host", tmp_path / "template"
    root.mkdir()
    host(root)
    shutil.copytree(root, template, ignore=shutil.ignore_patterns("srv"))
    wanted = os.environ.get("USERNSPLAN_FUZZ_SEED")
    end, seed = time.monotonic() + seconds, int(wanted) if wanted else random.randrange(2**32)  # noqa: S311 - no secret
    while time.monotonic() < end:
        case = Sane(seed)
        for _ in range(case.random.randrange(1, 4)):
            with suppress(IndexError, ValueError, RecursionError):
                case.damage(root)
        for _ in range(4):
            words = case.words(root)
            case.done.append(" ".join(map(ascii, words)).replace(str(root), "ROOT")[:300])
            fails(case.done, seed, words)
        if wanted:
            return
        put_back(root, template)
        seed += 1


class HangsError(BaseException):
    """Not an Exception, so that nothing catches it on its way."""


def hangs(*_: object) -> None:
    raise HangsError


def fails(done: list[str], seed: int, words: list[str]) -> None:
    """Run a command; a failure shows the earlier commands."""
    wrong = ""
    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(10)
    try:
        with (
            open(os.devnull, encoding="ascii") as nothing,
            mock.patch.object(sys, "stdin", nothing),
        ):
            _, said = here(*words, status=None)
        if "Traceback" in said or "internal error at" in said:
            wrong = said
    except AssertionError:
        raise
    except (Exception, HangsError):  # noqa: BLE001 - whatever it is
        wrong = traceback.format_exc()
    finally:
        signal.alarm(0)
    assert not wrong, "\n".join([f"USERNSPLAN_FUZZ_SEED={seed}", *done, wrong])
