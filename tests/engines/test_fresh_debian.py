"""What ``check`` says of a Debian on which somebody has just installed an engine: nothing that is wrong.

The machine has all packages. The host loses the programs and accounts of those that it is not to have, and the others'
own maintainer scripts run again: they write lines into subuid and subgid, and make accounts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.command import PROGRAM, missing, slow
from tests.documents import document_in
from tests.engines.planned import usernsplan
from tests.engines.recipes_incus import INCUSD
from tests.engines.throwaway import require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

# Each engine, and what has its programs.
PACKAGES = {
    "uidmap": (),
    "podman": ("uidmap", "crun"),
    "docker.io": ("containerd", "runc"),
    "lxc": ("liblxc-common", "uidmap"),
    "lxd": ("lxd-client", "uidmap"),
    "incus-base": ("incus-client", "uidmap"),
    "systemd-container": (),
}

# What these scripts write into both files beside the line of a person. The first ends one id too late.
LINES = {
    "lxd": ["_lxd:165536:10000001", "root:165536:10000001"],
    "incus-base": ["root:1000000:1000000000"],
}

# The person is made first, as the installer does. Services do not start.
FRESH = r"""
for account in _lxd dockremap; do userdel "$account" 2>/dev/null || :; done
for group in lxd docker incus incus-admin; do groupdel "$group" 2>/dev/null || :; done
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
useradd --create-home alice
"""

REMOVE = r"""
for package in "$@"; do dpkg-query --listfiles "$package" 2>/dev/null || :; done |
    grep -E '/s?bin/|/libexec/' |
    while read -r path; do [ ! -f "$path" ] || rm "$path"; done
"""

CONFIGURE = r"""
export DEBIAN_FRONTEND=noninteractive DPKG_MAINTSCRIPT_PACKAGE="$1"
for when in "preinst install" "postinst configure"; do
    script=/var/lib/dpkg/info/$1.${when% *}
    [ ! -e "$script" ] || DPKG_MAINTSCRIPT_NAME=${when% *} "$script" "${when#* }" "" </dev/null
done
"""


def install(host: ThrowawayHost, *packages: str) -> None:
    """Make the host a Debian with a person, these packages, and no other engine."""
    require("dpkg-query", "useradd", "lxd", "podman", "dockerd", "lxc-start", "systemd-nspawn")
    if not INCUSD:
        missing("incusd")
    wanted = {*packages, *(one for package in packages for one in PACKAGES[package])}
    others = {*PACKAGES, *(one for needed in PACKAGES.values() for one in needed)} - wanted
    host.run("sh", "-euc", FRESH)
    host.run("sh", "-euc", REMOVE, "sh", *sorted(others))
    for package in packages:
        host.run("sh", "-euc", CONFIGURE, "sh", package)


def complaints(host: ThrowawayHost) -> list[str]:
    """The warnings and errors of ``check``."""
    document = document_in(host.run(*PROGRAM, "check", "--json", check=False).stdout)
    return [
        f"{one['code']} {one['message']}"
        for one in document["findings"]
        if one["severity"] != "info"
    ]


@pytest.mark.parametrize(
    "package", ["lxd", "incus-base", *slow(*sorted(PACKAGES.keys() - LINES.keys()))]
)
def test_a_package_that_was_just_installed_is_no_reason_to_complain(
    host: ThrowawayHost, package: str
) -> None:
    install(host, package)
    for kind in ("subuid", "subgid"):
        lines = host.read(f"/etc/{kind}").decode().splitlines()
        assert lines == ["alice:100000:65536", *LINES.get(package, [])]
    assert complaints(host) == []


@pytest.mark.slow
def test_all_of_them_on_one_host_are_none_either(host: ThrowawayHost) -> None:
    install(host, *PACKAGES)
    assert complaints(host) == []


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_nor_is_a_container_that_is_allocated_then(host: ThrowawayHost, package: str) -> None:
    install(host, package)
    usernsplan(host, "allocate", "--strategy", "per-container", *(f"c{n}" for n in range(9)))
    found = complaints(host)
    if package == "incus-base":
        # True: useradd has 165536-589823 left, because root's line has all from 1000000 on.
        scarce = [one for one in found if one.startswith("USN060 useradd has only 6 more ranges")]
        found = [one for one in found if one not in scarce]
        assert len(scarce) == len(("uid", "gid"))
    assert found == []
