"""/proc/PID/status, proc_pid_status(5): what a process may do. Names of capabilities(7)."""

from __future__ import annotations

import re

from usernsplan.errors import InvalidValueError
from usernsplan.harden.names import CAPABILITIES
from usernsplan.patterns import pattern
from usernsplan.values import dataclass

_LINE = pattern(r"(\w+):[ \t]*(.*)")
_ESCAPES = {r"\n": "\n", r"\\": "\\"}


@dataclass(frozen=True, slots=True)
class Ids:
    """The four uids or gids of a process: credentials(7).

    The kernel checks ``file_system`` when the process opens a file; it mostly equals ``effective``.
    """

    real: int
    effective: int
    saved: int
    file_system: int

    def all(self) -> tuple[int, int, int, int]:
        """All four, in the order of the file."""
        return (self.real, self.effective, self.saved, self.file_system)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The five sets, each as names in the order of their numbers; a number without a name stays."""

    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    bounding: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """One process. Ids are those of the reader's namespace; ``state`` is a letter, Z for a zombie.

    ``no_new_privs``, ``seccomp`` (0 none, 1 strict, 2 filter) and ``filters`` are None if the
    kernel is too old to print them or was built without them.
    """

    name: str
    state: str
    uids: Ids
    gids: Ids
    groups: tuple[int, ...]
    capabilities: Capabilities
    no_new_privs: bool | None = None
    seccomp: int | None = None
    filters: int | None = None
    kernel_thread: bool = False


def parse(text: str) -> Status:
    """Read the file. Raises InvalidValueError for other text."""
    found = {
        match[1]: match[2].strip() for line in text.split("\n") if (match := _LINE.fullmatch(line))
    }
    try:
        return Status(
            name=re.sub(r"\\[n\\]", lambda escape: _ESCAPES[escape[0]], found["Name"]),
            state=found["State"][:1],
            uids=Ids(*map(int, found["Uid"].split())),
            gids=Ids(*map(int, found["Gid"].split())),
            groups=tuple(map(int, found.get("Groups", "").split())),
            capabilities=Capabilities(
                *(
                    names(int(found.get(f"Cap{which}", "0"), 16))
                    for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")
                )
            ),
            no_new_privs=bool(int(found["NoNewPrivs"])) if "NoNewPrivs" in found else None,
            seccomp=int(found["Seccomp"]) if "Seccomp" in found else None,
            filters=int(found["Seccomp_filters"]) if "Seccomp_filters" in found else None,
            # Before Linux 6.10 this line is missing; then a process without memory of its own is
            # a kernel thread, or a zombie.
            kernel_thread=found["Kthread"] == "1" if "Kthread" in found else "VmSize" not in found,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidValueError(f"not the text of a /proc/PID/status: {error}") from error


def names(bits: int) -> tuple[str, ...]:
    """The names of the capabilities in a bit set; a number without a name stays a number."""
    return tuple(
        CAPABILITIES[number] if number < len(CAPABILITIES) else str(number)
        for number in range(bits.bit_length())
        if bits >> number & 1
    )
