"""A PostgreSQL server for tests: Debian's, as an ordinary user, on a unix socket and on loopback TCP with scram."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))
PASSWORD = "secret"  # noqa: S105 - of a server that lives as long as a test
_AS = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]
_CONFIG = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
password_encryption = 'scram-sha-256'
max_connections = 150
"""


def require() -> None:
    """Skip without a server; in CI that is a failure."""
    if not (BIN / "initdb").exists():
        if os.environ.get("CI"):
            pytest.fail("apt-get install postgresql")
        pytest.skip("postgresql is not installed")
    pytest.importorskip("psycopg")


class Postgres:
    """A cluster in a folder of its own; "owner" may do everything there."""

    def __init__(self, *, durable: bool = False, within: Path | None = None) -> None:
        require()
        # Below pytest's own folders only root gets to it.
        if within is None and os.access("/dev/shm", os.W_OK):
            within = Path("/dev/shm")
        self.folder = folder = Path(tempfile.mkdtemp(prefix="usernsplan-pg-", dir=within))
        self.port = free_port()
        self.data = folder / "data"
        folder.chmod(0o755)
        shutil.chown(folder, "postgres", "postgres")
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        self._run(
            *[BIN / "initdb", "--no-sync", "-A", "scram-sha-256", "-U", "owner"],
            *[f"--pwfile={folder}/password", "-D", self.data, "-E", "UTF8", "--locale=C"],
        )
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(_CONFIG.format(port=self.port, folder=folder))
            # Where the operating system does not crash, nothing is lost without it either.
            file.write("" if durable else "fsync = off\nfull_page_writes = off\n")
        self.passfile = folder / "pgpass"
        self.passfile.write_text(f"*:*:*:*:{PASSWORD}\n")
        self.passfile.chmod(0o600)
        self.start()

    def standby(self) -> Postgres:
        """A copy of this server that follows it."""
        self.query("ALTER ROLE owner REPLICATION")
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write("host replication all 127.0.0.1/32 scram-sha-256\n")
        self.query("SELECT pg_reload_conf()")
        other = object.__new__(Postgres)
        other.folder = Path(tempfile.mkdtemp(prefix="usernsplan-pg-", dir=self.folder.parent))
        other.folder.chmod(0o755)
        shutil.chown(other.folder, "postgres", "postgres")
        other.port, other.data = free_port(), other.folder / "data"
        other.passfile = self.passfile
        # The password in the place of a base backup is read by the server's own user.
        secret = other.folder / "pgpass"
        secret.write_text(f"*:*:*:*:{PASSWORD}\n")
        secret.chmod(0o600)
        shutil.chown(secret, "postgres", "postgres")
        place = f"host=127.0.0.1 port={self.port} user=owner passfile={secret}"
        self._run(BIN / "pg_basebackup", "-d", place, "-D", other.data, "-R", "-c", "fast")
        with (other.data / "postgresql.conf").open("a") as file:
            file.write(_CONFIG.format(port=other.port, folder=other.folder))
        other.start()
        return other

    def promote(self) -> None:
        """Let a standby write."""
        self._run(BIN / "pg_ctl", "-w", "-s", "-D", self.data, "promote")

    def remove(self) -> None:
        """Stop the server, and remove all that it has."""
        if self.is_running():
            self.stop()
        shutil.rmtree(self.folder)

    def url_of(self, role: str, database: str, *, socket: bool = False, port: int = 0) -> str:
        """Where a role connects; the password is in a file."""
        host = self.folder if socket else "127.0.0.1"
        return (
            f"host={host} port={port or self.port} dbname={database} user={role} "
            f"passfile={self.passfile}"
        )

    def query(
        self, statement: str, *values: object, database: str = "postgres", role: str = "owner"
    ) -> list[tuple[Any, ...]]:
        """Ask without usernsplan."""
        import psycopg  # noqa: PLC0415 - may be missing

        with psycopg.connect(self.url_of(role, database), autocommit=True) as db:
            done = db.execute(statement, values or None)
            return done.fetchall() if done.description else []

    def start(self) -> None:
        """Start it; what is left of one that was killed may have the port for a moment."""
        words = (BIN / "pg_ctl", "-w", "-s", "-D", self.data, "-l", self.folder / "log", "start")
        for _ in range(20):
            if self._did(*words).returncode == 0:
                return
            time.sleep(0.2)
        self._run(*words)

    def stop(self, how: str = "immediate") -> None:
        self._run(BIN / "pg_ctl", "-w", "-s", "-D", self.data, "-m", how, "stop")

    def kill(self) -> None:
        """SIGKILL the whole server."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(
            ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
        )
        for one in (pid, *map(int, children.stdout.split())):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        until_gone(pid)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def is_running(self) -> bool:
        return (self.data / "postmaster.pid").exists()

    def _run(self, *words: object) -> None:
        done = self._did(*words)
        assert done.returncode == 0, done.stdout + done.stderr

    def _did(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*_AS, *map(str, words)],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
        )


def until_gone(pid: int) -> None:
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class FleetOfRoots:
    """A fleet in a database of its own; its hosts are roots in a folder."""

    def __init__(self, server: Postgres, folder: Path) -> None:
        from usernsplan import joining  # noqa: PLC0415 - needs psycopg

        self.server, self.folder = server, folder
        [[count]] = server.query("SELECT count(*) FROM pg_database")
        self.database = f"fleet{count}"
        server.query(f"CREATE DATABASE {self.database}")
        self.url = server.url_of("owner", self.database)
        joining.init(self.url)

    def role(self, name: str, group: str = "usernsplan_host") -> str:
        """A role of this fleet that can log in, as a member of a group; returns its url."""
        login = f"{name}_{self.database}"
        self.server.query(f"CREATE ROLE {login} LOGIN PASSWORD '{PASSWORD}' IN ROLE {group}")
        return self.server.url_of(login, self.database)

    def root(self, name: str, url: str) -> Path:
        """A host that has not joined yet; its config.yaml names the ledger, if there is a url."""
        root = self.folder / name
        (root / "etc/usernsplan").mkdir(parents=True)
        for file in ("subuid", "subgid"):
            (root / "etc" / file).write_text("")
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        (root / "etc/hostname").write_text(f"{name}\n")
        (root / "etc/machine-id").write_text(f"{name.encode().hex():0<32.32}\n")
        if url:
            (root / "etc/usernsplan/config.yaml").write_text(f'ledger: "{url}"\n')
        return root

    def host(self, name: str, group: str = "usernsplan_host") -> Path:
        """A host that has joined, with a role of its own; returns its root."""
        from usernsplan import joining  # noqa: PLC0415 - needs psycopg
        from usernsplan.host.files import layout_at  # noqa: PLC0415

        url = self.role(f"h_{name}", group)
        root = self.root(name, url)
        joining.join(layout_at(str(root)), url, name)
        return root

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask as the owner, without usernsplan."""
        return self.server.query(statement, *values, database=self.database)

    def holds(self) -> set[tuple[str, str, int, int, str, str]]:
        """Who has what: (name, kind, first, stop, host, state)."""
        return {
            *self.query(
                "SELECT c.name, c.kind, lower(c.ids), upper(c.ids), o.name, h.state FROM usernsplan.claim c "
                "JOIN usernsplan.hold h ON h.claim = c.id JOIN usernsplan.host o ON o.number = h.host"
            )
        }
