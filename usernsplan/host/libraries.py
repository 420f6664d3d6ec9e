"""Shared libraries below a root, as dlopen(3) finds them by name."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.host import files, programs
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.layout import Layout

_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/lib", "/lib64")
# A folder of Debian's multiarch, such as x86_64-linux-gnu.
_MULTIARCH = pattern(r"[a-z0-9_]+-linux-[a-z0-9_]+")
# It has the libraries of all folders that ld.so.conf(5) names; each path ends with a NUL.
_CACHE = "/etc/ld.so.cache"


def find(layout: Layout, name: str) -> str:
    """The path of a library below the root; "" if it is not installed, or has no name.

    Raises the errors of reading a folder: a library that cannot be seen must not look missing.
    """
    if not name:
        return ""
    paths = (f"{folder}/{name}" for folder in _folders(layout))
    found = next((path for path in paths if programs.exists(layout, path)), "")
    return found or next(
        (path for path in _cached(layout, name) if programs.exists(layout, path)), ""
    )


def _folders(layout: Layout) -> Iterator[str]:
    for folder in _FOLDERS:
        yield folder
        with files.explained(layout, folder), suppress(FileNotFoundError, NotADirectoryError):
            descriptor = files.opened_folder(layout, folder)
            try:
                names = sorted(filter(_MULTIARCH.fullmatch, os.listdir(descriptor)))
            finally:
                os.close(descriptor)
            yield from (f"{folder}/{name}" for name in names)


def _cached(layout: Layout, name: str) -> Iterator[str]:
    raw = files.read(layout, _CACHE, follow=True) or b""
    for path in re.findall(rb"/[^\0]*/" + re.escape(name.encode()) + rb"(?=\0)", raw):
        yield path.decode("utf-8", "surrogateescape")
