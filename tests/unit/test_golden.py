"""What each engine reads for each kind of allocation, against files worked out from the contract and the facts.

tests/golden/ENGINE.yaml has a case for each allocation and variant. In a case, `text` is stdout, byte
for byte; `json` is the same where stdout is JSON; `yaml` is what the YAML of stdout means; `files` is
what the files contain (content null: a test below looks into it). No case: the engine cannot do it.
"""

from __future__ import annotations

import configparser
import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from tests.each import each
from tests.unit.states import PASSWD, state
from usernsplan import Allocation, IdMap, IdRange, Mapping
from usernsplan.engines import ENGINES, render, verdict
from usernsplan.engines.base import RenderContext
from usernsplan.errors import RefusedError
from usernsplan.mapping import KINDS as KINDS_OF_IDS
from usernsplan.mapping import Pass
from usernsplan.model import Mount

if TYPE_CHECKING:
    from usernsplan.engines.base import Rendered

GOLDEN = Path(__file__).parent.parent / "golden"
# Incus is a fork of LXD and reads the same.
DERIVED = {"lxd": "incus"}


class Kind(NamedTuple):
    """An allocation of the contract's table."""

    name: str
    owner: str
    strategy: str
    extents: tuple[tuple[int, int, int], ...]
    reserved_range: tuple[int, int] | None
    gids: tuple[tuple[int, int, int], ...] = ()

    def allocation(self) -> Allocation:
        uids = IdMap.of(*self.extents)
        mapping = Mapping(uids, IdMap.of(*self.gids) if self.gids else uids)
        held = IdRange(*self.reserved_range) if self.reserved_range else None
        return Allocation(
            self.name,
            self.owner,
            self.strategy,
            mapping,
            held,
            passes=tuple(
                Pass(kind, extent)
                for kind in KINDS_OF_IDS
                for extent in mapping[kind]
                if self.strategy == "per-container" and held and extent.host < held.start
            ),
        )


# Host ids that pass through a private range, and maps that were adopted.
HELD = (589824, 65536)
OURS = ("web", "usernsplan-web", "per-container")
HERS = ("web", "alice", "per-container")
RENDER = ((0, 589824, 107), (107, 104, 1), (108, 589932, 65428))
HOLES = {
    "hole": Kind(*OURS, ((0, 589824, 1000), (1000, 1000, 1), (1001, 590825, 64535)), HELD, RENDER),
    "hole-gid": Kind(*OURS, ((0, 589824, 65536),), HELD, RENDER),
    "hole-both": Kind(*OURS, ((0, 589824, 1000), (1000, 1000, 6), (1006, 590830, 64530)), HELD),
    "hole-first": Kind(*OURS, ((0, 1000, 1), (1, 589825, 65535)), HELD),
    "hole-end": Kind(*OURS, ((0, 589824, 65535), (65535, 1000, 1)), HELD),
    "hole-joined": Kind(
        *OURS,
        ((0, 589824, 1000), (1000, 1000, 3), (1003, 2000, 1), (1004, 590828, 64532)),
        HELD,
        ((0, 589824, 44), (44, 44, 1), (45, 589869, 65491)),
    ),
    "two-parts": Kind(*HERS, ((0, 100000, 65536), (65536, 231072, 65536)), None),
    "apart": Kind(*HERS, ((0, 100000, 65536),), None, ((0, 200000, 65536),)),
}


KINDS = {
    "per-container": Kind(
        "web", "usernsplan-web", "per-container", ((0, 589824, 65536),), (589824, 65536)
    ),
    "single-uid": Kind(
        "web", "usernsplan-web", "single-uid", ((0, 1000820000, 1),), (1000820000, 10000)
    ),
    "shared": Kind("web", "usernsplan-web", "shared", ((0, 2, 1), (3, 3, 65533)), None),
    "shared-docker": Kind(
        "default", "dockremap", "shared", ((0, 2, 1), (1, 589824, 2), (3, 3, 65533)), (589824, 2)
    ),
    "identity": Kind("web", "usernsplan-web", "shared", ((0, 0, 65535),), None),
    "pool-podman": Kind(
        "containers", "containers", "per-container", ((0, 720896, 6553600),), (720896, 6553600)
    ),
    "pool-kubelet": Kind(
        "kubelet", "kubelet", "per-container", ((0, 720896, 7208960),), (720896, 7208960)
    ),
    **HOLES,
}
ALLOCATIONS = {suffix: kind.allocation() for suffix, kind in KINDS.items()}
ASKED = {
    "": RenderContext(state=state()),
    "volume": RenderContext(state=state(), mounts=(Mount("/srv/web", "/data", read_only=True),)),
    "idmap": RenderContext(state=state(), mounts=(Mount("/srv/web", "/data", owners="idmap"),)),
    "image": RenderContext(state=state(), image="docker.io/library/nginx:1.27"),
}
GOLDENS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_bytes()) for path in sorted(GOLDEN.iterdir())
}
GOLDENS |= {engine: GOLDENS[other] for engine, other in DERIVED.items()}
STEMS = [f"{engine}.{suffix}" for engine, cases in GOLDENS.items() for suffix in cases]
CAN = {
    (engine, suffix) for engine, suffix in (stem.split(".") for stem in STEMS) if "+" not in suffix
}


def _is_hers(suffix: str) -> bool:
    """Tell whether the lines are a login's, so that her own engines run it."""
    return KINDS[suffix].owner == "alice"


CASES = [(engine, suffix) for engine in ENGINES for suffix in KINDS]
UNITS = [
    "docker-instance." + suffix
    for suffix in ("per-container", "single-uid", "shared-docker", "identity", *HOLES)
]


def rendered(stem: str) -> Rendered:
    engine, _, suffix = stem.partition(".")
    kind, _, variant = suffix.partition("+")
    allocation = ALLOCATIONS[kind]
    if engine in {"lxc", "lxd", "incus", "proxmox"}:
        # The lines of root's are theirs only where they were granted.
        allocation = replace(allocation, extra_owners=("root",))
    context = ASKED[variant]
    return render(
        engine, allocation, replace(context, vmid=101) if engine == "proxmox" else context
    )


def golden(stem: str) -> dict[str, Any]:
    engine, _, suffix = stem.partition(".")
    found: dict[str, Any] = GOLDENS[engine][suffix]
    return found


def ini(text: str) -> configparser.RawConfigParser:
    found = configparser.RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(text)
    return found


def meant(value: Any) -> Any:  # noqa: ANN401 - what YAML holds
    """What is said, whether or not a block of text has a line end at its end."""
    if isinstance(value, dict):
        return {key: meant(found) for key, found in value.items()}
    if isinstance(value, list):
        return [meant(found) for found in value]
    return value.rstrip("\n") if isinstance(value, str) and "\n" in value else value


@each("stem", STEMS)
def test_the_text_is_the_golden(stem: str) -> None:
    text, expected = rendered(stem).text, golden(stem)
    if "yaml" in expected:
        assert meant(yaml.safe_load(text)) == meant(expected["yaml"])
    else:
        assert text + "\n" == expected.get("json", expected.get("text"))


@each("stem", STEMS)
def test_the_files_are_the_golden(stem: str) -> None:
    found = {
        file.path: {"content": file.content, "into": file.into} for file in rendered(stem).files
    }
    expected = {path: {"into": "", **file} for path, file in golden(stem).get("files", {}).items()}
    for path, file in expected.items():
        if file["content"] is None and path in found:
            file["content"] = found[path]["content"]
    assert found == expected


@each("stem", STEMS)
def test_what_is_json_or_yaml_can_be_read_and_no_text_ends_in_a_line_end(stem: str) -> None:
    found = rendered(stem)
    if "yaml" in golden(stem):
        assert isinstance(yaml.safe_load(found.text), dict)
    elif "json" in golden(stem):
        assert isinstance(json.loads(found.text), dict)
    assert found.text
    assert not found.text.endswith("\n")
    assert all(file.content.endswith("\n") for file in found.files)


@each("stem", STEMS)
def test_a_golden_has_one_text_and_no_key_that_nothing_reads(stem: str) -> None:
    assert set(golden(stem)) - {"files"} in ({"text"}, {"json"}, {"yaml"})
    for file in golden(stem).get("files", {}).values():
        assert {"content"} <= set(file) <= {"content", "into"}


def test_no_golden_is_of_an_engine_that_there_is_not() -> None:
    assert set(GOLDENS) <= set(ENGINES)
    for path in GOLDEN.iterdir():
        assert path.suffix == ".yaml"
        # A second case of one name would hide the first.
        cases = yaml.compose(path.read_bytes())
        assert cases
        assert len(cases.value) == len(GOLDENS[path.stem])
    assert not set(DERIVED) & {path.stem for path in GOLDEN.iterdir()}


@each(("engine", "suffix"), CASES)
def test_there_is_a_golden_exactly_where_the_engine_can(engine: str, suffix: str) -> None:
    can = verdict(engine, ALLOCATIONS[suffix]).can
    # Whether the owner is somebody's login is not in the allocation: that is told when it is rendered.
    assert (can and engine != "rootless") == ((engine, suffix) in CAN)


@each(
    ("engine", "suffix"),
    [
        case
        for case in CASES
        if case not in CAN and (case[0] != "rootless" or not _is_hers(case[1]))
    ],
)
def test_where_an_engine_cannot_it_refuses_says_why_and_names_one_that_can(
    engine: str, suffix: str
) -> None:
    allocation = ALLOCATIONS[suffix]
    with pytest.raises(RefusedError) as caught:
        render(engine, allocation, ASKED[""])
    said = f"{caught.value} {caught.value.hint}".replace(",", " ").split()
    named = {other for other, theirs in CAN if theirs == suffix and other in said} - {engine}
    assert named, f"{caught.value} ({caught.value.hint})"
    wrong = {other for other in ENGINES if other in caught.value.hint.replace(",", " ").split()}
    assert wrong <= {other for other, theirs in CAN if theirs == suffix} | {"rootless"}


@each(("engine", "suffix"), [case for case in CASES if case not in CAN and case[0] != "rootless"])
def test_a_verdict_of_no_says_why(engine: str, suffix: str) -> None:
    found = verdict(engine, ALLOCATIONS[suffix])
    assert (found.fit, found.can) == ("no", False)
    assert found.why


@each(
    ("engine", "suffix"),
    [
        ("kubernetes", "per-container"),
        ("systemd", "single-uid"),
        ("openshift", "per-container"),
        ("containerd", "hole"),
        ("compose", "hole"),
    ],
)
def test_what_is_only_something_near_it_says_what_differs(engine: str, suffix: str) -> None:
    found = verdict(engine, ALLOCATIONS[suffix])
    assert found.fit == "approximately"
    assert found.why


@each("stem", UNITS)
def test_a_docker_of_its_own_is_started_with_its_own_configuration(stem: str) -> None:
    found = {file.path: file.content for file in rendered(stem).files}
    [path] = [path for path in found if path.endswith(".service")]
    config = path.replace("/etc/systemd/system/", "/etc/docker/").replace(".service", ".json")
    unit = ini(found[path])
    assert {"Unit", "Service"} <= set(unit.sections())
    words = unit["Service"]["ExecStart"].replace("=", " ").split()
    # systemd looks for a program without a path where its own are.
    assert words[0].rpartition("/")[2] == "dockerd"
    assert words[words.index("--config-file") + 1] == config
    assert config in found
    # A key in the file and as a flag stops the daemon.
    assert not {"--" + key for key in json.loads(found[config])} & set(words)


@each("stem", [stem for stem in STEMS if stem.startswith("compose.")])
def test_composes_file_says_what_its_text_says(stem: str) -> None:
    found = rendered(stem)
    assert [file.content for file in found.files] == [found.text + "\n"]


@each("stem", [stem for stem in STEMS if stem.startswith("podman-auto.")])
def test_podmans_own_files_say_what_its_flag_says(stem: str) -> None:
    found = {
        file.path: file.content for file in rendered(stem).files if file.path.endswith(".conf")
    }
    conf = ini(found.pop("/etc/containers/containers.conf.d/10-usernsplan.conf"))
    assert conf.sections() == ["containers"]
    assert list(conf["containers"]) == ["userns"]
    assert conf["containers"]["userns"] in {'"auto"', '"auto:size=65536"'}
    # Options of a storage.conf, which are no file of their own.
    assert list(found) == ["/etc/containers/storage.conf"]


@each(
    ("engine", "fit"),
    [
        *[(engine, "exactly") for engine in ("docker", "podman", "oci", "lxc", "proxmox", "incus")],
        *[(engine, "no") for engine in ("nspawn", "kubernetes", "openshift", "podman-auto")],
    ],
)
@each("suffix", [suffix for suffix in HOLES if suffix.startswith("hole")])
def test_ids_pass_through_where_the_engine_takes_more_than_one_range(
    engine: str, fit: str, suffix: str
) -> None:
    assert verdict(engine, ALLOCATIONS[suffix]).fit == fit


@each("suffix", [suffix for suffix in HOLES if len(HOLES[suffix].extents) > 1])
def test_docker_is_said_to_depend_on_the_order_where_sorted_lines_are_another_map(
    suffix: str,
) -> None:
    starts = [host for _, host, _ in HOLES[suffix].extents]
    said = "\n".join(rendered(f"docker.{suffix}").notes)
    assert ("the next useradd" in said) == (starts != sorted(starts))


# Where her own id passes through, she needs no line for it: test_slices has that.
@pytest.mark.parametrize(
    "suffix",
    [
        suffix
        for suffix in KINDS
        if not suffix.startswith("pool-")
        and (suffix == "hole-gid" or not suffix.startswith("hole"))
    ],
)
def test_lines_that_are_an_accounts_can_be_rootless(suffix: str) -> None:
    allocation = replace(ALLOCATIONS[suffix], owner="alice")
    own = [(kind, host, count) for kind, ids in _ids(suffix).items() for _, host, count in ids]
    if any(host <= 1000 < host + count for _, host, count in own):
        # Her own uid, 1000, is among them: she cannot be 0 and herself.
        with pytest.raises(RefusedError, match="own uid 1000"):
            rendered_rootless(allocation)
        return
    found = rendered_rootless(allocation)
    lines = {
        kind: [f"alice:{host}:{count}" for _, host, count in ids]
        for kind, ids in _ids(suffix).items()
    }
    assert {file.path: (file.content.split(), file.into) for file in found.files} == {
        "/etc/subuid": (lines["uid"], "lines"),
        "/etc/subgid": (lines["gid"], "lines"),
    }
    assert all(line in found.text for line in (*lines["uid"], *lines["gid"]))
    assert not found.text.endswith("\n")


def _ids(suffix: str) -> dict[str, tuple[tuple[int, int, int], ...]]:
    return {"uid": KINDS[suffix].extents, "gid": KINDS[suffix].gids or KINDS[suffix].extents}


def test_lines_of_a_name_that_is_no_account_are_nobodys() -> None:
    with pytest.raises(RefusedError):
        rendered_rootless(replace(ALLOCATIONS["per-container"], owner="carol"))


@pytest.mark.parametrize("owner", ["DOM\\alice", "john.doe", "host$", "a'b", "a;id"])
def test_a_login_is_one_word_of_the_script_and_no_pattern(owner: str) -> None:
    host = state(passwd=PASSWD + f"{owner}:x:1001:1001::/:/bin/sh\n".encode())
    allocation = replace(ALLOCATIONS["per-container"], owner=owner)
    greps = [
        line
        for line in render("rootless", allocation, RenderContext(state=host)).text.split("\n")
        if "/etc/sub" in line
    ]
    assert len(greps) == 2
    for line in greps:
        words = shlex.split(line)
        assert f"{owner}:589824:65536" in words
        assert "F" in words[1]


def test_the_script_goes_no_further_than_the_first_check_that_fails(tmp_path: Path) -> None:
    text = rendered_rootless(replace(ALLOCATIONS["per-container"], owner="alice")).text
    for program, does in {
        "grep": "",
        "cat": "echo 1",
        "podman": f"echo >> {tmp_path}/went-on",
    }.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{does}\n", encoding="ascii")
        (tmp_path / program).chmod(0o755)
    ran = subprocess.run(
        ["/bin/sh", "-c", text], env={"PATH": str(tmp_path)}, capture_output=True, check=False
    )
    assert ran.returncode != 0  # there is no newuidmap
    assert not (tmp_path / "went-on").exists()


def rendered_rootless(allocation: Allocation) -> Rendered:
    return render("rootless", allocation, ASKED[""])
