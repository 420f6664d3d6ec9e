"""allocate: what each option changes, and what changes only after a question, as seen in files."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.command import PROGRAM, extents, files_of, here, json_of, needs_root, usernsplan
from tests.each import each
from usernsplan import AllocateRequest, PerContainer, RefusedError, Shared, SingleUid, allocate

ACCOUNTS = "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:\nbin:x:2:2::/:\nsys:x:3:3::/:\ndockremap:x:900:900::/:\n"
GROUP = "root:x:0:\nadm:x:4:\ndockremap:x:900:\n"
DOCKER = ("--strategy", "per-container")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: it has no plan file yet."""
    made = tmp_path / "here"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with accounts for the first ids and for Docker's remap user."""
    made = tmp_path / "host"
    (made / "etc").mkdir(parents=True)
    (made / "etc/passwd").write_text(ACCOUNTS)
    (made / "etc/group").write_text(GROUP)
    return made


def put(root: Path, name: str, text: str = "") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def subuid(root: Path) -> str:
    return (root / "etc/subuid").read_text() if (root / "etc/subuid").exists() else ""


def allocated(root: Path) -> list[str]:
    return [one["name"] for one in json_of("list", "--root", root)["allocations"]]


def untouched(root: Path, *words: str, status: int) -> str:
    """The output of a command that writes nothing, not even a ledger."""
    before = files_of(root) if root.exists() else None
    said = here("allocate", *words, "--root", root, status=status)[1]
    assert (files_of(root) if root.exists() else None) == before
    return said


# Docker's own allocation, if Docker has images that it would hide.

CONTAINER = "var/lib/docker/containers/0123/config.v2.json"
IMAGE = "var/lib/docker/image/overlay2/imagedb/content/sha256/0123"
NAMES = "var/lib/docker/image/btrfs/repositories.json"
VOLUME = "var/lib/docker/volumes/data/_data/file"
REMAPPED = "var/lib/docker/100000.100000/volumes/data/_data/file"
BY_WORDS = pytest.mark.parametrize(
    "words",
    [DOCKER, (*DOCKER, "--docker"), (*DOCKER, "web", "--daemon", "web"), ("--strategy", "shared")],
)


def with_data(root: Path, name: str = CONTAINER) -> None:
    put(root, name, '{"Repositories":{"nginx":{}}}')


@pytest.mark.parametrize("name", [CONTAINER, IMAGE, NAMES, VOLUME, REMAPPED])
def test_without_a_terminal_docker_is_not_remapped_over_what_it_has(root: Path, name: str) -> None:
    with_data(root, name)
    said = untouched(root, *DOCKER, status=9)
    kind = "container" if name == CONTAINER else "volume" if "volumes" in name else "image"
    where = "/var/lib/docker/100000.100000" if name == REMAPPED else "/var/lib/docker"
    assert f"in {where}: 1 {kind}" in said
    assert "/var/lib/docker/589824.589824" in said
    assert f"usernsplan allocate --strategy per-container --root {root} --yes" in said


@BY_WORDS
def test_every_way_of_remapping_it_asks_and_yes_does_it(root: Path, words: tuple[str, ...]) -> None:
    with_data(root)
    (root / "etc/passwd").write_text(ACCOUNTS + "usernsplan-web:x:901:901::/:\n")
    (root / "etc/group").write_text(GROUP + "usernsplan-web:x:901:\n")
    untouched(root, *words, status=9)
    out, _ = here("allocate", *words, "--root", root, "--dry-run")
    assert "userns-remap" in out
    here("allocate", *words, "--root", root, "--check", status=4)
    assert not subuid(root)
    here("allocate", *words, "--root", root, "--yes")
    assert "userns-remap" in (root / "etc/docker/daemon.json").read_text()
    assert subuid(root)


def test_said_again_nobody_is_asked_for_nothing_changes(root: Path) -> None:
    with_data(root)
    here("allocate", *DOCKER, "--root", root, "--yes")
    before = files_of(root)
    assert json_of("allocate", *DOCKER, "--root", root)["changed"] is False
    assert files_of(root) == before
    # A restored line hides nothing: Docker keeps its data root.
    with_data(root, CONTAINER.replace("docker/", "docker/589824.589824/"))
    put(root, "etc/subuid", "dockremap:589824:65536\n")
    put(root, "etc/subgid", "")
    usernsplan("allocate", *DOCKER, "--root", root, status=9)
    os.rename(root / "var/lib/docker/containers", root / "var/moved")
    here("allocate", *DOCKER, "--root", root)
    assert (root / "etc/subgid").read_text() == "dockremap:589824:65536\n"


@pytest.mark.parametrize(
    "name",
    [
        "var/lib/docker/volumes/metadata.db",
        "var/lib/docker/buildkit/cache.db",
        "var/lib/docker/network/files/kv.db",
    ],
)
def test_a_docker_that_has_nothing_is_remapped_unasked(root: Path, name: str) -> None:
    put(root, name)
    put(root, NAMES, '{"Repositories":{}}')
    (root / "var/lib/docker/containers").mkdir()
    here("allocate", *DOCKER, "--root", root)
    assert json.loads((root / "etc/docker/daemon.json").read_text()) == {
        "userns-remap": "dockremap"
    }


@pytest.mark.parametrize("words", [("web",), ("--no-daemon-config",)])
def test_what_leaves_docker_alone_asks_nobody(root: Path, words: tuple[str, ...]) -> None:
    with_data(root)
    here("allocate", *DOCKER, *words, "--root", root)
    assert not (root / "etc/docker").exists()
    assert subuid(root)


def test_docker_is_looked_at_where_its_data_is(root: Path) -> None:
    put(root, "etc/docker/daemon.json", '{"data-root": "/srv/docker/"}')
    put(root, "srv/elsewhere/volumes/data/file")
    (root / "srv/docker").symlink_to("/srv/elsewhere")
    assert "in /srv/docker/: 1 volume" in untouched(root, *DOCKER, status=9)
    with_data(root)
    (root / "srv/docker").unlink()
    here("allocate", *DOCKER, "--root", root)


def test_what_cannot_be_looked_at_may_be_something(root: Path) -> None:
    (root / "var/lib/docker").mkdir(parents=True)
    (root / "var/lib/docker/volumes").symlink_to("volumes")
    assert "data that cannot be read" in untouched(root, *DOCKER, status=9)
    (root / "var/lib/docker/volumes").unlink()
    (root / "var/lib/docker/image/x").mkdir(parents=True)
    os.mkfifo(root / "var/lib/docker/image/x/repositories.json")
    assert "data that cannot be read" in untouched(root, *DOCKER, status=9)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"Repositories": 5}', '{"Repositories": {"a": {}, "b": {}}}']
)
def test_a_list_of_images_that_is_not_an_empty_one_is_some(root: Path, text: str) -> None:
    put(root, NAMES, text)
    assert f"in /var/lib/docker: {'2 images' if 'b' in text else '1 image'}" in untouched(
        root, *DOCKER, status=9
    )


def test_a_plan_file_that_remaps_docker_asks_too(root: Path, folder: Path) -> None:
    with_data(root)
    (root / "etc/passwd").write_text(ACCOUNTS + "usernsplan-web:x:901:901::/:\n")
    (root / "etc/group").write_text(GROUP + "usernsplan-web:x:901:\n")
    (folder / "usernsplan.yaml").write_text(
        "strategy: per-container\ndaemon: web\ncontainers: [web]\n"
    )
    untouched(root, status=9)
    assert "1 container" in here("apply", "--yes", "--root", root)[1]
    assert "usernsplan-web" in (root / "etc/docker/daemon.json").read_text()


def test_the_library_refuses_it_until_yes_is_said(root: Path) -> None:
    with_data(root)
    before = files_of(root)
    with pytest.raises(RefusedError, match="1 container"):
        allocate(AllocateRequest((), PerContainer()), str(root))
    assert files_of(root) == before
    assert allocate(AllocateRequest((), PerContainer(), yes=True), str(root)).changed


def answered(root: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """Make Docker's own allocation on a terminal, and answer the question."""
    terminal, theirs = pty.openpty()
    try:
        os.write(terminal, answer.encode())
        words = [*PROGRAM, "allocate", *DOCKER, "--json", "--root", str(root)]
        return subprocess.run(
            words, stdin=theirs, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        os.close(terminal)
        os.close(theirs)


@pytest.mark.parametrize("answer", ["y\n", "no\n", "\n"])
def test_on_a_terminal_the_consequences_come_first_and_then_the_question(
    root: Path, answer: str
) -> None:
    with_data(root)
    before = files_of(root)
    done = answered(root, answer)
    told, _, _ = done.stderr.partition("[y/N]")
    assert "in /var/lib/docker: 1 container" in told
    if answer == "y\n":
        assert done.returncode == 0
        assert json.loads(done.stdout)["changed"] is True
        assert subuid(root) == "dockremap:589824:65536\n"
    else:
        assert done.returncode == 1
        assert json.loads(done.stdout)["error"]["code"] == "declined"
        assert "Nothing was changed." in done.stderr
        assert files_of(root) == before


# Names, or none.


@each(
    ("words", "says"),
    [
        ((), "nothing to allocate"),
        (("--yes",), "nothing to allocate"),
        (("--engine", "docker"), "nothing to allocate"),
        ((*DOCKER, "--docker", "web"), "--docker does not go with a name"),
        ((*DOCKER, "--docker", "--daemon", "web"), "--docker does not go with a name"),
        ((*DOCKER, "--docker", "--names-from", "/dev/null"), "--docker does not go with a name"),
        ((*DOCKER, "--docker", "--engine", "podman"), "--docker does not go with --engine podman"),
        ((*DOCKER, "--names-from", "/dev/null"), "is not a regular file"),
        ((*DOCKER, "web", "--names-from", "/dev/null"), "is not a regular file"),
        ((*DOCKER, "--names-from", "-"), "standard input has no names"),
        ((*DOCKER, "--names-from", "/nonexistent"), "no such file"),
        ((*DOCKER, "--names-from", "/"), "is not a regular file"),
        ((*DOCKER, "--names-from", "/dev/zero"), "is not a regular file"),
    ],
)
def test_words_that_name_nobody_are_wrong_usage(
    root: Path, words: tuple[str, ...], says: str
) -> None:
    before = files_of(root)
    assert says in usernsplan("allocate", *words, "--root", root, status=2).stderr
    assert files_of(root) == before


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody\n  # at all\n", "\ufeff\n"])
def test_an_empty_list_is_an_error_and_not_docker(root: Path, folder: Path, text: str) -> None:
    (folder / "names").write_text(text)
    assert "has no names" in untouched(root, *DOCKER, "--names-from", "names", status=2)


@pytest.mark.parametrize("text", ["web db\n", "web\n-\n", "web\ndefault\n", "a\x00b\n", "w\xe9b\n"])
def test_a_list_is_taken_whole_or_not_at_all(root: Path, folder: Path, text: str) -> None:
    (folder / "names").write_bytes(text.encode("latin-1"))
    untouched(root, *DOCKER, "--names-from", "names", status=2)


def test_names_come_from_a_file_and_from_standard_input(root: Path, folder: Path) -> None:
    (folder / "names").write_bytes(b"\xef\xbb\xbf# hosts\r\n\r\n  web  \r\ndb # the database\nweb")
    here("allocate", *DOCKER, "cache", "--names-from", "names", "--root", root)
    words = [*PROGRAM, "allocate", "--names-from", "-", "--root", str(root)]
    subprocess.run(words, input="web\nmail\n", text=True, check=True, capture_output=True)
    assert allocated(root) == ["cache", "db", "mail", "web"]
    assert "dockremap" not in subuid(root)


@pytest.mark.parametrize("words", [(), ("web=docker.io/library/nginx", "db=x")])
def test_the_example_for_provisioning_makes_what_it_is_given_and_nothing_else(
    root: Path, folder: Path, words: tuple[str, ...]
) -> None:
    (folder / "usernsplan").write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    (folder / "usernsplan").chmod(0o755)
    spaced = root.rename(root.parent / "a host")
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "ROOT": str(spaced)}
    env["PYTHONPATH"] = str(EXAMPLES.parent)
    before = files_of(spaced)
    done = subprocess.run(
        [EXAMPLES / "provision.sh", *words], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if words else 2), done.stderr
    assert words or files_of(spaced) == before
    assert subuid(spaced) == (
        "usernsplan-web:589824:65536\nusernsplan-db:655360:65536\n" if words else ""
    )


def test_a_plan_file_of_this_folder_is_not_looked_at_where_a_strategy_is_said(
    root: Path, folder: Path
) -> None:
    (folder / "usernsplan.yaml").write_text("strategy: [broken")
    assert (
        "--strategy, --docker and --engine ignore ./usernsplan.yaml"
        in here("allocate", *DOCKER, "--root", root)[1]
    )
    assert allocated(root) == ["default"]
    here("allocate", "--root", root, status=1)
    (folder / "usernsplan.yaml").write_text("strategy: per-container\ncontainers: [web]\n")
    here("allocate", "--docker", "--root", root)
    assert allocated(root) == ["default"]
    here("allocate", "--root", root)
    assert allocated(root) == ["default", "web"]


def test_the_plan_file_of_the_host_still_says_what_is_allocated(root: Path) -> None:
    put(root, "etc/usernsplan.yaml", "strategy: per-container\ncontainers: [web]\n")
    untouched(root, "--strategy", "shared", status=2)
    here("allocate", *DOCKER, "--root", root)
    assert allocated(root) == ["web"]
    here("allocate", "--docker", "--root", root)
    assert allocated(root) == ["default", "web"]


# The strategy.


@pytest.mark.parametrize(
    ("strategy", "ids"),
    [
        ("per-container", (0, 655360, 65536)),
        ("single-uid", (0, 1000010000, 1)),
        ("shared", (0, 2, 1)),
    ],
)
def test_the_strategy_that_a_host_has_need_not_be_said_again(
    root: Path, strategy: str, ids: tuple[int, int, int]
) -> None:
    here("allocate", "--strategy", strategy, "web", "--root", root)
    [db] = json_of("allocate", "db", "--root", root)["allocations"]
    assert (db["strategy"], db["uid_map"][:1]) == (strategy, extents(ids))
    before = files_of(root)
    assert json_of("allocate", "web", "db", "--root", root)["changed"] is False
    assert files_of(root) == before
    here("allocate", "--docker", "--root", root)
    assert allocated(root) == ["db", "default", "web"]


def test_on_a_new_host_it_is_told_which_to_choose_for_whom(root: Path) -> None:
    said = untouched(root, "web", status=2)
    assert "the strategy is missing" in said
    for word in (
        "per-container ",
        "single-uid ",
        "shared ",
        f"allocate --strategy per-container web --root {root}",
    ):
        assert word in said
    assert "--strategy per-container --docker" in untouched(root, "--docker", status=2)


def test_where_all_was_released_it_is_to_be_said_again(root: Path) -> None:
    here("allocate", *DOCKER, "web", "--root", root)
    here("release", "web", "--root", root)
    untouched(root, "db", status=2)


def test_an_option_of_another_strategy_says_whose_it_is(root: Path) -> None:
    here("allocate", "--strategy", "single-uid", "web", "--root", root)
    said = untouched(root, "db", "--size", "5", status=2)
    assert "single-uid" in said


# Docker's map ends at 65535.


@pytest.mark.spread(4)
@pytest.mark.parametrize(
    "words",
    [
        ("--max", "4294967294"),
        ("--max", "65536"),
        ("--max", "665536", "--dockerroot", "400"),
        ("--max", "4294967294", "--dockerroot", "auto"),
        ("--max", "65537", "--identity"),
        ("--max", "4294967295", "--identity"),
        ("--max", "4294967294", "web", "--daemon", "web"),
        ("--max", "4294967294", "--no-daemon-config"),
    ],
)
@pytest.mark.parametrize("stands", [False, True])
def test_a_larger_map_for_docker_says_where_it_ends_and_how_others_get_one(
    root: Path, folder: Path, words: tuple[str, ...], stands: bool
) -> None:
    if stands:
        here("allocate", "--strategy", "shared", "--root", root)
    said = untouched(root, "--strategy", "shared", *words, status=2)
    assert "65535" in said
    assert "overlap" not in said
    # The command in the hint works.
    [hint] = re.findall("'usernsplan (allocate [^']*)'", said)
    here(*hint.split())
    name = "web"
    lines = here("render", "uid_map", name, "--root", root)[0].split()
    assert int(lines[-3]) + int(lines[-1]) >= 65536 + ("--identity" in words)
    assert not list(folder.iterdir())


def test_a_named_container_that_docker_has_is_refused_in_words_of_its_own(root: Path) -> None:
    (root / "etc/passwd").write_text(ACCOUNTS + "usernsplan-web:x:901:901::/:\n")
    (root / "etc/group").write_text(GROUP + "usernsplan-web:x:901:\n")
    here("allocate", "--strategy", "shared", "web", "--daemon", "web", "--root", root)
    said = untouched(root, "--strategy", "shared", "web", "--max", "4294967294", status=9)
    assert "with other options" in said


def test_a_plan_file_with_such_a_map_is_told_its_line(root: Path, folder: Path) -> None:
    text = "strategy: shared\ndaemon: web\ncontainers:\n- {name: web, max: 4294967294}\n"
    (folder / "usernsplan.yaml").write_text(text)
    said = untouched(root, status=2)
    assert (
        "usernsplan.yaml:4: containers[1].max: " in said
        or "usernsplan.yaml:4: containers[0].max: " in said
    )
    assert "65535" in said


# DOCKERROOT.


def test_the_default_that_is_somebody_names_him_and_the_option(root: Path) -> None:
    out, said = here("allocate", "--strategy", "shared", "web", "--root", root)
    assert "usernsplan-web:2:1" in out
    assert "DOCKERROOT 2 is the account 'bin'" in said
    assert "--dockerroot auto takes the first unused id (here 5)" in said


def test_auto_takes_the_first_id_that_nobody_has_and_keeps_it(root: Path) -> None:
    put(root, "etc/subuid", "alice:5:1\nroot:0:65536\n")
    put(root, "etc/subgid", "bob:6:2\n")
    words = ("allocate", "--strategy", "shared", "--dockerroot", "auto")
    out, said = here(*words, "web", "--root", root)
    assert "usernsplan-web:8:1" in out
    assert "USN101" not in said
    assert "USN018" not in here("check", "--root", root, status=None)[0]
    before = files_of(root)
    assert json_of(*words, "web", "--root", root)["changed"] is False
    assert files_of(root) == before
    # A host has one DOCKERROOT, for every container and for Docker.
    here(*words, "db", "--root", root)
    here(*words, "--root", root)
    maps = {one["name"]: one["uid_map"] for one in json_of("list", "--root", root)["allocations"]}
    assert {name: ids[:1] for name, ids in maps.items()} == {
        name: extents((0, 8, 1)) for name in ("web", "db", "default")
    }
    assert maps["default"][1:] == extents((1, 589824, 8), (9, 9, 65527))


@pytest.mark.parametrize(
    ("file", "line", "who"),
    [
        (
            "passwd",
            "late:x:5:100::/:\n",
            "the account late has 5, which is container root (DOCKERROOT) of 'web'",
        ),
        (
            "group",
            "late:x:5:\n",
            "the group late has 5, which is container root (DOCKERROOT) of 'web'",
        ),
    ],
)
def test_check_tells_of_an_account_that_takes_it_later(
    root: Path, file: str, line: str, who: str
) -> None:
    here("allocate", "--strategy", "shared", "--dockerroot", "auto", "web", "--root", root)
    assert json_of("check", "--root", root)["findings"] == []
    put(root, f"etc/{file}", {"passwd": ACCOUNTS, "group": GROUP}[file] + line)
    [found] = json_of("check", "--root", root)["findings"]
    assert (found["code"], found["message"]) == ("USN018", who)
    # It stays the container's; a new container gets another one.
    words = ("allocate", "--dockerroot", "auto", "--root", root)
    assert "DOCKERROOT 5" in here(*words, "web")[1]
    assert json_of(*words, "db")["allocations"][0]["uid_map"][:1] == extents((0, 6, 1))


@each("word", ["Auto", "", "2.5", "-", "first", "1_0", " 7", "9" * 5000])
def test_a_dockerroot_that_is_neither_a_number_nor_auto_is_wrong_usage(
    root: Path, word: str
) -> None:
    untouched(root, "--strategy", "shared", f"--dockerroot={word}", "web", status=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (DOCKER, "--dockerroot: not an option of the strategy per-container"),
        (("--strategy", "shared", "--identity"), "--identity: does not go with dockerroot"),
    ],
)
def test_auto_is_an_option_of_shared_and_not_for_identity(
    root: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in untouched(root, *words, "--dockerroot", "auto", "web", status=2)


def test_where_everybody_has_everything_nothing_is_made(root: Path) -> None:
    put(root, "etc/subuid", "alice:2:65533\n")
    assert "--dockerroot N" in untouched(
        root, "--strategy", "shared", "--dockerroot", "auto", "web", status=7
    )
    here("allocate", "--strategy", "shared", "web", "--root", root)


# A mistyped root.

NEW = {"missing": "does not exist", "empty": "is empty"}


@pytest.mark.parametrize("kind", NEW)
def test_a_new_root_is_told_in_the_first_line(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "new"
    if kind == "empty":
        root.mkdir()
    words = ("allocate", *DOCKER, "web", "--root", root)
    out, _ = here(*words, "--dry-run")
    assert out.splitlines()[0] == f"{root} {NEW[kind]}: this would create a new root"
    document, said = here(*words, "--dry-run", "--json")
    assert json.loads(document)["changed"] is True
    assert f"{root} {NEW[kind]}" in said
    assert not list(tmp_path.glob("new/*"))
    out, _ = here(*words)
    assert out.splitlines()[0] == f"{root} {NEW[kind]}: this creates a new root"
    assert subuid(root) == "usernsplan-web:589824:65536\n"
    assert "new root" not in here(*words)[0]


def test_apply_and_plan_tell_of_it_too(tmp_path: Path, folder: Path) -> None:
    (folder / "usernsplan.yaml").write_text("strategy: per-container\ncontainers: [web]\n")
    first = f"{tmp_path}/new does not exist: this would create a new root"
    for words in (("plan",), ("apply", "--yes")):
        assert here(*words, "--root", tmp_path / "new")[0].splitlines()[0] == first
    assert allocated(tmp_path / "new") == ["web"]


@pytest.mark.parametrize(
    "words",
    [
        ("allocate", *DOCKER, "web"),
        ("allocate", *DOCKER),
        ("allocate", *DOCKER, "web", "--dry-run"),
        ("release", "web"),
        ("apply", "--yes"),
        ("plan",),
        ("fix-volume", "/data"),
        ("undo", "20261122-053048"),
        ("check", "--fix", "--yes"),
    ],
)
def test_what_is_no_root_stays_as_it_is(
    tmp_path: Path, folder: Path, words: tuple[str, ...]
) -> None:
    (folder / "usernsplan.yaml").write_text("strategy: per-container\ncontainers: [web]\n")
    root = tmp_path / "hots"
    put(root, "data/file", "kept")
    before = sorted(root.rglob("*"))
    is_repair = words[0] == "check"
    _, said = here(*words, "--root", root, status=0 if is_repair else 2)
    assert is_repair or (f"--root {root} has no /etc" in said and f"mkdir {root}/etc" in said)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    "words", [("release", "web"), ("fix-volume", "/data"), ("undo", "20261122-053048")]
)
def test_what_needs_a_root_makes_none(tmp_path: Path, words: tuple[str, ...]) -> None:
    here(*words, "--root", tmp_path / "hots", status=None)
    assert not (tmp_path / "hots").exists()


def test_an_etc_that_is_a_symlink_of_the_root_is_one(tmp_path: Path) -> None:
    root = tmp_path / "host"
    (root / "usr/etc").mkdir(parents=True)
    (root / "etc").symlink_to("/usr/etc")
    here("allocate", *DOCKER, "web", "--root", root)
    assert (root / "usr/etc/subuid").read_text() == "usernsplan-web:589824:65536\n"


@needs_root
@pytest.mark.parametrize("strategy", [PerContainer(), SingleUid(), Shared()])
def test_the_library_does_not_begin_a_root_among_other_things(
    tmp_path: Path, strategy: PerContainer | SingleUid | Shared
) -> None:
    put(tmp_path, "host/data/file", "kept")
    with pytest.raises(ValueError, match="has no /etc"):
        allocate(AllocateRequest(("web",), strategy), str(tmp_path / "host"))
    assert [path.name for path in (tmp_path / "host").iterdir()] == ["data"]
