"""The key of containers.conf that names another profile of system calls."""

from __future__ import annotations

from tests.each import each
from usernsplan.formats.containers_conf import seccomp_profile


@each(
    ("contents", "path"),
    [
        ((), ""),
        ((b"",), ""),
        ((b'[containers]\nseccomp_profile = "/a.json"\n',), "/a.json"),
        ((b"[containers]\r\n\tseccomp_profile='/a b.json' # why\r\n",), "/a b.json"),
        ((b'#seccomp_profile = "/a.json"\n',), ""),
        ((b'no_seccomp_profile = "/a.json"\n',), ""),
        # The last file that says anything counts, also where it takes the name away.
        ((b'seccomp_profile = "/a.json"\n', b'seccomp_profile = "/b.json"', b"\xff"), "/b.json"),
        ((b'seccomp_profile = "/a.json"\n', b'seccomp_profile = ""'), ""),
    ],
)
def test_the_last_value_counts(contents: tuple[bytes, ...], path: str) -> None:
    assert seccomp_profile(contents) == path
