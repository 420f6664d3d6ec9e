"""Every command with --json prints one document that fits its schema, even if it fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import typer.main

import usernsplan.cli.capacity
from tests.command import extents, here, ids, needs_root
from tests.documents import KINDS, SCHEMA, document_in
from usernsplan import errors
from usernsplan.cli.app import app_of
from usernsplan.cli.commands import COMMANDS
from usernsplan.cli.emit import wants_json
from usernsplan.errors import ExitStatus, UsernsplanError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgres import FleetOfRoots

pytestmark = needs_root

# ROOT, DIR (a volume) and FILE (a plan file) are placeholders; the middle lists commands to run first.
MADE = "allocate --strategy per-container web old --engine podman --root ROOT"
RELEASED = (MADE, "release old --root ROOT")
HARDENED = "harden web --profile strict --deny-family 3 --selinux-level s0:c1,c2 --root ROOT"
FIXED = (MADE, "fix-volume DIR --container web --mode shift --root ROOT")
PASSED = (
    "allocate --strategy per-container web --engine podman --pass u:1000 --pass g:2:107 --root ROOT"
)
CASES = [
    ("allocate", (), MADE),
    ("adopt", RELEASED, "adopt alice --dry-run --root ROOT"),
    ("adoptable", RELEASED, "adopt --root ROOT"),
    ("allocate", RELEASED, "allocate web old new --dry-run --root ROOT"),
    ("release", FIXED, "release web --root ROOT"),
    ("rename", FIXED, "rename web www --root ROOT"),
    ("remap", FIXED, "remap web --size 1000 --dry-run --root ROOT"),
    ("remap", FIXED, "remap web --start 720896 --yes --root ROOT"),
    ("forget", RELEASED, "release --forget old --root ROOT"),
    ("list", (*FIXED, *RELEASED[1:]), "list --root ROOT"),
    ("show", FIXED, "show web --root ROOT"),
    ("allocate", (), f"{PASSED} --dry-run"),
    ("list", (PASSED,), "list --root ROOT"),
    ("show", (PASSED,), "show web --root ROOT"),
    ("volumes", FIXED, "volumes --root ROOT"),
    ("restore", FIXED, "volumes --restore --root ROOT"),
    ("history", RELEASED, "history --root ROOT"),
    ("runs", FIXED, "history --runs --root ROOT"),
    ("prune-runs", FIXED, "history --prune-runs --older-than 0h --root ROOT"),
    ("fix-volume", (MADE,), "fix-volume DIR --container web --root ROOT"),
    ("fix-volume", (MADE,), "mount-volume DIR --container web --dry-run --root ROOT"),
    ("explained", FIXED, "fix-volume DIR --container web --explain --root ROOT"),
    ("explained", (MADE,), "mount-volume DIR --container web --explain --root ROOT"),
    ("undo", FIXED, "undo --last --dry-run --root ROOT"),
    ("render", (MADE,), "render podman web --root ROOT"),
    ("render", (MADE,), "render lxc web --out OUT --root ROOT"),
    ("harden", (MADE,), "harden web --profile seed --cap-add kill --root ROOT"),
    ("show", (MADE, HARDENED), "show web --root ROOT"),
    ("render", (MADE, HARDENED), "render podman web --no-harden --root ROOT"),
    ("engines", (), "render --list --root ROOT"),
    ("engines", (MADE,), "render --list web --root ROOT"),
    ("map", RELEASED, "map --root ROOT"),
    ("capacity", RELEASED, "capacity --root ROOT"),
    ("check", RELEASED, "check --root ROOT"),
    ("check", RELEASED, "check --fix --dry-run --root ROOT"),
    ("rule", (), "check --explain USN001"),
    ("whois", RELEASED, "whois 0 2 589824 655360 100000 65534 4000000 --file DIR --root ROOT"),
    ("whois", (PASSED,), "whois 2 1000 --root ROOT"),
    ("whois-container", (MADE,), "whois --container web 33 70000 --root ROOT"),
    ("find-owned", FIXED, "find-owned web DIR --root ROOT"),
    ("find-owned-count", FIXED, "find-owned web DIR --count --root ROOT"),
    ("inspect", (), "inspect PID"),
    ("namespaces", (), "inspect --all"),
    ("plan", RELEASED, "plan FILE --root ROOT"),
    ("apply", RELEASED, "apply FILE --yes --fix-volumes --root ROOT"),
    ("export", FIXED, "export --root ROOT"),
    ("ledger-init", (), "ledger init OWNED"),
    ("ledger-join", (MADE,), "ledger join PLACE --name web1 --local web --dry-run --root ROOT"),
    ("ledger-leave", (), "ledger leave --root ROOT"),
    ("ledger-status", (), "ledger status --root ROOT"),
    ("ledger-rebuild", RELEASED, "ledger rebuild --dry-run --root ROOT"),
    ("error", (), "show nothing --root ROOT"),
]
# Of a fleet with the hosts a and b; these are on a.
OF_FLEET = [
    ("fleet-list", "list --fleet"),
    ("fleet-show", "show web --host a"),
    ("fleet-whois", "whois 589825 0 1000 --fleet"),
    ("whois-container", "whois --container web 33 --fleet"),
    ("fleet-map", "map --fleet"),
    ("fleet-capacity", "capacity --fleet"),
    ("fleet-history", "history --fleet"),
    ("check", "check --fleet"),
    ("leases", "volumes --fleet"),
    ("asked", "allocate more --strategy per-container --on b --dry-run"),
    ("sync", "sync"),
    ("sync-timer", "sync --install-timer"),
]
PLAN = "strategy: per-container\nengines: [podman]\ncontainers: [{name: db, volumes: [VOLUME]}]\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "srv/vol").mkdir(parents=True)
    (root / "srv/vol/a").touch()
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nbin:x:2:\n")
    (root / "etc/subuid").write_text("alice:100000:65536\nbob:0x186a0:65536\ncarl:100005:5\n")
    (root / "etc/subgid").write_text("alice:100000:65536\n")
    (root / "plan.yaml").write_text(PLAN.replace("VOLUME", "/srv/vol"))
    return root


# Places of ledgers, which only some cases have.
STAND_FOR: dict[str, str] = {}


def typed(words: str, root: Path) -> list[str]:
    stand_for: dict[str, object] = {
        **STAND_FOR,
        "ROOT": root,
        "DIR": root / "srv/vol",
        "FILE": root / "plan.yaml",
        "OUT": root.parent / "out",
        "PID": os.getpid(),
    }
    return [str(stand_for.get(word, word.replace("ROOT/", f"{root}/"))) for word in words.split()]


@pytest.mark.parametrize(("kind", "before", "words"), CASES)
def test_a_document_is_as_the_schema_says(
    root: Path,
    kind: str,
    before: tuple[str, ...],
    words: str,
    request: pytest.FixtureRequest,
) -> None:
    if kind in {"ledger-init", "ledger-join"}:
        fleet = request.getfixturevalue("fleet")
        STAND_FOR.update(OWNED=fleet.url, PLACE=fleet.role("h_web1"))
        (root / "etc/machine-id").write_text("1" * 32)
    for earlier in before:
        here(*typed(earlier, root))
    if kind == "ledger-rebuild":
        (root / "var/lib/usernsplan/ledger.sqlite3").write_bytes(b"damaged")
    out, _ = here(*typed(words, root), "--json", status=None)
    assert document_in(out)["kind"] == kind


def test_a_document_of_a_fleet_is_as_the_schema_says(fleet: FleetOfRoots) -> None:
    root, _ = fleet.host("a", "usernsplan_operator"), fleet.host("b")
    (root / "srv/vol").mkdir(parents=True)
    here(*typed(MADE, root))
    here(*typed("fix-volume DIR --container web --mode shift --root ROOT", root))
    here(*typed("release old --root ROOT", root))
    for name, strategy in (("new", "per-container"), ("old", ""), ("bad", "shared")):
        fleet.query(
            "INSERT INTO usernsplan.wish (host, name, strategy) VALUES (1, %s, %s)", name, strategy
        )
    for kind, words in OF_FLEET:
        status = 3 if kind == "sync" else 0
        out, _ = here(*words.split(), "--root", root, "--json", status=status)
        assert document_in(out)["kind"] == kind, words


def with_json(command: Any, name: str = "") -> Iterator[str]:  # noqa: ANN401 - of typer's own click
    for inner, one in getattr(command, "commands", {}).items():
        yield from with_json(one, f"{name} {inner}".strip())
    if any("--json" in parameter.opts for parameter in command.params):
        yield name


def test_every_command_with_json_and_every_kind_are_tried_above() -> None:
    commands = set(with_json(typer.main.get_command(app_of(COMMANDS))))
    assert len(commands) > 15
    every = (*(words for _, _, words in CASES), *(words for _, words in OF_FLEET))
    tried = {" ".join(words.split()[:2]) for words in every}
    missing = {
        name for name in commands if not any(f"{one} ".startswith(f"{name} ") for one in tried)
    }
    assert missing == set()
    assert {kind for kind, *_ in (*CASES, *OF_FLEET)} == set(KINDS)


def test_a_field_that_no_schema_has_and_one_that_lacks_are_seen() -> None:
    good = '{"format_version": 2, "kind": "runs", "runs": []}'
    assert document_in(good)["runs"] == []
    for bad in (good.replace("}", ', "more": 1}'), good.replace('"runs": []', '"walks": []')):
        with pytest.raises(AssertionError):
            document_in(bad)


def test_readers_may_take_fields_that_come_later() -> None:
    assert 'additionalProperties": false' not in json.dumps(SCHEMA)


def test_ranges_and_maps_are_objects(root: Path) -> None:
    document = document_in(here(*typed(MADE, root), "--json")[0])
    web = document["allocations"][0]
    assert (web["uid_map"], web["reserved_range"]) == (
        extents((0, 589824, 65536)),
        ids(589824, 65536),
    )


# Errors.


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        ("show nothing --root ROOT --json", 1, "unknown-name"),
        ("whois nonsense --root ROOT --json", 2, "invalid-value"),
        ("allocate web --strategy per-container --size 4000000000 --json --root ROOT", 7, ""),
        ("release web --root ROOT/srv --json", 2, "invalid-value"),
        # If the command line does not parse.
        ("list --bogus --json", 2, "usage"),
        ("show --json", 2, "usage"),
        ("lst --json", 2, "usage"),
        ("rendr podman web --json", 2, "usage"),
        ("--json", 2, "usage"),
        ("ledger --json", 2, "usage"),
        ("check --format json --bogus", 2, "usage"),
        ("check --format=json --select USN9", 2, "invalid-value"),
    ],
)
def test_an_error_is_a_document_too(root: Path, words: str, status: int, code: str) -> None:
    out, err = here(*typed(words, root), status=status)
    document = document_in(out)
    assert document["kind"] == "error"
    error = document["error"]
    assert error["exit_status"] == status
    assert code in {"", error["code"]}
    assert error["message"]
    # The text stays on standard error.
    assert error["message"].splitlines()[0] in " ".join(err.split()) or "Usage" in err


@pytest.mark.parametrize("words", ["show nothing --root ROOT", "list --bogus", "check --select x"])
def test_without_json_an_error_is_text_alone(root: Path, words: str) -> None:
    assert here(*typed(words, root), status=None)[0] == ""


def test_a_list_of_runs_is_the_only_document_of_an_undo_that_names_none(root: Path) -> None:
    out, err = here("undo", "--root", root, "--json", status=2)
    assert document_in(out)["kind"] == "runs"
    assert "RUN is missing" in err


def test_an_interrupt_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(usernsplan.cli.capacity, "pool_space", interrupted)
    out, err = here("capacity", "--root", root, "--json", status=130)
    error = document_in(out)["error"]
    assert (error["code"], error["exit_status"]) == ("interrupted", 130)
    assert "usernsplan: interrupted" in err


def test_a_refusing_flag_and_a_document_never_stand_together(root: Path) -> None:
    # Here --json is the value of --volume: the user wants flags, not JSON.
    out, _ = here("render", "podman", "web", "--volume", "--json", "--root", root, status=None)
    assert out == "--userns=usernsplan-failed\n"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("list --json", True),
        ("--json list", True),
        ("list", False),
        ("list -- --json", False),
        ("check --format json", True),
        ("check --format=json", True),
        ("check --format github", False),
        ("check -- --format json", False),
        ("list --format json", False),
        ("", False),
    ],
)
def test_who_asks_for_json(words: str, wanted: bool) -> None:
    assert wants_json(words.split()) is wanted


def classes(root: type[UsernsplanError]) -> Iterator[type[UsernsplanError]]:
    yield root
    for one in root.__subclasses__():
        yield from classes(one)


def test_each_class_of_errors_has_a_code_and_a_status_that_are_documented() -> None:
    said = SCHEMA["$defs"]["error_fields"]["properties"]["code"]["description"]
    codes = set(said.removeprefix("Stable: ").rstrip(".").split(", "))
    public = [one for one in classes(UsernsplanError) if one.__module__ == errors.__name__]
    assert len({one.code for one in public}) == len(public)
    assert {one.code for one in classes(UsernsplanError)} | {"declined"} == codes
    assert all(one.exit_status in set(ExitStatus) for one in classes(UsernsplanError))


# Exit statuses.


def test_readme_and_help_have_every_exit_status() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    rows = [
        (int(number), meaning)
        for line in readme.splitlines()
        if line.startswith("| ") and line.split("|")[1].strip().isdigit()
        for number, meaning in [[cell.strip() for cell in line.split("|")[1:3]]]
    ]
    assert [number for number, _ in rows] == [int(one) for one in ExitStatus]
    for (_, text), status in zip(rows, ExitStatus, strict=True):
        assert text.startswith(status.meaning)
    shown = " ".join(here("--help")[0].split())
    for status in ExitStatus:
        assert f"{int(status)} {status.meaning}" in shown
