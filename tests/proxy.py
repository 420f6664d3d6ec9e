"""A proxy on loopback between hosts and a PostgreSQL server, which cuts the connection, or goes silent, at a message."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from types import TracebackType

_HEADER, _STARTUP = 5, 4


class Proxy:
    """Forwards whole messages. The one of number ``at``, counted over all connections, comes no more."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.through()
        threading.Thread(target=self._accept, daemon=True).start()

    def through(self) -> None:
        """Forward everything from now on."""
        self.at: int | None = None
        self.how: Literal["cut", "silent"] = "cut"
        self.seen = 0

    def end_at(self, at: int, how: Literal["cut", "silent"] = "cut") -> None:
        """Cut the connection before this message, or forward nothing any more."""
        self.at, self.how, self.seen = at, how, 0

    def __enter__(self) -> Proxy:  # noqa: PYI034 - Python 3.10 has no Self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._listening.close()
        for one in self._open:
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
                for words in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._forward, args=words, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_client: bool) -> None:
        """One direction. A client's first messages have no letter; a server answers a question for TLS with one."""
        begun = not is_client
        with suppress(OSError):
            if not is_client:
                # The answer to the question for TLS, or the letter of the first message.
                letter = source.recv(1)
                rest = b"" if letter in {b"N", b"S"} else letter
                target.sendall(letter if not rest else b"")
            else:
                rest = b""
            while True:
                head = rest + _exactly(source, (_HEADER if begun else _STARTUP) - len(rest))
                rest = b""
                body = _exactly(source, int.from_bytes(head[-4:], "big") - 4)
                if not begun:
                    # 80877103 asks for TLS, and the start-up message comes again.
                    begun = body[:4] != (80877103).to_bytes(4, "big")
                if not self._may_pass():
                    if self.how == "cut":
                        break
                    continue
                target.sendall(head + body)
        if self.how == "cut" or self.at is None:
            for one in (source, target):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _may_pass(self) -> bool:
        with self._lock:
            self.seen += 1
            return self.at is None or self.seen <= self.at


def _exactly(source: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = source.recv(count - len(found))
        if not more:
            raise OSError("closed")
        found += more
    return found
