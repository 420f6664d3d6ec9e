"""What allocate, release and check --fix tell by themselves: each code with its severity, title and story.

Those of the rules of ``check`` stand in the rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from usernsplan.model import Finding

if TYPE_CHECKING:
    from usernsplan.model import Severity


class Story(NamedTuple):
    """A finding's code, how bad it is, what it is about, and the whole of it."""

    code: str
    severity: Severity
    title: str
    story: str


_STORIES = (
    Story(
        "USN101",
        "warning",
        "DOCKERROOT is somebody on this host",
        """\
With the strategy 'shared', container root is the host id that --dockerroot names. That id is an account, a group, or
lies in a range that a line gives to somebody: root of every container owns what he owns.

    usernsplan allocate --strategy shared --dockerroot 33       and www-data is 33

The default, 2, is 'bin' or 'daemon' on most distributions, which owns nothing there. '--dockerroot auto' takes
the first id that nobody has; 'check' tells of an account that gets it later (USN018).""",
    ),
    Story(
        "USN102",
        "warning",
        "A shared map lets somebody become others",
        """\
An identity map makes container root the host's root for files and sockets. And where the owner of a shared map's lines
is an account, whoever is logged in as it may map the host's ids with newuidmap, and so become their owners.

    usernsplan allocate --strategy shared web --owner alice     alice becomes every user above DOCKERROOT

Grant a shared map to an owner that is nobody's login, which is the default. See USN006 and USN007.""",
    ),
    Story(
        "USN103",
        "warning",
        "Docker's map depends on the order of the lines",
        """\
Docker lays the lines of its user end to end in the order of the file. With the strategy 'shared' the filler stands in
the middle, with a higher start than the line behind it, and useradd sorts the file when it gives out a range.

    dockremap:2:1
    dockremap:524288:2
    dockremap:3:65533       useradd would put this second

Run the same words, or 'usernsplan check --fix', after a useradd: they put them back. See USN046, USN051.""",
    ),
    Story(
        "USN104",
        "warning",
        "The map leaves nobody out",
        """\
An allocation of fewer than 65536 ids does not map 65534, nobody. Images with files of nobody or nogroup cannot be
unpacked into it.

    usernsplan allocate --strategy per-container web --size 1000

The default --size 65536 has it. See USN024.""",
    ),
    Story(
        "USN105",
        "warning",
        "Not all accounts can be seen from here",
        """\
nsswitch.conf takes accounts from a directory service too (SSSD, winbind, LDAP), which does not list them all. A range
that looks free may hold an id that the service gives to a person.

    passwd: files sss       SSSD maps Active Directory to 200000-2000200000 by default

Compare with the service's range and keep out of it with --pool FIRST-LAST. See USN011.""",
    ),
    Story(
        "USN106",
        "warning",
        "Docker hides what it has",
        """\
A Docker daemon with userns-remap keeps everything in a folder of its own, named after the host ids of container root.
Images and containers from before are not lost, and not moved: they are in the other folder.

    /var/lib/docker                     before
    /var/lib/docker/524288.524288       from the next start on

Where there are any, allocate asks first, and a script says --yes. Push or save what is needed before the restart.
Taking userns-remap out brings the old ones back.""",
    ),
    Story(
        "USN107",
        "warning",
        "An account that is needed cannot be made here",
        """\
Docker's remap user, and the kubelet's, have to be accounts with a group of the same name. useradd or groupadd is not
there, or not root runs usernsplan, so the file that would name the account was left alone.

    useradd --system --user-group … dockremap

Run the command that is shown, then the same words again. The exit status is 3 until then.""",
    ),
    Story(
        "USN108",
        "warning",
        "A line that readers understand differently",
        """\
The file has a line that not every reader takes for the same. It is kept as it is, and all ids that some reader takes it
for count as taken.

    alice:0x186a0:65536     shadow reads 100000, others something else or nothing

'usernsplan check' shows what each reader makes of it: see USN030 and USN031.""",
    ),
    Story(
        "USN109",
        "warning",
        "Lines of an allocation were lost or sorted, and are put back",
        """\
The ledger knows which lines an allocation has, and they did not stand like that. useradd sorts the file, which changes
Docker's map; editors and configuration tools take lines out.

    dockremap:2:1
    dockremap:3:65533       sorted
    dockremap:524288:2

They were put back as they were granted. After a change of order Docker has to be restarted. See USN050 and USN051.""",
    ),
    Story(
        "USN110",
        "warning",
        "Lines that were to be released were gone already",
        """\
release found fewer lines than were granted. What was there went; the range is quarantined all the same.

    userdel dockremap       takes the lines of the account too

Nothing has to be done.""",
    ),
    Story(
        "USN111",
        "warning",
        "A line of a released owner stays",
        """\
The owner has a line that usernsplan did not write, and what others wrote is not taken out. Nor is one that stood before
and was adopted (allocate --start): alice's Podman needs it as before.

    usernsplan-web:700000:65536     somebody added it
    alice:100000:65536              useradd made it, 'allocate alice --owner alice --start 100000' adopted it

Of an allocation that an older version made, only lines stay that its history does not show to be written. Take it out
by hand if nobody needs it; 'usernsplan release NAME --with-lines' takes adopted ones out with the allocation.""",
    ),
    Story(
        "USN112",
        "warning",
        "login.defs has a number that cannot be read",
        """\
SUB_UID_MIN, SUB_UID_MAX, SUB_UID_COUNT or one of their like is no number to shadow: useradd fails or takes a default.
It does not matter to words that say --pool.

    SUB_UID_MAX 600_100_000

Correct the line. See USN063.""",
    ),
    Story(
        "USN113",
        "info",
        "A shared map past 65535 is kept in the ledger only",
        """\
A line such as 3:4294967292 leaves no room in the file for any other range, and every later useradd fails. So it is not
written to subuid and subgid; Podman and OCI runtimes, run by root, need no line.

    usernsplan allocate --strategy shared web --max 4294967294

'usernsplan render podman web' and 'render oci web' print the map.""",
    ),
    Story(
        "USN114",
        "warning",
        "A run was interrupted, and is mended",
        """\
A run was killed between its first file and its last. What it was about to do is in the ledger: the next run completes
it where all its lines stand, and otherwise puts back what it had done.

    usernsplan allocate … &  kill -9 $!

Nothing has to be done. 'usernsplan history' tells what became of it. See USN054.""",
    ),
    Story(
        "USN115",
        "info",
        "An account was made",
        """\
Docker's remap user and the kubelet's user have to be accounts with a group of the same name. They were missing, and
useradd or groupadd made them: without a home, without a shell, without a range of its own.

    useradd --system --user-group --no-create-home … dockremap

release leaves them: userdel removes them when no daemon needs them any more.""",
    ),
    Story(
        "USN116",
        "warning",
        "Docker cannot mount /dev/pts by this map",
        """\
Docker mounts a container's /dev/pts with gid=5, the group tty, and the kernel refuses a gid that is not mapped: no
container starts.

    usernsplan allocate --strategy single-uid       maps container id 0 alone

'docker run --tmpfs /dev/pts …' starts. Podman and OCI runtimes need nothing of the kind.""",
    ),
    Story(
        "USN117",
        "warning",
        "daemon.json cannot be read while something is released",
        """\
Whether Docker still uses the allocation cannot be told, because its configuration is no JSON. No daemon starts from
such a file, and it does not name userns-remap, so the release goes on.

    { "debug": true, }

Correct the file. See USN040.""",
    ),
    Story(
        "USN118",
        "warning",
        "The owner is no account",
        """\
--owner names somebody who has no account. Whoever gets an account of that name inherits the range, and may map it with
newuidmap.

    usernsplan allocate --strategy per-container web --owner carl       and there is no carl yet

Make the account now, or release the allocation and make it without --owner. See USN020.""",
    ),
    Story(
        "USN119",
        "info",
        "Lines of root serve LXC, and whoever takes root's lines",
        """\
newuidmap asks for a line even of root, so LXC's containers need one of root's. LXD and Incus give ids to their own
containers out of root's lines, ours included.

    root:524288:65536       for LXC; Incus, where it runs, takes it too

Where one of them runs, root's first line has to be a range of its own. See USN123.""",
    ),
    Story(
        "USN120",
        "warning",
        "An engine cannot express the allocation",
        """\
The engine that was named with --engine cannot make this map, so nothing was granted for it. Docker cannot skip ids,
nspawn has one range from container id 0 only, LXC's lines are for containers with a name.

    usernsplan allocate --strategy single-uid web --engine nspawn

'usernsplan render --list NAME' shows which engines can.""",
    ),
    Story(
        "USN121",
        "info",
        "Nothing was granted to root because LXD or Incus is here",
        """\
These take ids for their containers out of root's lines. A container's range among them would be handed out to others,
so root got no lines for LXC.

    incusd is installed

For a container of LXC, LXD or Incus say so: --engine lxc, --engine incus.""",
    ),
    Story(
        "USN122",
        "info",
        "daemon.json was left alone because Docker is not here",
        """\
allocate without a name makes Docker's own allocation, but dockerd is not installed and other engines are.

    podman is installed, dockerd is not

--engine docker has the file written all the same.""",
    ),
    Story(
        "USN123",
        "warning",
        "LXD or Incus would give out a container's range",
        """\
LXD and Incus take root's first line of 65536 ids or more for all containers that are not isolated. That line is one of
ours, in the file as it is or once useradd has sorted it.

    root:524288:65536       granted for one container

Put a line such as root:100000:65536 before the others, in subgid too, and restart the daemon.""",
    ),
    Story(
        "USN124",
        "warning",
        "A pool of an engine that is installed could not be made",
        """\
The kubelet is installed, and wants a line of its own; something stood in the way. What was asked for by name is done.

    no room for 110 times 65536 ids in the pool

--engine kubernetes asks for it alone and says what stands in the way.""",
    ),
    Story(
        "USN125",
        "warning",
        "The account of a released Docker daemon stays",
        """\
A Docker daemon of its own (docker-instance) has an account of the container's name. Its lines are gone, so the daemon
does not start again.

    usernsplan release web      the account usernsplan-web stays

Stop docker-web, then userdel the account.""",
    ),
    Story(
        "USN126",
        "warning",
        "check --fix leaves something as it is",
        """\
Lines of an allocation are missing or sorted, and cannot simply be put back: their owner has other lines as well, which
readers would join to them, or somebody else has the range by now.

    usernsplan-web:524288:65536     lost
    alice:524288:65536              given out since

Take the other line out, and run it again; or release the allocation, allocate it anew and shift its files. See USN002
and USN052.""",
    ),
    Story(
        "USN127",
        "warning",
        "A plan file reserves ids that somebody has",
        """\
A reservation keeps ids out of every pool, because somebody outside of this host has them. Where a line or an account of
this host has some of them, they are two's already, and a reservation cannot take them back.

    reservations: [{ids: 700000-765535, for: the NFS server}]
    alice:700000:65536              in subuid

Give that owner another range, and shift the files of his containers.""",
    ),
    Story(
        "USN131",
        "info",
        "A name has its former range again",
        """\
A name that is allocated again by the same words (strategy, size, owner) has the range again that it had until it was
released: its files and volumes carry those ids.

    usernsplan release web
    usernsplan allocate --strategy per-container web     524288-589823 again

It does not where somebody else has some of the ids by now (USN132), or once it was forgotten.""",
    ),
    Story(
        "USN132",
        "warning",
        "A name does not have its former range again",
        """\
A name was released and is allocated again, and has other ids than before: it was asked for by other words, or somebody
else has some of its former ids. Its files carry the former ones, which nobody maps now.

    usernsplan release web          524288-589823 is quarantined
    bob:550000:65536                in subuid since

'usernsplan find-owned 524288-589823 /' lists the files. fix-volume with --container web --from web gives them the new
ids.""",
    ),
    Story(
        "USN133",
        "info",
        "The volumes of what was released stay as they are",
        """\
Nothing is done to the volumes of a container that is released: their files carry its ids, and its range is quarantined.

    usernsplan release web          /srv/web still belongs to 524288

Allocated again by the same words, the container has its range and its volumes again. For another container:
'usernsplan fix-volume DIR --container NEW --from web'. Or remove them, and then 'usernsplan release --forget web'.""",
    ),
    Story(
        "USN134",
        "warning",
        "A range was forgotten, and not all was looked at",
        """\
'release --forget' looks at the volumes in the ledger and at --scan DIR for files that carry the ids. A volume was not
there, something is mounted in it, it could not be read, or a process still has the ids; --unseen allowed that.

    not looked at: /srv/web: the volume of 'web' is not there: removed, or not mounted

Where such files come back, the next container that gets the ids owns them: 'usernsplan find-owned FIRST-LAST DIR'.""",
    ),
    Story(
        "USN135",
        "warning",
        "What runs has ids of a range that comes back",
        """\
A name has the range again that it had until it was released, and a running user namespace maps ids of it. Mostly that
is the very container, which was never stopped.

    usernsplan release web; usernsplan allocate --strategy per-container web

If it is another program that chose these ids by itself, such as systemd-nspawn -U, stop it before the container
starts. 'usernsplan inspect --all' shows what runs.""",
    ),
)
ADVICE: dict[str, Story] = {story.code: story for story in _STORIES}


def advise(code: str, message: str, hint: str = "") -> Finding:
    """A finding of this code, which is in ADVICE: what the user should know here, and the remedy."""
    return Finding(code, ADVICE[code].severity, message, hint)
