"""A static program that makes system calls in a container, and tells which errno each ended with."""

from __future__ import annotations

import functools
import platform
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.engines.throwaway import require
from usernsplan.harden.names import CAPABILITIES, system_calls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.engines.throwaway import ThrowawayHost

PATH = "/var/lib/throwaway/probe"
# An errno that no call below gives, so that it tells the filter from the kernel.
OURS = 71

# Words: an architecture, a number, and up to two arguments. With i386, the arguments are in memory that 32 bits reach:
# socketcall(2) takes them from there.
SOURCE = r"""
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static unsigned words[4];
static long i386(long number, long first) {
#ifdef __x86_64__
    long found;
    __asm__ volatile("int $0x80"
                     : "=a"(found)
                     : "a"(number), "b"(first), "c"(words), "d"(0)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)found;
#else
    (void)first;
    return -ENOSYS;
#endif
}
int main(int count, char **said) {
    for (int i = 1; i < count; i++) {
        long number = 0, first = 0, second = 0;
        char arch[16] = "";
        sscanf(said[i], "%15[^:]:%ld:%ld:%ld", arch, &number, &first, &second);
        words[0] = second;
        words[1] = 2; /* SOCK_DGRAM */
        errno = 0;
        if (!strcmp(arch, "i386")) {
            long found = i386(number, first);
            errno = found < 0 ? -found : 0;
        } else {
            syscall(number, first, second, 0L, 0L, 0L, 0L);
        }
        printf("%d\n", errno);
        fflush(stdout);
    }
    return 0;
}
"""


class Status(NamedTuple):
    """What a process reads of itself in /proc/self/status."""

    prm: int
    eff: int
    bnd: int
    amb: int
    no_new_privs: int
    seccomp: int


def install(host: ThrowawayHost) -> str:
    """Put the program into the host, and return its path. Skips without a C compiler."""
    require("gcc")
    host.write(PATH, _compiled(), 0o755)
    return PATH


@functools.cache
def _compiled() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "probe")
        # Not a PIE: its memory is then where 32 bits reach.
        words = ["gcc", "-static", "-no-pie", "-Wall", "-Werror", "-xc", "-", "-o", str(program)]
        subprocess.run(words, input=SOURCE.encode(), check=True)
        return program.read_bytes()


def call(name: str, first: int = 0, second: int = 0, *, arch: str = "") -> str:
    """A word for the program: this system call, of this architecture or of the machine's own."""
    number = system_calls()[name][arch or platform.machine()]
    return f"{arch or 'own'}:{number}:{first}:{second}"


def socket(family: int) -> str:
    """A word for a datagram socket of this family."""
    return call("socket", family, 2)


def status(said: str) -> Status:
    """Read what `cat /proc/self/status` printed."""
    found = dict(re.findall(r"(?m)^(\w+):\t(.*)$", said))
    prm, eff, bnd, amb = (int(found[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Bnd", "Amb"))
    return Status(prm, eff, bnd, amb, int(found["NoNewPrivs"]), int(found["Seccomp"]))


def mask(names: Iterable[str]) -> int:
    """The bits of capabilities, as the kernel shows them."""
    return sum(1 << CAPABILITIES.index(name) for name in names)
