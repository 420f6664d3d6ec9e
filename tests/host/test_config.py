"""config.yaml: a host's defaults, from the file to the allocation, and who may write the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.command import here, needs_root
from usernsplan.errors import RefusedError
from usernsplan.host.config import load
from usernsplan.layout import Layout

CONFIG = "etc/usernsplan/config.yaml"
USUAL = "strategy: per-container\nsize: 131072\npool: 1048576-2097151\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    (tmp_path / "host/etc/usernsplan").mkdir(parents=True)
    return tmp_path / "host"


def configured(root: Path, text: str) -> Path:
    (root / CONFIG).write_text(text)
    return root / CONFIG


def subuid(root: Path) -> str:
    return (root / "etc/subuid").read_text()


# The order: command line, plan file, config.yaml, the host, built-in defaults.


def test_what_was_not_said_is_as_the_config_says(root: Path) -> None:
    configured(root, USUAL)
    here("allocate", "web", "--root", root)
    assert subuid(root) == "usernsplan-web:1048576:131072\n"


def test_what_was_said_comes_before_the_config(root: Path) -> None:
    configured(root, USUAL)
    here("allocate", "web", "--size", "65536", "--pool", "600000000-600200000", "--root", root)
    # The first multiple of 65536 in that pool.
    assert subuid(root) == "usernsplan-web:600047616:65536\n"


def test_the_config_comes_before_what_the_host_has_and_is_named_where_it_cannot_be(
    root: Path,
) -> None:
    here("allocate", "--strategy", "per-container", "web", "--root", root)
    path = configured(root, "# ours\nstrategy: shared\n")
    err = here("allocate", "db", "--root", root, status=9)[1]
    assert err.startswith(f"usernsplan: {path}:2: strategy: this host's strategy is per-container")
    # With the option, the error names the option.
    err = here("allocate", "db", "--strategy", "single-uid", "--root", root, status=9)[1]
    assert err.startswith("usernsplan: --strategy: this host's strategy is per-container")
    here("allocate", "db", "--strategy", "per-container", "--root", root)


def test_an_option_of_the_config_counts_where_the_strategy_has_it(root: Path) -> None:
    configured(root, "size: 131072\nblock: 1\n")
    here("allocate", "--strategy", "single-uid", "web", "db", "--root", root)
    assert subuid(root) == "usernsplan-web:1000000000:1\nusernsplan-db:1000000001:1\n"
    # The host's own strategy as well.
    here("allocate", "third", "--root", root)
    assert subuid(root).endswith("usernsplan-third:1000000002:1\n")


@pytest.mark.parametrize(
    ("config", "words", "roots"),
    [
        ("strategy: shared\nidentity: true\n", ("--dockerroot", "7"), 7),
        ("strategy: shared\ndockerroot: 400\n", (), 400),
        ("strategy: shared\ndockerroot: 400\n", ("--identity",), 0),
    ],
)
def test_container_root_is_what_was_said_of_it(
    root: Path, config: str, words: tuple[str, ...], roots: int
) -> None:
    configured(root, config)
    here("allocate", "web", *words, "--root", root)
    assert subuid(root).startswith(f"usernsplan-web:{roots}:")


def test_engines_of_the_config_are_served_and_named_ones_come_before(root: Path) -> None:
    configured(
        root, "strategy: per-container\nengines: [lxc, {name: podman-auto, containers: 2}]\n"
    )
    here("allocate", "web", "--root", root)
    assert subuid(root) == (
        "usernsplan-web:589824:65536\nroot:589824:32768\nroot:622592:32768\ncontainers:655360:131072\n"
    )
    here("allocate", "db", "--engine", "podman", "--root", root)
    assert subuid(root).endswith("usernsplan-db:786432:65536\n")


@needs_root
def test_dockers_own_allocation_is_made_where_the_config_names_other_engines(root: Path) -> None:
    configured(root, "strategy: per-container\nengines: [lxc]\n")
    here("allocate", "--docker", "--root", root)
    assert '"userns-remap": "dockremap"' in (root / "etc/docker/daemon.json").read_text()


def test_the_strategy_of_the_config_alone_allocates_nothing(root: Path) -> None:
    configured(root, USUAL)
    refused = here("allocate", "--root", root, status=2)[1]
    assert "nothing to allocate" in refused
    # A remedy for another root that changed this machine would be worse than none.
    assert f"usernsplan allocate --docker --root {root}" in refused
    assert not (root / "etc/subuid").exists()


def test_a_plan_file_comes_before_the_config_and_leaves_the_rest_to_it(root: Path) -> None:
    configured(root, USUAL + "engines: [lxc]\n")
    plan = Path("usernsplan.yaml")
    plan.write_text(
        "strategy: per-container\nengines: []\ncontainers:\n- web\n- {name: db, size: 1}\n"
    )
    for words in (("apply", "--yes"), ("plan", "--check"), ("allocate",)):
        here(*words, "--root", root)
        assert subuid(root) == "usernsplan-web:1048576:131072\nusernsplan-db:1179648:1\n"
    path = configured(root, "pool: 5-6\nsize: 65536\n")
    err = here("plan", "--root", root, status=9)[1]
    assert err.startswith(f"usernsplan: {path}:2: size: 'web' is allocated already")
    plan.write_text("strategy: per-container\ncontainers: [new]\n")
    err = here("plan", "--root", root, status=7)[1]
    assert err.startswith(f"usernsplan: {path}:1: pool: no room for 1 of 1")
    plan.write_text("strategy: per-container\npool: 5-6\ncontainers: [new]\n")
    err = here("plan", "--root", root, status=7)[1]
    assert err.startswith("usernsplan: usernsplan.yaml:2: pool: no room for 1 of 1")


def test_what_was_planned_by_another_config_is_not_applied(root: Path) -> None:
    Path("usernsplan.yaml").write_text("strategy: per-container\nengines: []\ncontainers: [web]\n")
    configured(root, "size: 131072\n")
    here("plan", "--out", "saved", "--root", root)
    configured(root, "size: 65536\n")
    here("apply", "--plan", "saved", "--yes", "--root", root, status=6)
    assert not (root / "etc/subuid").exists()
    configured(root, "size: 131072\n")
    here("apply", "--plan", "saved", "--yes", "--root", root)
    assert subuid(root) == "usernsplan-web:589824:131072\n"


def test_export_leaves_nothing_to_the_config(root: Path) -> None:
    here("allocate", "--strategy", "per-container", "web", "--root", root)
    configured(root, "size: 131072\n")
    out, _ = here("export", "--root", root)
    assert "size: 65536" in out
    Path("usernsplan.yaml").write_text(out)
    here("plan", "--prune", "--check", "--root", root)


def test_capacity_is_that_of_the_pool_of_the_config(root: Path) -> None:
    configured(root, "pool: 1048576-2097151\n")
    assert "1048576-2097151" in here("capacity", "--root", root)[0]
    assert "2097152-3145727" in here("capacity", "--pool", "2097152-3145727", "--root", root)[0]


def test_one_that_is_named_takes_the_place_of_the_hosts(root: Path) -> None:
    configured(root, "strategy: shared\n")
    Path("mine.yaml").write_text(USUAL)
    Path("mine.yaml").chmod(0o666)  # --config is explicit: any owner will do
    here("allocate", "web", "--config", "mine.yaml", "--root", root)
    assert subuid(root) == "usernsplan-web:1048576:131072\n"
    assert "1048576-2097151" in here("capacity", "--config", "mine.yaml", "--root", root)[0]
    err = here("allocate", "db", "--config", "none.yaml", "--root", root, status=2)[1]
    assert err.startswith("usernsplan: none.yaml: no such file or directory")
    Path("mine.yaml").write_text("strategy: shared\n")
    err = here("allocate", "db", "--config", "mine.yaml", "--root", root, status=9)[1]
    assert err.startswith("usernsplan: mine.yaml:1: strategy: this host's strategy")


# What the file may contain.


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "~\n", "version: 1\n", "{}\n"])
def test_one_that_says_nothing_is_as_none(root: Path, text: str) -> None:
    configured(root, text)
    here("allocate", "--strategy", "per-container", "web", "--root", root)
    assert subuid(root) == "usernsplan-web:589824:65536\n"


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("startegy: shared\n", 1, "1: startegy: no such key; did you mean strategy?"),
        ("daemon: web\n", 1, "1: daemon: no such key; the keys are version, strategy"),
        ("pool: 012-5\nsize: x\n", 1, "1: pool: "),
        ("\nsize: 65536\nsize: 5\n", 1, "3: size: duplicate key: the first is in line 2"),
        ("- web\n", 1, "1: expected keys and values: version, strategy"),
        ("a: [\n", 1, "2:1: not YAML: "),
        ("strategy: shared\nblock: 5\n", 2, "2: block: not an option of the strategy shared"),
        ("strategy: per-container\nsize: 0\n", 2, "2: size: no such range of ids"),
        ("strategy: shared\ndockerroot: 0\n", 9, "2: dockerroot: 0 would make container root"),
        ("engines: [podmn]\n", 2, "1: engines: no engine 'podmn'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_key(
    root: Path, text: str, status: int, said: str
) -> None:
    path = configured(root, text)
    words = ("allocate", "--strategy", "per-container", "web", "--root", root)
    assert here(*words, status=status)[1].startswith(f"usernsplan: {path}:{said}")
    assert not (root / "etc/subuid").exists()


# Who may write the file.


@needs_root
@pytest.mark.parametrize(
    ("uid", "mode", "top", "is_refused"),
    [
        (0, 0o644, 0, False),
        (12345, 0o644, 0, True),
        (12345, 0o644, 12345, False),
        (23456, 0o644, 12345, True),
        (0, 0o664, 12345, False),
        (0, 0o646, 0, True),
        (0, 0o666, 12345, True),
    ],
)
def test_one_that_others_may_have_written_is_refused(
    root: Path, uid: int, mode: int, top: int, is_refused: bool
) -> None:
    path = configured(root, USUAL)
    os.chown(path, uid, 0)
    path.chmod(mode)
    os.chown(root, top, 0)
    for words in (("allocate", "web"), ("capacity",)):
        err = here(*words, "--root", root, status=9 if is_refused else 0)[1]
        assert (f"usernsplan: {path}: " in err) is is_refused
        assert (f"chown root: {path}" in err) is is_refused


@needs_root
def test_on_the_host_itself_it_is_roots_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sudo user may write their own plan file, but not the defaults of the host."""
    host = Layout("/", str(root))
    path = configured(root, USUAL)
    assert load(host, None) is not None
    os.chown(path, 12345, 0)
    monkeypatch.setenv("SUDO_UID", "12345")
    with pytest.raises(RefusedError, match="belongs to uid 12345 with mode 644"):
        load(host, None)


@needs_root
def test_a_folder_that_others_may_write_is_refused(root: Path) -> None:
    configured(root, USUAL)
    (root / "etc/usernsplan").chmod(0o777)
    err = here("allocate", "web", "--root", root, status=9)[1]
    assert f"the folder {root}/etc/usernsplan has mode 777" in err


def test_one_that_is_no_regular_file_is_refused(root: Path) -> None:
    os.mkfifo(root / CONFIG)
    here("allocate", "web", "--root", root, status=9)
