"""Maps, lines and files as people post them: what check says, what adopt takes, and the same by --pass.

The numbers are those of guides, questions and repositories about LXC, Proxmox VE, LXD, Docker and Podman.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.command import files_of, here, slow
from tests.documents import document_in
from tests.each import each
from tests.unit.oracle import fresh_namespace, needs, under_etc

if TYPE_CHECKING:
    from pathlib import Path

ACCOUNTS = (
    "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\nsvc:x:990:990::/:/bin/false\n"
    "test:x:1001:1001::/home/test:/bin/sh\n"
    "alice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1005:1005::/home/bob:/bin/sh\n"
    "storm:x:606:606::/home/storm:/bin/sh\ndockremap:x:997:996::/:/bin/false\n"
)
GROUP = (
    "root:x:0:\nwww-data:x:33:\nvideo:x:44:svc\nusers:x:100:\nrender:x:104:\nalice:x:1000:\nbob:x:1005:\n"
    "storm:x:606:\nshared:x:2000:alice\nothers:x:2001:\ndockremap:x:996:\nsvc:x:990:\ntest:x:1001:\n"
)
WHOLE = "0 100000 65536"
LINE = "root:100000:65536"
# The ledger, and what lckpwdf(3) locks.
OURS = ("var/lib/usernsplan", "etc/.pwd.lock")


class Case(NamedTuple):
    """A map: the extents of uids and of gids, and root's lines besides 100000-165535.

    ``passes`` make the same map with --pass, where they can.
    """

    uids: str = WHOLE
    gids: str = WHOLE
    subuid: str = ""
    subgid: str = ""
    passes: str = ""

    def lines(self) -> list[str]:
        """The map as lxc.idmap has it."""
        pairs = (("u", self.uids), ("g", self.gids))
        return [f"{letter} {one}" for letter, text in pairs for one in text.split(", ") if one]

    def granted(self) -> tuple[str, str]:
        """The bytes of subuid and of subgid."""
        subuid, subgid = (
            "".join(f"{line}\n" for line in (LINE, *(f"root:{ids}" for ids in ids_.split())))
            for ids_ in (self.subuid, self.subgid)
        )
        return subuid, subgid


MEDIA = "0 100000 1000, 1000 1000 1, 1001 101001 64535"
RIGHT = [
    Case(),
    # A GPU: the groups video and render, where the container's render has another number.
    Case(
        gids="0 100000 44, 44 44 1, 45 100045 59, 104 104 1, 105 100105 65431",
        subgid="44:1 104:1",
        passes="g:44 g:104",
    ),
    Case(
        gids="0 100000 44, 44 44 1, 45 100045 62, 107 104 1, 108 100108 65428",
        subgid="44:1 104:1",
        passes="g:44 g:104:107",
    ),
    Case(
        gids="0 100000 44, 44 44 1, 45 100045 61, 106 108 1, 107 100107 65429",
        subgid="44:1 108:1",
        passes="g:44 g:108:106",
    ),
    Case(gids="0 100000 104, 104 993 1, 105 100105 65431", subgid="993:1", passes="g:993:104"),
    Case(
        gids="0 100000 44, 44 44 1, 45 100045 54, 99 104 1, 100 100100 65436",
        subgid="44:1 104:1",
        passes="g:44 g:104:99",
    ),
    # Media shares and homes.
    Case(MEDIA, MEDIA, "1000:1", "1000:1", "b:1000"),
    Case(
        "0 100000 1005, 1005 1005 1, 1006 101006 64530",
        "0 100000 1005, 1005 1005 1, 1006 101006 64530",
        "1005:1",
        "1005:1",
        "b:1005",
    ),
    Case(
        gids="0 100000 20000, 20000 20000 1, 20001 120001 45535", subgid="20000:1", passes="g:20000"
    ),
    Case(
        "0 100000 33, 33 33 1, 34 100034 65502",
        "0 100000 33, 33 33 1, 34 100034 65502",
        "33:1",
        "33:1",
        "b:33",
    ),
    Case(
        "0 100000 1604, 1604 1604 3, 1607 101607 63929",
        "0 100000 1604, 1604 1604 3, 1607 101607 63929",
        "1604:3",
        "1604:3",
        "b:1604-1606",
    ),
    Case(
        "0 100000 1000, 1000 1000 500, 1500 101500 64036",
        "0 100000 1000, 1000 1000 500, 1500 101500 64036",
        "1000:500",
        "1000:500",
        "b:1000-1499",
    ),
    Case(
        "0 100000 1000, 1000 1000 10, 1010 101010 64526",
        "0 100000 1000, 1000 1000 27, 1027 101027 64509",
        "1000:10",
        "1000:27",
        "u:1000-1009 g:1000-1026",
    ),
    Case(
        "0 100000 1000, 1000 1000 59001, 60001 160001 5535",
        "0 100000 1000, 1000 1000 59001, 60001 160001 5535",
        "1000:59001",
        "1000:59001",
        "b:1000-60000",
    ),
    # The host's number is another than the container's.
    Case(
        "0 100000 5001, 5001 501 1, 5002 105002 60534",
        "0 100000 5001, 5001 501 1, 5002 105002 60534",
        "501:1",
        "501:1",
        "b:501:5001",
    ),
    Case(
        "0 100000 111, 111 1000 1, 112 100112 65424",
        "0 100000 117, 117 1000 1, 118 100118 65418",
        "1000:1",
        "1000:1",
        "u:1000:111 g:1000:117",
    ),
    # Many at once, and neighbours that are lines of their own.
    Case(
        "0 100000 1037, 1037 1037 1, 1038 101038 858, 1896 1896 1, 1897 1897 1, 1898 9990 1, "
        "1899 101899 63637",
        "0 100000 44, 44 44 1, 45 100045 55, 100 100 1, 101 100101 7, 108 108 1, 109 100109 1787, "
        "1896 1896 1, 1897 1897 1, 1898 1898 1, 1899 101899 63637",
        "1037:1 1896:1 1897:1 9990:1",
        "44:1 100:1 108:1 1896:1 1897:1 1898:1",
        "u:1037 u:1896-1897 u:9990:1898 g:44 g:100 g:108 g:1896-1898",
    ),
    # Container root is an account, with and without the id whose place it takes.
    Case("0 1000 1, 1 100001 65535", "0 1000 1, 1 100001 65535", "1000:1", "1000:1", "b:1000:0"),
    Case("0 1000 1, 1 100000 65535", "0 1000 1, 1 100000 65535", "1000:1", "1000:1"),
    # Accounts of a directory, and of a domain with ids of its own, behind the range.
    Case(
        "0 100000 65536, 200001105 200001105 1",
        "0 100000 65536, 200000513 200000513 1",
        "200001105:1",
        "200000513:1",
        "u:200001105 g:200000513",
    ),
    Case(
        "0 100000 65536, 953240000 953240000 200000",
        "0 100000 65536, 953240000 953240000 200000",
        "953240000:200000",
        "953240000:200000",
        "b:953240000-953439999",
    ),
    Case(
        "0 100000 1605, 1605 1605 1, 1606 101606 63930, 65604 65604 100",
        "0 100000 100, 100 100 1, 101 100101 65435, 65604 65604 100",
        "1605:1 65604:100",
        "100:1 65604:100",
        "u:1605 g:100 b:65604-65703",
    ),
    # Other ranges.
    Case("0 200000 65536", "0 200000 65536", "200000:65536", "200000:65536"),
    Case("0 100000 165536", "0 100000 165536", "165536:100000", "165536:100000"),
    Case("0 100000 65536", "0 200000 65536", "", "200000:65536"),
]


def put(root: Path, path: str, content: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode())


def host(folder: Path, files: dict[str, str]) -> Path:
    """A fresh root with these files."""
    root = folder / "host"
    shutil.rmtree(folder, ignore_errors=True)
    empty = {"etc/subuid": "", "etc/subgid": ""}
    for path, content in {"etc/passwd": ACCOUNTS, "etc/group": GROUP, **empty, **files}.items():
        put(root, path, content)
    return root


def of(case: Case, *, config: str | None = None) -> dict[str, str]:
    """The files of a host of Proxmox VE with one container."""
    subuid, subgid = case.granted()
    conf = "arch: amd64\nunprivileged: 1\n" if config is None else config
    lines = case.lines() if config is None else []
    conf += "".join(f"lxc.idmap: {line}\n" for line in lines)
    return {"etc/subuid": subuid, "etc/subgid": subgid, "etc/pve/lxc/101.conf": conf}


def found(root: Path) -> list[tuple[str, str, str]]:
    """The codes, messages and hints of what check finds; no remarks."""
    document = document_in(here("check", "--json", "--root", root, status=None)[0])
    return [
        (one["code"], one["message"], one["hint"])
        for one in document["findings"]
        if one["severity"] != "info"
    ]


def others(root: Path) -> dict[str, bytes]:
    """Every file but the ledger's and an empty lock."""
    return {path: it[2] for path, it in files_of(root).items() if not path.startswith(OURS)}


def idmap(root: Path, name: str) -> list[str]:
    return re.findall(r"lxc\.idmap = (.*)", here("render", "lxc", name, "--root", root)[0])


def joined(lines: list[str], move: int = 0) -> list[tuple[str, int, int, int]]:
    """The extents by kind and container id, where those that continue each other are one."""
    whole: list[tuple[str, int, int, int]] = []
    for line in lines:
        letter, *numbers = line.split()
        container, first, count = map(int, numbers)
        if 100000 <= first < 265536:
            first += move
        whole.append((letter, container, first, count))
    together: list[tuple[str, int, int, int]] = []
    for one in sorted(whole):
        last = together[-1] if together else ("", 0, 0, 0)
        follows = (last[0], last[1] + last[3], last[2] + last[3]) == one[:3]
        together[-1:] = [(*last[:3], last[3] + one[3])] if follows else [*together[-1:], one]
    return together


def comes_back(root: Path, *names: str) -> str:
    """Adopt names, and see that the host stays, and that what export writes is what stands; return it."""
    before = others(root)
    here("adopt", *names, "--root", root)
    assert others(root) == before

    plan = root.parent / "plan.yaml"
    plan.write_text(here("export", "--root", root)[0])
    assert "Already up to date" in here("plan", plan, "--check", "--root", root)[0]

    # The same host, whose ledger is lost.
    copy = root.parent / "copy"
    shutil.copytree(root, copy)
    shutil.rmtree(copy / OURS[0])
    here("apply", plan, "--yes", "--root", copy)
    assert others(copy) == before
    # The ledgers say the same.
    assert here("export", "--root", copy)[0] == plan.read_text()

    for name in names:
        here("release", name, "--yes", "--root", root)
    assert others(root) == before
    return plan.read_text()


@pytest.mark.parametrize("cases", [RIGHT[1::4], *slow(RIGHT)])
def test_a_right_map_is_found_right_adopted_and_rendered(cases: list[Case], tmp_path: Path) -> None:
    for case in cases:
        root = host(tmp_path / "one", of(case))
        assert found(root) == [], case
        comes_back(root, "101")

        root = host(tmp_path / "one", of(case))
        here("adopt", "101", "--root", root)
        assert joined(idmap(root, "101")) == joined(case.lines())
        # That an id is nobody's is said once the ledger has the map.
        assert {code for code, _, _ in found(root)} <= {"USN036"}, case


@each("case", [case for case in RIGHT if case.passes])
def test_the_same_map_by_pass(case: Case, tmp_path: Path) -> None:
    root = host(tmp_path / "one", {})
    passes = [word for text in case.passes.split() for word in ("--pass", text)]
    place = ("--start", "131072", "--pool", "131072-196607")
    here("allocate", "media", "--engine", "lxc", *place, *passes, "--root", root)
    assert joined(idmap(root, "media")) == joined(case.lines(), 131072 - 100000)
    put(
        root,
        "var/lib/lxc/media/config",
        "".join(f"lxc.idmap = {x}\n" for x in idmap(root, "media")),
    )
    assert {code for code, _, _ in found(root)} <= {"USN036"}


# A map, the code, what the message says and what the hint says; then whether the kernel (or
# newuidmap) refuses it, or only LXC.
WRONG = (
    (Case("", "0 100000 44, 44 44 1, 45 100045 65491", "", "44:1"),
     "USN083", "none of uids", "add u 0 100000 65536", False),
    (Case(gids="0 100000 65536, 107 104 1", subgid="104:1"), "USN083", "overlap",
     "write g 0 100000 107, g 107 104 1, g 108 100108 65428", True),
    (Case("0 100000 1001, 1000 1000 1, 1001 101001 64535", subuid="1000:1"), "USN083", "overlap",
     "write u 0 100000 1000, u 1000 1000 1, u 1001 101001 64535", True),
    (Case("0 100000 65536, 0 100000 65536"), "USN083", "is there twice", "remove one", True),
    (Case("1000 100000 65536", "1000 100000 65536"), "USN083", "container root",
     "write u 0 100000 65536", False),
    (Case("100000 0 65536", "100000 0 65536"), "USN083", "host id first", "u 0 100000 65536", True),
    (Case("0 1000 1, 1 100000 0", "0 100000 65536", "1000:1"), "USN083", "its count is 0", "", True),
    # Lines that are missing, or in the other file.
    (Case(gids="0 100000 44, 44 44 1, 45 100045 65491"), "USN084", "subgid grants root no 44",
     "--add-subgids 44-44", True),
    (Case(gids="0 100000 104, 104 104 1, 105 100105 65431", subuid="104:1"), "USN084",
     "subgid grants root no 104", "--add-subgids 104-104", True),
    (Case("0 100000 1604, 1604 1604 3, 1607 101607 63929", subuid="1606:1"), "USN084",
     "subuid grants root no 1604-1605", "--add-subuids 1604-1605", True),
    (Case("0 200000 65536", "0 200000 65536"), "USN084", "no 200000-265535", "200000-265535", True),
    # The host's render is 104, and the container's 107.
    (Case(gids="0 100000 104, 104 107 1, 105 100105 65431", subgid="104:1"), "USN084",
     "subgid grants root no 107", "write g 0 100000 107, g 107 104 1, g 108 100108 65428", True),
    # The last count was not made smaller, or a digit is missing.
    (Case("0 100000 1000, 1000 1000 1, 1001 101001 65536", subuid="1000:1"), "USN084",
     "no 165536-166536", "write u 1001 101001 64535; if it is meant", True),
    (Case("0 100000 1000, 1000 1000 1, 1001 101001 64536", subuid="1000:1"), "USN084",
     "no 165536", "write u 1001 101001 64535; if it is meant", True),
    (Case("0 100000 1000, 1000 1000 1, 1001 10101 64535", subuid="1000:1"), "USN084",
     "no 10101-74635", "write u 1001 101001 64535; if it is meant", True),
    # The container starts, with other ids than those that were meant.
    (Case(gids="0 100000 44, 44 44 1, 45 100045 59, 104 104 1, 105 101105 64431",
          subgid="44:1 104:1"), "USN066", "1000 ids above", "write g 105 100105 65431", False),
    (Case(gids="0 100000 104, 104 104 1, 105 100106 65430", subgid="104:1"), "USN066",
     "1 id above", "write g 105 100105 65431", False),
    (Case("0 100000 1000, 1000 1000 1, 1001 101000 64535", subuid="1000:1"), "USN066",
     "1 id below", "write u 1001 101001 64535", False),
    (Case("0 100000 1000, 1000 1000 1, 1002 101002 64534", subuid="1000:1"), "USN066",
     "no line maps the container uid 1001", "", False),
    (Case("0 100000 1000, 1000 1000 1, 1001 101001 64530", subuid="1000:1"), "USN066",
     "nobody", "write u 1001 101001 64535", False),
    # The host's own root, which a guide to a GPU shows to its container.
    (Case(gids="0 0 1, 1 100000 65536", subgid="0:1"), "USN038", "shows the gid 0, root", "", False),
    (Case("0 0 65536", "0 0 65536", "0:65536", "0:65536"), "USN038", "the uid 0, root", "", False),
)  # fmt: skip


@each(("case", "code", "message", "hint", "refused"), WRONG)
def test_the_mistake_is_named(  # noqa: PLR0917 - the columns of the table
    case: Case, code: str, message: str, hint: str, refused: bool, tmp_path: Path
) -> None:
    del refused
    several = found(host(tmp_path / "one", of(case)))
    # A slip in a map that is not granted is told once more, as a slip.
    assert {one[0] for one in several} <= {code, "USN066"}, several
    it = next(one for one in several if one[0] == code)
    assert message in it[1], it
    assert hint in it[2], it


@needs("newuidmap", "newgidmap")
@each(
    ("case", "refused"),
    [*((case, False) for case in RIGHT), *((one[0], one[4]) for one in WRONG)],
)
def test_the_kernel_and_newuidmap_agree(case: Case, refused: bool, tmp_path: Path) -> None:
    files = dict(zip(("subuid", "subgid"), map(str.encode, case.granted()), strict=True))
    failed = False
    with fresh_namespace() as pid:
        for program, text in (("newuidmap", case.uids), ("newgidmap", case.gids)):
            words = text.replace(",", "").split()
            if words:
                ended = under_etc(tmp_path, files, program, str(pid), *words)
                failed |= ended.returncode != 0
    assert failed is refused


IDMAP = "lxc.idmap: u 0 100000 65536\nlxc.idmap: g 0 100000 104\nlxc.idmap: g 104 104 1\n"
REST = "lxc.idmap: g 105 100105 65431\n"


@each(
    ("raw", "codes", "hint"),
    [
        # As it is, with =, with blanks and tabs, with comments, from Windows, and with a snapshot.
        (f"unprivileged: 1\n{IDMAP}{REST}", [], ""),
        (f"unprivileged: 1\n{IDMAP}{REST}".replace(":", " ="), [], ""),
        (f"unprivileged: 1\n{IDMAP}{REST}".replace("0 1", "0\t1"), [], ""),
        (f"#a\nunprivileged: 1\n{IDMAP}#lxc.idmap: g 44 44 1\nlxc.idmap:  g 105 100105 65431 \n", [], ""),
        (f"unprivileged: 1\n{IDMAP}{REST}".replace("\n", "\r\n"), [], ""),
        (f"unprivileged: 1\n{IDMAP}{REST}\n[before]\nunprivileged: 1\nlxc.idmap: u 0 5 5\n", [], ""),
        # A comment behind the numbers, the name of LXC 2, and lines that nobody reads.
        (f"{IDMAP}lxc.idmap: g 105 100105 65431 // rest\n", ["USN083"], ""),
        (f"{IDMAP}{REST}".replace("idmap", "id_map"), ["USN083"], "write lxc.idmap: u 0 100000 65536"),
        (f"unprivileged: 1\n{IDMAP}{REST}".replace("idmap:", "idmap"), ["USN066"] * 4,
         "write lxc.idmap: u 0 100000 65536"),
    ],
)  # fmt: skip
def test_how_it_is_written_for_proxmox(
    raw: str, codes: list[str], hint: str, tmp_path: Path
) -> None:
    root = host(tmp_path / "one", of(Case(subgid="104:1"), config=raw))
    several = found(root)
    assert [one[0] for one in several] == codes
    assert not hint or hint in several[0][2]
    if not codes:
        here("adopt", "101", "--root", root)
        assert (
            joined(idmap(root, "101"))[2] == ("g", 105, 100105, 65431)
            or len(idmap(root, "101")) == 4
        )


@each(
    ("raw", "message", "hint"),
    [
        ("lxc.idmap\t=\tu\t0\t100000\t65536\nlxc.idmap=g 0 100000 65536\n", "", ""),
        ("lxc.idmap = u 0 0x186a0 65536\nlxc.idmap = g 0 100000 65536\r\n", "", ""),
        ("lxc.id_map = u 0 100000 65536\n", "since 3.0", "write lxc.idmap = u 0 100000 65536"),
        ("lxc.idmap: u 0 100000 65536\n", "no = follows the key", "write lxc.idmap = u 0 100000 65536"),
        ("lxc.idmap = u 0 100000 65536 # users\n", "a comment needs a line of its own", ""),
        ("lxc.idmap = b 0 100000 65536\n", "LXC knows u and g, not b", ""),
        ("lxc.idmap = u 0 100000 - 65536\n", "write u or g", ""),
    ],
)  # fmt: skip
def test_how_it_is_written_for_lxc(raw: str, message: str, hint: str, tmp_path: Path) -> None:
    root = host(tmp_path / "one", of(Case(), config=""))
    put(root, "var/lib/lxc/web/config", raw)
    several = found(root)
    assert bool(several) is bool(message)
    if several:
        assert several[0][0] == "USN083"
        assert message in several[0][1]
        assert hint in several[0][2]


def lines(subuid: str, subgid: str | None = None, **files: str) -> dict[str, str]:
    """The files of a host with these lines, as "owner:start:count …"."""
    both = (subuid, subuid if subgid is None else subgid)
    texts = ["".join(f"{line}\n" for line in text.split()) for text in both]
    return {"etc/subuid": texts[0], "etc/subgid": texts[1], **files}


def remap(user: str) -> dict[str, str]:
    return {"etc/docker/daemon.json": f'{{"userns-remap": "{user}"}}'}


def unit(*maps: str, home: str = "") -> dict[str, str]:
    where = f"{home}/.config/containers/systemd" if home else "etc/containers/systemd"
    return {f"{where}/app.container": "[Container]\nImage=x\n" + "".join(f"{x}\n" for x in maps)}


# The files, the name, the codes of check, and a line of what export writes.
STANDING: list[tuple[dict[str, str], str, list[str], str]] = [
    # Two lines of one account, in the wrong order; the id before the second is alice's.
    (lines("test:100000:65536 test:975:1"), "test", [], "b 1 100000 65536"),
    (lines("alice:100000:65536 test:165536:65536 test:975:1"), "test", [], "b 1 165536 65536"),
    (lines("alice:100000:65536 alice:300000:65536"), "alice", [], "b 65536 300000 65536"),
    (lines("alice:100000:65536", "alice:165536:65536"), "alice", ["USN023"], "g 0 165536 65536"),
    (lines("1000:100000:65536"), "alice", [], "start: 100000"),
    # The groups in which an account is; another one is a finding.
    (lines("alice:100000:65536", "alice:100000:65536 alice:2000:1"), "alice", [], "g 0 2000 1"),
    (lines("alice:100000:65536", "alice:100000:65536 alice:2001:1"), "alice", ["USN006"], ""),
    (lines("svc:100000:65536", "svc:100000:65536 svc:44:1"), "svc", [], "g 0 44 1"),
    # Podman's own example, and an account that has another's ids.
    (lines("containers:2147483647:2147483648"), "containers", ["USN013"] * 2, "b 0 2147483647"),
    (lines("alice:100000:65536 bob:100000:65536"), "alice", ["USN001"] * 2, "adopt: true"),
    # Docker's forms.
    (lines("dockremap:231072:65536") | remap("default"), "default", [], "start: 231072"),
    (lines("alice:100000:65536") | remap("alice"), "default", [], "start: 100000"),
    (lines("alice:1000:1 alice:100000:65535") | remap("alice:alice"), "default", [], "b 0 1000 1"),
    (lines("alice:1000:1 alice:100001:65535") | remap("1000:1000"), "default", [], "b 1 100001 65535"),
    # Podman's .container files: of root, of an account, and the keys of Podman 4.4.
    (lines("") | unit("UIDMap=0:60600000:909", "UIDMap=909:606:1", "UIDMap=910:60600910:64626"),
     "app", [], "b 909 606 1"),
    (lines("") | unit("PodmanArgs=--uidmap=0:60600000:909 --uidmap=910:606:1 --gidmap 0:60600000:65536"),
     "app", [], "u 910 606 1"),
    (lines("") | unit("RemapUsers=manual", "RemapUid=0:70000:10", "RemapUid=10:80000:10"),
     "app", [], "b 10 80000 10"),
    (lines("alice:100000:65536") | unit("UIDMap=1000:0:1", "UIDMap=0:1:1000", "UIDMap=1001:1001:64536",
                                        home="home/alice"), "alice-app", [], "b 1001 101000 64536"),
]  # fmt: skip


@each(("files", "codes"), [(one[0], one[2]) for one in STANDING])
def test_what_check_says_of_lines(files: dict[str, str], codes: list[str], tmp_path: Path) -> None:
    assert [one[0] for one in found(host(tmp_path / "one", files))] == codes


@pytest.mark.parametrize("cases", [STANDING[1::3], *slow(STANDING)])
def test_lines_and_units_are_adopted_as_they_stand(
    cases: list[tuple[dict[str, str], str, list[str], str]], tmp_path: Path
) -> None:
    for files, name, _, plan in cases:
        assert plan in comes_back(host(tmp_path / "one", files), name), files


@each(
    ("files", "codes"),
    [
        # LXD's lines: two of them, and the ones of the guide to raw.idmap.
        (lines("root:1000000:1000000000 root:1001000000:1000000000"), []),
        (lines("root:100000:65536 lxd:100000:65536 lxd:1000:1 root:1000:1"), ["USN020"]),
        (lines("root:100000:65536 root:1000:1 root:44:1 root:104:1"), []),
        # What Docker and Podman do not start from.
        (lines("alice:1000:1 alice:120000:65536"), ["USN008"] * 2),
        (lines("alice:100000:65536 alice:100000:65536"), ["USN003"] * 2),
        (lines("alice:100000:65536", ""), ["USN022"]),
        (lines("") | remap("tasky"), ["USN041", "USN043", "USN043"]),
        (lines("") | remap("default"), ["USN043", "USN043"]),
        ({"etc/docker/daemon.json": '// remap\n{"userns-remap": "default"}'}, ["USN040"]),
    ],
)
def test_lines_that_are_not_adopted(
    files: dict[str, str], codes: list[str], tmp_path: Path
) -> None:
    root = host(tmp_path / "one", files)
    assert [one[0] for one in found(root)] == codes


def test_a_container_without_a_root_is_not_adopted(tmp_path: Path) -> None:
    case = Case("1000 100000 65536", "1000 100000 65536")
    root = host(tmp_path / "one", of(case))
    _, err = here("adopt", "101", "--root", root, status=None)
    assert "no line maps container root, uid 0: Proxmox VE does not start it" in err


@each(
    ("line", "codes"),
    [
        ("root:1000000:1000000000", []),
        ("root:100000:65536 root:165536:65536 root:1000000:1000000000", ["USN087", "USN087"]),
        ("root:100000:65535", ["USN089", "USN089"]),
    ],
)
def test_the_lines_of_incus(line: str, codes: list[str], tmp_path: Path) -> None:
    root = host(tmp_path / "one", lines(line))
    for program in ("incusd", "newuidmap", "newgidmap"):
        put(root, f"usr/bin/{program}", "")
        (root / "usr/bin" / program).chmod(0o755)
    assert [one[0] for one in found(root)] == codes
