"""inspect and whois of a container that Podman started with what render printed."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import slow
from tests.engines import recipes
from tests.engines.throwaway import require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

# Real engines and browsers take their time; what they are given is tested without them.
pytestmark = pytest.mark.slow


BASE = 589824  # where per-container begins to give ranges out


def usernsplan(host: ThrowawayHost, *words: str) -> str:
    return host.run(sys.executable, "-m", "usernsplan", *words).stdout


def document(host: ThrowawayHost, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(usernsplan(host, *words, "--json"))
    return found


@pytest.mark.parametrize(
    ("flags", "expected", "unexpected"),
    [
        (["--user=33:33"], {"no-capabilities", "regain-by-setuid"}, "no-new-privs"),
        (
            ["--user=33:33", "--security-opt=no-new-privileges"],
            {"no-capabilities", "no-new-privs"},
            "regain-by-setuid",
        ),
        *slow(
            (
                ["--user=33:33", "--cap-drop=all"],
                {"no-capabilities", "nothing-to-regain"},
                "regain-by-setuid",
            ),
            ([], {"root-inside", "namespaced"}, "host-root"),
        ),
        (["--cap-add=sys_admin"], {"root-inside", "namespaced", "beyond-default"}, "host-root"),
    ],
)
def test_a_container_of_podmans(
    host: ThrowawayHost, flags: list[str], expected: set[str], unexpected: str
) -> None:
    require("podman", "crun")
    usernsplan(host, "allocate", "--strategy", "per-container", "web")
    rendered = shlex.split(
        json.loads(usernsplan(host, "render", "podman", "web", "--json"))["text"]
    )
    name = recipes.podman_run(
        host, [*rendered, *flags, "--network=none", "-d"], ["sleep", "100"]
    ).strip()
    environment = recipes.PODMAN_ENVIRONMENT
    pid = host.run(
        "podman", "inspect", "--format", "{{.State.Pid}}", name, env=environment
    ).stdout.strip()
    found = document(host, "inspect", pid)
    codes = {one["code"] for one in found["meaning"]}
    assert expected <= codes
    assert unexpected not in codes
    inside = 33 if "--user=33:33" in flags else 0
    assert found["uids"]["effective"]["container_id"] == inside
    assert found["uids"]["effective"]["id"] == BASE + inside
    # Podman splits the map around the image's ids in some versions: each part of it is web's.
    for extent in found["namespaces"][0]["uid_map"] + found["namespaces"][0]["gid_map"]:
        assert [
            one["holder"]["name"]
            for one in extent["belongs"]
            if one["holder"]["kind"] == "allocation"
        ] == ["web"]
        assert extent["free"] == []
    assert "container web" in usernsplan(host, "inspect", pid)
    [namespace] = [
        one for one in document(host, "inspect", "--all")["namespaces"] if int(pid) in one["pids"]
    ]
    assert namespace["inode"] == found["namespaces"][0]["inode"]
    assert "container web" in usernsplan(host, "inspect", "--all")
    claims = document(host, "whois", str(BASE + 33))["answers"][0]["uid"]
    running = [one for one in claims if one["kind"] == "namespace"]
    assert [(one["container_id"], int(pid) in one["pids"]) for one in running] == [(33, True)]
    assert [one["container_id"] for one in claims if one["kind"] == "allocation"] == [33]
    host.run("podman", "kill", name, env=environment)
