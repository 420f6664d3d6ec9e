"""Docker: one mapping for the whole daemon. It lays a user's lines of subuid and subgid end to end.

https://docs.docker.com/engine/security/userns-remap/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import hardened
from usernsplan.engines.base import (
    EXACTLY,
    TTY,
    Engine,
    File,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    allocate_again,
    nearly,
    no,
    plain,
    subid_files,
    ungranted,
)
from usernsplan.errors import InvalidValueError
from usernsplan.escape import shell
from usernsplan.formats import daemon_json
from usernsplan.holdings import is_seen_as_account
from usernsplan.layout import DAEMON_JSON
from usernsplan.mapping import KINDS
from usernsplan.model import DEFAULT_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.harden.effective import Effective
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation, Mount

NO_FILTER = (
    "its own profile is compiled into dockerd, and a file would replace it; --base FILE has it"
)
SELINUX = "selinux-enabled"


class OfDaemon(Engine):
    """What the engines of the host's dockerd share: where its own profile of system calls is."""

    filter_configs = (DAEMON_JSON,)

    def names_filter(self, contents: Sequence[bytes]) -> str:
        """Only daemon.json can name a file; without, the profile is in the program."""
        [raw] = contents or (b"",)
        named = daemon_json.parse(raw, DAEMON_JSON).get("seccomp-profile") or ""
        # A newer dockerd takes these two words.
        return "" if named in {"builtin", "unconfined"} else named


class Docker(OfDaemon):
    """The host's daemon.json, with userns-remap and no-new-privileges added."""

    reads_host = True
    takes = frozenset({"volume"})

    def verdict(self, allocation: Allocation) -> Verdict:
        """Only a map that is in subuid and has no gap from container id 0 on."""
        return can_lay(allocation)

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """The host's daemon.json with userns-remap set; a value of no-new-privileges stays."""
        if context.state is None:
            raise InvalidValueError("Docker's daemon.json depends on the host, but none was read")

        config = daemon_json.parse(
            context.state.daemon_json or b"", context.state.layout.path(DAEMON_JSON)
        )
        text = daemon_json.with_remap(config, allocation.owner)
        if not config.has(daemon_json.NO_NEW_PRIVILEGES):
            text = daemon_json.with_value(
                daemon_json.parse(text, ""), daemon_json.NO_NEW_PRIVILEGES, value=True
            )

        # An allocation without a name is Docker's, and allocate sets userns-remap for it.
        option = ("--engine", "docker")
        if allocation.name != DEFAULT_NAME:
            option = ("--daemon", shell(allocation.name))
        notes = needs(allocation, context, *option)
        if (replaced := config.get(daemon_json.REMAP)) not in {None, allocation.owner}:
            notes += (
                (
                    f'this replaces "userns-remap": "{replaced}"; Docker then hides the images and '
                    f"containers of {replaced}"
                ),
            )

        its = Hardening({})
        if context.policy:
            its = self.hardening(context.policy, allocation, context)
        return Rendered(
            text.decode().removesuffix("\n"),
            (File(DAEMON_JSON, text.decode()), *subid_files(allocation), *its.files),
            (*notes, *run_with("docker run", context.mounts, its.words), *its.notes),
        )

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Options of docker run: the daemon's configuration is for the containers of others, too."""
        filter_, others = hardened.filter_file(policy, allocation, context, unknown=NO_FILTER)
        if not _labels(context):
            others["label"] = no(
                f'dockerd labels nothing unless its daemon.json has "{SELINUX}": true'
            )
        # The daemon's own value counts where an option is missing.
        own = ["no-new-privileges=false"] if policy.new_privileges else ["no-new-privileges"]
        opts = (*own, *hardened.filter_and_label(policy, filter_))
        return Hardening(
            hardened.verdicts(policy, others),
            (*hardened.capability_flags(policy), *hardened.as_flags(opts)),
            (filter_,) if filter_ else (),
            hardened.as_another_user(policy),
        )


def can_lay(allocation: Allocation) -> Verdict:
    """Whether Docker can make this map from lines of subuid and subgid."""
    if allocation.within:
        return no(
            "it takes all lines of its user as one map, and this is a slice of those of "
            f"{allocation.within}"
        )
    if why := ungranted(allocation):
        return no(f"it takes its map from subuid, but {why}")
    if not (allocation.mapping.uids.is_end_to_end() and allocation.mapping.gids.is_end_to_end()):
        return no("it lays ranges end to end from container id 0, so it cannot skip ids")
    if allocation.owner in {"root", "default"}:
        return no(
            f'"userns-remap": "{allocation.owner}" does not mean the user of that name to Docker'
        )
    if allocation.mapping.gids.to_host(TTY) is None:
        return nearly(
            f"containers start only with --tmpfs /dev/pts: Docker mounts /dev/pts for gid {TTY}, "
            "which is not mapped"
        )
    return EXACTLY


def needs(allocation: Allocation, context: RenderContext, *option: str) -> tuple[str, ...]:
    """What the host still lacks before a daemon with this remap starts.

    ``option`` is what the command that made the allocation needs so that it makes the rest too.
    """
    notes = []
    state = context.state
    if state is None or not (
        is_seen_as_account(state, allocation.owner)
        or (state.accounts.user(allocation.owner) and state.accounts.group(allocation.owner))
    ):
        notes.append(
            f"Docker starts only if {allocation.owner} is an account with a group of that name; "
            "this makes both: " + allocate_again(allocation, context.layout, *option)
        )
    if allocation.mapping.gids.to_host(TTY) is None:
        notes.append(
            f"Docker mounts /dev/pts for gid {TTY}, which is not mapped; start containers with "
            "--tmpfs /dev/pts"
        )
    if any(_is_sorted_apart(allocation, kind) for kind in KINDS):
        check = context.layout.inline("check --fix")
        notes.append(
            f"Docker lays the lines of {allocation.owner} in the order of the file, and the next "
            f"useradd that grants a range sorts them; {check} restores the order"
        )
    return tuple(notes)


def _is_sorted_apart(allocation: Allocation, kind: Kind) -> bool:
    """Tell whether lines that are sorted by their start are another map."""
    starts = [extent.host for extent in allocation.mapping[kind]]
    return starts != sorted(starts)


def run_with(
    command: str, mounts: tuple[Mount, ...], policy: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The options of each container: a daemon's configuration has no volumes and no capabilities."""
    volumes = [
        f"-v {plain(m.source)}:{plain(m.destination)}" + (":ro" if m.read_only else "")
        for m in mounts
    ]
    told = (("volumes are", volumes), ("the policy is", policy))
    return tuple(
        f"{what} options of each container: {command} {' '.join(words)} …"
        for what, words in told
        if words
    )


def _labels(context: RenderContext) -> bool:
    """Tell whether the host's daemon.json lets dockerd label processes."""
    if context.state is None:
        return False
    place = context.state.layout.path(DAEMON_JSON)
    config = daemon_json.parse(context.state.daemon_json or b"", place)
    return any(one.key == SELINUX and one.value is True for one in config.members)


ENGINES = {"docker": Docker()}
