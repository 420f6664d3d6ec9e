"""render: its output, and the files of --out and --bundle, on another root."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import PROGRAM, files_of, here, json_of, needs_root, usernsplan
from tests.each import each
from usernsplan.engines import ENGINES
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.model import Actor, Intent, LedgerChange


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with web (per-container), alice's own range, and the pools."""
    root = tmp_path / "host"
    words = ("--strategy", "per-container", "--root", root)
    usernsplan("allocate", "web", *words, "--engine", "podman")
    (root / "etc/passwd").write_text("alice:x:1000:1000::/home/alice:/bin/sh\n")
    usernsplan("allocate", "hers", "--owner", "alice", *words, "--engine", "podman")
    usernsplan("allocate", *words, "--engine", "podman-auto")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


# What an engine has to be told besides.
NEEDED = {"proxmox": ("--vmid", "101")}


def test_json_has_all_that_there_is_of_every_engine(root: Path) -> None:
    listed = json_of("render", "--list", "web", "--root", root)
    assert listed["kind"] == "engines"
    fits = {row["engine"]: (row["fit"], row["why"]) for row in listed["engines"]}
    assert list(fits) == list(ENGINES)
    for engine, (fit, why) in fits.items():
        assert (fit == "exactly") == (why == ""), engine
        if fit == "no":
            refused = usernsplan("render", engine, "web", "--json", "--root", root, status=9)
            assert json.loads(refused.stdout)["error"]["code"] == "refused"
            assert why in refused.stderr
            continue
        words = ("render", engine, "web", *NEEDED.get(engine, ()), "--root", root)
        found = json_of(*words)
        assert (found["kind"], found["engine"], found["allocation"]) == ("render", engine, "web")
        assert usernsplan(*words).stdout == found["text"] + "\n"
        assert "changed" not in found


def test_the_table_of_strategies_needs_no_allocation(tmp_path: Path) -> None:
    table = usernsplan("render", "--list", "--root", tmp_path / "none").stdout
    assert table.split()[:4] == ["engine", "shared", "single-uid", "per-container"]
    assert not (tmp_path / "none").exists()


def test_out_writes_files_in_their_places_once(root: Path, out: Path) -> None:
    words = ("render", "docker-instance", "web", "--out", out, "--root", root)
    first = json_of(*words)
    assert first["changed"]
    # allocate writes lines; it first checks who has the ids.
    assert sorted(files_of(out)) == [
        "etc/docker/docker-web.json",
        "etc/systemd/system/docker-web.service",
    ]
    assert (
        json.loads((out / "etc/docker/docker-web.json").read_text())["userns-remap"]
        == "usernsplan-web"
    )
    assert [note for note in first["notes"] if "lacks" in note] == [
        f"{out}/etc/{file} lacks usernsplan-web:589824:65536 (in this order); "
        f"'usernsplan allocate … --root {out}' grants lines there"
        for file in ("subuid", "subgid")
    ]
    before = files_of(out)
    assert not json_of(*words)["changed"]
    assert "Already up to date" in usernsplan(*words).stdout
    assert files_of(out) == before


def test_out_keeps_what_others_wrote(root: Path, out: Path) -> None:
    (out / "etc/docker").mkdir(parents=True)
    (out / "etc/subuid").write_text("bob:100000:65536")
    (out / "etc/subgid").write_text("usernsplan-web:589824:65536\n")
    (out / "etc/docker/daemon.json").write_text('{"debug": true}')
    before = files_of(out)
    words = ("render", "docker", "web", "--out", out, "--root", root)
    refused = usernsplan(*words, status=9)
    assert f"{out}/etc/docker/daemon.json exists and has other content" in refused.stderr
    (out / "etc/.pwd.lock").unlink()
    assert files_of(out) == before
    preview = usernsplan(*words, "--replace-files", "--dry-run")
    assert '-{"debug": true}' in preview.stdout
    assert "Dry run: nothing was written" in preview.stdout
    assert files_of(out) == before
    done = usernsplan(*words, "--replace-files")
    assert f"{out}/etc/subuid lacks usernsplan-web" in done.stderr
    assert "subgid lacks" not in done.stderr
    assert (out / "etc/subuid").read_text() == "bob:100000:65536"
    assert sorted(os.listdir(out / "etc")) == [".pwd.lock", "docker", "subgid", "subuid"]


def test_out_on_the_same_root_merges_daemon_json_with_what_stands_there(root: Path) -> None:
    (root / "etc/docker").mkdir(parents=True)
    (root / "etc/docker/daemon.json").write_text('{\n  "debug": true\n}\n')
    usernsplan("render", "docker", "web", "--out", root, "--root", root)
    written = json.loads((root / "etc/docker/daemon.json").read_text())
    assert written == {"debug": True, "userns-remap": "usernsplan-web", "no-new-privileges": True}
    assert (root / "etc/subuid").read_text().count("usernsplan-web") == 1
    # The file exists now; leaving it needs no --replace-files.
    assert not json_of("render", "docker", "web", "--out", root, "--root", root)["changed"]


def test_storage_conf_is_changed_and_never_made(root: Path, out: Path) -> None:
    words = ("render", "podman-auto", "containers", "--out", out, "--root", root)
    assert (
        "does not exist, but Podman needs it; nothing was written"
        in usernsplan(*words, status=9).stderr
    )
    assert not out.exists()
    (out / "etc/containers").mkdir(parents=True)
    (out / "etc/containers/storage.conf").write_text('[storage]\ndriver = "vfs"\n')
    usernsplan(*words)
    assert (out / "etc/containers/storage.conf").read_text() == (
        '[storage]\ndriver = "vfs"\n[storage.options]\nroot-auto-userns-user = "containers"\n'
        "auto-userns-min-size = 65536\nauto-userns-max-size = 65536\n"
    )
    drop_in = out / "etc/containers/containers.conf.d/10-usernsplan.conf"
    assert drop_in.read_text() == '[containers]\nuserns = "auto"\n'
    assert not json_of(*words)["changed"]


def test_out_does_not_follow_a_symlink_out_of_its_folder(
    root: Path, out: Path, tmp_path: Path
) -> None:
    (out / "etc").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (out / "etc/systemd").symlink_to(tmp_path / "elsewhere")
    # As in a chroot: an absolute link is below OUT.
    usernsplan("render", "nspawn", "web", "--out", out, "--root", root)
    assert os.listdir(tmp_path / "elsewhere") == []
    (out / "etc/systemd").unlink()
    (out / "etc/systemd/nspawn").mkdir(parents=True)
    (out / "etc/systemd/nspawn/web.nspawn").symlink_to(tmp_path / "elsewhere/file")
    assert (
        "symlink"
        in usernsplan("render", "nspawn", "web", "--out", out, "--root", root, status=9).stderr
    )


@each(
    ("words", "status", "said"),
    [
        ((), 2, "ENGINE and NAME are missing"),
        (("podman",), 2, "NAME is missing"),
        (("nonesuch", "web"), 2, "no engine 'nonesuch'"),
        (("podman", "nobody"), 1, "nothing is allocated under the name 'nobody'"),
        (("--list", "nobody"), 1, "nothing is allocated"),
        (("--list", "podman", "web"), 2, "--list takes one NAME"),
        (("--list", "web", "--out", "OUT"), 2, "--list takes one NAME"),
        (
            ("podman", "web", "--dry-run"),
            2,
            "--dry-run and --replace-files need --out or --bundle",
        ),
        (("nspawn", "web", "--out", ""), 2, "--out is empty"),
        (("oci", "web", "--bundle", ""), 2, "--bundle is empty"),
        (("podman", "web", "--out", "OUT"), 2, "this engine has no file to write"),
        (
            ("oci", "web", "--out", "OUT", "--bundle", "OUT"),
            2,
            "--out does not go with --bundle",
        ),
        (("oci", "web", "--bundle", "OUT"), 2, "config.json does not exist"),
        (("podman", "web", "--bundle", "OUT"), 2, "config.json does not exist"),
        (("podman", "web", "--image", "nginx"), 2, "--image is not an option for podman"),
        (("uid_map", "web", "--volume", "/a:/b"), 2, "--volume is not an option for uid_map"),
        (("podman", "web", "--rootless"), 9, "who cannot log in"),
        (("lxc", "web", "--rootless"), 2, "--rootless is not an option for lxc"),
        (("podman", "web", "--volume", "a:b"), 2, "expected /SRC:/DEST"),
        (("podman", "web", "--volume", "/a:/b:z"), 2, "no option 'z'"),
        (
            ("podman", "web", "--volume", "/a:/b:idmap"),
            9,
            "--volume /a cannot have an idmap: the kernel of this machine",
        ),
        (("docker", "web", "--volume", "/a:/b:idmap"), 9, "docker cannot map the ids of a mount"),
        (("lxc", "web", "--volume", "/a b:/b"), 9, "characters"),
        (("quadlet", "web", "--image", "a b"), 2, "is not the name of an image"),
        (("proxmox", "web"), 2, "--vmid is missing"),
        (("proxmox", "web", "--vmid", "99"), 2, "--vmid 99 is not the number of a container"),
        (("proxmox", "web", "--vmid", "web"), 2, "--vmid"),
        (("proxmox", "web", "--vmid", "101", "--out", "OUT"), 2, "no file to write"),
        (("lxc", "web", "--vmid", "101"), 2, "--vmid is not an option for lxc"),
        (("lxc", "web", "--vmid", "0"), 2, "--vmid is not an option for lxc"),
        (("openshift", "web", "--volume", "/a:/b"), 2, "--volume is not an option for openshift"),
    ],
)
def test_words_that_cannot_be_are_said_to_be_so(
    root: Path, out: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    before = files_of(root)
    given = [str(out) if word == "OUT" else word for word in words]
    done = usernsplan("render", *given, "--root", root, status=status)
    assert said in done.stderr
    # A render that may be part of a command line gets a flag that no engine accepts.
    is_for_flags = "--out" not in words and (not words or "nonesuch" in words or "podman" in words)
    assert done.stdout == ("--userns=usernsplan-failed\n" if is_for_flags else "")
    assert files_of(root) == before
    assert not out.exists()


@needs_root
def test_what_is_printed_for_proxmox_is_its_own_lines_and_what_else_it_needs(root: Path) -> None:
    usernsplan("allocate", "ct", "--engine", "proxmox", "--root", root)
    done = usernsplan(
        *("render", "proxmox", "ct", "--vmid", "101", "--root", root),
        *("--volume", "/srv/a:/a", "--volume", "/srv/b:/b:ro"),
    )
    base = _start(root, "ct")
    assert done.stdout.split("\n") == [
        "unprivileged: 1",
        f"lxc.idmap: u 0 {base} 65536",
        f"lxc.idmap: g 0 {base} 65536",
        "mp0: /srv/a,mp=/a",
        "mp1: /srv/b,mp=/b,ro=1",
        "",
    ]
    assert "/etc/pve/lxc/101.conf" in done.stderr
    shift = (
        "fix-volume /var/lib/lxc/101/rootfs --container ct --mode shift "
        f"--from-map 'b 0 100000 65536' --root {root}"
    )
    assert f"pct mount 101 && usernsplan {shift} && pct unmount 101" in done.stderr
    tree = root / "var/lib/lxc/101/rootfs"
    tree.mkdir(parents=True)
    os.chown(tree, 100000, 100007)
    usernsplan(*shlex.split(shift))
    found = tree.stat()
    assert (found.st_uid, found.st_gid) == (base, base + 7)
    assert "fix-volume /srv/a --container ct" in done.stderr
    # Root's lines are granted, in pieces, so no note asks for them.
    assert "this grants them" not in done.stderr
    for file in ("subuid", "subgid"):
        lines = (root / "etc" / file).read_text()
        assert f"root:{base}:32768\nroot:{base + 32768}:32768\n" in lines
    without = usernsplan("render", "proxmox", "web", "--vmid", "101", "--root", root)
    assert "this grants them: usernsplan allocate" in without.stderr
    assert "--engine proxmox" in without.stderr


def _start(root: Path, name: str) -> int:
    [made] = json_of("show", name, "--root", root)["allocations"]
    start: int = made["reserved_range"]["start"]
    return start


def test_openshifts_pod_has_a_user_namespace_and_says_from_which_release_on(root: Path) -> None:
    done = usernsplan("render", "openshift", "web", "--image", "nginx", "--root", root)
    assert "  hostUsers: false\n" in done.stdout
    assert "openshift.io/required-scc: restricted-v3" in done.stdout
    assert "OpenShift 4.20 or newer" in done.stderr


def test_rootless_flags_are_places_among_the_owners_lines(root: Path) -> None:
    words = ("render", "podman", "hers", "--rootless", "--root", root)
    assert usernsplan(*words).stdout == "--uidmap 0:1:65536 --gidmap 0:1:65536\n"
    assert "--uidmap 0:@655360:65536 --gidmap 0:@655360:65536" in usernsplan(*words).stderr
    # Podman sorts all lines of an owner by their start, in any order of the file.
    with (root / "etc/subuid").open("a") as file:
        file.write("1000:300:10\nalice:965536:5\n")
    assert usernsplan(*words).stdout == "--uidmap 0:11:65536 --gidmap 0:1:65536\n"
    (root / "etc/subgid").write_text("")
    assert "the lines of alice do not make this map" in usernsplan(*words, status=9).stderr


BUNDLE: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs"},
    "mounts": [
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["gid=70000", "mode=620"],
        }
    ],
    "linux": {"namespaces": [{"type": "mount"}], "resources": {"x": [1]}},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(BUNDLE))
    return folder


def test_a_bundle_is_patched_in_place_once(root: Path, bundle: Path) -> None:
    words = (
        "render",
        "oci",
        "web",
        "--bundle",
        bundle,
        "--volume",
        "/srv/a:/dev/pts:ro",
        "--root",
        root,
    )
    first = json_of(*words)
    assert first["changed"]
    written = json.loads((bundle / "config.json").read_text())
    extent = [{"containerID": 0, "hostID": 589824, "size": 65536}]
    assert written == BUNDLE | {
        "mounts": [
            {
                "destination": "/dev/pts",
                "type": "bind",
                "source": "/srv/a",
                "options": ["rbind", "ro"],
            }
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "user"}],
            "resources": {"x": [1]},
            "uidMappings": extent,
            "gidMappings": extent,
        },
    }
    before = files_of(bundle)
    assert not json_of(*words)["changed"]
    assert files_of(bundle) == before


def test_a_mount_for_an_id_that_is_not_mapped_is_noted(root: Path, bundle: Path) -> None:
    notes = json_of("render", "oci", "web", "--bundle", bundle, "--root", root)["notes"]
    assert "/dev/pts is mounted with gid=70000, which is not mapped; remove that option" in notes


@pytest.mark.spread(4)
@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("{", 1, "config.json: not JSON"),
        ("[]", 1, "not the config.json of an OCI bundle"),
        ('{"linux": 3}', 1, "not the config.json"),
        ('{"mounts": {"a": 1}}', 1, "not the config.json"),
        ('{"mounts": [3]}', 1, "not the config.json"),
        ('{"linux": {"namespaces": [3]}}', 1, "not the config.json"),
        (
            '{"linux": {"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]}}',
            9,
            "joins an existing user namespace",
        ),
        ('{"linux": null}', 1, "not the config.json"),
        ('{"linux": {}, "linux": {}}', 1, "the key 'linux' is there twice"),
        ('{"a": NaN}', 1, "NaN is not a number"),
        ('{"mounts": [{"destination": ["/a"]}]}', 1, "not the config.json"),
        ('{"mounts": [{"destination": "/a", "options": 3}]}', 1, "not the config.json"),
        ("[" * 100_000, 1, "not JSON"),
    ],
)
def test_a_bundle_that_is_none_stays_as_it_is(
    root: Path, bundle: Path, text: str, status: int, said: str
) -> None:
    (bundle / "config.json").write_text(text)
    done = usernsplan("render", "oci", "web", "--bundle", bundle, "--root", root, status=status)
    assert said in done.stderr
    assert str(bundle) in done.stderr
    assert (bundle / "config.json").read_text() == text


@needs_root
def test_the_kernel_is_asked_only_about_this_machine(root: Path) -> None:
    notes = json_of("render", "podman", "web", "--volume", "/srv:/data", "--root", root)["notes"]
    assert any("cannot answer for another root" in note for note in notes)
    assert any(f"fix-volume /srv --container web --root {root}" in note for note in notes)


def test_yaml_is_read_back_as_it_was_meant(root: Path) -> None:
    odd = "/srv/a 'b' \"c\": #d, $e %f"
    found = json_of("render", "compose", "web", "--volume", f"{odd}:/data:ro", "--root", root)
    # Compose replaces $NAME, and reads $$ as a dollar.
    assert yaml.safe_load(found["text"]) == {
        "services": {
            "web": {
                "userns_mode": "",
                "security_opt": ["no-new-privileges:true"],
                "volumes": [
                    {
                        "type": "bind",
                        "source": odd.replace("$", "$$"),
                        "target": "/data",
                        "read_only": True,
                    },
                ],
            }
        }
    }


def test_what_is_odd_in_a_bundle_is_no_traceback(root: Path, bundle: Path) -> None:
    odd = BUNDLE | {"hostname": "\ud800", "annotations": {"a": "é"}}
    odd["mounts"] = [{"destination": "/a", "options": [f"uid={'9' * 5000}", 3]}]
    (bundle / "config.json").write_text(json.dumps(odd))
    usernsplan("render", "oci", "web", "--bundle", bundle, "--root", root)
    written = json.loads((bundle / "config.json").read_text())
    assert {key: written[key] for key in odd if key != "linux"} == {
        key: odd[key] for key in odd if key != "linux"
    }
    (bundle / "config.json").write_bytes(b'{"hostname": "\xff"}')
    assert (
        "not UTF-8"
        in usernsplan("render", "oci", "web", "--bundle", bundle, "--root", root, status=1).stderr
    )


def test_many_at_once_on_one_bundle_and_one_folder_follow_one_another(
    root: Path, bundle: Path, out: Path
) -> None:
    rendering = [*PROGRAM, "render"]
    patch = [*rendering, "oci", "web", "--bundle", str(bundle), "--root", str(root)]
    place = [*rendering, "docker-instance", "web", "--out", str(out), "--root", str(root)]
    runs = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for words in [patch, place] * 5]
    assert [run.wait(60) for run in runs] == [0] * 10
    assert (
        json_of(*patch[len(PROGRAM) :])["changed"]
        is json_of(*place[len(PROGRAM) :])["changed"]
        is False
    )


def test_a_folder_that_was_made_for_nothing_goes_again(root: Path, out: Path) -> None:
    usernsplan("render", "podman", "web", "--out", out, "--root", root, status=2)
    usernsplan("render", "nspawn", "web", "--out", out, "--dry-run", "--root", root)
    assert not out.exists()


def test_an_interrupted_run_is_told_of(root: Path) -> None:
    open_ledger(layout_at(str(root))).begin(Intent("x", Actor(0), LedgerChange(), ()))
    assert "was interrupted" in usernsplan("render", "podman", "web", "--root", root).stderr


def test_options_of_others_in_storage_conf_are_replaced_only_with_yes(
    root: Path, out: Path
) -> None:
    conf = out / "etc/containers/storage.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("[storage.options]\r\nauto-userns-min-size = 1024  # ours\r\n")
    before = files_of(out)
    words = ("render", "podman-auto", "containers", "--out", out, "--root", root)
    assert "has other content" in usernsplan(*words, status=9).stderr
    assert files_of(out) == before
    usernsplan(*words, "--replace-files")
    assert "auto-userns-min-size = 65536\r\n" in conf.read_bytes().decode()


def test_commands_in_notes_are_for_the_root_that_was_named(root: Path, bundle: Path) -> None:
    notes = json_of("render", "oci", "web", "--bundle", bundle, "--root", root)["notes"]
    assert any(
        f"fix-volume {bundle}/rootfs --container web --mode shift --root {root}" in note
        for note in notes
    )


def test_folders_that_were_made_for_nothing_go_again(root: Path, out: Path) -> None:
    usernsplan("render", "podman", "web", "--out", out / "b/c", "--root", root, status=2)
    usernsplan("render", "oci", "web", "--bundle", out / "b/c", "--root", root, status=2)
    assert not out.exists()


def test_a_mount_takes_the_place_of_every_one_on_its_destination(root: Path, bundle: Path) -> None:
    mounts = [{"destination": path, "type": "tmpfs"} for path in ("/a", "/data/", "/b", "/data")]
    (bundle / "config.json").write_text(json.dumps(BUNDLE | {"mounts": mounts}))
    usernsplan(
        "render", "oci", "web", "--bundle", bundle, "--volume", "/srv/x:/data", "--root", root
    )
    written = json.loads((bundle / "config.json").read_text())["mounts"]
    assert [(mount["destination"], mount["type"]) for mount in written] == [
        ("/a", "tmpfs"),
        ("/data", "bind"),
        ("/b", "tmpfs"),
    ]


@each(
    "words",
    [
        ("--strategy", "per-container", "web"),
        ("--strategy", "per-container", "--size", "1000", "--start", "720896", "web"),
        ("--strategy", "single-uid", "--block", "5", "web"),
        ("--strategy", "shared", "--max", "1000", "--owner", "bob", "web"),
        ("--strategy", "shared", "--dockerroot", "7", "web.1"),
    ],
)
def test_the_command_that_a_note_gives_is_the_one_that_made_the_allocation(
    tmp_path_factory: pytest.TempPathFactory, words: tuple[str, ...]
) -> None:
    root = tmp_path_factory.mktemp("made") / "a host"
    here("allocate", *words, "--engine", "podman", "--root", root)
    before = (root / "etc/subuid").read_text()
    [note] = [
        note
        for note in json_of("render", "lxc", words[-1], "--root", root)["notes"]
        if "this grants them" in note
    ]
    pasted = shlex.split(note.partition("this grants them: ")[2])
    here(*pasted[1:])
    # Only root's lines are new.
    owner = before.partition(":")[0]
    of_root = before.replace(f"{owner}:", "root:")
    # LXD and Incus do not take lines of fewer than 65536 ids for themselves.
    of_root = of_root.replace("root:589824:65536\n", "root:589824:32768\nroot:622592:32768\n")
    assert (root / "etc/subuid").read_text() == before + of_root
