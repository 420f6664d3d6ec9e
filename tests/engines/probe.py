"""A static program that makes system calls in a container, and tells which errno each ended with."""

from __future__ import annotations

import functools
import platform
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.engines.throwaway import require
from usernsplan.harden.names import CAPABILITIES, system_calls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.engines.throwaway import ThrowawayHost

PATH = "/var/lib/throwaway/probe"
# An errno that no call below gives, so that it tells the filter from the kernel.
OURS = 71

# Words: an architecture, a number, and up to two arguments; the others are 0. The arguments of socketcall(2) are in
# memory that 32 bits reach: it takes them from there. Each call is made by a child, so that one that ends or blocks its
# process is a call like any other. What it ended with is in memory that both share: no call is needed to say it.
SOURCE = r"""
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#define GONE -1000
static unsigned words[4];
static long i386(long number, long first, long second) {
#ifdef __x86_64__
    long found;
    __asm__ volatile("int $0x80"
                     : "=a"(found)
                     : "a"(number), "b"(first), "c"(second), "d"(0), "S"(0), "D"(0)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)found;
#else
    (void)first, (void)second;
    return -ENOSYS;
#endif
}
int main(int count, char **said) {
    /* Most calls get a 0 first: it must be no file that others have, such as the machine's /dev/null. */
    close(0);
    /* One for each call: of fork(2) another child may come late. */
    volatile int *ended = mmap(0, count * sizeof *ended, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 1; i < count; i++) {
        long number = 0, first = 0, second = 0;
        char arch[16] = "";
        int status = 0;
        sscanf(said[i], "%15[^:]:%ld:%ld:%ld", arch, &number, &first, &second);
        words[0] = second;
        words[1] = 2; /* SOCK_DGRAM */
        ended[i] = GONE;
        pid_t child = fork();
        if (child == 0) {
            alarm(WAIT);
            errno = 0;
            if (!strcmp(arch, "i386")) {
                long found = i386(number, first, number == 102 ? (long)words : second);
                ended[i] = found < 0 && found > -4096 ? -found : 0;
            } else {
                syscall(number, first, second, 0L, 0L, 0L, 0L);
                ended[i] = errno;
            }
            _exit(0);
        }
        while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) { }
        if (ended[i] == GONE && WIFSIGNALED(status)) ended[i] = -WTERMSIG(status);
        printf("%d\n", ended[i]);
        fflush(stdout);
    }
    return 0;
}
"""
# Of a call that a signal ended, the program says minus its number; this one ends what has not returned in so many seconds.
WAITED, WAIT = -signal.SIGALRM, 20


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
        words = [
            "gcc",
            "-static",
            "-no-pie",
            "-Wall",
            "-Werror",
            f"-DWAIT={WAIT}",
            "-xc",
            "-",
            "-o",
            str(program),
        ]
        subprocess.run(words, input=SOURCE.encode(), check=True)
        return program.read_bytes()


def call(name: str, first: int = 0, second: int = 0, *, arch: str = "") -> str:
    """A word for the program: this system call, of this architecture or of the machine's own."""
    number = system_calls()[name][arch or platform.machine()]
    return f"{arch or 'own'}:{number}:{first}:{second}"


def socket(family: int) -> str:
    """A word for a datagram socket of this family."""
    return call("socket", family, 2)


def set_errno(filter_: dict[str, Any]) -> None:
    """Let all that a filter in the form of Docker or the OCI refuses fail with OURS."""
    if filter_["defaultAction"] == "SCMP_ACT_ERRNO":
        filter_["defaultErrnoRet"] = OURS
    for rule in filter_["syscalls"]:
        if rule["action"] == "SCMP_ACT_ERRNO":
            rule["errnoRet"] = OURS


def status(said: str) -> Status:
    """Read what `cat /proc/self/status` printed."""
    found = dict(re.findall(r"(?m)^(\w+):\t(.*)$", said))
    prm, eff, bnd, amb = (int(found[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Bnd", "Amb"))
    return Status(prm, eff, bnd, amb, int(found["NoNewPrivs"]), int(found["Seccomp"]))


def inheritable(said: str) -> int:
    """The set that a process hands to what it starts, from the same text."""
    [found] = re.findall(r"(?m)^CapInh:\t(.*)$", said)
    return int(found, 16)


def mask(names: Iterable[str]) -> int:
    """The bits of capabilities, as the kernel shows them."""
    return sum(1 << CAPABILITIES.index(name) for name in names)
