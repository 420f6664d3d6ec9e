"""What the kubelet gets to hear from getsubids: with a line, without one, and without the account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engines.throwaway import require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost


def test_getsubids_fails_for_an_account_without_a_line(host: ThrowawayHost) -> None:
    require("getsubids", "useradd")
    for kind in ("subuid", "subgid"):
        host.write(f"/etc/{kind}", "alice:100000:65536\n")
    host.run("useradd", "--system", "--user-group", "kubelet")
    # The kubelet ends with "error retrieving additional ids" if getsubids fails: USN026.
    assert host.run("getsubids", "kubelet", check=False).returncode == 1
    for kind in ("subuid", "subgid"):
        host.write(f"/etc/{kind}", "kubelet:1048576:8388608\n")
    for words in (("getsubids", "kubelet"), ("getsubids", "-g", "kubelet")):
        assert host.run(*words).stdout.split() == ["0:", "kubelet", "1048576", "8388608"]
