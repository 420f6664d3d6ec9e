"""Volumes in what is rendered: what may be asked, how the owners come right, and that no word means something else."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shlex
import string
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tests.each import each
from tests.unit.states import per_container, shared, state
from usernsplan import Allocation, IdMap, IdRange, Layout, Mapping
from usernsplan.engines import ENGINES, render
from usernsplan.engines import mounts as recorded
from usernsplan.engines.base import RenderContext
from usernsplan.engines.mounts import MountContext, VolumeRequest, decide
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.mapping import Extent, Pass
from usernsplan.model import LedgerState, Mount, Quarantined, Volume, VolumeMount
from usernsplan.planner import mounts as planned

if TYPE_CHECKING:
    from collections.abc import Callable

OPTIONS = ("ro", "rw", "U", "idmap")
ASKS = [frozenset(found) for count in range(5) for found in itertools.combinations(OPTIONS, count)]
GOOD = [found for found in ASKS if not {"ro", "rw"} <= found and not {"U", "idmap"} <= found]
WEB = per_container("web", 589824)
DB = per_container("db", 655360)
SINGLE = Allocation(
    "web",
    "usernsplan-web",
    "single-uid",
    Mapping(IdMap.of((0, 1000820000, 1)), IdMap.of((0, 1000820000, 1))),
    IdRange(1000820000, 10000),
)
POOL = per_container("containers", 720896, 6553600, "containers")
KUBELETS = per_container("kubelet", 720896, 7208960, "kubelet")
# What the contract says of each engine; nothing here is read from the engines.
MAPS = {"podman", "quadlet", "podman-auto", "lxc", "nspawn"}
# runc before 1.2 ignores the request; LXD 5.0 takes some kernels for ones that cannot, and does not start.
ON_REQUEST = {"oci", "incus", "lxd", "proxmox"}
ITSELF = {"kubernetes"}
CHOWN = {"podman", "quadlet", "podman-auto"}
MOUNTS = [
    *sorted(MAPS | ON_REQUEST),
    "kubernetes",
    "compose",
    "containerd",
    "systemd",
    "docker",
    "docker-instance",
]
HOST = Layout()


# --- What is asked ---------------------------------------------------------------------------------------------------


@each("options", GOOD)
def test_options_in_every_order_are_one_wish(options: frozenset[str]) -> None:
    for order in itertools.permutations(options):
        words = "/srv/web:/data" + (":" + ",".join(order) if order else "")
        assert VolumeRequest.parse(words) == VolumeRequest("/srv/web", "/data", options)


@pytest.mark.parametrize(
    "options",
    [found for found in ASKS if found not in GOOD],
    ids=lambda found: ",".join(sorted(found)),
)
def test_options_that_contradict_each_other_are_an_error_that_lists_them(
    options: frozenset[str],
) -> None:
    for order in itertools.permutations(options):
        with pytest.raises(InvalidValueError, match="contradict") as caught:
            VolumeRequest.parse("/srv/web:/data:" + ",".join(order))
        assert all(option in caught.value.hint for option in OPTIONS)


@each(
    ("words", "source", "destination"),
    [
        ("/srv/web:/data", "/srv/web", "/data"),
        ("/srv/web/:/data/", "/srv/web", "/data"),
        ("/a:b:/data", "/a:b", "/data"),
        ("/a::/data", "/a:", "/data"),
        ("/srv/a b:/c d", "/srv/a b", "/c d"),
        ("/srv/a,b:/c,d", "/srv/a,b", "/c,d"),
        ("/srv/50%:/100%", "/srv/50%", "/100%"),
        ("/srv/$HOME:/$x", "/srv/$HOME", "/$x"),
        ('/srv/it\'s:/"q"', "/srv/it's", '/"q"'),
        ("/srv/b\\n:/d", "/srv/b\\n", "/d"),
        ("/srv/käse:/дата", "/srv/käse", "/дата"),
        ("/srv/..data:/a..", "/srv/..data", "/a.."),
        ("/srv/...:/d", "/srv/...", "/d"),
        ("/srv/-v:/-o", "/srv/-v", "/-o"),
    ],
)
def test_a_source_and_a_destination_are_read_as_they_are(
    words: str, source: str, destination: str
) -> None:
    assert VolumeRequest.parse(words) == VolumeRequest(source, destination)
    assert VolumeRequest.parse(words + ":ro") == VolumeRequest(
        source, destination, frozenset({"ro"})
    )


@each(
    "words",
    [
        "",
        ":",
        "/srv/web",
        "/srv/web:",
        ":/data",
        "srv/web:/data",
        "./web:/data",
        "~/web:/data",
        "web:/data",
        "/srv/web:data",
        "/srv/web:data:ro",
        "/srv/web:/data:RO",
        "/srv/web:/data:z",
        "/srv/web:/data:Z",
        "/srv/web:/data:ro:idmap",
        "/srv/web:/data:ro,exec",
        "/srv/web:/data: ro",
        "/srv/web:/data:ro ,U",
        "/srv/web:/data:idmap=uids=0-1-10",
        "/srv/web:/data:/ro",
        "/:/data",
        "//:/data",
        "/srv/web:/",
        "/srv/web://",
        "//srv/web:/data",
        "/srv//web:/data",
        "/srv/web://data",
        "/srv/./web:/data",
        "/srv/../etc:/data",
        "/srv/web/..:/data",
        "/..:/data",
        "/srv/web:/data/..",
        "/srv/web:/../data",
        "/srv/web:/.",
        "/srv/web\n:/data",
        "/srv/web:/data\n",
        "/srv/web:/da\nta",
        "/srv/web:/data:ro\n",
        "/srv/w\teb:/data",
        "/srv/w\0eb:/data",
        "/srv/w\x7feb:/data",
        "/srv/w\x85eb:/data",
        "/srv/w\u2028eb:/data",
        "/srv/w\u2029eb:/data",
        "/srv/w\u00a0eb:/data",
        "/srv/w\ufeffeb:/data",
        "/srv/w\u202eeb:/data",
        "/srv/w\udcffeb:/data",
        "/srv/web:/d\udc80ta",
        "/srv/web:/data:\udcff",
    ],
)
def test_what_is_no_volume_is_an_error_that_says_so(words: str) -> None:
    if words == "/srv/web:/data:/ro":
        # A source may hold colons, so this one is a volume.
        assert VolumeRequest.parse(words) == VolumeRequest("/srv/web:/data", "/ro")
        return
    with pytest.raises(InvalidValueError, match="--volume") as caught:
        VolumeRequest.parse(words)
    assert caught.value.hint
    assert str(caught.value).isprintable()


PARTS = st.text(
    st.characters(blacklist_categories=("C", "Z"), blacklist_characters="/:"),
    min_size=1,
    max_size=8,
).filter(lambda part: part.isprintable() and part not in {".", ".."})
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(PATHS, PATHS, st.sampled_from(GOOD), st.booleans())
def test_whatever_is_spelt_right_is_read_back(
    source: str, destination: str, options: frozenset[str], slash: bool
) -> None:
    end = "/" if slash else ""
    words = f"{source}{end}:{destination}{end}" + (
        ":" + ",".join(sorted(options)) if options else ""
    )
    assert VolumeRequest.parse(words) == VolumeRequest(source, destination, options)


@given(st.text(st.sampled_from("/:., \\$%'\"\n\0\udcffabUroidmpw~"), max_size=30))
@example("/a:/b:/c:ro")
@example("/a:/b::ro")
def test_any_text_is_an_error_or_a_plain_wish(words: str) -> None:
    try:
        wish = VolumeRequest.parse(words)
    except InvalidValueError:
        return
    assert wish.options in GOOD
    for path in (wish.source, wish.destination):
        assert path.isprintable()
        assert re.fullmatch(r"(/[^/]+)+", path)
        assert not {".", ".."} & set(path.split("/"))
    assert ":" not in wish.destination
    again = f"{wish.source}:{wish.destination}" + (
        ":" + ",".join(sorted(wish.options)) if wish.options else ""
    )
    assert VolumeRequest.parse(again) == wish


# --- What is decided -------------------------------------------------------------------------------------------------


def decided(
    engine: str,
    options: frozenset[str] = frozenset(),
    *,
    allocation: Allocation = WEB,
    holder: str = "",
    why: str = "",
    layout: Layout = HOST,
    source: str = "/srv/web",
    fixed: str = "/srv/web",
) -> tuple[Mount, tuple[str, ...]]:
    ledger = LedgerState(
        (allocation, DB), volumes=(Volume(fixed, holder, "own"),) if holder else ()
    )
    wish = VolumeRequest(source, "/data", options)
    [mount], notes = decide(engine, allocation, [wish], MountContext(ledger, layout, lambda _: why))
    assert (mount.source, mount.destination, mount.read_only) == (source, "/data", "ro" in options)
    assert all(source in note for note in notes)
    return mount, notes


def fixing(notes: tuple[str, ...]) -> list[str]:
    return [note for note in notes if "fix-volume" in note]


PLAIN_ASKS = [found for found in GOOD if not found & {"U", "idmap"}]


@each("engine", [engine for engine in MOUNTS if engine not in ITSELF])
@each("why", ["", "because"])
@each("options", PLAIN_ASKS)
def test_a_volume_that_was_fixed_for_the_container_is_mounted_as_it_is(
    engine: str, why: str, options: frozenset[str]
) -> None:
    mount, notes = decided(engine, options, holder="web", why=why)
    assert (mount.owners, notes) == ("plain", ())


@each("engine", [engine for engine in MOUNTS if engine not in ITSELF])
@each("holder", ["", "web", "db"])
@each("why", ["", "because"])
@each("mode", ["", "ro", "rw"])
def test_podmans_u_is_passed_to_podman_and_is_fix_volume_for_others(
    engine: str, holder: str, why: str, mode: str
) -> None:
    mount, notes = decided(engine, frozenset({"U", mode} - {""}), holder=holder, why=why)
    if engine in CHOWN:
        assert mount.owners == "U"
        assert not fixing(notes)
    else:
        assert mount.owners == "plain"
        assert len(fixing(notes)) == (holder != "web")


@each("engine", sorted(MAPS))
@each("options", PLAIN_ASKS)
def test_where_nothing_is_said_an_engine_that_can_maps_the_ids_at_the_mount(
    engine: str, options: frozenset[str]
) -> None:
    mount, notes = decided(engine, options)
    assert mount.owners == "idmap"
    assert not fixing(notes)


@each("engine", [engine for engine in MOUNTS if engine not in ITSELF])
@each("holder", ["", "db"])
@each("root", ["/", "/mnt/other host"])
def test_where_the_ids_cannot_be_mapped_a_note_names_the_command_that_fixes_the_volume(
    engine: str, holder: str, root: str
) -> None:
    mount, notes = decided(
        engine, holder=holder, why="its file system cannot be", layout=Layout(root)
    )
    assert mount.owners == "plain"
    [note] = fixing(notes)
    command = "usernsplan fix-volume /srv/web --container web"
    command += f" --from {holder}" if holder else ""
    command += f" --root {shlex.quote(root)}" if root != "/" else ""
    assert command in note
    assert ("--from" in note) == bool(holder)
    assert ("--root" in note) == (root != "/")
    if holder:
        # Mapped, they would be nobody's: the kernel need not be asked.
        assert "its files carry the host ids of db" in note
    else:
        assert ("its file system cannot be" in note) == (engine in MAPS)


@pytest.mark.parametrize("engine", sorted(ON_REQUEST))
def test_an_engine_that_may_ignore_the_request_maps_only_when_asked(engine: str) -> None:
    assert decided(engine)[0].owners == "plain"
    assert fixing(decided(engine)[1])
    assert decided(engine, frozenset({"idmap"}))[0].owners == "idmap"


@each("engine", sorted(MAPS | ON_REQUEST))
@each("mode", ["", "ro", "rw"])
@each("holder", ["", "db"])
def test_an_idmap_that_was_asked_for_is_made_or_refused(
    engine: str, mode: str, holder: str
) -> None:
    options = frozenset({"idmap", mode} - {""})
    assert decided(engine, options)[0].owners == "idmap"
    with pytest.raises(
        RefusedError, match="the host ids of db" if holder else "because it is so"
    ) as caught:
        decided(engine, options, why="because it is so", holder=holder)
    assert "usernsplan fix-volume /srv/web --container web" in caught.value.hint
    assert ("--from db" in caught.value.hint) == bool(holder)


@each("engine", [e for e in MOUNTS if e not in MAPS | ON_REQUEST | ITSELF])
@each("holder", ["", "web", "db"])
@each("why", ["", "because"])
def test_an_idmap_is_refused_by_an_engine_that_cannot(engine: str, holder: str, why: str) -> None:
    with pytest.raises(RefusedError, match=f"{engine} cannot") as caught:
        decided(engine, frozenset({"idmap"}), holder=holder, why=why)
    assert "fix-volume" in caught.value.hint


@each("engine", sorted(MAPS | ON_REQUEST))
def test_what_was_fixed_for_the_container_is_never_mapped_a_second_time(engine: str) -> None:
    # Its files are the container's host ids already: mapped again, all of them would be nobody's.
    try:
        mount, _ = decided(engine, frozenset({"idmap"}), holder="web")
    except RefusedError:
        return
    assert mount.owners == "plain"


@each("engine", sorted(MAPS))
@each(
    ("source", "fixed"),
    [("/srv/web/data", "/srv/web"), ("/srv/web/a/b", "/srv/web")],
)
def test_a_folder_in_a_volume_that_was_fixed_is_not_mapped_either(
    engine: str, source: str, fixed: str
) -> None:
    mount, notes = decided(engine, source=source, fixed=fixed, holder="web")
    assert (mount.owners, notes) == ("plain", ())


@pytest.mark.parametrize("engine", sorted(MAPS))
def test_a_folder_that_holds_a_fixed_volume_is_not_mapped_as_a_whole(engine: str) -> None:
    mount, notes = decided(engine, source="/srv", fixed="/srv/web", holder="web")
    assert mount.owners == "plain"
    assert "its files carry the host ids of web, the host" in notes[0]


@pytest.mark.parametrize("engine", sorted(MAPS))
def test_a_volume_of_anothers_is_not_mapped_either(engine: str) -> None:
    mount, [note] = decided(engine, holder="db")
    assert mount.owners == "plain"
    assert "its files carry the host ids of db" in note
    assert "--from db" in note


@pytest.mark.parametrize("engine", ["podman", "quadlet"])
def test_rootless_podman_cannot_map_the_ids_of_a_mount(engine: str) -> None:
    ground = MountContext(LedgerState((WEB,)), HOST, lambda _: "", rootless=True)
    [mount], [note] = decide(engine, WEB, [VolumeRequest("/srv/web", "/data")], ground)
    assert mount.owners == "plain"
    assert "fix-volume /srv/web" in note
    with pytest.raises(RefusedError, match="cannot map the ids"):
        decide(engine, WEB, [VolumeRequest("/srv/web", "/data", frozenset({"idmap"}))], ground)


def one(wish: VolumeRequest, ledger: LedgerState, owner: int | None = None) -> tuple[Mount, str]:
    """What becomes of one volume in Podman, where nothing speaks against an idmap."""
    ground = MountContext(ledger, HOST, lambda _: "", owner_of=lambda _: owner)
    [mount], notes = decide("podman", WEB, [wish], ground)
    return mount, "".join(notes)


@pytest.mark.parametrize(
    ("allocated", "fixed", "released", "said"),
    [
        (1, 2, 0, ""),
        (4, 2, 3, "web's former range"),
        # It has its first range back, and the volume carries the second one.
        (1, 4, 5, "web's former range"),
        (2, 3, 1, ""),
    ],
    ids=["standing", "anew", "come back", "fixed after that"],
)
def test_a_volume_of_a_range_that_was_released_is_not_the_new_ones(
    allocated: int, fixed: int, released: int, said: str
) -> None:
    kept = (Quarantined("web", IdRange(458752, 65536), "T", event=released),) if released else ()
    ledger = LedgerState(
        (replace(WEB, event=allocated),),
        kept,
        volumes=(Volume("/srv/web", "web", "own", "T", event=fixed),),
    )
    mount, note = one(VolumeRequest("/srv/web", "/data"), ledger)
    assert mount.owners == "plain"
    assert said in note
    assert bool(note) == bool(said)


@pytest.mark.parametrize(
    ("owner", "owners", "said"),
    [
        (589824, "plain", ""),
        (589824 + 999, "plain", ""),
        (655360, "plain", "give it to the container with: usernsplan fix-volume /srv/web --container web --from db"),
        (0, "idmap", "belong to the host's root"),
        (None, "idmap", "belong to the host's root"),
    ],
)  # fmt: skip
def test_a_folder_whose_owner_is_in_a_range_carries_that_ranges_ids(
    owner: int | None, owners: str, said: str
) -> None:
    mount, note = one(VolumeRequest("/srv/web", "/data"), LedgerState((WEB, DB)), owner)
    assert mount.owners == owners
    assert said in note
    assert bool(note) == bool(said)


@pytest.mark.parametrize("options", [frozenset(), frozenset({"ro"})], ids=["rw", "ro"])
def test_what_one_container_of_a_pool_left_is_not_the_next_ones(options: frozenset[str]) -> None:
    ground = MountContext(LedgerState((WEB, POOL)), HOST, lambda _: "", owner_of=lambda _: 786432)
    [mount], [note] = decide(
        "podman-auto", POOL, [VolumeRequest("/srv/web", "/data", options)], ground
    )
    assert mount.owners == "plain"
    assert "its option :U" in note


def test_an_owner_in_the_block_that_the_container_does_not_have_is_not_right() -> None:
    ground = MountContext(LedgerState((SINGLE,)), HOST, lambda _: "", owner_of=lambda _: 1000820005)
    [mount], [note] = decide("podman", SINGLE, [VolumeRequest("/srv/web", "/data")], ground)
    assert mount.owners == "plain"
    assert "fix-volume /srv/web --container web" in note


@each(
    ("owner", "owners"),
    [
        # The host's 1000 is container id 33, and what it has is to be used as it is.
        (1000, "plain"),
        (1001, "idmap"),
        (33, "idmap"),
        (0, "idmap"),
        # The id of its range that the pass stands for is nobody's in the container.
        (589824 + 33, "plain"),
        (589824 + 34, "plain"),
    ],
)
def test_a_folder_of_an_owner_that_passes_through_is_mounted_as_it_is(
    owner: int, owners: str
) -> None:
    uids = IdMap.of((0, 589824, 33), (33, 1000, 1), (34, 589858, 65502))
    passes = (Pass("uid", Extent(33, 1000, 1)),)
    holed = replace(WEB, mapping=Mapping(uids, WEB.mapping.gids), passes=passes)
    ground = MountContext(LedgerState((holed,)), HOST, lambda _: "", owner_of=lambda _: owner)
    [mount], notes = decide("podman", holed, [VolumeRequest("/srv/web", "/data")], ground)
    assert mount.owners == owners
    assert bool(fixing(notes)) == (owner == 589824 + 33)


def test_two_volumes_cannot_be_mounted_on_one_place() -> None:
    with pytest.raises(InvalidValueError, match="destination /data"):
        decide(
            "podman",
            WEB,
            [VolumeRequest("/srv/a", "/data"), VolumeRequest("/srv/b", "/data")],
            MountContext(LedgerState(), HOST, str),
        )


@pytest.mark.parametrize("engine", sorted(MAPS))
def test_a_volume_beside_one_that_was_fixed_is_another(engine: str) -> None:
    assert decided(engine, source="/srv/web2", fixed="/srv/web", holder="web")[0].owners == "idmap"


@each("options", GOOD)
@each("why", ["", "because"])
def test_a_pod_with_a_user_namespace_needs_no_fixing(options: frozenset[str], why: str) -> None:
    mount, notes = decided("kubernetes", options, why=why)
    assert mount.owners == "plain"
    assert not fixing(notes)


def test_a_pod_is_told_what_cannot_be_brought_back_by_one_command() -> None:
    # Nobody of this name is allocated any more.
    _, [note] = decided("kubernetes", holder="gone")
    assert "the host ids of gone's former range" in note
    assert "fix-volume" not in note


@pytest.mark.parametrize("holder", ["web", "db"])
def test_a_pod_with_a_user_namespace_wants_the_hosts_ids_back(holder: str) -> None:
    mount, [note] = decided("kubernetes", holder=holder)
    assert mount.owners == "plain"
    assert (
        f"the host ids of {holder}, and the runtime would map them again; undo that with: usernsplan fix-volume /srv/web"
        in note
    )
    assert note.endswith(f"--container {holder} --reverse")


@pytest.mark.parametrize("holder", ["", "db"])
def test_a_pod_without_a_user_namespace_has_to_be_given_its_volume(holder: str) -> None:
    # single-uid runs as a host id: nobody maps the ids of its volumes.
    mount, notes = decided("kubernetes", allocation=SINGLE, holder=holder)
    assert mount.owners == "plain"
    assert len(fixing(notes)) == 1


def test_a_pod_without_a_user_namespace_cannot_map_the_ids_of_a_mount() -> None:
    with pytest.raises(RefusedError, match="cannot"):
        decided("kubernetes", frozenset({"idmap"}), allocation=SINGLE)


@each("engine", sorted(ENGINES))
def test_the_kernel_is_asked_about_each_volume_only_where_the_answer_counts(engine: str) -> None:
    asked: list[str] = []

    def why(path: str) -> str:
        asked.append(path)
        return ""

    wishes = [
        VolumeRequest("/srv/b", "/b"),
        VolumeRequest("/srv/a", "/a"),
        VolumeRequest("/srv/c", "/c", frozenset({"U"})),
    ]
    mounts, _ = decide(engine, WEB, wishes, MountContext(LedgerState((WEB,)), HOST, why))
    assert asked == (["/srv/b", "/srv/a"] if engine in MAPS else [])
    assert [(mount.source, mount.destination) for mount in mounts] == [
        ("/srv/b", "/b"),
        ("/srv/a", "/a"),
        ("/srv/c", "/c"),
    ]


@pytest.mark.parametrize("source", ["/srv/a b", "/srv/it's", "/srv/$HOME", "/srv/a;b", "/srv/`id`"])
def test_the_command_in_a_note_can_be_pasted(source: str) -> None:
    _, notes = decided("compose", source=source)
    [note] = fixing(notes)
    assert f"usernsplan fix-volume {shlex.quote(source)} --container web" in note


@each("engine", [engine for engine in MOUNTS if engine not in ITSELF])
@each("why", ["", "because"])
def test_where_no_id_changes_the_owners_are_right_as_they_are(engine: str, why: str) -> None:
    mount, notes = decided(engine, allocation=shared("web", (0, 0, 65535)), why=why)
    assert (mount.owners, notes) == ("plain", ())


def test_a_pool_has_no_range_to_fix_a_volume_for() -> None:
    mount, notes = decided("podman-auto", allocation=POOL, why="because")
    assert mount.owners == "plain"
    assert ":U" in " ".join(notes)
    assert not fixing(notes)


# --- What is printed -------------------------------------------------------------------------------------------------


class MisreadError(Exception):
    """A reader of the engine's format found something else than one mount in it."""


Read = tuple[str, str, bool]
# What a shell, an INI file of systemd's, fstab or CSV would not leave as it is.
SPECIAL = re.compile(r"""[\s"'\\$`%;#&|<>(){}\[\]*?!,\0]""")


def _colons(value: str, *, read_only: bool | None = None) -> Read:
    if SPECIAL.search(re.sub(r":[\w,]*$", "", value)):
        raise MisreadError(value)
    source, destination, *options = value.split(":")
    said = options[0].split(",") if options else []
    if len(options) > 1 or not set(said) <= set(OPTIONS):
        raise MisreadError(value)
    return source, destination, "ro" in said if read_only is None else read_only


def _flag(text: str, flag: str) -> str:
    words = text.split(" ")
    if shlex.split(text) != words or words.count(flag) != 1:
        raise MisreadError(text)
    return words[words.index(flag) + 1]


def _podman(text: str) -> Read:
    return _colons(_flag(text, "-v"))


def _quadlet(text: str) -> Read:
    [value] = re.findall(r"^Volume=(.*)$", text, re.MULTILINE)
    return _colons(value)


def _nspawn(text: str) -> Read:
    if shlex.split(text) != text.split(" "):
        raise MisreadError(text)
    [(read_only, value)] = [
        (word.startswith("--bind-ro="), word.partition("=")[2])
        for word in text.split(" ")
        if word.startswith("--bind")
    ]
    return _colons(value, read_only=read_only)


def _systemd(text: str) -> Read:
    [(read_only, value)] = re.findall(r"^Bind(ReadOnly)?Paths=(.*)$", text, re.MULTILINE)
    return _colons(value, read_only=bool(read_only))


def _containerd(text: str) -> Read:
    [fields] = csv.reader([_flag(text, "--mount")])
    # ctr of containerd 1.x splits at every '='.
    if any(field.count("=") != 1 for field in fields):
        raise MisreadError(text)
    found = dict(field.split("=") for field in fields)
    if set(found) != {"type", "src", "dst", "options"} or found["type"] != "bind":
        raise MisreadError(text)
    return found["src"], found["dst"], {"rbind:ro": True, "rbind:rw": False}[found["options"]]


def _lxc(text: str) -> Read:
    [value] = re.findall(r"^lxc\.mount\.entry = (.*)$", text, re.MULTILINE)
    source, target, kind, options, *rest = value.split()
    if (
        SPECIAL.search(source + target)
        or (kind, rest) != ("none", ["0", "0"])
        or target.startswith("/")
    ):
        raise MisreadError(value)
    said = options.split(",")
    if not {"rbind", "create=dir"} <= set(said) <= {"rbind", "create=dir", "ro", "idmap=container"}:
        raise MisreadError(value)
    return source, "/" + target, "ro" in said


def _compose(text: str) -> Read:
    [service] = yaml.safe_load(text)["services"].values()
    [volume] = service["volumes"]
    if volume.pop("type") != "bind":
        raise MisreadError(text)
    paths = []
    for key in ("source", "target"):
        value = volume.pop(key)
        # Compose replaces $NAME; $$ is a dollar.
        if "$" in value.replace("$$", ""):
            raise MisreadError(value)
        paths.append(value.replace("$$", "$"))
    read_only = volume.pop("read_only", False)
    if volume:
        raise MisreadError(text)
    return paths[0], paths[1], read_only


def _proxmox(text: str) -> Read:
    """PVE::JSONSchema::parse_property_string: parts between commas, key=value; one may lack its key."""
    [line] = [line for line in text.split("\n") if line.startswith("mp0:")]
    source, *parts = line.removeprefix("mp0: ").split(",")
    found = dict(part.split("=", 1) for part in parts)
    if not set(found) <= {"mp", "ro"} or found.get("ro", "1") != "1" or source != source.strip():
        raise MisreadError(text)
    return source, found["mp"], "ro" in found


def _incus(text: str) -> Read:
    [device] = yaml.safe_load(text)["devices"].values()
    if device["type"] != "disk" or not set(device) <= {
        "type",
        "source",
        "path",
        "readonly",
        "shift",
    }:
        raise MisreadError(text)
    return device["source"], device["path"], device.get("readonly") == "true"


def _kubernetes(text: str) -> Read:
    spec = yaml.safe_load(text)["spec"]
    [container], [volume] = spec["containers"], spec["volumes"]
    [mount] = container["volumeMounts"]
    if mount["name"] != volume["name"] or set(volume) != {"name", "hostPath"}:
        raise MisreadError(text)
    return volume["hostPath"]["path"], mount["mountPath"], mount.get("readOnly", False)


def _oci(text: str) -> Read:
    [mount] = json.loads(text)["mounts"]
    return mount["source"], mount["destination"], "ro" in mount["options"]


READERS: dict[str, Callable[[str], Read]] = {
    "podman": _podman,
    "podman-auto": _podman,
    "quadlet": _quadlet,
    "nspawn": _nspawn,
    "systemd": _systemd,
    "containerd": _containerd,
    "lxc": _lxc,
    "proxmox": _proxmox,
    "compose": _compose,
    "incus": _incus,
    "lxd": _incus,
    "kubernetes": _kubernetes,
    "oci": _oci,
}
ALLOCATION_FOR = {"podman-auto": POOL, "systemd": SINGLE}
NASTY = [
    "a b", "a ", " a", "a,b", "a,ro", "a:b", "a:ro", "a%h", "a%%", "a$HOME", "a${X}", "a$$b", "a$(id)", "a`id`",
    "a'b", 'a"b', "a\\b", "a\\", "a\\040b", "a=b", "a#b", "a;b", "a&b", "a|b", "a<b", "a>b", "a*", "a?", "a[b]",
    "a{b,c}", "a!b", "~a", "~", "-a", "--", "+a", "@a", "käse", "дата", "e\u0301", "日本", "😀", "null", "true", "1e3",
    "0x10", "a.volume", "{{.Name}}", "!!str", "&a", "*a", "- a", "a: b", "idmap=container", "src=x,dst=y",
]  # fmt: skip


def read_back(engine: str, mount: Mount) -> None:
    """The mount is refused, or the engine's reader finds it as it is, in the text and in the file of it."""
    allocation = ALLOCATION_FOR.get(engine, WEB)
    number = 101 if engine == "proxmox" else None
    try:
        found = render(
            engine, allocation, RenderContext(state=state(), mounts=(mount,), vmid=number)
        )
    except (RefusedError, InvalidValueError):
        return
    assert READERS[engine](found.text) == (mount.source, mount.destination, mount.read_only)
    without = render(engine, allocation, RenderContext(state=state(), vmid=number))
    if engine not in {"compose", "incus", "lxd", "kubernetes", "oci"}:
        # The mount adds what it is, and changes nothing else.
        assert found.text.startswith(without.text)
        assert found.text.count("\n") - without.text.count("\n") <= 1
    for file, before in zip(found.files, without.files, strict=True):
        assert file.path == before.path
        if engine not in {"compose", "incus", "lxd", "kubernetes", "oci"}:
            assert file.content.startswith(before.content)
            assert file.content.count("\n") - before.content.count("\n") in {0, 1}


@each("engine", READERS)
@each("part", NASTY)
def test_no_path_means_something_else_than_the_path(engine: str, part: str) -> None:
    for read_only in (False, True):
        read_back(engine, Mount(f"/srv/{part}", "/data", read_only))
        read_back(engine, Mount(f"/srv/{part}/x", "/data", read_only))
        if ":" not in part:
            read_back(engine, Mount("/srv/web", f"/{part}", read_only))
            read_back(engine, Mount("/srv/web", f"/d/{part}/x", read_only))


@given(st.sampled_from(sorted(READERS)), PATHS, PATHS, st.booleans())
def test_no_path_that_can_be_asked_for_means_something_else(
    engine: str, source: str, destination: str, read_only: bool
) -> None:
    wish = VolumeRequest.parse(f"{source}:{destination}")
    read_back(engine, Mount(wish.source, wish.destination, read_only))


# Wish.parse takes no "/".
PRINTABLE = st.text(
    st.sampled_from(string.printable.rstrip() + " é語"), min_size=1, max_size=12
).filter(lambda text: text.strip("/"))


@given(st.sampled_from(sorted(READERS)), PRINTABLE, PRINTABLE.filter(lambda text: ":" not in text))
def test_a_mount_that_nobody_parsed_cannot_break_out_either(
    engine: str, source: str, destination: str
) -> None:
    read_back(engine, Mount(f"/{source}", f"/{destination}"))


@each("engine", READERS)
@each("path", ["/a\nUser=0", "/a\n[Service]\nUser=0", "/a\rb", "/a\tb", "/a\n    - b", '/a"\nx: "'])
def test_a_line_end_never_gets_out_of_a_path(engine: str, path: str) -> None:
    read_back(engine, Mount(path, "/data"))
    read_back(engine, Mount("/srv/web", path))


@each("engine", ["podman", "quadlet", "nspawn", "systemd", "containerd", "lxc", "podman-auto"])
@each("path", ["/srv/a b", "/srv/a%h", "/srv/a,b", '/srv/a"b', "/srv/a:b", "/srv/a\\b", "/srv/$a"])
def test_a_format_without_quotes_refuses_what_it_would_take_for_its_own(
    engine: str, path: str
) -> None:
    asked = RenderContext(state=state(), mounts=(Mount(path, "/data"),))
    with pytest.raises(RefusedError) as caught:
        render(engine, ALLOCATION_FOR.get(engine, WEB), asked)
    assert caught.value.hint


@each("engine", ["compose", "incus", "lxd", "kubernetes", "oci"])
@each("path", ["/srv/a b", "/srv/a%h", "/srv/a,b", '/srv/a"b', "/srv/a:b", "/srv/a\\b", "/srv/$a"])
def test_a_format_with_quotes_takes_every_path(engine: str, path: str) -> None:
    text = render(engine, WEB, RenderContext(state=state(), mounts=(Mount(path, "/data"),))).text
    assert READERS[engine](text) == (path, "/data", False)


IMAGES = [
    "nginx\\", "nginx\\\\", "--privileged", "-v/:/host", "a b", "a\nUser=0", "a\\nb", "a%h", "$X", "a${X}", 'a"b',
    "a'b", "a#b", "a;b", "a\tb", "a\x7fb", "a\x85b", "a\u2028b", "a\u2029b", "a\ufeffb", "a\udcffb", "\ufffe", "😀",
    "null", "1e3", "a: b", "é",
]  # fmt: skip


def image_of(engine: str, image: str, text: str) -> Any:  # noqa: ANN401 - what YAML holds
    """The image that the engine reads; a line of an INI file goes on where it ends in a backslash."""
    if engine == "kubernetes":
        return yaml.safe_load(text)["spec"]["containers"][0]["image"]
    lines = text.replace("\\\n", " ").split("\n")
    expected = (
        render("quadlet", WEB, RenderContext(image="IMAGE"))
        .text.replace("IMAGE", image)
        .split("\n")
    )
    assert lines == expected
    [found] = [line.partition("=")[2] for line in lines if line.startswith("Image=")]
    # Quadlet makes it a word of ExecStart=: podman takes options there, systemd variables.
    assert not found.startswith("-")
    assert not set(found) & set("$%")
    return found


@each("engine", ["quadlet", "kubernetes"])
@each("image", IMAGES)
def test_no_image_means_something_else_than_the_image(engine: str, image: str) -> None:
    try:
        text = render(engine, WEB, RenderContext(image=image)).text
    except (InvalidValueError, RefusedError):
        return
    assert text.encode()
    assert image_of(engine, image, text) == image


@each("engine", ["quadlet", "kubernetes"])
@each(
    "image",
    [
        "nginx",
        "docker.io/library/nginx:1.27",
        "localhost:5000/a/b_c:v1.0-rc+1",
        "a.example/b@sha256:" + "0" * 64,
        "img.build",
    ],
)
def test_what_names_an_image_is_taken_as_it_is(engine: str, image: str) -> None:
    assert image_of(engine, image, render(engine, WEB, RenderContext(image=image)).text) == image


@pytest.mark.parametrize(
    "asked",
    [RenderContext(mounts=(Mount("/srv/web", "/data"),)), RenderContext(image="nginx")],
    ids=["volume", "image"],
)
def test_a_word_that_the_kubelets_line_has_no_use_for_is_not_dropped_in_silence(
    asked: RenderContext,
) -> None:
    with pytest.raises((InvalidValueError, RefusedError)):
        render("kubernetes", KUBELETS, asked)


# --- What does not look as it was recorded ---------------------------------------------------------------------------


def doubted(
    engine: str, owner: int | None, *options: str, path: str = "/srv/web"
) -> tuple[Mount, str]:
    """A volume in, or at, the recorded /srv/web, which does not look right."""
    ledger = LedgerState((WEB, DB), volumes=(Volume("/srv/web", "web", "own"),))
    ground = MountContext(
        ledger, HOST, lambda _: "", owner_of=lambda _: owner, doubts={"/srv/web": "it is odd"}
    )
    [mount], notes = decide(engine, WEB, [VolumeRequest(path, "/data", frozenset(options))], ground)
    return mount, "".join(notes)


@each("path", ["/srv/web", "/srv/web/below"])
@each("owner", [0, None, 589824])
@each("engine", [engine for engine in MOUNTS if engine not in ITSELF])
def test_a_volume_that_does_not_look_right_is_not_taken_for_right(
    engine: str, owner: int | None, path: str
) -> None:
    mount, note = doubted(engine, owner, path=path)
    assert mount.owners == "plain"
    assert "/srv/web is recorded as web's, but it is odd" in note
    assert f"usernsplan fix-volume {path} --container web" in note
    assert "--from" not in note


@pytest.mark.parametrize("engine", sorted(ITSELF))
def test_a_pod_is_told_that_a_volume_does_not_look_right(engine: str) -> None:
    _, note = doubted(engine, 0)
    assert "/srv/web is recorded as web's, but it is odd; the runtime maps" in note
    assert "--reverse" not in note


def test_an_idmap_of_what_does_not_look_right_is_refused_and_the_engine_s_own_change_is_not() -> (
    None
):
    with pytest.raises(RefusedError, match="it is odd"):
        doubted("podman", 0, "idmap")
    mount, note = doubted("podman", 0, "U")
    assert mount.owners == "U"
    assert "it is odd" in note
    # One beside it is none of this.
    assert doubted("podman", 0, path="/srv/website")[0].owners == "idmap"


def test_a_volume_that_waits_for_its_new_map_is_not_right_and_never_mapped() -> None:
    former = Mapping(IdMap.of((0, 458752, 65536)), IdMap.of((0, 458752, 65536)))
    kept = (Quarantined("web", IdRange(458752, 65536), "T", event=3),)
    waits = Volume("/srv/web", "web", "own", "T", event=3, former=former)
    ledger = LedgerState((replace(WEB, event=1),), kept, volumes=(waits,))
    assert (recorded.standing(ledger), recorded.unmoved(ledger), recorded.given(ledger)) == (
        {}, {"/srv/web": waits}, {"/srv/web": waits},
    )  # fmt: skip
    # Where the range grew in place, its owner is one of the container's ids all the time.
    for owner in (None, 458752, 589824):
        mount, note = one(VolumeRequest("/srv/web", "/data"), ledger, owner)
        assert mount.owners == "plain"
        assert "its files still have the ids of its former map" in note
        assert "usernsplan fix-volume /srv/web --container web" in note
    done = replace(ledger, volumes=(replace(waits, former=None, event=4),))
    assert [*recorded.standing(done)] == ["/srv/web"]
    assert one(VolumeRequest("/srv/web", "/data"), done, 589824)[1] == ""


def test_ids_that_pass_are_right_in_a_volume_and_ids_of_the_hole_are_not() -> None:
    ids = IdMap.of((0, 589824, 1000), (1000, 1000, 1), (1001, 590825, 64535))
    web = replace(
        WEB, mapping=Mapping(ids, WEB.mapping.gids), passes=(Pass("uid", Extent(1000, 1000, 1)),)
    )
    fixed = LedgerState((web,), volumes=(Volume("/srv/web", "web", "own", "T"),))

    def of(ledger: LedgerState, owner: int) -> tuple[str, str]:
        ground = MountContext(ledger, HOST, lambda _: "", owner_of=lambda _: owner)
        [mount], notes = decide("podman", web, [VolumeRequest("/srv/web", "/data")], ground)
        return mount.owners, "".join(notes)

    assert of(fixed, 1000) == ("plain", "")
    assert of(LedgerState((web,)), 1001)[0] == "idmap"
    # An id of the hole is the container's, and nobody in it has it.
    assert "fix-volume /srv/web --container web" in of(fixed, 590824)[1]


# --- What mount-volume shows -----------------------------------------------------------------------------------------

AT = "/run/usernsplan/volumes/web/srv-web"
SHOWN = VolumeMount(AT, "/srv/web", "web", "shift", WEB.mapping)
THEY_BIND = [engine for engine in MOUNTS if engine not in ITSELF]


def through(
    engine: str,
    *options: str,
    mounts: tuple[VolumeMount, ...] = (SHOWN,),
    standing: bool = True,
    source: str = "/srv/web",
    layout: Layout = HOST,
    why: str = "",
) -> tuple[Mount, str]:
    """A volume that the ledger says is mounted for web."""
    ground = MountContext(
        LedgerState((WEB, DB), mounts=mounts),
        layout,
        lambda _: why,
        stands=lambda _mount, _rest: standing,
        mount_again=planned.command,
    )
    wish = VolumeRequest(source, "/data", frozenset(options))
    [mount], notes = decide(engine, WEB, [wish], ground)
    return mount, "".join(notes)


@each("engine", THEY_BIND)
@each("options", PLAIN_ASKS)
@each("why", ["", "because"])
def test_a_mount_that_stands_is_the_source_and_nothing_maps_it_again(
    engine: str, options: frozenset[str], why: str
) -> None:
    mount, note = through(engine, *options, why=why)
    assert mount == Mount(AT, "/data", "ro" in options)
    assert note == ""


@each("engine", THEY_BIND)
def test_podmans_u_would_change_the_disk_below_a_mount_and_is_left_out(engine: str) -> None:
    mount, note = through(engine, "U")
    assert mount == Mount(AT, "/data")
    assert (
        note == "/srv/web: without U: the mount has the right owners, and U would change the disk"
    )


@each("engine", sorted(MAPS | ON_REQUEST))
def test_an_idmap_that_was_asked_for_is_the_engine_s_own_and_of_the_source(engine: str) -> None:
    mount, _ = through(engine, "idmap")
    assert (mount.source, mount.owners) == ("/srv/web", "idmap")


@pytest.mark.parametrize("engine", sorted(ITSELF))
def test_a_pod_s_runtime_maps_the_source_itself(engine: str) -> None:
    # A mount with a map cannot get another one: EPERM.
    assert through(engine)[0] == Mount("/srv/web", "/data")


@each(
    ("mounts", "source", "seen"),
    [
        ((SHOWN,), "/srv/web/a/b", f"{AT}/a/b"),
        ((SHOWN,), "/srv/web2", "/srv/web2"),
        ((SHOWN,), "/srv", "/srv"),
        ((replace(SHOWN, name="db"),), "/srv/web", "/srv/web"),
        ((replace(SHOWN, name="db", at="/run/db"), SHOWN), "/srv/web", AT),
    ],
)
def test_a_mount_is_for_its_container_and_for_what_is_in_its_source(
    mounts: tuple[VolumeMount, ...], source: str, seen: str
) -> None:
    assert through("docker", mounts=mounts, source=source)[0].source == seen


def test_a_mount_that_only_reads_is_only_read() -> None:
    assert through("podman", mounts=(replace(SHOWN, options=("ro",)),))[0].read_only


@each("engine", THEY_BIND)
@each("root", ["/", "/mnt/other host"])
def test_a_mount_that_is_gone_is_named_with_the_command_that_makes_it(
    engine: str, root: str
) -> None:
    mount, note = through(engine, standing=False, layout=Layout(root))
    assert mount == Mount(AT, "/data")
    command = "usernsplan mount-volume /srv/web --container web --mode shift"
    command += f" --root {shlex.quote(root)}" if root != "/" else ""
    said = f"/srv/web: {AT} is not mounted; before the container starts, run: {command}"
    assert note == said


def test_of_a_mount_that_is_gone_a_folder_inside_is_as_if_there_were_none() -> None:
    assert through("docker", standing=False, source="/srv/web/a")[0].source == "/srv/web/a"


@each(
    ("mount", "words"),
    [
        (SHOWN, "/srv/web --container web --mode shift"),
        (
            replace(SHOWN, mode="own", user="999:998"),
            "/srv/web --container web --mode own --user 999:998",
        ),
        (
            replace(SHOWN, source="/srv/a b", at="/data/it's"),
            "'/srv/a b' --container web --mode shift --at '/data/it'\"'\"'s'",
        ),
        (
            replace(
                SHOWN,
                at="/var/lib/usernsplan/volumes/web/x",
                options=("ro",),
                crosses=True,
                lasting="mount",
                protect="parent",
            ),
            "/srv/web --container web --mode shift --persist --read-only --cross-mounts --protect parent",
        ),
    ],
)
def test_the_command_that_makes_a_mount_again_says_all_of_it(
    mount: VolumeMount, words: str
) -> None:
    assert planned.command(mount) == f"mount-volume {words}"
