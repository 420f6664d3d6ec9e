"""Rules about the kubelet: whether it starts, and which ids it gives to pods.

The source is getKubeletMappings in pkg/kubelet/kubelet_pods.go of Kubernetes, and MakeUserNsManager
in pkg/kubelet/userns/userns_manager.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.escape import shell
from usernsplan.formats.subid import PATHS
from usernsplan.layout import KUBELET_CONFIG, LEDGER, PASSWD, SUBUID
from usernsplan.mapping import KINDS
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.formats.subid import Grant
    from usernsplan.mapping import Kind

_KUBELET = "kubelet"
_ENGINE = "kubernetes"
_ALL = f"{SLOT}-{2**32 - 1}"


@rule("USN026", "error")
def kubelet_refuses(facts: Facts) -> Iterator[Seen]:
    """The kubelet does not start with its lines.

    The kubelet asks getsubids for its user's lines. It requires exactly one line, the same in
    both files. Start and count have to be multiples of 65536, and at least 65536: every pod
    gets 65536 ids, and no pod may get the host's. If its configuration sets
    userNamespaces.idsPerPod, that number takes the place of 65536.

        kubelet:100000:65536            100000 is not a multiple of 65536

    Remove the line. Then run
    'usernsplan allocate --strategy per-container --engine kubernetes --pods 110', which makes
    a line that the kubelet accepts.
    """
    given = {kind: facts.grants_of(_KUBELET, kind) for kind in KINDS}
    fact = _refused(facts, given)
    if fact:
        kind = next((kind for kind in KINDS if given[kind]), None)
        place = facts.place(PATHS[kind], given[kind][0].number) if kind else facts.place(SUBUID)
        makes = f"{facts.state.layout.inline(_allocate())} makes one"
        yield Seen(
            place,
            f"the kubelet refuses its line: {fact}" if kind else f"the kubelet: {fact}",
            f"remove it; {makes}" if kind else makes,
        )


def _allocate() -> str:
    return f"allocate --strategy per-container --engine {_ENGINE}"


def _refused(facts: Facts, given: dict[Kind, list[Grant]]) -> str:
    """Why the kubelet does not start with these lines; "" if it does, or does not read them."""
    each, place = facts.state.kubelet.ids_per_pod, facts.state.kubelet.place
    if not any(given.values()):
        is_asked = _is_installed(facts) and _is_account(facts)
        return f"its account has no line, so {_KUBELET} does not start" if is_asked else ""
    if any(len(lines) != 1 for lines in given.values()):
        uids, gids = (len(given[kind]) for kind in KINDS)
        return f"it requires one line in each file, and there are {uids} and {gids}"
    [line], [other] = (given[kind] for kind in KINDS)
    if (line.start, line.stop) != (other.start, other.stop):
        return "its lines in subuid and in subgid differ"
    count = line.stop - line.start
    source = f" (userNamespaces.idsPerPod in {place})" if place else ""
    if line.start % each or count % each:
        return f"start {line.start} and count {count} have to be multiples of {each}{source}"
    if line.start < each or count < each:
        return f"start and count have to be {each} or more{source}"
    return ""


def _is_installed(facts: Facts) -> bool:
    return _ENGINE in facts.state.engines


def _is_account(facts: Facts) -> bool:
    return facts.state.accounts.user(_KUBELET) is not None


def _is_no_account(facts: Facts) -> bool:
    """Tell whether certainly no account has the name: below another root that may be unknown."""
    return not _is_account(facts) and facts.is_nobody(_KUBELET)


@rule("USN027", "warning")
def kubelet_is_short(facts: Facts) -> Iterator[Seen]:
    """The kubelet's line is too short for its number of pods.

    A kubelet runs up to maxPods pods, by default 110. It does not start if its line has too few
    ids for them: 65536 for each, or userNamespaces.idsPerPod if its configuration sets it.

        kubelet:589824:655360           10 pods

    In the kubelet's configuration, set maxPods to the number for which the line has room. Or
    give it a longer line.
    """
    kubelet = facts.state.kubelet
    for line in facts.grants_of(_KUBELET, "uid")[:1]:
        pods = (line.stop - line.start) // kubelet.ids_per_pod
        if 0 < pods < kubelet.max_pods:
            yield Seen(
                facts.place(SUBUID, line.number),
                f"the kubelet's line has room for {pods} pods of {kubelet.ids_per_pod} ids, but it "
                f"runs up to {kubelet.max_pods}",
                f"set its maxPods to {pods} or less",
            )


@rule("USN096", "error")
def kubelet_ignores_its_line(facts: Facts) -> Iterator[Seen]:
    """The kubelet ignores its line, because there is no account kubelet.

    The kubelet reads lines only for an account that exists. Without the account it takes every
    id from 65536 on, up to the last, for pods that have a user namespace (hostUsers: false).
    Pods then get the ids of other containers and of people.

    The line was written by hand or copied from another host, or the account was removed.

        kubelet:1048576:8388608         in subuid; passwd has no kubelet

    Create the account, without a shell and with a group of its own. allocate with --engine
    kubernetes does so for its own line.
    """
    for kind, path in PATHS.items():
        lines = facts.grants_of(_KUBELET, kind)
        if lines and _is_no_account(facts):
            words = ("useradd", "--system", "--user-group", "--no-create-home", _KUBELET)
            command = shell(*facts.state.layout.account_command(words))
            yield Seen(
                facts.place(path, lines[0].number),
                f"no account has the name {_KUBELET}: the kubelet ignores the line and gives pods "
                f"any of {_ALL}",
                f"create the account, then restart the kubelet: {command}",
            )
            return


@rule("USN097", "error")
def kubelet_lacks_getsubids(facts: Facts) -> Iterator[Seen]:
    """The kubelet does not start, because getsubids is missing.

    If there is an account kubelet, the kubelet runs the program getsubids to read its line. If
    the program is missing, the kubelet ends with an error.

        kubelet:1048576:8388608         in subuid
        kubelet:x:997:997:…             in passwd, and no getsubids

    Install getsubids: it is in the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora). Or
    remove the account, and pods get any ids (USN096, USN098).
    """
    has_line = any(facts.grants_of(_KUBELET, kind) for kind in KINDS)
    is_asked = _is_account(facts) and (has_line or _is_installed(facts))
    if is_asked and not facts.state.kubelet.has_getsubids:
        yield Seen(
            facts.place(PASSWD),
            f"the account {_KUBELET} exists, but the program getsubids does not: the kubelet does "
            "not start",
            "install the package with getsubids: uidmap (Debian, Ubuntu) or shadow-utils (Fedora)",
        )


@rule("USN098", "warning")
def kubelet_has_no_line(facts: Facts) -> Iterator[Seen]:
    """The kubelet has no line: any pod may get the ids of a container.

    A kubelet without an account and a line gives pods with a user namespace (hostUsers: false)
    any ids from 65536 on. It does not look at subuid or at running containers, so a pod can
    get the range of one of our allocations.

        usr/bin/kubelet                 installed, and subuid has no line of kubelet
        usernsplan-web:589824:65536     the ninth pod may get 589824-655359

    Give it a range of its own: usernsplan allocate --strategy per-container --engine kubernetes.
    Hosts on which no pod sets hostUsers: false are not affected.
    """
    has_line = any(facts.grants_of(_KUBELET, kind) for kind in KINDS)
    held = [f"'{a.name}'" for a in facts.state.ledger.allocations if a.reserved_range]
    if held and _is_installed(facts) and not has_line and _is_no_account(facts):
        yield Seen(
            facts.place(LEDGER),
            f"the kubelet has no line of its own, and may give pods any of {_ALL}: also the ids of "
            f"{listed(held)}",
            f"{facts.state.layout.inline(_allocate())} gives it a range",
        )


@rule("USN099", "warning")
def kubelets_configuration_is_unknown(facts: Facts) -> Iterator[Seen]:
    """The kubelet's configuration cannot be read.

    Its configuration says how many ids each pod gets (userNamespaces.idsPerPod) and how many
    pods run (maxPods). Without it, the rules about the kubelet's line use 65536 and 110. The
    kubelet may have other numbers, or may not start with the file either.

        userNamespaces:
          idsPerPod: 100000             not a multiple of 65536

    Correct the file.
    """
    if facts.state.kubelet.problem:
        yield Seen(
            facts.place(KUBELET_CONFIG),
            f"the number of ids of each pod is unknown: {facts.state.kubelet.problem}",
            facts.state.kubelet.hint or "correct the file, and restart the kubelet",
        )
