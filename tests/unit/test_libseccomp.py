"""What the libseccomp of this machine knows of names."""

from __future__ import annotations

import ctypes.util

from tests.command import missing
from usernsplan.host.libseccomp import unknown


def test_it_knows_calls_of_every_architecture_and_nothing_else() -> None:
    if ctypes.util.find_library("seccomp") is None:
        missing("libseccomp")
    # One of 32-bit programs alone, and one that no kernel has.
    assert unknown(["read", "clock_adjtime64", "socketcall", "no_such_call"]) == {"no_such_call"}
    assert unknown([]) == frozenset()
