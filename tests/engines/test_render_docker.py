"""What render prints for Docker, a Docker of its own and Compose, judged by dockerd, systemd and a YAML parser.

Everything runs in a throw-away host, on the host's own /etc, without --root.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.command import here, slow
from tests.engines import recipes, recipes_docker_instance
from tests.engines.throwaway import require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

STRATEGIES = pytest.mark.parametrize(
    "words",
    [("shared", "--dockerroot", "7"), *slow((("per-container",),), (("single-uid",),))],
    ids=["shared", "per-container", "single-uid"],
)
ASK = "cat /proc/self/uid_map; echo gids; cat /proc/self/gid_map; echo more; grep NoNewPrivs /proc/self/status"


def usernsplan(host: ThrowawayHost, *words: str) -> str:
    return host.run(sys.executable, "-m", "usernsplan", *words).stdout


def planned(host: ThrowawayHost, name: str) -> tuple[list[recipes.Line], list[recipes.Line]]:
    """The uid map and the gid map of an allocation."""
    return tuple(
        recipes.lines(usernsplan(host, "render", kind, name)) for kind in ("uid_map", "gid_map")
    )  # type: ignore[return-value]


def seen(said: str) -> tuple[tuple[list[recipes.Line], list[recipes.Line]], str]:
    """What a container answered to ASK: its maps, and whether it may gain privileges."""
    maps, _, privileges = said.partition("more\n")
    uid_map, _, gid_map = maps.partition("gids\n")
    return (recipes.lines(uid_map), recipes.lines(gid_map)), privileges.split(":")[1].strip()


def granted(host: ThrowawayHost, owner: str) -> list[list[tuple[int, int]]]:
    """Start and count of an owner's lines in both files, in the order in which Docker lays them."""
    return [
        [
            (int(start), int(count))
            for name, start, count in (line.split(":") for line in host.read(path).decode().split())
            if name == owner
        ]
        for path in ("/etc/subuid", "/etc/subgid")
    ]


def tty(words: tuple[str, ...]) -> list[str]:
    """Docker mounts /dev/pts for gid 5; where that is not mapped, a mount of one's own has to stand there."""
    return ["--tmpfs", "/dev/pts"] if "single-uid" in words else []


@STRATEGIES
def test_dockerd_makes_the_planned_map_of_the_files_and_lets_nobody_gain_privileges(
    host: ThrowawayHost, words: tuple[str, ...]
) -> None:
    require("dockerd", "docker")
    host.write("/etc/docker/daemon.json", '{\n    "debug": true\n}\n')
    usernsplan(host, "allocate", "--strategy", *words)
    # The lines are lost, and one of somebody else's stands there without its end.
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "alice:100000:65536")
    rendered = host.run(
        sys.executable, "-m", "usernsplan", "render", "docker", "default", "--out", "/"
    )
    assert "/etc/subuid lacks dockremap:" in rendered.stderr
    usernsplan(host, "allocate", "--strategy", *words)
    config = host.read("/etc/docker/daemon.json").decode()
    assert (
        config
        == '{\n    "debug": true,\n    "userns-remap": "dockremap",\n    "no-new-privileges": true\n}\n'
    )
    maps = planned(host, "default")
    assert granted(host, "dockremap") == [
        [(start, count) for _, start, count in ids] for ids in maps
    ]
    assert granted(host, "alice") == [[(100000, 65536)]] * 2
    with recipes.dockerd(host) as docker:
        assert seen(docker.run(["sh", "-c", ASK], flags=tty(words))) == (maps, "1")
    again = usernsplan(host, "render", "docker", "default", "--out", "/")
    assert "Already up to date" in again
    assert "Already up to date" in usernsplan(host, "allocate", "--strategy", *words)


def test_a_container_of_its_own_name_is_dockers_once_what_the_note_says_is_done(
    host: ThrowawayHost,
) -> None:
    require("dockerd", "docker")
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "--publish", "none")
    told = json.loads(usernsplan(host, "render", "docker", "web", "--out", "/", "--json"))
    [note] = told["notes"]
    with pytest.raises(recipes.DaemonFailed, match="usernsplan-web"), recipes.dockerd(host):
        pass
    pasted = note.partition("this makes both: usernsplan ")[2]
    assert pasted == "allocate --strategy per-container web --daemon web"
    usernsplan(host, *pasted.split())
    with recipes.dockerd(host) as docker:
        assert seen(docker.run(["sh", "-c", ASK])) == (planned(host, "web"), "1")
    assert json.loads(usernsplan(host, "render", "docker", "web", "--json"))["notes"] == []


def test_a_published_container_is_dockers_because_its_record_is_the_account(
    host: ThrowawayHost,
) -> None:
    require("dockerd", "docker")
    host.write("/etc/nsswitch.conf", "passwd: files systemd\ngroup: files systemd\n")
    usernsplan(host, "allocate", "--strategy", "per-container", "web")
    told = json.loads(usernsplan(host, "render", "docker", "web", "--json"))
    assert told["notes"] == []
    usernsplan(host, "allocate", "web", "--daemon", "web")
    assert "usernsplan-web" not in host.read("/etc/passwd").decode()
    with recipes.dockerd(host) as docker:
        assert seen(docker.run(["sh", "-c", ASK]))[0] == planned(host, "web")
    assert "USN041" not in usernsplan(host, "check")
    assert "USN042" not in usernsplan(host, "check")
    # Without the record there is no account, and Docker does not start.
    refused = host.run(
        sys.executable,
        "-m",
        "usernsplan",
        "allocate",
        "web",
        "--daemon",
        "web",
        "--publish",
        "none",
        check=False,
    )
    assert refused.returncode == 9
    assert "cannot become another account" in refused.stderr


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_lines_that_docker_lays_in_order_are_never_put_back_in_another(
    tmp_path: Path, lost: int
) -> None:
    words = ("--strategy", "shared", "--dockerroot", "7", "--no-daemon-config", "--root", tmp_path)
    here("allocate", *words)
    files = [tmp_path / "etc/subuid", tmp_path / "etc/subgid"]
    before = [file.read_text() for file in files]
    for file in files:
        kept = file.read_text().splitlines(keepends=True)
        file.write_text("".join(kept[:lost] + kept[lost + 1 :]))
    broken = [file.read_text() for file in files]
    _, said = here(
        "render", "docker", "default", "--out", tmp_path, "--root", tmp_path, status=None
    )
    # Another order is another map: as they were, or not at all, and then it is said what puts them back.
    after = [file.read_text() for file in files]
    assert after == before or (after == broken and "usernsplan allocate" in said)


def test_lines_that_useradd_sorted_are_not_called_right(host: ThrowawayHost) -> None:
    require("useradd")
    usernsplan(host, "allocate", "--strategy", "shared", "--dockerroot", "7")
    before = granted(host, "dockremap")
    usernsplan(host, "render", "docker", "default", "--out", "/", "--replace-files")
    host.run("useradd", "alice")
    assert granted(host, "dockremap") != before
    done = host.run(
        sys.executable, "-m", "usernsplan", "render", "docker", "default", "--out", "/", check=False
    )
    assert granted(host, "dockremap") == before or "usernsplan allocate" in done.stderr


def bridge_as_told(host: ThrowawayHost, name: str, daemon: recipes_docker_instance.Instance) -> str:
    """Make the bridge that the notes speak of, run something on it, and return its addresses."""
    told = usernsplan(host, "render", "docker-instance", name, "--json")
    [command] = re.findall(r"'(docker -H \S+ network create)'", told)
    host.run(*command.split(), "own")
    assert daemon.run(["true"], flags=["--network=own"]) == ""
    return daemon.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "own")


@pytest.mark.parametrize("containerd", ["its own", *slow("the host's")])
def test_two_daemons_run_at_once_from_the_files_each_with_a_range(
    host: ThrowawayHost, containerd: str
) -> None:
    require("dockerd", "docker", "systemd-analyze")
    usernsplan(
        host, "allocate", "--strategy", "per-container", "web", "db", "--engine", "docker-instance"
    )
    host.run("install", "-d", "-m", "777", "/tmp/vol")
    for name in ("web", "db"):
        assert host.run("id", "-gn", f"usernsplan-{name}").stdout.strip() == f"usernsplan-{name}"
        usernsplan(host, "render", "docker-instance", name, "--out", "/")
        assert "Already up to date" in usernsplan(
            host, "render", "docker-instance", name, "--out", "/"
        )
        unit = f"/etc/systemd/system/docker-{name}.service"
        assert recipes_docker_instance.unit_complaints(host, unit) == []
        assert f"--config-file /etc/docker/docker-{name}.json" in host.read(unit).decode()
    assert not host.exists("/etc/docker/daemon.json")
    with contextlib.ExitStack() as stack:
        if containerd == "the host's":
            stack.enter_context(recipes_docker_instance.system_containerd(host))
        daemons = {
            name: stack.enter_context(
                recipes_docker_instance.dockerd_instance(host, f"/etc/docker/docker-{name}.json")
            )
            for name in ("web", "db")
        }
        for name, daemon in daemons.items():
            assert daemon.address == f"unix:///run/docker-{name}.sock"
            script = f"{ASK}; touch /vol/{name}"
            assert seen(daemon.run(["sh", "-c", script], ["/tmp/vol:/vol"])) == (
                planned(host, name),
                "1",
            )
        if containerd == "the host's":
            spaces = host.run("ctr", "namespaces", "ls", "-q").stdout.split()
            assert {"docker-web", "docker-db"} <= set(spaces)
        subnets = {bridge_as_told(host, name, daemon) for name, daemon in daemons.items()}
        assert len(subnets) == 2
    assert [host.owner(f"/tmp/vol/{name}") for name in ("web", "db")] == [
        (589824, 589824),
        (655360, 655360),
    ]
    for name, base in (("web", 589824), ("db", 655360)):
        assert host.exists(f"/var/lib/docker-{name}/{base}.{base}")


def test_a_file_of_somebody_else_is_replaced_only_if_that_is_said(host: ThrowawayHost) -> None:
    usernsplan(
        host, "allocate", "--strategy", "per-container", "web", "--engine", "docker-instance"
    )
    host.write("/etc/systemd/system/docker-web.service", "[Service]\n")
    words = ["render", "docker-instance", "web", "--out", "/"]
    refused = host.run(sys.executable, "-m", "usernsplan", *words, check=False)
    assert refused.returncode == 9
    assert "docker-web.service" in refused.stderr
    assert not host.exists("/etc/docker/docker-web.json")
    usernsplan(host, *words, "--replace-files")
    assert b"ExecStart=" in host.read("/etc/systemd/system/docker-web.service")
    assert host.exists("/etc/docker/docker-web.json")


def test_what_compose_says_is_what_docker_does_for_the_service(host: ThrowawayHost) -> None:
    require("dockerd", "docker")
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "--daemon", "web")
    host.run("install", "-d", "/tmp/a$b c", "/tmp/data")
    usernsplan(host, "fix-volume", "/tmp/a$b c", "/tmp/data", "--container", "web")
    volumes = ["--volume", "/tmp/a$b c:/one:ro", "--volume", "/tmp/data:/two"]
    told = json.loads(usernsplan(host, "render", "compose", "web", *volumes, "--json"))
    # Where the daemon has the map and the volumes are fixed, one thing is left to say.
    assert len(told["notes"]) == 1
    service = yaml.safe_load(told["text"])["services"]["web"]
    assert set(service) == {"userns_mode", "security_opt", "volumes"}
    # Each key as the flag that it stands for.
    flags = [
        f"--userns={service['userns_mode']}",
        *(f"--security-opt={word}" for word in service["security_opt"]),
    ]
    for volume in service["volumes"]:
        paths = {key: volume[key].replace("$$", "$") for key in ("source", "target")}
        read_only = ",readonly" if volume.get("read_only") else ""
        flags += [
            "--mount",
            f"type={volume['type']},source={paths['source']},target={paths['target']}{read_only}",
        ]
    with recipes.dockerd(host) as docker:
        script = f"{ASK}; touch /two/made; touch /one/made 2>/dev/null || exit 0; exit 1"
        assert seen(docker.run(["sh", "-c", script], flags=flags)) == (planned(host, "web"), "1")
        [_, may] = seen(docker.run(["sh", "-c", ASK]))
        assert may == "0"
    assert host.owner("/tmp/data/made") == (589824, 589824)


def test_compose_is_yaml_in_which_names_and_paths_stay_what_they_are(tmp_path: Path) -> None:
    names = ["web", "012", "1.0", "1e3", "0x1f", "true", "No", "null", "2026-01-01", "a.b-c_d"]
    paths = [
        '/srv/"q" {x}',
        "/srv/it's # no comment",
        "/srv/$HOME",
        "/srv/- ü: [1]",
        "/srv/back\\slash",
    ]
    here("allocate", "--strategy", "single-uid", *names, "--root", tmp_path)
    volumes = [
        word for number, path in enumerate(paths) for word in ("--volume", f"{path}:/v{number}")
    ]
    for name in names:
        text, _ = here("render", "compose", name, *volumes, "--root", tmp_path)
        assert yaml.safe_load(text) == {
            "services": {
                name: {
                    "userns_mode": "",
                    "security_opt": ["no-new-privileges:true"],
                    "volumes": [
                        # Compose puts variables in; two dollars are one.
                        {"type": "bind", "source": path.replace("$", "$$"), "target": f"/v{number}"}
                        for number, path in enumerate(paths)
                    ],
                }
            }
        }
