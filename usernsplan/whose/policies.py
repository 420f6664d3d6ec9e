"""What a process has beyond the policy of its container, in sentences. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.escape import shell
from usernsplan.harden.effective import effective
from usernsplan.harden.running import beyond
from usernsplan.whose.privileges import Sentence

if TYPE_CHECKING:
    from usernsplan.formats.proc_status import Status
    from usernsplan.layout import Layout
    from usernsplan.model import Allocation


def sentences(status: Status, allocation: Allocation, layout: Layout) -> tuple[Sentence, ...]:
    """The difference between what a process has and what its policy gives it, and what closes it."""
    if allocation.policy is None:
        return ()
    root = allocation.mapping.uids.to_host(0)
    found = tuple(beyond(status, effective(allocation.policy), root))
    whose = f"the policy of '{allocation.name}'"
    if not found:
        text = f"it has no more than {whose} gives it, as far as that can be seen"
        return (Sentence("policy-kept", text),)

    render = layout.inline(f"render --list {shell(allocation.name)}")
    return (
        *(
            Sentence(
                one.code,
                f"beyond {whose}: {one.text}",
                unusual=True,
                capabilities=one.capabilities,
            )
            for one in found
        ),
        Sentence(
            "policy-remedy",
            f"to give it no more than its policy, render it again for its engine ({render} shows "
            "which), and start it again",
        ),
    )
