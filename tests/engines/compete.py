"""A host on which everybody who gives out host ids takes them from the same few hundred thousand.

The steps are those of the real programs and of usernsplan; their order comes from a seed. What each of them holds is
read from what it really did: the two files, the owners of trees, /proc/PID/uid_map, the daemon's own record. Nothing
here asks usernsplan who has what.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from tests.engines import recipes, recipes_incus, recipes_lxd, recipes_podman_auto
from tests.engines.recipes_nspawn import NSPAWN, NSPAWN_ENVIRONMENT
from tests.engines.throwaway import CommandFailed, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.engines.recipes_incus import Incus
    from tests.engines.recipes_lxd import Lxd
    from tests.engines.throwaway import ThrowawayHost

# What they compete for: twelve ranges of 65536 ids from the start of our default pool on.
SLOT = 65536
FIRST, SLOTS = 589824, 12
STOP = FIRST + SLOTS * SLOT

FILES = {"uid": "/etc/subuid", "gid": "/etc/subgid"}
# Everything that an allocation may change.
OURS = (
    "/etc/subuid",
    "/etc/subgid",
    "/etc/userdb",
    "/etc/passwd",
    "/etc/group",
    "/var/lib/usernsplan",
)
MACHINES, RUNNING = "/var/lib/machines", "/tmp/running"

# Where systemd-nspawn looks first is a hash of the machine's name (nspawn.c, uid_shift_pick): for each range that they
# compete for, numbers N of machines "mN" that hash to it.
MACHINE_NUMBERS = (
    (26938, 62670, 75367, 80943, 81517, 93452),
    (2962, 15772, 18523, 21608, 36678, 70628),
    (66668, 122140, 132573, 148437, 159070, 178043),
    (278, 6277, 78625, 97277, 130391, 204869),
    (35778, 36383, 120903, 149237, 169754, 207928),
    (33165, 59817, 64367, 71585, 72334, 109176),
    (8258, 8453, 9013, 17730, 23846, 48611),
    (17683, 192776, 237073, 278996, 294198, 321848),
    (35764, 39959, 43455, 61562, 76659, 78117),
    (15209, 30489, 63555, 98965, 115422, 137290),
    (83069, 88583, 96361, 97796, 102558, 105961),
    (104, 62967, 90054, 106114, 113926, 180842),
)

# Small for useradd, so that fragments come about between ranges.
LOGIN_DEFS = "".join(
    f"SUB_{kind}_MIN {FIRST}\nSUB_{kind}_MAX {STOP - 1}\nSUB_{kind}_COUNT 20000\n"
    for kind in ("UID", "GID")
)

# usernsplan without what it knows of programs that ask nobody, and without being seen by them.
UNAWARE = """
from usernsplan.host import unlisted
unlisted.READERS = ()
from usernsplan.cli import main
main()
"""

NO_ROOM, REFUSED = 7, 9


class Held(NamedTuple):
    """Ids of one kind that somebody has. ``within``: whose range they are a part of, on purpose."""

    holder: str
    within: str
    kind: str
    first: int
    stop: int
    place: str

    def __str__(self) -> str:
        return f"{self.holder} has {self.kind}s {self.first}-{self.stop - 1} ({self.place})"


class Overlap(NamedTuple):
    """Two holders that have ids in common."""

    one: Held
    other: Held

    def __str__(self) -> str:
        return f"{self.one}, and {self.other}"


def overlaps(held: Iterable[Held]) -> list[Overlap]:
    """Every pair of different holders with common ids, unless one has its ids from the other."""
    return [
        Overlap(one, other)
        for one, other in combinations(held, 2)
        if one.kind == other.kind
        and max(one.first, other.first) < min(one.stop, other.stop)
        and one.holder not in {other.holder, other.within}
        and one.within != other.holder
    ]


def is_ours(held: Held) -> bool:
    """Whether usernsplan gave these ids out: to a container, to Podman's pool, or to who has them from there."""
    return any(
        name.startswith("usernsplan-") or name == "containers"
        for name in (held.holder, held.within)
    )


def is_machine(held: Held) -> bool:
    """Whether systemd-nspawn took these ids."""
    return held.holder.startswith("machine ")


def nobody_can_help(overlap: Overlap) -> bool:
    """systemd-nspawn and the lines of others see nothing of each other, and neither asks us."""
    return not any(map(is_ours, overlap)) and any(map(is_machine, overlap))


class World:
    """The host, the programs on it, and a seed. Without ``aware`` usernsplan is as it was before it saw them."""

    def __init__(self, host: ThrowawayHost, seed: str, client: str, *, aware: bool = True) -> None:
        self.host, self.seed = host, seed
        self.random = random.Random(seed)  # noqa: S311 - it is the order of a test
        # The client of LXD or Incus, and the daemon.
        self.client = client
        self.daemon: Lxd | Incus | None = None
        self.aware = aware
        self.log: list[str] = []
        self.done: defaultdict[str, int] = defaultdict(int)
        # Names of ours -> the owner of the line; the released ones; and ranges that are kept for names from others.
        self.standing: dict[str, str] = {}
        self.released: set[str] = set()
        self.quarantine: list[tuple[str, int, int]] = []
        self.users: list[str] = []
        self.peers: list[str] = []
        self.machines: list[str] = []
        self.running: dict[str, tuple[subprocess.Popen[str], list[Held]]] = {}
        self.containers: list[str] = []
        self.instances: list[str] = []
        self._number = 0

    # What everybody does in a round, in any order.

    def round(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """The steps of one round: how to say what was done, and how to undo it where nobody can help."""
        steps = [self.ask_us, self.ask_us, self.nspawn, self.nspawn]
        steps += [self.useradd, self.usermod, self.podman, self.instance]
        self.random.shuffle(steps)
        for step in steps:
            undo = step()
            yield self.log[-1], undo

    def said(self, what: str, more: str = "", status: int = 0) -> None:
        """Note what a step did. What came to something is counted."""
        self.log.append(f"{what} {more}" + f": exit status {status}" * (status != 0))
        self.done[what] += status == 0

    # usernsplan.

    def usernsplan(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it on the host, and expect no traceback."""
        program = ("-m", "usernsplan") if self.aware else ("-c", UNAWARE)
        done = self.host.run(sys.executable, *program, *words, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def ask_us(self) -> Callable[[], None]:
        """One of the things that one does with usernsplan."""
        if not any(self.done[one] for one in ("usernsplan pool", "usernsplan allocate")):
            self.pool()
            return _fail
        steps = [self.allocate, self.allocate, self.start, self.adopt, self.look, self.pool]
        if self.standing:
            steps += [self.release, self.release]
        if self.released:
            steps += [self.forget]
        if self.released - {"containers"}:
            steps += [self.again]
        self.random.choice(steps)()
        # Nobody else's step makes an overlap that is nobody's fault, and ours never does.
        return _fail

    def allocate(self) -> None:
        """A new name, for any engine, of any size."""
        if name := self._unused():
            size = self.random.choice((SLOT, SLOT, SLOT, 2 * SLOT, 70000))
            self._allocate(name, "--size", str(size), "--engine", self._engine(), size=size)
        else:
            self.release()

    def again(self) -> None:
        """A name that was released comes back: to its own ids, unless somebody has them by now."""
        name = self.random.choice(sorted(self.released - {"containers"}))
        self._allocate(name, "--engine", "podman")

    def start(self) -> None:
        """Insist on certain ids."""
        if name := self._unused():
            base = FIRST + SLOT * self.random.randrange(SLOTS)
            base += self.random.choice((0, 0, 0, 1000, 32768))
            before = self._ours()
            done = self.usernsplan("allocate", "--strategy", "per-container", name, "--start", str(base),
                                   "--engine", self._engine())  # fmt: skip
            if done.returncode == 0:
                self.standing[name] = f"usernsplan-{name}"
            else:
                assert self._ours() == before
            self.said("usernsplan --start", f"{name} {base}", done.returncode)
        else:
            self.release()

    def adopt(self) -> None:
        """Take over the line of an account."""
        lines = [
            held
            for held in self.lines("uid")
            if held.holder in self.peers and held.holder not in self.standing.values()
        ]
        name = self._unused()
        if not lines or not name:
            self.allocate()
            return
        line = self.random.choice(lines)
        done = self.usernsplan(
            "allocate", "--strategy", "per-container", name, "--owner", line.holder,
            "--start", str(line.first), "--size", str(line.stop - line.first), "--engine", "podman",
        )  # fmt: skip
        if done.returncode == 0:
            self.standing[name] = line.holder
        self.said("usernsplan adopt", f"{name}: {line}", done.returncode)

    def look(self) -> None:
        """A dry run changes nothing."""
        before = self._ours()
        name = self._unused() or "more"
        self.usernsplan(
            "allocate", "--strategy", "per-container", name, "--dry-run", "--engine", "lxc"
        )
        assert self._ours() == before
        self.said("usernsplan --dry-run", name)

    def pool(self) -> None:
        """Podman's pool comes, and goes when no container of it is left."""
        if "containers" not in self.standing:
            done = self.usernsplan("allocate", "--strategy", "per-container", "--engine", "podman-auto",
                                   "--auto-containers", "2")  # fmt: skip
            self._allocated("containers", "containers", 2 * SLOT, done)
            self.said("usernsplan pool", "", done.returncode)
        elif not self.containers and self.random.random() < 0.3:
            self.release("containers")
        else:
            self.allocate()

    def release(self, name: str = "") -> None:
        """Give ids back, into quarantine."""
        name = name or self.random.choice(sorted(set(self.standing) - {"containers"}) or [""])
        if not name:
            self.look()
            return
        adopted = not is_ours(Held(self.standing[name], "", "", 0, 0, ""))
        lines = [held for held in self.lines("uid") if held.holder == self.standing[name]]
        done = self.usernsplan("release", name, "--yes")
        assert done.returncode == 0, done.stderr
        del self.standing[name]
        if not adopted:
            self.released.add(name)
            self.quarantine += [(name, held.first, held.stop) for held in lines]
        self.said("usernsplan release", name)

    def forget(self) -> None:
        """Quarantine ends."""
        name = self.random.choice(sorted(self.released))
        done = self.usernsplan("release", "--forget", name, "--yes")
        if done.returncode == 0:
            self.released.remove(name)
            self.quarantine = [one for one in self.quarantine if one[0] != name]
        self.said("usernsplan --forget", name, done.returncode)

    def _allocate(self, name: str, *words: str, size: int = SLOT) -> None:
        before = self._ours()
        done = self.usernsplan("allocate", "--strategy", "per-container", name, *words)
        assert done.returncode == 0 or self._ours() == before
        self._allocated(name, f"usernsplan-{name}", size, done)
        self.said("usernsplan allocate", f"{name} {' '.join(words)}", done.returncode)

    def _allocated(
        self, name: str, owner: str, size: int, done: subprocess.CompletedProcess[str]
    ) -> None:
        """It has its ids, or there are none, or somebody runs in those that it had before: nothing else is a reason."""
        assert done.returncode in {0, NO_ROOM, REFUSED}, done.stderr
        if done.returncode == REFUSED:
            assert self._runs_in_former_range(name), done.stderr
        elif done.returncode == 0:
            self.standing[name] = owner
            self.released.discard(name)
            # Its former range ends its quarantine only if it came back to it.
            now = {(held.first, held.stop) for held in self.lines("uid") if held.holder == owner}
            self.quarantine = [
                one for one in self.quarantine if one[0] != name or one[1:] not in now
            ]
        else:
            assert not self._has_room(size), f"refused, with room for {size}: {done.stderr}"

    def _has_room(self, size: int) -> bool:
        """Whether so many ids are free for uids and gids, from a multiple of 65536 on."""
        taken = [(held.first, held.stop) for held in self.held()]
        taken += [(first, stop) for _, first, stop in self.quarantine]
        return any(
            all(base >= stop or base + size <= first for first, stop in taken)
            for base in range(FIRST, STOP - size + 1, SLOT)
        )

    def _runs_in_former_range(self, name: str) -> bool:
        """Whether a machine has ids of a released name: nobody can know that it is not this container."""
        return any(
            first < held.stop and held.first < stop
            for _, one in self.running.values()
            for held in one
            for of, first, stop in self.quarantine
            if of == name
        )

    def _unused(self) -> str:
        names = {f"c{number}" for number in range(1, 7)} - self.standing.keys() - self.released
        return self.random.choice(sorted(names) or [""])

    def _engine(self) -> str:
        return self.random.choice(
            ("podman", "oci", "lxc", {"lxc": "lxd", "incus": "incus"}[self.client])
        )

    def explains(self, found: Iterable[Overlap]) -> None:
        """What nobody could prevent, ``check`` at least tells of."""
        document = json.loads(self.usernsplan("check", "--json").stdout)
        told = "\n".join(
            one["message"]
            for one in document["findings"]
            if one["severity"] in {"warning", "error"}
        )
        for overlap in found:
            # Two machines are two trees, whose owners say so. And a namespace with the ids of a line looks like a
            # container of its owner's.
            lines = [held for held in overlap if not is_machine(held)]
            if lines and not any(held.place in self.running for held in overlap):
                assert (lines[0].within or lines[0].holder) in told, f"{overlap} is not in:\n{told}"

    def _ours(self) -> str:
        script = 'find "$@" ! -name "*lock*" -type f -exec sha256sum {} + 2>/dev/null | sort -k 2'
        return self.host.run("sh", "-c", script, "sh", *OURS).stdout

    # The others.

    def useradd(self) -> Callable[[], None]:
        """An account gets its ids, or goes."""
        if self._gives_back(self.users, 4):
            name = self.users.pop(self.random.randrange(len(self.users)))
            self.host.run("userdel", name)
            self.said("userdel", name)
            return _fail
        name = f"u{self._next()}"
        done = self.host.run("useradd", "--no-create-home", "--user-group", name, check=False)
        if done.returncode == 0:
            self.users.append(name)
        self.said("useradd", name, done.returncode)
        return lambda: self._userdel(name)

    def _userdel(self, name: str) -> None:
        self.users.remove(name)
        self.host.run("userdel", name)

    def usermod(self) -> Callable[[], None]:
        """An administrator looks into the files, and gives an account ids that are in neither."""
        lines = [
            held
            for held in self.lines("uid")
            if held.holder in self.peers and held.holder not in self.standing.values()
        ]
        if self._gives_back(lines, 3):
            line = self.random.choice(lines)
            self._usermod("del", line.holder, line.first, line.stop - 1)
            self.said("usermod --del-subuids", str(line))
            return _fail
        size = self.random.choice((SLOT, self.random.randint(1000, 30000)))
        first = self._in_neither_file(size)
        if first is None:
            self.said("usermod --add-subuids", "no room", 1)
            return _fail
        name = f"p{self._next()}"
        recipes.add_user(self.host, name)
        self.peers.append(name)
        self._usermod("add", name, first, first + size - 1)
        self.said("usermod --add-subuids", f"{name} {first}-{first + size - 1}")
        return lambda: self._usermod("del", name, first, first + size - 1)

    def _usermod(self, what: str, name: str, first: int, last: int) -> None:
        flags = [
            word for kind in ("uids", "gids") for word in (f"--{what}-sub{kind}", f"{first}-{last}")
        ]
        self.host.run("usermod", *flags, name)

    def _in_neither_file(self, size: int) -> int | None:
        taken = [(held.first, held.stop) for kind in FILES for held in self.lines(kind)]
        ends = sorted({FIRST, *(stop for _, stop in taken if FIRST <= stop < STOP)})
        free = [
            first
            for first in (*ends, *range(FIRST, STOP, SLOT))
            if first + size <= STOP
            and all(first >= stop or first + size <= start for start, stop in taken)
        ]
        return self.random.choice(sorted(set(free))) if free else None

    def give_root(self, size: int) -> None:
        """Root's line, which LXD and Incus hand out."""
        first = FIRST + SLOT * self.random.randrange(SLOTS - size // SLOT)
        self._usermod("add", "root", first, first + size - 1)

    def nspawn(self) -> Callable[[], None]:
        """A machine is made, with a tree that keeps its ids or only as long as it runs, started again, or removed."""
        if self._gives_back([*self.machines, *self.running], 4):
            name = self.random.choice([*self.machines, *self.running])
            if name in self.machines and self.random.random() < 0.3:
                self._boot(name)
                self.said("nspawn again", name)
            else:
                self._remove(name)
                self.said("nspawn removed", name)
            return _fail
        # Often one that was released, and whose container may come back.
        released = [(first - FIRST) // SLOT for _, first, _ in self.quarantine]
        slot = self.random.choice([*range(SLOTS), *released, *released])
        base = FIRST + SLOT * slot
        names = [f"m{number}" for number in MACHINE_NUMBERS[slot]]
        name = self.random.choice(
            [one for one in names if one not in {*self.machines, *self.running}]
        )
        if self.random.random() < 0.7:
            self.machines.append(name)
            self._boot(name)
            self._landed("tree", name, base, self.host.owner(f"{MACHINES}/{name}")[0])
        else:
            self._keep_running(name)
            self._landed("running", name, base, self.running[name][1][0].first)
        return lambda: self._remove(name)

    def _landed(self, how: str, name: str, wanted: int, found: int) -> None:
        where = "as hashed" if found == wanted else "elsewhere"
        self.said(f"nspawn {how} {where}", f"{name} at {found}, hashed to {wanted}")

    def _boot(self, name: str) -> None:
        script = '[ -e "$1" ] || { mkdir -p "${1%/*}"; cp -a "$2" "$1"; }; shift 2; exec "$@"'
        self.host.run("sh", "-euc", script, "sh", f"{MACHINES}/{name}", recipes._rootfs(self.host),
                      *NSPAWN, "--pipe", "--settings=no", "--private-users=pick",
                      f"--directory={MACHINES}/{name}", "true", env=NSPAWN_ENVIRONMENT)  # fmt: skip

    def _keep_running(self, name: str) -> None:
        """On a tmpfs, whose ids the kernel maps, so that the tree does not keep them."""
        show = "cat /proc/self/uid_map /proc/self/gid_map; exec sleep 1000"
        self.host.run("mkdir", "-p", RUNNING)
        self.host.run("cp", "-a", recipes._rootfs(self.host), f"{RUNNING}/{name}")
        process = self.host.popen(
            *NSPAWN, "--pipe", "--settings=no", "--private-users=pick",
            f"--directory={RUNNING}/{name}", "sh", "-c", show,
            env=NSPAWN_ENVIRONMENT, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout
        text = {kind: process.stdout.readline() for kind in FILES}
        maps = [self._mapped(f"machine {name}", "", kind, text[kind], name) for kind in FILES]
        self.running[name] = (process, [held for one in maps for held in one])

    def _remove(self, name: str) -> None:
        if name in self.machines:
            self.machines.remove(name)
            self.host.run("rm", "-r", f"{MACHINES}/{name}")
        else:
            process, _ = self.running.pop(name)
            # Not SIGKILL: the machine would go on without its nspawn.
            process.terminate()
            process.wait(timeout=30)

    def podman(self) -> Callable[[], None]:
        """A container that draws from Podman's pool is started, or removed."""
        environment = recipes_podman_auto.ENVIRONMENT
        if self._gives_back(self.containers, 3):
            name = self.containers.pop(self.random.randrange(len(self.containers)))
            self.host.run("podman", "rm", "--force", "--time=0", name, env=environment)
            self.said("podman rm", name)
            return _fail
        if "containers" not in self.standing:
            self.said("podman waits", "for its pool", 1)
            return _fail
        recipes_podman_auto._prepare(self.host)
        name, size = f"pod{self._next()}", self.random.randint(1000, 60000)
        done = self.host.run(
            "podman", "run", "--detach", f"--name={name}", f"--pidfile=/run/{name}.pid",
            f"--userns=auto:size={size}", recipes.IMAGE, "sleep", "1000", check=False, env=environment,
        )  # fmt: skip
        if done.returncode == 0:
            self.containers.append(name)
        else:
            self.host.run("podman", "rm", "--force", "--ignore", name, env=environment)
        self.said("podman run", f"{name} with {size} ids {done.stderr.strip()}", done.returncode)
        return _fail

    def instance(self) -> Callable[[], None]:
        """An instance of LXD or Incus is started, plain or with ids of its own, or deleted."""
        assert self.daemon
        if self._gives_back(self.instances, 2):
            name = self.instances.pop(self.random.randrange(len(self.instances)))
            self.host.run(self.client, "delete", "--force", name)
            self.said(f"{self.client} delete", name)
            return _fail
        own = 'config: {security.idmap.isolated: "true", security.idmap.size: "20000"}'
        try:
            name = self.daemon.create(self.random.choice((own, own, "")))
        except CommandFailed as failed:
            if "Not enough uid/gid available" not in str(failed):
                raise
            self.said(f"{self.client} start", "no room in root's line", 1)
            return _fail
        self.instances.append(name)
        self.daemon.start(name)
        self.said(f"{self.client} start", name)
        return _fail

    def _gives_back(self, having: list[str] | list[Held], most: int) -> bool:
        return bool(having) and self.random.random() < len(having) / (most + 1)

    def _next(self) -> int:
        self._number += 1
        return self._number

    # Who has what.

    def held(self) -> list[Held]:
        """Every id that anybody has, from what the programs themselves did and wrote."""
        return [
            *(held for kind in FILES for held in self.lines(kind)),
            *self._trees(),
            *(held for _, one in self.running.values() for held in one),
            *self._podmans(),
            *self._instances(),
        ]

    def lines(self, kind: str) -> list[Held]:
        """Lines of subuid or subgid. One of root's that is inside a line of a container of ours is for its instance."""
        found = []
        for line in self.host.read(FILES[kind]).decode().splitlines():
            owner, first, count = line.split(":")
            found.append(Held(owner, "", kind, int(first), int(first) + int(count), FILES[kind]))
        ours = [held for held in found if is_ours(held)]
        return [
            next(
                (
                    held._replace(holder="root for it", within=one.holder)
                    for one in ours
                    if held.holder == "root" and one.first <= held.first and held.stop <= one.stop
                ),
                held,
            )
            for held in found
        ]

    def _trees(self) -> Iterator[Held]:
        """As nspawn reads them: 65536 ids from the owner of the tree's root on."""
        for name in self.machines:
            path = f"{MACHINES}/{name}"
            for kind, first in zip(FILES, self.host.owner(path), strict=True):
                yield Held(f"machine {name}", "", kind, first, first + SLOT, path)

    def _podmans(self) -> Iterator[Held]:
        for name in self.containers:
            pid = self.host.read(f"/run/{name}.pid").decode().strip()
            for kind in FILES:
                path = f"/proc/{pid}/{kind}_map"
                yield from self._mapped(
                    name, "containers", kind, self.host.read(path).decode(), path
                )

    def _instances(self) -> Iterator[Held]:
        """What the daemon says of each; a plain one has all that root's line has."""
        if not self.instances:
            return
        said = self.host.run(self.client, "query", "/1.0/instances?recursion=1").stdout
        for one in json.loads(said):
            config = one["config"]
            plain = config.get("security.idmap.isolated") != "true"
            for entry in json.loads(config["volatile.idmap.current"]):
                first, stop = entry["Hostid"], entry["Hostid"] + entry["Maprange"]
                for kind in FILES:
                    if entry[f"Is{kind}"]:
                        yield Held("root" if plain else one["name"], "root", kind, first, stop,
                                   f"volatile.idmap of {one['name']}")  # fmt: skip

    def _mapped(self, holder: str, within: str, kind: str, text: str, place: str) -> list[Held]:
        found = recipes.lines(text)
        assert found, f"{holder} has no map"
        return [
            Held(holder, within, kind, first, first + count, place) for _, first, count in found
        ]


def _fail() -> None:
    """Undo a step that has no business in an overlap."""
    raise AssertionError(
        "an overlap that is the fault of nobody comes from nspawn, useradd or usermod"
    )


@contextlib.contextmanager
def world(host: ThrowawayHost, seed: str, client: str, *, aware: bool = True) -> Iterator[World]:
    """The host with its pools narrowed, root's line, and the daemon of ``client``, which reads it."""
    require("systemd-nspawn", "useradd", "usermod", "podman")
    daemons: dict[
        str, Callable[[ThrowawayHost], contextlib.AbstractContextManager[Lxd | Incus]]
    ] = {
        "lxc": recipes_lxd.lxd,
        "incus": recipes_incus.incus,
    }
    script = "sed -i -E '/^SUB_[UG]ID_/d' /etc/login.defs; cat >>/etc/login.defs"
    host.run("sh", "-c", script, input=LOGIN_DEFS)
    if not aware:
        host.write("/etc/usernsplan/config.yaml", "publish: none\n")
    made = World(host, seed, client, aware=aware)
    made.give_root(2 * SLOT)
    with daemons[client](host) as made.daemon:
        yield made
