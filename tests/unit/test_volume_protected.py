"""Folders that nobody means: every path of the list, what contains one what lies in one, and what --protected opens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.each import each
from usernsplan.volume.protected import danger, homes_of

HOMES = ("/home/alice", "/root", "/data/people/bob")
SYSTEM = ("/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/boot")
SHARED = (
    *("/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var"),
    *("/var/cache", "/var/lib", "/var/log", "/var/spool", "/var/tmp"),
)
STORAGE = (
    *("/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet"),
    *("/var/lib/containers/storage", "/var/lib/docker/overlay2", "/run/containers", "/run/docker"),
)


def leads(links: dict[str, str]) -> Callable[[str], str]:
    """What realpath says where these folders are symlinks."""

    def real(name: str) -> str:
        for link, target in links.items():
            if name == link or name.startswith(link + "/"):
                return target + name[len(link) :]
        return name

    return real


@pytest.mark.parametrize("path", ["/", "/etc", "/usr", "/proc", "/sys", "/dev"])
def test_what_no_system_survives_is_never_opened(path: str) -> None:
    found = danger(path, HOMES)
    assert found is not None
    assert found.never


@pytest.mark.parametrize(
    "path",
    [
        "/proc/1",
        "/proc/self/task",
        "/sys/fs/cgroup",
        "/dev/pts",
        "/dev/mapper",
        "/dev/shm",
        "/dev/shmem",
    ],
)
def test_what_is_no_place_for_files_is_never_opened(path: str) -> None:
    found = danger(path, HOMES)
    assert found is not None
    assert found.never


@each("path", [*SYSTEM[2:], *SHARED, *STORAGE, "/var/lib/usernsplan"])
def test_a_folder_of_the_system_needs_a_yes(path: str) -> None:
    found = danger(path, HOMES)
    assert found is not None
    assert not found.never
    assert found.reason


@pytest.mark.parametrize("folder", [*SYSTEM, *STORAGE, "/var/lib/usernsplan"])
def test_what_lies_in_a_folder_of_the_system_or_of_an_engine_needs_a_yes(folder: str) -> None:
    for below in ("x", "x/y/z", "overlay2/0123/diff", ".hidden"):
        found = danger(f"{folder}/{below}", HOMES)
        assert found is not None, below
        assert not found.never


@each(
    "path",
    [
        *(
            "/srv/content",
            "/var/lib/content",
            "/var/lib/postgresql",
            "/var/www/html",
            "/opt/app",
            "/mnt/disk",
            "/data2",
        ),
        *(
            "/home/alice/data",
            "/home/alice/.config",
            "/root/volume",
            "/var/lib/dockerish",
            "/var/lib/docker2/overlay2",
        ),
        *(
            "/etcetera",
            "/usr2",
            "/devices",
            "/process",
            "/system",
            "/bin2",
            "/dev/shm/volume",
            "/tmp/x",
            "/run/app",
        ),
        *("/data/people/bobby", "/srv/etc", "/srv/volumes/x/_data", "/var/lib/machines/web"),
    ],
)
def test_a_place_for_volumes_is_free(path: str) -> None:
    assert danger(path, HOMES) is None


@pytest.mark.parametrize(
    "path",
    [
        "/var/lib/docker/volumes/web/_data",
        "/var/lib/docker/volumes/web/_data/below/it",
        "/var/lib/containers/storage/volumes/web/_data",
        "/home/alice/.local/share/containers/storage/volumes/web/_data",
        "/home/alice/.local/share/docker/volumes/web/_data/x",
    ],
)
def test_named_volumes_of_docker_and_podman_are_what_people_mount(path: str) -> None:
    assert danger(path, HOMES) is None


@pytest.mark.parametrize(
    "path",
    [
        "/var/lib/docker/volumes",
        "/var/lib/docker/volumes/web",
        "/var/lib/docker/volumes/web/_datax",
        "/var/lib/docker/volumes/web/other",
        "/var/lib/docker/volumes//_data",
        "/var/lib/docker/volumes/_data",
        "/var/lib/containers/storage/volumes/web",
        "/var/lib/containers/storage/overlay/x",
        "/home/alice/.local/share/containers/storage/overlay",
    ],
)
def test_what_only_looks_like_a_named_volume_is_the_engine_s(path: str) -> None:
    assert danger(path, HOMES) is not None


def test_machines_of_others_are_refused_as_a_whole_and_one_of_them_is_not() -> None:
    for folder in ("/var/lib/lxc", "/var/lib/machines", "/var/lib/incus"):
        assert danger(folder) is not None
        assert danger(f"{folder}/web") is None


# Homes


@pytest.mark.parametrize("path", HOMES)
def test_a_home_needs_a_yes_and_what_lies_in_it_does_not(path: str) -> None:
    found = danger(path, HOMES)
    assert found is not None
    assert not found.never
    assert danger(f"{path}/volume", HOMES) is None


@pytest.mark.parametrize(
    "name", [".ssh", ".ssh/keys", ".gnupg", ".local/share/containers", ".local/share/docker/x"]
)
def test_what_is_private_in_a_home_needs_a_yes(name: str) -> None:
    for home in HOMES:
        assert danger(f"{home}/{name}", HOMES) is not None


def test_whoever_lives_in_home_lives_there_also_where_passwd_does_not_list_him() -> None:
    found = danger("/home/carol", HOMES)
    assert found is not None
    assert not found.never
    assert danger("/home/carol/volume", HOMES) is None
    assert danger("/data/people/carol", HOMES) is None
    assert danger("/root", ()) is not None


def test_homes_are_those_of_root_and_of_people() -> None:
    accounts = [
        *(
            (0, "/root"),
            (1000, "/home/alice/"),
            (1001, "/home//bob"),
            (60000, "/data/x/../carol"),
            (0, "/toor"),
        ),
        *(
            (33, "/var/www"),
            (999, "/srv/app"),
            (65534, "/nonexistent"),
            (1002, "/"),
            (1003, ""),
            (1004, "relative"),
        ),
        (1005, "/home/alice"),
    ]
    assert homes_of(accounts) == ("/data/carol", "/home/alice", "/home/bob", "/root", "/toor")


# What contains them


@pytest.mark.parametrize("path", ["/var/lib", "/var", "/home", "/data", "/data/people", "/"])
def test_what_contains_a_protected_folder_is_as_precious(path: str) -> None:
    assert danger(path, HOMES) is not None


@pytest.mark.parametrize("path", ["/data", "/data/people"])
def test_it_is_said_what_lies_in_it(path: str) -> None:
    found = danger(path, HOMES)
    assert found is not None
    assert "/data/people/bob" in found.reason


def test_what_contains_something_that_no_system_survives_is_not_opened_by_a_yes() -> None:
    found = danger("/volumes", HOMES, leads({"/usr": "/volumes/usr"}))
    assert found is not None
    assert found.never


# Symlinks of the host


def test_a_protected_folder_is_known_by_where_it_really_lies() -> None:
    real = leads(
        {"/var/lib/docker": "/data/docker", "/usr": "/system/usr", "/home/alice": "/people/alice"}
    )
    docker, usr, alice, above = (
        danger(path, HOMES, real)
        for path in ("/data/docker", "/system/usr", "/people/alice", "/people")
    )
    assert docker is not None
    assert usr is not None
    assert usr.never
    assert alice is not None
    assert above is not None
    assert danger("/people/alice/.ssh", HOMES, real) is not None
    assert danger("/people/alice/volume", HOMES, real) is None


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("/var/lib/docker", "/data/docker", "/data/docker/overlay2"),
        ("/var/lib/containers", "/data/containers", "/data/containers/storage/overlay"),
        ("/usr", "/system/usr", "/system/usr/bin"),
        ("/var/lib/usernsplan", "/data/usernsplan", "/data/usernsplan/runs"),
    ],
)
def test_what_lies_in_a_protected_folder_is_known_by_where_that_really_lies(
    link: str, target: str, path: str
) -> None:
    assert danger(path, HOMES, leads({link: target})) is not None


def test_a_named_volume_is_free_also_where_the_engine_s_folder_is_a_symlink() -> None:
    assert (
        danger("/data/docker/volumes/web/_data", HOMES, leads({"/var/lib/docker": "/data/docker"}))
        is None
    )


@pytest.mark.parametrize(
    "path", ["/etc/volumes/x/_data", "/usr/share/volumes/x/_data", "/sys/volumes/x/_data"]
)
def test_only_below_an_engine_s_folder_there_are_named_volumes(path: str) -> None:
    assert danger(path, HOMES) is not None
