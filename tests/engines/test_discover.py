"""fix-volume --discover: containers that exist in Podman and Docker, and what is mounted in them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes
from tests.engines.recipes_docker_instance import dockerd_instance
from tests.engines.throwaway import require

if TYPE_CHECKING:
    import subprocess

    from tests.engines.throwaway import ThrowawayHost

# Real engines and browsers take their time; what they are given is tested without them.
pytestmark = pytest.mark.slow


def usernsplan(
    host: ThrowawayHost, *words: str, status: int = 0
) -> subprocess.CompletedProcess[str]:
    done = host.run(
        sys.executable, "-m", "usernsplan", *words, check=False, env=recipes.PODMAN_ENVIRONMENT
    )
    assert done.returncode == status, (words, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def a_volume(host: ThrowawayHost) -> None:
    host.run("install", "-d", "-m", "700", "/srv/data", "/srv/data/inner")
    host.write("/srv/data/file", "x", mode=0o600)


def test_a_podman_containers_volumes_are_found_with_whose_ids_it_has(host: ThrowawayHost) -> None:
    require("podman", "crun")
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "db", "--engine", "podman")
    flags = usernsplan(host, "render", "podman", "db").stdout.split()
    recipes.podman_run(host, flags, ["true"])
    a_volume(host)
    volumes = ["/srv/data:/data", "/srv/data/inner:/inner", "/etc/hostname:/name", "named:/named"]
    words = [word for volume in volumes for word in ("-v", volume)]
    create = ("podman", "create", "--name")
    host.run(
        *create,
        "box",
        *flags,
        *words,
        recipes.IMAGE,
        "cat",
        "/data/file",
        env=recipes.PODMAN_ENVIRONMENT,
    )
    host.run(
        *create,
        "plain",
        "-v",
        "/srv/data:/data",
        recipes.IMAGE,
        "true",
        env=recipes.PODMAN_ENVIRONMENT,
    )
    assert (
        "its ids are the host's"
        in usernsplan(host, "fix-volume", "--discover", "podman", "plain", status=9).stderr
    )
    other = usernsplan(
        host, "fix-volume", "--discover", "podman", "box", "--container", "web", status=9
    )
    assert "does not belong to 'web'" in other.stderr
    assert host.owner("/srv/data/file") == (0, 0)
    done = usernsplan(host, "fix-volume", "--discover", "podman", "box", "--json")
    report = json.loads(done.stdout)
    assert report["container"] == "db"
    assert sorted(volume["path"] for volume in report["volumes"]) == [
        "/srv/data",
        "/var/lib/containers/storage/volumes/named/_data",
    ]
    assert "/etc/hostname is a file of the system: left as it is" in report["notes"]
    assert host.owner("/srv/data/file") == host.owner("/srv/data/inner") == (655360, 655360)
    assert (
        host.run("podman", "start", "--attach", "box", env=recipes.PODMAN_ENVIRONMENT).stdout == "x"
    )
    assert "changed 0" in usernsplan(host, "fix-volume", "--discover", "podman", "box").stdout
    assert (
        "no such container"
        in usernsplan(host, "fix-volume", "--discover", "podman", "nobody", status=1).stderr
    )


def test_a_docker_containers_volumes_have_the_daemons_ids_running_or_not(
    host: ThrowawayHost,
) -> None:
    require("dockerd", "docker")
    usernsplan(host, "allocate", "--strategy", "per-container", "--engine", "docker")
    a_volume(host)
    with recipes.dockerd(host) as docker:
        words = ("--network=none", "-v", "/srv/data:/data", recipes.IMAGE)
        host.run("docker", "create", "--name", "box", *words, "cat", "/data/file")
        usernsplan(host, "fix-volume", "--discover", "docker", "box")
        assert host.owner("/srv/data/file") == (589824, 589824)
        assert host.run("docker", "start", "--attach", "box").stdout == "x"
        host.run("chown", "-R", "0:0", "/srv/data")
        host.run("docker", "run", "--detach", "--name", "runs", *words, "sleep", "60")
        noted = usernsplan(host, "fix-volume", "--discover", "docker", "runs").stderr
        assert "runs is running" in noted
        assert host.owner("/srv/data/file") == (589824, 589824)
        host.run("docker", "rm", "--force", "runs")
        assert docker.run(["cat", "/data/file"], volumes=["/srv/data:/data"]) == "x"
    assert (
        usernsplan(host, "fix-volume", "--discover", "docker", "box", status=1).stderr.count("\n")
        <= 2
    )


def test_a_docker_container_in_the_hosts_namespace_keeps_its_volumes(host: ThrowawayHost) -> None:
    require("dockerd", "docker")
    usernsplan(host, "allocate", "--strategy", "per-container", "--engine", "docker")
    a_volume(host)
    with recipes.dockerd(host):
        words = (
            "--userns=host",
            "--network=none",
            "-v",
            "/srv/data:/data",
            recipes.IMAGE,
            "sleep",
            "60",
        )
        host.run("docker", "create", "--name", "box", *words)
        for _ in ("created", "running"):
            said = usernsplan(host, "fix-volume", "--discover", "docker", "box", status=9).stderr
            assert "box has no user namespace: its ids are the host's" in said
            host.run("docker", "start", "box")
        host.run("docker", "rm", "--force", "box")
        host.run("docker", "context", "create", "far", "--docker", "host=tcp://192.0.2.1:5")
        for remote in ({"DOCKER_HOST": "ssh://elsewhere"}, {"DOCKER_CONTEXT": "far"}):
            words = (
                sys.executable,
                "-m",
                "usernsplan",
                "fix-volume",
                "--discover",
                "docker",
                "box",
            )
            done = host.run(*words, check=False, env=remote)
            assert (done.returncode, "not those of this machine" in done.stderr) == (9, True)
    assert host.owner("/srv/data/file") == (0, 0)


def test_a_stopped_container_of_a_daemon_of_its_own_has_that_daemons_ids(
    host: ThrowawayHost,
) -> None:
    usernsplan(host, "allocate", "--strategy", "per-container", "--engine", "docker")
    usernsplan(
        host, "allocate", "--strategy", "per-container", "web", "--engine", "docker-instance"
    )
    usernsplan(host, "render", "docker-instance", "web", "--out", "/")
    a_volume(host)
    with dockerd_instance(host, "/etc/docker/docker-web.json") as daemon:
        daemon.docker(
            "create",
            "--name",
            "box",
            "--network=none",
            "-v",
            "/srv/data:/data",
            recipes.IMAGE,
            "true",
        )
        words = (
            sys.executable,
            "-m",
            "usernsplan",
            "fix-volume",
            "--discover",
            "docker",
            "box",
            "--json",
        )
        report = json.loads(host.run(*words, env={"DOCKER_HOST": daemon.address}).stdout)
    assert report["container"] == "web"
    assert host.owner("/srv/data/file") == (655360, 655360)


def test_a_daemon_that_was_not_restarted_since_has_the_hosts_ids(host: ThrowawayHost) -> None:
    a_volume(host)
    with recipes.dockerd(host):
        host.run(
            "docker",
            "create",
            "--name",
            "box",
            "--network=none",
            "-v",
            "/srv/data:/data",
            recipes.IMAGE,
            "true",
        )
        # It would hide the container from its next start on, and nobody is there to be asked.
        refused = usernsplan(
            host, "allocate", "--strategy", "per-container", "--engine", "docker", status=9
        ).stderr
        assert "in /var/lib/docker: 1 container, 1 image" in refused
        usernsplan(host, "allocate", "--strategy", "per-container", "--engine", "docker", "--yes")
        said = usernsplan(host, "fix-volume", "--discover", "docker", "box", status=9).stderr
    assert "its daemon keeps it in /var/lib/docker: it belongs to no single allocation" in said
    assert host.owner("/srv/data/file") == (0, 0)


def test_a_folders_name_is_no_remap(host: ThrowawayHost) -> None:
    usernsplan(host, "allocate", "--strategy", "shared", "web", "--engine", "podman")
    usernsplan(host, "allocate", "--strategy", "shared", "--engine", "docker", "--no-daemon-config")
    a_volume(host)
    with recipes.dockerd(host, flags=["--data-root=/run/2.2tb/docker"]):
        host.run(
            "docker",
            "create",
            "--name",
            "box",
            "--network=none",
            "-v",
            "/srv/data:/data",
            recipes.IMAGE,
            "true",
        )
        said = usernsplan(host, "fix-volume", "--discover", "docker", "box", status=9).stderr
    assert "it belongs to no single allocation" in said
    assert host.owner("/srv/data/file") == (0, 0)


def test_words_that_do_not_go_together(host: ThrowawayHost) -> None:
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "--engine", "podman")
    for words in (
        ("lxc", "box"),
        ("podman", "/srv/data"),
        ("podman", "--", "-x"),
        ("podman", "box", "--reverse"),
    ):
        usernsplan(host, "fix-volume", "--discover", *words, status=2)
