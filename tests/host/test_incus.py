"""What Incus and LXD have: below a root by their files, and on the machine as the daemon answers."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from usernsplan.errors import InvalidFileError, UsernsplanError
from usernsplan.host import files
from usernsplan.host.unlisted import incus
from usernsplan.layout import Layout
from usernsplan.mapping import KINDS
from usernsplan.model import Unlisted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NEWUIDMAP = ("usr/bin/newuidmap", "usr/bin/newgidmap")
FILES = ("etc/subuid", "etc/subgid")


def host(root: Path, *names: str) -> Layout:
    for name in ("etc/passwd", *names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return files.layout_at(str(root))


def all_instances(program: str, path: str) -> tuple[Unlisted, ...]:
    return tuple(
        Unlisted(program, "all instances", kind, 1000000, 1001000000, path=path) for kind in KINDS
    )


@pytest.mark.parametrize(
    "place", ["snap/bin/lxd", "var/lib/snapd/snap/bin/lxd", "var/snap/lxd/common/x"]
)
def test_a_lxd_from_a_snap_has_its_ids_whatever_the_files_say(tmp_path: Path, place: str) -> None:
    path = f"/{place}".removesuffix("/common/x")
    found = incus.without_lines(host(tmp_path, place, *NEWUIDMAP, *FILES))
    assert found == all_instances("LXD", path)


@pytest.mark.parametrize("lacking", [*NEWUIDMAP, *FILES])
@pytest.mark.parametrize(
    ("program", "place"),
    [
        ("Incus", "usr/libexec/incus/incusd"),
        ("Incus", "opt/incus/bin/incusd"),
        ("Incus", "usr/bin/incusd"),
        ("LXD", "usr/sbin/lxd"),
    ],
)
def test_without_newuidmap_or_a_file_they_take_ids_that_no_line_has(
    tmp_path: Path, lacking: str, program: str, place: str
) -> None:
    there = [name for name in (*NEWUIDMAP, *FILES) if name != lacking]
    assert incus.without_lines(host(tmp_path, place, *there)) == all_instances(program, f"/{place}")


def test_with_all_of_them_they_take_the_ids_of_roots_lines(tmp_path: Path) -> None:
    layout = host(tmp_path, "usr/bin/incusd", "usr/bin/lxd", *NEWUIDMAP, *FILES)
    assert incus.without_lines(layout) == ()
    assert incus.without_lines(host(tmp_path / "other")) == ()


# The daemon.

MAP = [
    {"Isuid": True, "Isgid": False, "Hostid": 1000000, "Nsid": 0, "Maprange": 65536},
    {"Isuid": False, "Isgid": True, "Hostid": 2000000, "Nsid": 0, "Maprange": 10},
    {"Isuid": True, "Isgid": True, "Hostid": 33, "Nsid": 33, "Maprange": 1},
]
C1 = {
    "name": "c1",
    "project": "default",
    "location": "none",
    "config": {
        "volatile.idmap.next": json.dumps(MAP),
        "volatile.idmap.current": json.dumps(MAP[:1]),
        "volatile.last_state.idmap": "[]",
    },
}
VM = {
    "name": "v1",
    "project": "lab",
    "location": "node2",
    "config": {"volatile.idmap.next": json.dumps(MAP[:1])},
}
PRIVILEGED = {"name": "p1", "config": {"volatile.idmap.next": "[]"}}


def answered(content: object, status: str = "200 OK") -> bytes:
    return (
        f"HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n{json.dumps(content)}".encode()
    )


@pytest.fixture
def daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[socket.socket], object]], str]]:
    """A daemon that answers one question, and the path of its socket."""
    ends = []

    def listen(answer: Callable[[socket.socket], object]) -> str:
        path = str(tmp_path / "unix.socket")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        ends.append(server)

        def serve() -> None:
            # Nobody may ask, or listen to the end.
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    assert connection.recv(1000).startswith(b"GET /1.0/instances?")
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setattr(incus, "_DAEMONS", (incus._Daemon("incusd", path),))
        monkeypatch.setattr(incus, "_runs", lambda _: True)
        return path

    yield listen
    for server in ends:
        server.close()


def test_each_instance_has_the_ids_of_its_maps(daemon: Callable[..., str]) -> None:
    daemon(lambda c: c.sendall(answered({"metadata": [C1, VM, PRIVILEGED]})))
    c1, v1 = ("Incus", "instance c1"), ("Incus", "instance v1 of project lab on node2")
    assert {*incus.instances(Layout())} == {
        Unlisted(*c1, "uid", 1000000, 1065536, "c1", grantee="root", inside=0, is_next=True),
        Unlisted(*c1, "gid", 2000000, 2000010, "c1", grantee="root", inside=0, is_next=True),
        Unlisted(*c1, "uid", 33, 34, "c1", grantee="root", inside=33, is_next=True),
        Unlisted(*c1, "gid", 33, 34, "c1", grantee="root", inside=33, is_next=True),
        Unlisted(*v1, "uid", 1000000, 1065536, "v1", grantee="root", inside=0),
    }


def test_nothing_is_asked_about_another_root(daemon: Callable[..., str], tmp_path: Path) -> None:
    daemon(lambda c: c.sendall(answered({"metadata": [C1]})))
    assert incus.instances(host(tmp_path)) == ()


def test_a_daemon_that_does_not_run_is_not_asked(
    daemon: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[socket.socket] = []
    daemon(asked.append)
    monkeypatch.setattr(incus, "_runs", lambda _: False)
    assert incus.instances(Layout()) == ()
    assert asked == []


def test_a_socket_that_nobody_listens_on_is_no_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "s"))
    left.close()
    monkeypatch.setattr(incus, "_DAEMONS", (incus._Daemon("incusd", str(tmp_path / "s")),))
    monkeypatch.setattr(incus, "_runs", lambda _: True)
    assert incus.instances(Layout()) == ()


@pytest.mark.parametrize(
    "answer",
    [
        answered({"metadata": [C1]}, "500 Internal Server Error"),
        b"",
        b"HTTP/1.0 200 OK\r\n\r\n",
        answered([]),
        answered({"metadata": [{"name": "x"}]}),
        answered({"metadata": ["x"]}),
        answered({"metadata": [{**C1, "config": []}]}),
        *(
            answered({"metadata": [{**C1, "config": {"volatile.idmap.next": text}}]})
            for text in (
                "{}}",
                "[1]",
                '[{"Hostid": -1, "Maprange": 5, "Isuid": true, "Isgid": true}]',
                '[{"Hostid": true, "Maprange": 5, "Isuid": true, "Isgid": true}]',
                '[{"Hostid": "1", "Maprange": 5, "Isuid": true, "Isgid": true}]',
                '[{"Hostid": 1}]',
                "[" * 100_000,
                "9" * 10_000,
            )
        ),
    ],
)
def test_what_is_no_answer_is_an_error_with_words(
    daemon: Callable[..., str], answer: bytes
) -> None:
    place = daemon(lambda c: c.sendall(answer))
    with pytest.raises(InvalidFileError, match="incusd") as caught:
        incus.instances(Layout())
    assert caught.value.place == place


@pytest.mark.parametrize("piece", [b"", b"x"], ids=["silent", "slow"])
def test_a_daemon_that_hangs_does_not_stop_us(
    daemon: Callable[..., str], monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    def answer(connection: socket.socket) -> None:
        for _ in range(200):
            connection.sendall(piece)
            time.sleep(0.05)

    daemon(answer)
    monkeypatch.setattr(incus, "_SECONDS", 0.4)
    before = time.monotonic()
    with pytest.raises(UsernsplanError, match=r"does not answer within 0\.4 seconds"):
        incus.instances(Layout())
    assert time.monotonic() - before < 3


def test_an_answer_without_end_is_not_kept(
    daemon: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon(lambda c: c.sendall(bytes(1 << 20)))
    monkeypatch.setattr(incus, "_MOST", 1 << 17)
    with pytest.raises(InvalidFileError, match="more than 131072 bytes"):
        incus.instances(Layout())


def test_a_process_is_found_by_its_name() -> None:
    assert incus._runs("python") or incus._runs("pytest") or incus._runs("python3")
    assert not incus._runs("no such process")
