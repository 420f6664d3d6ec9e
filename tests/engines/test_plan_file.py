"""A plan file on a machine with Docker, podman and LXC: made so, run, edited, made so again, and written down."""

from __future__ import annotations

import json
import shlex

from tests.engines import recipes
from tests.engines.planned import maps, usernsplan
from tests.engines.throwaway import ThrowawayHost, require

BEGINNING = """\
strategy: per-container
engines: [docker, podman, lxc]
daemon: web
containers:
- name: web
  volumes: [/tmp/web]
- name: pod
  user: '33:34'
  volumes: [/tmp/pod]
"""
FIRST_DAY = f"""\
{BEGINNING}- {{name: box, size: 131072}}
reservations:
- {{ids: 655360-665536, for: another host}}
"""
SECOND_DAY = f"""\
{BEGINNING}- name: later
  volumes: [/tmp/later]
"""


def write(host: ThrowawayHost, text: str) -> None:
    host.write("/etc/usernsplan.yaml", text)


def test_a_plan_file_with_three_engines_from_the_first_day_to_the_second(
    host: ThrowawayHost,
) -> None:
    require("podman", "crun")
    for name in ("web", "pod", "later"):
        host.run("install", "-d", f"/tmp/{name}")
        host.write(f"/tmp/{name}/file", name, mode=0o600)
    write(host, FIRST_DAY)
    usernsplan(host, "plan", "--check", status=4)
    assert host.read("/etc/subuid") == b""
    usernsplan(host, "apply", "--yes", "--fix-volumes")
    # One after the other from 589824, past what is reserved: those of one size first.
    assert {name: maps(host, name)[0] for name in ("web", "pod", "box")} == {
        "web": [(0, 589824, 65536)],
        "pod": [(0, 720896, 65536)],
        "box": [(0, 786432, 131072)],
    }
    first = {name: maps(host, name) for name in ("web", "pod", "box")}
    assert json.loads(host.read("/etc/docker/daemon.json")) == {"userns-remap": "usernsplan-web"}
    assert host.owner("/tmp/web/file") == (589824, 589824)
    lines = host.read("/etc/subuid").decode().splitlines()
    assert [line for line in lines if line.startswith("root:")] == [
        f"root:{first + at}:32768"
        for first, count in ((589824, 65536), (720896, 65536), (786432, 131072))
        for at in range(0, count, 32768)
    ]
    flags = shlex.split(usernsplan(host, "render", "podman", "pod").stdout)
    script = "cat /proc/self/uid_map; cat /vol/file; touch /vol/made"
    seen = recipes.podman_run(
        host, [*flags, "--user", "33:34"], ["sh", "-c", script], volumes=["/tmp/pod:/vol"]
    )
    assert seen.split() == ["0", "720896", "65536", "pod"]
    assert host.owner("/tmp/pod/made") == (720896 + 33, 720896 + 34)

    # The second day: one more, one less, and nothing reserved.
    write(host, SECOND_DAY)
    usernsplan(host, "plan", "--check", status=4)
    usernsplan(host, "apply", "--yes", "--prune", "--fix-volumes")
    assert maps(host, "web") == first["web"]
    assert maps(host, "pod") == first["pod"]
    # What goes does so after what comes: neither box's range nor what was reserved is given out at once.
    assert maps(host, "later")[0] == [(0, 917504, 65536)]
    assert b"786432" not in host.read("/etc/subuid")
    assert host.owner("/tmp/later/file") == (917504, 917504)
    usernsplan(host, "plan", "--check", "--prune")

    # What is written down is what is there.
    exported = usernsplan(host, "export").stdout
    write(host, exported)
    for words in (("plan", "--check"), ("plan", "--check", "--prune"), ("allocate", "--check")):
        usernsplan(host, *words)
    document = json.loads(usernsplan(host, "apply", "--prune", "--fix-volumes", "--json").stdout)
    assert (document["changed"], document["steps"], document["changes"]) == (False, [], [])


def test_a_user_who_was_given_his_lines_meanwhile_keeps_them(host: ThrowawayHost) -> None:
    require("useradd")
    write(host, "strategy: per-container\nengines: [podman]\ncontainers: [web, db]\n")
    saved = usernsplan(host, "plan", "--out", "/tmp/saved").stdout
    recipes.add_user(host, "alice")
    before = host.read("/etc/subuid")
    done = usernsplan(host, "apply", "--plan", "/tmp/saved", "--yes", status=6 if before else 0)
    assert "Plan: 2 to add" in saved
    assert "nothing was changed" in done.stderr or not before
    usernsplan(host, "apply", "--yes")
    assert set(before.splitlines()) <= set(host.read("/etc/subuid").splitlines())
    usernsplan(host, "plan", "--check")
