"""Whether the server of a fleet answers, for commands that show the host's own file.

They need nothing from the server, so they do not pay for it: to import psycopg takes longer than
the whole of ``list``. Any PostgreSQL server, and a pooler too, answers the eight bytes that ask for
TLS with one byte, before it knows who asks. That needs a socket and no library. Where only libpq
knows the place, such as that of a service, libpq is asked (PQping).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from usernsplan.errors import UsernsplanError, reason_of
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# Seconds. A name that no server resolves would take longer than all else.
PATIENCE = 2.0
# https://www.postgresql.org/docs/current/protocol-message-formats.html: SSLRequest
_QUESTION = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
_ANSWERS = (b"S", b"N")
_SOCKETS = "/var/run/postgresql"
_PORT = "5432"
_WORD = pattern(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s\\']|\\.)*))(?=\s|$)")
_URL = pattern(r"postgres(?:ql)?://(?:[^/?#@]*@)?([^/?#]*)(?:/[^?#]*)?(?:\?([^#]*))?")


class Place(NamedTuple):
    """Where a server listens: the path of a unix socket, or a host and a port."""

    host: str
    port: int

    @property
    def path(self) -> str:
        """The unix socket; "" for TCP."""
        is_path = self.host.startswith(("/", "@"))
        return f"{self.host}/.s.PGSQL.{self.port}" if is_path else ""


def why_not(url: str) -> str:
    """Why no server answers at the place of a ledger; "" if one does. It takes PATIENCE at most."""
    import threading  # noqa: PLC0415 - only in a fleet

    said: list[str] = []

    def ask() -> None:
        found = places(url, os.environ)
        said.append(_by_libpq(url) if found is None else _by_sockets(found))

    # The resolver of names has no timeout of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return said[0] if said else f"no answer in {PATIENCE:.0f} s"


def places(url: str, environ: Mapping[str, str]) -> list[Place] | None:
    """Where the servers of a libpq url listen; None if only libpq can tell. Pure."""
    words = _words(url)
    if words is None or "service" in words or "PGSERVICE" in environ:
        return None
    hosts, numbers, ports = (
        (words.get(key) or environ.get(f"PG{key.upper()}", "")).split(",")
        for key in ("host", "hostaddr", "port")
    )
    # libpq connects to the address if there are both.
    several = numbers if any(numbers) else hosts
    if len(ports) not in {1, len(several)}:
        return None
    if len(ports) == 1:
        ports *= len(several)
    if not all((port or _PORT).isdecimal() for port in ports):
        return None
    return [
        Place(host or _SOCKETS, int(port or _PORT))
        for host, port in zip(several, ports, strict=True)
    ]


def _words(url: str) -> dict[str, str] | None:
    """The parameters of a url or of a line of words; None if it is neither in a plain form."""
    if url.startswith(("postgresql:", "postgres:")):
        return _of_url(url)
    found, at = dict[str, str](), 0
    text = url.rstrip()
    while at < len(text):
        one = _WORD.match(text, at)
        if one is None:
            return None
        key, quoted, plain = one.groups()
        found[key] = re.sub(r"\\(.)", r"\1", plain if quoted is None else quoted)
        at = one.end()
    return found


def _of_url(url: str) -> dict[str, str] | None:
    # Escapes and IPv6 addresses are libpq's.
    one = None if "%" in url or "[" in url else _URL.fullmatch(url)
    if one is None:
        return None
    pairs = [pair.partition(":") for pair in one[1].split(",")]
    found = {
        "host": ",".join(host for host, _, _ in pairs),
        "port": ",".join(port for _, _, port in pairs),
    }
    more = dict(word.partition("=")[::2] for word in (one[2] or "").split("&") if word)
    return {**{key: value for key, value in found.items() if value.strip(",")}, **more}


def _by_sockets(several: list[Place]) -> str:
    why = ""
    for place in several:
        if not (why := _at(place)):
            break
    return why


def _at(place: Place) -> str:
    """Why no server answers at one place; "" if one does."""
    import socket  # noqa: PLC0415 - only in a fleet

    try:
        with (
            socket.socket(socket.AF_UNIX)
            if place.path
            else socket.create_connection(place, PATIENCE)
        ) as one:
            if place.path:
                one.settimeout(PATIENCE)
                one.connect(place.path.replace("@", "\0", 1))
            one.sendall(_QUESTION)
            return (
                "" if one.recv(1) in _ANSWERS else "what listens there is no server of PostgreSQL"
            )
    except TimeoutError:
        return f"no answer in {PATIENCE:.0f} s"
    except OSError as error:
        return reason_of(error)


def _by_libpq(url: str) -> str:
    from usernsplan.ledger.postgres import Server  # noqa: PLC0415 - seldom needed

    try:
        is_there = Server(url).ping()
    except UsernsplanError as error:
        return str(error)
    return "" if is_there else "no answer"
