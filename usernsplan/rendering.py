"""A rendering for a host: its allocation, what the engine needs of the host, and the files.

What an engine reads is decided in engines/. Here the host is read, the kernel is asked, and files
are written.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

from usernsplan import engines
from usernsplan.claims.pool import POOL_START
from usernsplan.engines import placing
from usernsplan.engines.base import RenderContext, Support, login_of
from usernsplan.engines.mounts import NOT_MOVED, MountContext, VolumeRequest, decide, unmoved
from usernsplan.errors import InvalidFileError, InvalidValueError, RefusedError
from usernsplan.escape import shell, shown_path
from usernsplan.host import (
    accounts,
    files,
    libseccomp,
    locks,
    output,
    programs,
    read,
    selinux,
    standing,
    trial,
    volumes,
)
from usernsplan.host.mounts import all_mounts
from usernsplan.ids import IdRange
from usernsplan.layout import SUBUID
from usernsplan.ledger import allocation_of, open_ledger
from usernsplan.model import INTERRUPTED, Allocation, Change
from usernsplan.planner import mounts as planned
from usernsplan.planner.mountable import why_not
from usernsplan.planner.names import owner_of
from usernsplan.planner.runs import half_way, told
from usernsplan.planner.volumes import doubts, finishing
from usernsplan.strategies import PerContainer, Shared, SingleUid
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from usernsplan.engines.base import Engine, Rendered
    from usernsplan.formats.accounts import User
    from usernsplan.harden.policy import Policy
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import RenderRequest, UnfinishedRun, Volume, VolumeMount

_CONFIG = "/config.json"


def rendering(request: RenderRequest, root: str = "/") -> Rendered:
    """What an engine reads for an allocation of the host below ``root``. Nothing is written.

    Raises InvalidValueError, UnknownNameError, and RefusedError if the engine cannot make the
    mapping, or if an interrupted run left a volume half-way.
    """
    found = _rendering(request, root)
    return replace(found, notes=(*found.notes, *_unwritten(found, request, files.layout_at(root))))


def _rendering(request: RenderRequest, root: str) -> Rendered:
    layout = files.layout_at(root)
    ledger = open_ledger(layout)
    known = ledger.state()
    chosen, allocation = engines.engine(request.engine), allocation_of(known, request.name)
    requested = [VolumeRequest.parse(words) for words in request.volumes]
    recorded = volumes.recorded(layout, known) if requested else volumes.Recorded((), ())
    for volume in requested:
        _refuse_half_way(layout, volume, recorded.runs)

    mount_context = MountContext(
        ledger=known,
        layout=layout,
        why_no_idmap=partial(_why_no_idmap, layout),
        name_of=partial(files.name_below, layout),
        owner_of=partial(_owner_of, layout),
        is_folder=partial(_is_folder, layout),
        rootless=request.rootless,
        doubts={path: one.fact for path, one in doubts(known, recorded.volumes, layout).items()},
        stands=partial(_stands, layout, standing.standing() if requested and known.mounts else {}),
        mount_again=planned.command,
    )
    mounts, notes = decide(request.engine, allocation, requested, mount_context)
    if request.rootless:
        ours = (f"{planned.VOLUMES}/", f"{planned.LASTING_VOLUMES}/")
        closed = [mount.source for mount in mounts if mount.source.startswith(ours)]
        notes = (*notes, *(_closed(path, allocation.owner) for path in closed))

    context = RenderContext(
        state=read.previewed(layout, ledger.state)
        if chosen.reads_host or request.rootless
        else None,
        mounts=mounts,
        image=request.image,
        rootless=request.rootless,
        bundle=None
        if request.bundle is None
        else _config(files.layout_at(request.bundle, "--bundle")),
        place=f"{request.bundle}{_CONFIG}",
        layout=layout,
        vmid=request.vmid,
        # The program of another root may not run here.
        version=programs.version(chosen.asks) if chosen.asks and layout.is_host else "",
    )
    if allocation.policy and not request.no_harden:
        login = login_of(allocation, context) if request.rootless else None
        context = _with_policy(context, allocation.policy, chosen, request.base, login)
    elif request.base is not None:
        raise InvalidValueError(
            f"--base is for a policy, and '{request.name}' has none here",
            hint=layout.inline(f"harden {shell(request.name)} --profile seed") + " gives it one",
        )
    found = engines.render(request.engine, allocation, context)

    if known.interrupted:
        notes = (INTERRUPTED, *notes)
    # Mounts say it of themselves; the other volumes belong to the container, too.
    waiting = [one for one in unmoved(known).values() if one.name == request.name]
    mounted = {one.source for one in requested}
    notes = (*(_to_move(one, layout) for one in waiting if one.path not in mounted), *notes)
    # Nobody knows which volume these runs were at, so they are named for any volume.
    notes = (*("; ".join(told(run, layout)) for run in recorded.runs if run.problem), *notes)
    return replace(found, notes=(*found.notes, *notes))


def _with_policy(
    context: RenderContext,
    policy: Policy,
    chosen: Engine,
    base: str | None = None,
    login: User | None = None,
) -> RenderContext:
    """The context with a policy, and with what its filter has to be laid over.

    ``login`` is the account that runs the engine; None for root.
    """
    from usernsplan.harden.effective import effective  # noqa: PLC0415 - many hosts have no policy

    raw, place = _own_filter(context.layout, chosen, base, login)
    machine, its = os.uname(), effective(policy)
    here = context.layout.is_host and not chosen.elsewhere
    return replace(
        context,
        policy=its,
        own_filter=raw,
        own_filter_place=place,
        machine=machine.machine,
        kernel=machine.release,
        selinux=selinux.mode() if context.layout.is_host else "enforcing",
        unheard=libseccomp.unknown(its.deny) if here else frozenset(),
    )


def _own_filter(
    layout: Layout, chosen: Engine, base: str | None, login: User | None
) -> tuple[bytes | None, str]:
    """An engine's own profile of system calls, and its place; ``base`` is one that the user names."""
    if base is not None:
        path = os.path.abspath(base)
        raw = files.read(
            files.layout_at(os.path.dirname(path), "--base"),
            f"/{os.path.basename(path)}",
            largest=files.LARGEST,
        )
        if raw is None:
            raise InvalidValueError(f"--base {shown_path(base)} does not exist")
        return raw, base
    configs = [*chosen.filter_configs]
    if login is not None:
        home = accounts.home_of(layout, login.uid)
        if not home.startswith("/"):
            # What the account's own configuration names is not known then.
            return None, ""
        configs += [path.format(home=home, uid=login.uid) for path in chosen.login_filter_configs]
    named = chosen.names_filter([*_contents(layout, configs)])
    if named and not named.startswith("/"):
        # Nobody says from which folder on.
        return None, ""
    for path in (os.path.normpath(named),) if named else chosen.own_filters:
        raw = files.read(layout, path, follow=True, largest=files.LARGEST)
        if raw is not None:
            return raw, layout.path(path)
    return None, ""


def _contents(layout: Layout, paths: Iterable[str]) -> Iterator[bytes]:
    """What is in the files of these paths that exist; a * is for any names in a folder."""
    from fnmatch import filter as matching  # noqa: PLC0415 - many hosts have no policy

    for path in paths:
        folder, _, name = path.rpartition("/")
        found = sorted(matching(files.names(layout, folder), name)) if "*" in name else [name]
        for each in found:
            raw = files.read(layout, f"{folder}/{each}", follow=True, largest=files.LARGEST)
            if raw is not None:
                yield raw


def _unwritten(found: Rendered, request: RenderRequest, layout: Layout) -> Iterator[str]:
    """Notes on filters that are not at the places where the engine reads them."""
    from usernsplan.engines.hardened import is_filter  # noqa: PLC0415 - many hosts have no policy

    for file in found.files:
        if not is_filter(file.path):
            continue
        now = files.read(layout, file.path)
        if now != file.content.encode():
            fact = "does not exist" if now is None else "is not the filter of this policy"
            words = ["--out", layout.root, *([] if now is None else ["--replace-files"])]
            write = layout.command(shell("render", *_words(request), *words))
            yield f"{layout.path(file.path)} {fact}; this writes it: {write}"


def _words(request: RenderRequest) -> list[str]:
    """The words of a request whose engine has files."""
    words = [request.engine, request.name]
    words += [word for volume in request.volumes for word in ("--volume", volume)]
    words += ["--rootless"] if request.rootless else []
    for option in ("image", "vmid", "base"):
        value = getattr(request, option)
        words += [] if value is None else [f"--{option}", str(value)]
    return words


def _closed(source: str, account: str) -> str:
    """What keeps an account's Podman from a mount in one of our folders."""
    return (
        f"{shown_path(source)}: {account} cannot enter this folder, which is open to root and to"
        f" the container's root alone; undo the mount, and mount the volume with --at where"
        f" {account} can enter"
    )


def _to_move(volume: Volume, layout: Layout) -> str:
    """What has to be done before a container starts with a map that a volume does not have yet."""
    first = f"before the container starts with this map, run: {finishing(volume, layout)}"
    return f"{shown_path(volume.path)}: {NOT_MOVED}; {first}"


def table(root: str = "/", name: str = "") -> list[tuple[str, list[Support]]]:
    """What each engine can do, for the allocation of this name or for each default strategy."""
    layout = files.layout_at(root)
    ledger = open_ledger(layout)
    known = ledger.state()
    if name:
        return [(name, [*_supported(allocation_of(known, name), layout, ledger)])]

    usual = (Shared(), SingleUid(), PerContainer())
    asked = [
        Allocation(it.name, owner_of(it.name), it.name, it.mapping(base), held)
        for it in usual
        for base in (it.pool.start if it.pool else POOL_START,)
        for held in (IdRange(base, it.need.count) if it.need else None,)
    ]
    return [
        (a.name, [Support(engine, engines.verdict(engine, a)) for engine in engines.ENGINES])
        for a in asked
    ]


def _supported(allocation: Allocation, layout: Layout, ledger: Ledger) -> Iterator[Support]:
    """What each engine makes of an allocation, and of its policy if it has one."""
    state = read.previewed(layout, ledger.state) if allocation.policy else None
    for name in engines.ENGINES:
        verdict = engines.verdict(name, allocation)
        if not (allocation.policy and verdict.can):
            yield Support(name, verdict)
            continue
        chosen = engines.engine(name)
        # Of a bundle, the question is what can be done with one, not with a fragment.
        bundle = "{}" if "bundle" in chosen.takes else None
        context = RenderContext(state=state, bundle=bundle, layout=layout)
        context = _with_policy(context, allocation.policy, chosen)
        if context.policy:
            parts = engines.parts(name, context.policy, allocation, context)
            yield Support(name, verdict, parts)


def delivered(
    request: RenderRequest,
    root: str = "/",
    *,
    out: str | None = None,
    replace_files: bool = False,
    preview: bool = False,
) -> tuple[Rendered, tuple[Change, ...]]:
    """Render, and write the files below ``out`` or patch the bundle; return what that changed.

    With ``preview`` nothing is written. Lines of subuid and subgid are never written here: allocate
    grants them, and notes name those that are missing. Raises what ``rendering`` raises,
    LockBusyError, and RefusedError for a file that would lose something, unless ``replace_files``
    permits it.
    """
    where, option = (out, "--out") if request.bundle is None else (request.bundle, "--bundle")
    layout = files.layout_at(where or "", option)
    output.refuse_foreign_links(layout, (SUBUID if request.bundle is None else _CONFIG,))

    with nullcontext() if preview else _alone(layout):
        rendered = _rendering(request, root)
        if request.bundle is None:
            output.refuse_foreign_links(layout, (file.path for file in rendered.files))
            now = {file.path: files.read(layout, file.path) for file in rendered.files}
            changes = placing.placed(rendered, now, layout, replace=replace_files)
            rendered = replace(
                rendered, notes=(*rendered.notes, *placing.lacking(rendered, now, layout))
            )
        else:
            before, after = _config(layout).encode(), rendered.text.encode()
            changes = (Change(_CONFIG, before, after),) if before != after else ()
        if not preview:
            files.write(layout, {change.path: change.after for change in changes})
    return rendered, changes


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Keep other renderings out of a folder; if it is a host, also others, with shadow's locks."""
    with ExitStack() as stack:
        missing = [layout.real]
        while not os.path.isdir(missing[-1]):
            missing.append(os.path.dirname(missing[-1]))
        # The lock needs the folders. Those that stay empty are removed again.
        stack.callback(_remove_empty, missing[:-1])
        stack.enter_context(locks.folder_lock(layout))
        if files.read(layout, SUBUID) is not None:
            stack.enter_context(locks.subid_locks(layout))
        yield


def _remove_empty(folders: Iterable[str]) -> None:
    with suppress(OSError):
        for folder in folders:
            os.rmdir(folder)


def _config(layout: Layout) -> str:
    raw = files.read(layout, _CONFIG, largest=files.LARGEST)
    if raw is None:
        raise InvalidValueError(
            f"{layout.path(_CONFIG)} does not exist",
            hint="--bundle takes the folder of an OCI bundle",
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidFileError(layout.path(_CONFIG), "not UTF-8") from error


def _owner_of(layout: Layout, path: str) -> int | None:
    """The host uid of a folder or a file; None if it does not exist yet."""
    found = _seen(layout, path)
    return None if found is None else found.st_uid


def _is_folder(layout: Layout, path: str) -> bool:
    """Whether a path is a folder. One that does not exist yet counts as a folder."""
    found = _seen(layout, path)
    return found is None or stat.S_ISDIR(found.st_mode)


def _seen(layout: Layout, path: str) -> os.stat_result | None:
    try:
        return files.look(layout, files.name_below(layout, path))
    except OSError:
        return None


def _stands(
    layout: Layout, now: Mapping[str, standing.Standing], mount: VolumeMount, rest: str
) -> bool:
    """Whether a mount shows this part of its source, with its map."""
    found, place = now.get(layout.place(mount.at)), layout.place(mount.at + rest)
    if found is None or not found.shows(mount.mapping):
        return False
    with suppress(OSError):
        try:
            seen = os.lstat(layout.place(mount.source + rest))
        except FileNotFoundError:
            # What is not there yet is made in the volume that the mount shows.
            return bool(rest) and _stands(layout, now, mount, "")
        return standing.is_same(place, seen)
    return False


def _refuse_half_way(layout: Layout, volume: VolumeRequest, runs: Iterable[UnfinishedRun]) -> None:
    """Raise RefusedError for a volume that an interrupted run left half-way.

    Some of its files have the old owners, others the new ones.
    """
    run = half_way(layout.real.rstrip("/") + files.name_below(layout, volume.source), runs)
    if run:
        fact, remedy = told(run, layout)
        raise RefusedError(f"--volume {volume.source}: {fact}", hint=remedy)


def _why_no_idmap(layout: Layout, path: str) -> str:
    if not layout.is_host:
        return "the kernel of this machine cannot answer for another root"
    if trial.inside(os.path.realpath(path), all_mounts()):
        return "something is mounted in it"
    failed = trial.of_path(os.path.realpath(path))
    return why_not(failed).fact if failed else ""
