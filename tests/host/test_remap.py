"""remap: another map for an allocation. The lines, the records and the ledger go with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import usernsplan
import usernsplan.remapping
import usernsplan.volume.moving
from tests.command import PROGRAM, extents, here, missing, needs_root, slow
from usernsplan.errors import UsernsplanError

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., tuple[str, str]]

pytestmark = [needs_root, pytest.mark.usefixtures("volume_step")]

# The first slots of the default pool.
FIRST, SECOND, THIRD, FOURTH = 589824, 655360, 720896, 786432


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nrender:x:104:\ndisk:x:6:\nalice:x:1000:\n")
    (root / "srv/web").mkdir(parents=True)
    here("allocate", "--strategy", "per-container", "web", "--root", root)
    return root


@pytest.fixture
def run(root: Path) -> Run:
    def run(words: str, status: int | None = 0) -> tuple[str, str]:
        typed = [word.replace("ROOT", str(root)) for word in words.split()]
        return here(*typed, "--root", root, status=status)

    return run


def of(run: Run, words: str) -> Any:  # noqa: ANN401 - a document
    return json.loads(run(f"{words} --json")[0])


def lines(root: Path, kind: str = "uid") -> list[str]:
    return (root / f"etc/sub{kind}").read_text().split()


def quarantined(run: Run) -> list[tuple[str, int, int]]:
    return [
        (q["name"], q["range"]["start"], q["range"]["count"])
        for q in of(run, "list")["quarantined"]
    ]


def files(root: Path) -> dict[str, bytes]:
    """What is in /etc; of a symlink, what it leads to."""
    return {
        str(path): path.read_bytes() for path in sorted((root / "etc").rglob("*")) if path.is_file()
    }


def records(root: Path) -> set[str]:
    return {path.name for path in (root / "etc/userdb").iterdir()}


def test_it_grows_in_place_where_the_ids_behind_it_are_free(root: Path, run: Run) -> None:
    said = of(run, "remap web --size 131072")
    assert (said["kind"], said["changed"], said["volumes"]) == ("remap", True, [])
    [now] = said["allocations"]
    assert now["uid_map"] == now["gid_map"] == extents((0, FIRST, 131072))
    assert lines(root) == lines(root, "gid") == [f"usernsplan-web:{FIRST}:131072"]
    assert quarantined(run) == []
    assert {f"{FIRST}.user", f"{SECOND}.user", "usernsplan-web.user"} <= records(root)
    # Once more, it changes nothing.
    before = files(root)
    assert "Already up to date" in run("remap web --size 131072")[0]
    assert "Already up to date" in run("remap web")[0]
    assert files(root) == before


def test_it_moves_where_somebody_has_the_ids_behind_it_and_the_old_range_is_kept_back(
    root: Path, run: Run
) -> None:
    run("allocate db")
    before = files(root)
    shown = of(run, "remap web --size 131072 --dry-run")
    assert (shown["dry_run"], shown["changed"], files(root) == before) == (True, True, True)
    # Without an answer nothing is done.
    assert "use --yes" in run("remap web --size 131072", 2)[1]
    assert files(root) == before

    said = of(run, "remap web --size 131072 --yes")
    assert said["changes"] == shown["changes"]
    assert lines(root) == [f"usernsplan-db:{SECOND}:65536", f"usernsplan-web:{THIRD}:131072"]
    assert quarantined(run) == [("web", FIRST, 65536)]
    assert f"{FIRST}.user" not in records(root)
    assert {f"{THIRD}.user", f"{FOURTH}.user"} <= records(root)
    assert str(THIRD) in (root / "etc/userdb/usernsplan-web.user").read_text()
    assert "USN05" not in run("check", None)[0]
    # Nobody else is given the old range.
    run("allocate other")
    assert f"usernsplan-other:{FOURTH + 65536}:65536" in lines(root)


def test_it_shrinks_in_place_and_what_is_cut_off_is_kept_back(root: Path, run: Run) -> None:
    run("remap web --size 1000 --yes")
    assert lines(root) == [f"usernsplan-web:{FIRST}:1000"]
    assert quarantined(run) == [("web", FIRST + 1000, 64536)]
    # What was cut off is its own: it can grow again where it is.
    run("remap web --size 65536")
    assert lines(root) == [f"usernsplan-web:{FIRST}:65536"]
    assert quarantined(run) == []


@pytest.mark.parametrize(
    ("words", "uids", "gids"),
    [
        (
            "--pass u:1000",
            [(0, FIRST, 1000), (1000, 1000, 1), (1001, FIRST + 1001, 64535)],
            [(0, FIRST, 65536)],
        ),
        (
            "--pass g:render:107",
            [(0, FIRST, 65536)],
            [(0, FIRST, 107), (107, 104, 1), (108, FIRST + 108, 65428)],
        ),
    ],
)
def test_passes_change_only_the_lines_of_their_kind(
    root: Path,
    run: Run,
    words: str,
    uids: list[tuple[int, int, int]],
    gids: list[tuple[int, int, int]],
) -> None:
    [now] = of(run, f"remap web {words} --yes")["allocations"]
    assert (now["uid_map"], now["gid_map"]) == (extents(*uids), extents(*gids))
    for kind, expected in (("uid", uids), ("gid", gids)):
        assert lines(root, kind) == [f"usernsplan-web:{host}:{n}" for _, host, n in expected]
    assert quarantined(run) == []
    # Another size keeps them; --no-pass drops them.
    [grown] = of(run, "remap web --size 65600 --yes")["allocations"]
    assert len(grown["uid_map"]) == len(uids)
    [bare] = of(run, "remap web --no-pass --yes")["allocations"]
    assert bare["uid_map"] == bare["gid_map"] == extents((0, FIRST, 65600))


def test_what_an_id_opens_needs_its_own_flag(root: Path, run: Run) -> None:
    before = files(root)
    assert "disk" in run("remap web --pass g:disk --yes", 9)[1]
    assert files(root) == before
    run("remap web --pass g:disk --pass-privileged --yes")
    assert f"usernsplan-web:{6}:1" in lines(root, "gid")


def test_roots_lines_for_lxc_are_exchanged_too_and_those_of_others_stay(
    root: Path, run: Run
) -> None:
    run("allocate web other --engine lxc --pass g:render:107", 9)
    run("allocate other --engine lxc --pass g:render:107")
    run("allocate web --engine lxc")
    of_root = [line for line in lines(root, "gid") if line.startswith("root:")]
    assert of_root[:3] == [f"root:{SECOND}:107", "root:104:1", f"root:{SECOND + 108}:65428"]
    run("remap web --pass g:render:107 --yes")
    assert lines(root, "gid").count("root:104:1") == 1
    # The other one still needs it.
    run("remap web --no-pass --yes")
    assert "root:104:1" in lines(root, "gid")
    run("remap other --no-pass --yes")
    assert "root:104:1" not in lines(root, "gid")
    assert {f"root:{FIRST}:32768", f"root:{FIRST + 32768}:32768"} <= set(lines(root, "gid"))


def test_start_and_pool_choose_the_new_place(root: Path, run: Run) -> None:
    run("allocate db")
    assert "is not free" in run(f"remap web --start {SECOND} --yes", 9)[1]
    assert "not a multiple" in run(f"remap web --start {FOURTH + 1} --yes", 2)[1]
    assert "outside the pool" in run("remap web --start 65536 --yes", 2)[1]
    run(f"remap web --start {FOURTH} --yes")
    assert lines(root)[-1] == f"usernsplan-web:{FOURTH}:65536"
    run("remap web --pool 1966080-2555903 --yes")
    assert lines(root)[-1] == "usernsplan-web:1966080:65536"
    assert quarantined(run) == [("web", FIRST, 65536), ("web", FOURTH, 65536)]
    # It is in this pool already.
    assert "Already up to date" in run("remap web --pool 1966080-2555903 --yes")[0]


def test_undo_returns_to_the_map_before_again_and_again(root: Path, run: Run) -> None:
    run("allocate db")
    before = files(root), quarantined(run)
    run("remap web --size 131072 --yes")
    run("remap web --pass g:render:107 --yes")
    run("rename web www")
    middle = quarantined(run)
    assert middle == [("www", FIRST, 65536)]

    run("remap www --undo --yes")
    assert lines(root, "gid")[-1] == f"usernsplan-web:{THIRD}:131072"
    run("remap www --undo --yes")
    assert sorted(lines(root)) == sorted(
        [f"usernsplan-db:{SECOND}:65536", f"usernsplan-web:{FIRST}:65536"]
    )
    assert quarantined(run) == [("www", THIRD, 131072)]
    assert records(root) == {name.rsplit("/", 1)[-1] for name in before[0] if "userdb" in name}
    assert "no remap of 'www' is left to undo" in run("remap www --undo --yes", 9)[1]
    assert "USN05" not in run("check", None)[0]


def test_undo_is_refused_if_somebody_has_the_old_ids_now(root: Path, run: Run) -> None:
    run("allocate db")
    run("remap web --size 131072 --yes")
    run("release --forget web")
    run("allocate new")
    assert f"usernsplan-new:{FIRST}:65536" in lines(root)
    before = files(root)
    assert "is not free" in run("remap web --undo --yes", 9)[1]
    assert files(root) == before


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("remap wbe --size 131072", 1, "did you mean web?"),
        ("remap web --size 0", 2, "--size"),
        ("remap web --size x", 2, "not a whole number"),
        ("remap web --pass g:107 --no-pass", 2, "exclude each other"),
        ("remap web --undo --size 5", 2, "no option for the map"),
        ("remap web --undo", 9, "no remap of 'web' is left"),
        ("remap web --pass g:nosuch", 2, "nosuch"),
        ("remap containers --size 65536", 9, "pool of podman-auto"),
        ("remap containers --size 65537", 2, "not a multiple of it"),
        ("remap containers --start 655360 --pass g:107", 2, "ids pass through to one"),
    ],
)
def test_what_cannot_be_is_refused(
    root: Path, run: Run, words: str, status: int, said: str
) -> None:
    run("allocate --engine podman-auto")
    then = files(root)
    assert said in run(f"{words} --yes", status)[1]
    assert files(root) == then


def pasted(run: Run, said: str) -> str:
    """What the command prints that an error gave as its remedy, which is carried out."""
    words = re.findall(r"usernsplan (.+?) --root \S+$", said, re.MULTILINE)[-1]
    return run(f"{words} --yes" if words.startswith("remap") else words)[0]


def test_adopted_lines_have_a_flag_of_their_own_and_damaged_ones_are_left_alone(
    root: Path, run: Run
) -> None:
    for kind in ("uid", "gid"):
        with (root / f"etc/sub{kind}").open("a") as file:
            file.write("# hers\nalice:100000:65536\n")
    run("adopt alice")
    before = files(root)
    _, said = run("remap alice --size 131072 --yes", 9)
    assert f"{root}/etc/subuid: 'alice:100000:65536' and 1 more stood there before" in said
    assert "--with-lines" in said
    assert files(root) == before
    # What allocate prints has the flag: then the very request is what stands there.
    _, said = run("allocate alice --owner alice --size 131072", 9)
    assert "podman system migrate" in pasted(run, said)
    assert (root / "etc/subuid").read_text().splitlines()[-2:] == ["# hers", "alice:100000:131072"]
    assert "Already up to date" in run("allocate alice --owner alice --size 131072")[0]
    assert not any("alice" in name for name in records(root))

    # An undo needs no flag, because these lines are ours; then they are what stood there.
    run("remap alice --undo --yes")
    assert lines(root)[-1] == "alice:100000:65536"
    run("release alice")
    assert lines(root)[-1] == "alice:100000:65536"

    text = (root / "etc/subuid").read_text()
    (root / "etc/subuid").write_text(text.replace("usernsplan-web:589824:65536\n", ""))
    assert "check --fix" in run("remap web --size 131072 --yes", 9)[1]


def test_who_still_has_the_old_map_in_a_file_is_named(root: Path, run: Run) -> None:
    """LXC's configs, and Podman's units, stay as they are."""
    for kind in ("uid", "gid"):
        with (root / f"etc/sub{kind}").open("a") as file:
            file.write("root:300000:65536\n")
    config = root / "var/lib/lxc/box/config"
    unit = root / "etc/containers/systemd/app.container"
    for path in (config, unit):
        path.parent.mkdir(parents=True)
    config.write_text("lxc.idmap = u 0 300000 1000\nlxc.idmap = g 0 300000 1000\n")
    unit.write_text("[Container]\nImage=x\nUIDMap=0:7000000:1000\nGIDMap=0:7000000:1000\n")
    run("adopt box app")
    for name, step, path in (
        ("box", "render lxc box", config),
        ("app", "render quadlet app", unit),
    ):
        said = of(run, f"remap {name} --size 2000 --yes")
        [next_step] = said["next_steps"]
        assert next_step == (
            f"usernsplan {step} --root {root}  # {path} still has the old map: replace it by this"
        )
        assert said["changes"] == []
        words = next_step.split("  #")[0].split()[1:]
        assert "0" in here(*words)[0]


def test_a_pool_grows_and_its_other_remedies_work(root: Path, run: Run) -> None:
    run("allocate --engine podman-auto --auto-containers 2")
    _, said = run("allocate --engine podman-auto --auto-containers 3", 9)
    assert "Undo" not in pasted(run, said)
    assert f"containers:{SECOND}:196608" in lines(root)
    assert f"{FOURTH}.user" in records(root)
    run("allocate db")
    before = files(root)
    _, said = run("remap containers --size 262144 --yes", 9)
    assert "only grow where it is" in said
    assert "only grow where it is" in run("remap containers --undo --yes", 9)[1]
    assert files(root) == before
    # The words that it prints.
    release, again = re.findall(r"'usernsplan (.+?) --root", said)
    run(release)
    run(again.replace(" N", " 4"))
    assert f"containers:{FOURTH + 65536 * 2}:262144" in lines(root)
    # A plan file has the same remedy.
    (root / "plan.yaml").write_text(run("export")[0].replace("containers: 4", "containers: 5"))
    assert "remap containers --size 327680" in run("plan ROOT/plan.yaml", 9)[1]


def test_other_strategies(tmp_path: Path) -> None:
    for strategy, words, status in (
        ("shared", "--size 100", 9),
        ("single-uid", "--size 100", 2),
        ("single-uid", "--start 1000070000", 0),
    ):
        root = tmp_path / f"{strategy}{status}"
        here("allocate", "--strategy", strategy, "web", "--no-daemon-config", "--root", root)
        here("remap", "web", *words.split(), "--yes", "--root", root, status=status)
    assert (root / "etc/subuid").read_text() == "usernsplan-web:1000070000:1\n"


def test_allocate_with_other_options_prints_the_remap_that_makes_them(root: Path, run: Run) -> None:
    run("allocate db")
    for words, remap in (
        ("--size 131072", "remap web --size 131072"),
        ("--pass g:render:107 --pass u:1000", "remap web --pass u:1000 --pass g:104:107"),
        (f"--start {FOURTH} --size 1000", f"remap web --size 1000 --start {FOURTH}"),
    ):
        _, said = run(f"allocate web {words}", 9)
        assert f"usernsplan {remap} --root {root}" in said
    # What it printed does what was asked: then the same allocate changes nothing.
    run(f"{remap} --yes")
    assert "Already up to date" in run(f"allocate web {words}")[0]
    run("remap web --size 65536 --pass g:render:107 --yes")
    # Without the passes, they are to go.
    assert f"remap web --no-pass --start {FIRST}" in run(f"allocate web --start {FIRST}", 9)[1]
    # Another owner is no other map.
    assert "release" in run("allocate web --pass g:render:107 --owner alice", 9)[1]
    (root / "plan.yaml").write_text(
        "strategy: per-container\ncontainers: [{name: web, size: 100}]\n"
    )
    assert "remap web --size 100" in run("plan ROOT/plan.yaml", 9)[1]


def test_dockers_own_moves_with_a_warning_and_a_restart(root: Path) -> None:
    docker = root.parent / "docker"
    (docker / "etc").mkdir(parents=True)
    (docker / "etc/passwd").write_text("dockremap:x:990:990::/:/bin/sh\n")
    (docker / "etc/group").write_text("dockremap:x:990:\n")
    here("allocate", "--strategy", "per-container", "--docker", "--root", docker)
    here("allocate", "db", "--root", docker)
    config = (docker / "etc/docker/daemon.json").read_bytes()
    said = json.loads(
        here("remap", "default", "--size", "131072", "--yes", "--json", "--root", docker)[0]
    )
    assert "USN106" in {finding["code"] for finding in said["findings"]}
    assert any("systemctl restart docker" in step for step in said["next_steps"])
    assert (docker / "etc/docker/daemon.json").read_bytes() == config
    assert f"dockremap:{THIRD}:131072" in (docker / "etc/subuid").read_text()


def test_publish_none_is_remembered(root: Path, run: Run) -> None:
    run("allocate quiet --publish none")
    assert not any("quiet" in name for name in records(root))
    assert "Already up to date" in run("allocate quiet")[0]
    run("remap quiet --size 131072 --yes")
    assert not any("quiet" in name for name in records(root))
    run("allocate web --publish none")
    run("allocate web quiet --size 65536", 9)
    run("allocate web")
    assert not any("web" in name for name in records(root))
    # Who asks for a place gets it, and that is remembered too.
    run("allocate web --publish userdb")
    run("allocate web")
    assert "usernsplan-web.user" in records(root)
    (root / "plan.yaml").write_text(run("export")[0])
    assert of(run, "plan ROOT/plan.yaml --prune")["pending"] is False


def owners(root: Path) -> dict[str, tuple[int, int]]:
    tree = root / "srv/web"
    return {
        str(p.relative_to(tree)): (p.lstat().st_uid, p.lstat().st_gid)
        for p in (tree, *sorted(tree.rglob("*")))
    }


def filled(root: Path, run: Run, mode: str = "shift") -> None:
    """A volume of web with files of container ids 0, 33 and 107, and one that the container made."""
    tree = root / "srv/web"
    for name, number in (("a", 0), ("b", 33), ("c", 107)):
        (tree / name).touch()
        os.chown(tree / name, number, number)
    run(f"fix-volume ROOT/srv/web --container web --mode {mode}")
    (tree / "made").touch()
    os.chown(tree / "made", FIRST + 5, FIRST + 5)


def at(first: int, passed: int | None = None) -> dict[str, tuple[int, int]]:
    """The owners of ``filled`` under a map whose range begins at ``first``."""
    numbers = {".": 0, "a": 0, "b": 33, "c": 107, "made": 5}
    return {
        name: (first + n, passed if passed and n == 107 else first + n)
        for name, n in numbers.items()
    }


def test_the_volumes_move_with_the_map_and_back(root: Path, run: Run) -> None:
    run("allocate db")
    filled(root, run)
    assert owners(root) == at(FIRST)
    [looked] = of(run, "remap web --size 131072 --dry-run")["volumes"]
    assert (looked["path"], looked["error"], looked["dry_run"]) == ("/srv/web", None, True)
    assert owners(root) == at(FIRST)

    [moved] = of(run, "remap web --size 131072 --yes")["volumes"]
    assert (moved["error"], moved["counts"]["changed"]) == (None, 5)
    assert owners(root) == at(THIRD)
    assert "looks right" in run("show web")[0]
    assert of(run, "fix-volume ROOT/srv/web")["counts"]["changed"] == 0

    # Only what differs moves: group 107 becomes the host's 104.
    [moved] = of(run, "remap web --pass g:render:107 --yes")["volumes"]
    assert moved["counts"]["changed"] == 1
    assert owners(root) == at(THIRD, 104)

    run("remap web --undo --yes")
    assert owners(root) == at(THIRD)
    run("remap web --undo --yes")
    assert owners(root) == at(FIRST)
    assert "looks right" in run("show web")[0]


def test_a_volume_with_one_owner_moves_file_by_file(root: Path, run: Run) -> None:
    run("allocate db")
    filled(root, run, "own")
    assert owners(root)["b"] == (FIRST, FIRST)
    run("remap web --size 131072 --yes")
    # What the container made itself keeps its container id.
    assert owners(root) == {
        **dict.fromkeys((".", "a", "b", "c"), (THIRD, THIRD)),
        "made": (THIRD + 5, THIRD + 5),
    }
    [volume] = of(run, "show web")["volumes"]
    assert volume["mode"] == "own"


def test_nothing_moves_if_the_map_only_grows(root: Path, run: Run) -> None:
    filled(root, run)
    said = of(run, "remap web --size 131072")
    assert said["volumes"] == []
    assert owners(root) == at(FIRST)
    assert "looks right" in run("show web")[0]


def test_a_range_that_moves_by_less_than_its_size(root: Path, run: Run) -> None:
    run("remap web --size 131072")
    filled(root, run)
    run(f"remap web --start {SECOND} --yes")
    assert owners(root) == at(SECOND)
    assert quarantined(run) == [("web", FIRST, 65536)]
    run("remap web --undo --yes")
    assert owners(root) == at(FIRST)
    assert quarantined(run) == [("web", SECOND + 65536, 65536)]


def test_a_volume_that_cannot_move_stops_everything(root: Path, run: Run) -> None:
    run("allocate db")
    filled(root, run)
    tree = root / "srv/web"
    os.chown(tree / "a", 7, 7)  # an id that the map lacks
    before = files(root), owners(root), run("list")[0], run("history")[0]
    _, said = run("remap web --size 131072 --yes", 9)
    assert "nothing was changed" in said
    assert (files(root), owners(root), run("list")[0], run("history")[0]) == before

    # So do files of ids that are cut off.
    os.chown(tree / "a", FIRST + 2000, FIRST)
    run("remap web --size 1000 --yes", 9)
    assert files(root) == before[0]
    assert [a["name"] for a in of(run, "list")["allocations"]] == ["db", "web"]
    assert quarantined(run) == []


@pytest.mark.parametrize("what", ["power", "kept power", "link", "unmapped"])
def test_what_a_move_is_refused_for_has_the_flags_of_fix_volume_and_the_hint_names_them(
    root: Path, run: Run, what: str
) -> None:
    run("allocate db")
    filled(root, run)
    made = root / "srv/web/made"
    if "power" in what:
        # It would become setgid for the host's group 104.
        os.chown(made, FIRST + 5, FIRST + 107)
        made.chmod(0o2755)
    elif what == "link":
        os.link(made, root / "srv/other")
    else:
        os.chown(made, 7, 7)
    then = files(root), owners(root)
    _, said = run("remap web --size 131072 --pass g:104:107 --yes", 9)
    assert "nothing was changed" in said
    assert (files(root), owners(root)) == then

    # The hint names the remap, never the fix-volume that would give the files the old map again.
    assert "fix-volume" not in said
    command = f"usernsplan remap web --size 131072 --pass g:104:107 %s --root {root}"
    flag, wanted, mode = {
        "power": ("--drop-power", (THIRD + 5, 104), 0o755),
        "kept power": ("--keep-power", (THIRD + 5, 104), 0o755),
        "link": ("--outside-links skip", (FIRST + 5, FIRST + 5), 0o644),
        "unmapped": ("--unmapped keep", (7, 7), 0o644),
    }[what]
    assert (command % flag if "power" in what else flag) in said
    run(f"remap web --size 131072 --pass g:104:107 {flag} --yes")
    assert owners(root) == at(THIRD, 104) | {"made": wanted}
    assert made.stat().st_mode & 0o7777 == mode


def test_a_move_that_fails_in_part_is_finished_or_undone_later(
    root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("allocate db")
    filled(root, run)
    real = usernsplan.volume.moving.move

    def failing(*words: Any, dry_run: bool = False, **more: Any) -> Any:  # noqa: ANN401
        if dry_run:
            return real(*words, dry_run=True, **more)
        raise UsernsplanError("the disk is gone")

    monkeypatch.setattr(usernsplan.remapping, "move", failing)
    out, _ = run("remap web --size 131072 --yes", 3)
    assert "not moved: the disk is gone" in out
    assert "usernsplan remap web --root" in out
    monkeypatch.undo()

    assert lines(root)[-1] == f"usernsplan-web:{THIRD}:131072"
    assert owners(root) == at(FIRST)
    found = [f for f in of_check(run) if f["code"] in {"USN067", "USN072"}]
    assert [f["code"] for f in found] == ["USN067"]
    assert "remap web" in found[0]["hint"]
    assert "/srv/web" in run("export")[0]
    # The other commands say so, and none takes the volume for right.
    assert "not finished" in run("release web", 9)[1]
    assert "USN173" in run("allocate web --size 131072")[1]
    assert "former map" in run("render podman web --volume ROOT/srv/web:/v", None)[1]
    for engine in ("podman", "lxc", "oci"):
        said = run(f"render {engine} web")[1]
        assert "/srv/web: its files still have the ids of its former map; before the" in said
        assert "run: usernsplan remap web --root" in said
    assert "former map" not in run("render podman db")[1]
    assert "not finished" in run("remap web --size 65536 --yes", 9)[1]
    out, said = run("remap web --dry-run")
    assert "/srv/web" in out
    assert "USN173" in said
    assert owners(root) == at(FIRST)

    # Undone, nothing has to move: the files have those ids still.
    undone = of(run, "remap web --undo --yes")
    assert undone["volumes"] == []
    assert owners(root) == at(FIRST)
    assert "looks right" in run("show web")[0]

    monkeypatch.setattr(usernsplan.remapping, "move", failing)
    run("remap web --size 131072 --yes", 3)
    monkeypatch.undo()
    # The same command finishes it. The range that the undone remap took stays quarantined.
    run("remap web --size 131072 --yes")
    assert owners(root) == at(THIRD + 131072)
    assert not [f for f in of_check(run) if f["code"] == "USN067"]
    assert "Already up to date" in run("remap web --size 131072")[0]

    # An undo that fails is finished by the same words, and not turned round.
    monkeypatch.setattr(usernsplan.remapping, "move", failing)
    run("remap web --undo --yes", 3)
    monkeypatch.undo()
    run("remap web --undo --yes")
    assert owners(root) == at(FIRST)
    assert lines(root)[-1] == f"usernsplan-web:{FIRST}:65536"


def of_check(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("check --json", None)[0])["findings"]
    return found


def test_undo_of_the_run_leaves_a_remap_to_finish(root: Path, run: Run) -> None:
    run("allocate db")
    filled(root, run)
    run("remap web --size 131072 --yes")
    run("undo --last")
    assert owners(root) == at(FIRST)
    assert [f["code"] for f in of_check(run) if f["code"] == "USN067"] == ["USN067"]
    run("remap web")
    assert owners(root) == at(THIRD)


def test_runs_undone_after_the_map_came_back_leave_a_volume_that_is_right(
    root: Path, run: Run
) -> None:
    run("allocate db")
    filled(root, run)
    there = of(run, "remap web --size 131072 --yes")["volumes"][0]["run"]
    back = of(run, "remap web --undo --yes")["volumes"][0]["run"]
    run(f"undo {back}")
    assert owners(root) == at(THIRD)
    assert "former map" in run("show web")[0]
    # Its files have the ids of the map that web has again: nothing waits any more.
    run(f"undo {there}")
    assert owners(root) == at(FIRST)
    assert "looks right" in run("show web")[0]
    assert "Already up to date" in run("remap web")[0]


def test_a_program_reads_what_has_to_be_agreed_to_and_adopt_knows_lines_with_holes(
    run: Run,
) -> None:
    run("allocate db --pass u:4242")
    said = of(run, "remap web --size 131072 --dry-run")["findings"]
    assert [one["code"] for one in said] == ["USN172"]
    found = {one["known"]: one for one in json.loads(run("adopt --json")[0])["found"]}
    assert (found["db"]["why"], found["db"]["hint"]) == (None, None)


def test_the_library_does_the_same(root: Path, run: Run) -> None:
    run("allocate db")
    filled(root, run)
    request = usernsplan.RemapRequest("web", size=131072)
    with pytest.raises(usernsplan.RefusedError, match="another map"):
        usernsplan.remap(request, str(root))
    done = usernsplan.remap(request, str(root), yes=True)
    assert not done.failed
    assert owners(root) == at(THIRD)
    assert usernsplan.rename("web", "www", str(root)).ledger.rename == (("web", "www"),)


# A slice of alice's lines: its first place, at the end of them, and its second.
LAST_OF_HERS, BELOW = 155536, 135536


@pytest.fixture
def sliced(root: Path, run: Run) -> Path:
    for kind in ("uid", "gid"):
        with (root / f"etc/sub{kind}").open("a") as file:
            file.write("alice:100000:65536\n")
    run("release web")
    run("release --forget web")
    run("allocate web --strategy per-container --within alice --size 10000")
    return root


def test_a_slice_moves_within_its_lines_with_its_volumes_and_back(sliced: Path, run: Run) -> None:
    filled(sliced, run)
    os.chown(sliced / "srv/web/made", LAST_OF_HERS + 5, LAST_OF_HERS + 5)
    assert owners(sliced) == at(LAST_OF_HERS)
    before = files(sliced)
    # A plan file says the same as allocate does, and the command that it prints makes it so.
    plan = "strategy: per-container\ncontainers: [{name: web, within: alice, size: 20000}]\n"
    (sliced / "plan.yaml").write_text(plan)
    _, said = run("plan ROOT/plan.yaml", 9)
    assert said.splitlines()[-1].endswith(f"usernsplan remap web --size 20000 --root {sliced}")
    _, said = run("allocate web --within alice --size 20000", 9)
    pasted(run, said)
    assert owners(sliced) == at(BELOW)
    assert files(sliced) == before
    assert quarantined(run) == [("web", LAST_OF_HERS, 10000)]
    assert "Already up to date" in run("allocate web --within alice --size 20000")[0]
    assert of(run, "plan ROOT/plan.yaml")["pending"] is False
    assert "looks right" in run("show web")[0]

    # In place, downward only if it is told to.
    run("remap web --size 30000 --start 125536 --yes")
    assert owners(sliced) == at(125536)
    run("remap web --size 5000 --yes")
    assert quarantined(run)[0] == ("web", 130536, 25000)
    for _ in range(3):
        run("remap web --undo --yes")
    assert owners(sliced) == at(LAST_OF_HERS)
    assert files(sliced) == before
    [one] = of(run, "list")["allocations"]
    assert one["uid_map"] == one["gid_map"] == extents((0, LAST_OF_HERS, 10000))
    assert "no remap of 'web' is left" in run("remap web --undo --yes", 9)[1]
    assert not [f for f in of_check(run) if f["severity"] == "error"]


@pytest.mark.parametrize("number", [1, *slow(2, 3, 4, 5, 6)])
def test_a_slice_that_was_killed_while_it_moves_is_finished(
    sliced: Path, run: Run, number: int
) -> None:
    if shutil.which("strace") is None:
        missing("strace")
    filled(sliced, run)
    os.chown(sliced / "srv/web/made", LAST_OF_HERS + 5, LAST_OF_HERS + 5)
    command = (*PROGRAM, "remap", "web", "--size", "20000", "--yes", "--root", str(sliced))
    kill = f"inject=lchown,chown,fchown,fchownat:signal=KILL:when={number}"
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", kill, *command]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    if number == 1:
        assert ended.returncode != 0
        assert owners(sliced) != at(BELOW)
        assert "not finished" in run("release web", 9)[1]
    run("remap web")
    assert owners(sliced) == at(BELOW)
    assert not [f for f in of_check(run) if f["code"] in {"USN067", "USN070", "USN072"}]
    run("remap web --undo --yes")
    assert owners(sliced) == at(LAST_OF_HERS)


@pytest.mark.parametrize("number", [1, *slow(2, 3, 4, 5, 6, 7, 8)])
def test_after_a_kill_while_the_volume_moves_the_next_run_finishes_it(
    root: Path, run: Run, number: int
) -> None:
    if shutil.which("strace") is None:
        missing("strace")
    run("allocate db")
    filled(root, run)
    command = (*PROGRAM, "remap", "web", "--size", "131072", "--yes", "--root", str(root))
    kill = f"inject=lchown,chown,fchown,fchownat:signal=KILL:when={number}"
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", kill, *command]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    if number == 1:
        assert ended.returncode != 0
        assert owners(root) != at(THIRD)
    assert lines(root)[-1] == f"usernsplan-web:{THIRD}:131072"

    run("remap web")
    assert owners(root) == at(THIRD)
    assert not [f for f in of_check(run) if f["code"] in {"USN067", "USN070", "USN072"}]
    run("remap web --undo --yes")
    assert owners(root) == at(FIRST)
