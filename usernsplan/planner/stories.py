"""The findings of allocate, release and check --fix: each code with severity, title and story.

The rules of ``check`` carry their own stories, in ``audit``. A story says what was found, why it
matters, how it comes about, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from usernsplan.model import Finding

if TYPE_CHECKING:
    from usernsplan.model import Severity


class Story(NamedTuple):
    """The explanation of one code: its severity, its title, and the text of ``check --explain``."""

    code: str
    severity: Severity
    title: str
    story: str


_STORIES = (
    Story(
        "USN101",
        "warning",
        "DOCKERROOT is an account, a group or a granted id of this host",
        """\
With the strategy 'shared', container root is the host id that --dockerroot names. On this host
that id is an account or a group, or lies in a range that a line grants to an owner. Root of every
container owns the files of that account or owner.

    usernsplan allocate --strategy shared --dockerroot 33       33 is www-data

The default, 2, is 'bin' or 'daemon' on most distributions; they own no files there.

Use '--dockerroot auto': it takes the first id that nobody has. 'check' reports an account that
gets the id later (USN018).""",
    ),
    Story(
        "USN102",
        "warning",
        "A shared map lets an account become other users",
        """\
With an identity map, container root is the host's root for files and sockets. If the owner of a
shared map's lines is an account, anyone logged in as that account can map the host's ids with
newuidmap and become the users who have them.

    usernsplan allocate --strategy shared web --owner alice
                                        alice becomes every user above DOCKERROOT

Grant a shared map to an owner that nobody can log in as. That is the default. See USN006 and
USN007.""",
    ),
    Story(
        "USN103",
        "warning",
        "Docker's map depends on the order of the lines",
        """\
Docker lays the lines of its user end to end, in the order of the file. With the strategy 'shared'
the filler is in the middle and starts higher than the line after it. useradd sorts the file when
it grants a range, and that changes the map.

    dockremap:2:1
    dockremap:524288:2
    dockremap:3:65533       useradd moves this line to the second place

Run the same command or 'usernsplan check --fix' after a useradd: both restore the order. See
USN046 and USN051.""",
    ),
    Story(
        "USN104",
        "warning",
        "The map has no nobody",
        """\
An allocation of fewer than 65536 ids does not map 65534, the user nobody. Images that contain
files of nobody or nogroup cannot be unpacked into it.

    usernsplan allocate --strategy per-container web --size 1000

Use the default, --size 65536: it includes nobody. See USN024.""",
    ),
    Story(
        "USN105",
        "warning",
        "Some accounts cannot be seen from this host",
        """\
nsswitch.conf also takes accounts from a directory service (SSSD, winbind, LDAP), and such a
service does not list all of them. A range that looks free may contain the id of a person.

    passwd: files sss       SSSD maps Active Directory to 200000-2000200000 by default

Look up the service's range, and stay outside it with --pool FIRST-LAST. See USN011.""",
    ),
    Story(
        "USN106",
        "warning",
        "Docker hides its present images and containers",
        """\
A Docker daemon with userns-remap keeps everything in a folder of its own, named after the host
ids of container root. Earlier images and containers are neither lost nor moved: they stay in the
other folder.

    /var/lib/docker                     before
    /var/lib/docker/524288.524288       from the next start on

If there are any, allocate asks first; a script answers with --yes. Push or save what you need
before the restart. Removing userns-remap brings the old ones back.""",
    ),
    Story(
        "USN107",
        "warning",
        "A required account could not be created",
        """\
Docker's remap user and the kubelet's user have to be accounts with a group of the same name.
useradd or groupadd is missing, or usernsplan does not run as root. The file that would name the
account was therefore not changed.

    useradd --system --user-group … dockremap

Run the command that is shown, then the same usernsplan command again. Until then the exit status
is 3.""",
    ),
    Story(
        "USN108",
        "warning",
        "Readers understand a line differently",
        """\
Not every reader of the file takes the same range from this line. usernsplan leaves the line as it
is, and counts as taken every id that any reader takes from it.

    alice:0x186a0:65536     shadow reads 100000, others read something else or nothing

'usernsplan check' shows what each reader takes from it. See USN030 and USN031.""",
    ),
    Story(
        "USN109",
        "warning",
        "Lines of an allocation were lost or reordered, and are restored",
        """\
The ledger knows the lines of each allocation; the file had lost some or had them in another
order. useradd sorts the file, which changes Docker's map. Editors and configuration tools remove
lines.

    dockremap:2:1
    dockremap:3:65533       sorted
    dockremap:524288:2

The lines are again as they were granted. If the order had changed, restart Docker. See USN050 and
USN051.""",
    ),
    Story(
        "USN110",
        "warning",
        "Lines to release were already gone",
        """\
release found fewer lines than were granted. It removed those that it found. The range is
quarantined either way.

    userdel dockremap       also removes the lines of the account

You do not have to do anything.""",
    ),
    Story(
        "USN111",
        "warning",
        "A line of a released owner stays",
        """\
The owner has a line that usernsplan did not write; usernsplan does not remove such lines. It also
keeps a line that existed before and was adopted (allocate --start): alice's Podman still needs
hers.

    usernsplan-web:700000:65536     added by another tool
    alice:100000:65536              useradd wrote it, and
                                    'allocate alice --owner alice --start 100000' adopted it

If an older version made the allocation, only the lines stay that its history does not show as
written.

Remove the line by hand if nobody needs it. 'usernsplan release NAME --with-lines' removes adopted
lines together with the allocation.""",
    ),
    Story(
        "USN112",
        "warning",
        "A number in login.defs cannot be read",
        """\
shadow cannot read SUB_UID_MIN, SUB_UID_MAX, SUB_UID_COUNT or one of the SUB_GID keys as a number:
useradd fails or uses a default. A command with --pool is not affected.

    SUB_UID_MAX 600_100_000

Correct the line. See USN063.""",
    ),
    Story(
        "USN113",
        "info",
        "A shared map past 65535 is in the ledger only",
        """\
A line such as 3:4294967292 would leave no room in the file for any other range, and every later
useradd would fail. It is therefore not written to subuid and subgid. Podman and OCI runtimes that
root runs need no line.

    usernsplan allocate --strategy shared web --max 4294967294

'usernsplan render podman web' and 'usernsplan render oci web' print the map.""",
    ),
    Story(
        "USN114",
        "warning",
        "A run was interrupted, and is now finished or put back",
        """\
A run was killed between its first file and its last. The ledger has what it was about to do. The
next run finishes it if all its lines are in the files; otherwise it puts back what was done.

    usernsplan allocate … &  kill -9 $!

You do not have to do anything. 'usernsplan history' shows which of the two happened. See USN054.""",
    ),
    Story(
        "USN115",
        "info",
        "An account was created",
        """\
Docker's remap user and the kubelet's user have to be accounts with a group of the same name. They
were missing, so useradd or groupadd created them: without a home, a shell or a range of their own.

    useradd --system --user-group --no-create-home … dockremap

release does not remove them. Use userdel when no daemon needs them any more.""",
    ),
    Story(
        "USN116",
        "warning",
        "Docker cannot mount /dev/pts with this map",
        """\
Docker mounts a container's /dev/pts with gid=5, the group tty. The kernel refuses a gid that is
not mapped, so no container starts.

    usernsplan allocate --strategy single-uid       maps only container id 0

'docker run --tmpfs /dev/pts …' starts. Podman and OCI runtimes are not affected.""",
    ),
    Story(
        "USN117",
        "warning",
        "release could not read daemon.json",
        """\
Docker's configuration is not valid JSON, so usernsplan cannot tell whether Docker still uses the
allocation. No daemon starts from such a file, and the file does not name userns-remap. The
release therefore goes on.

    { "debug": true, }

Correct the file. See USN040.""",
    ),
    Story(
        "USN118",
        "warning",
        "The owner has no account",
        """\
--owner names an owner who has no account. The next account of that name inherits the range, and
may map it with newuidmap.

    usernsplan allocate --strategy per-container web --owner carl       carl does not exist yet

Create the account now, or release the allocation and allocate it again without --owner. See
USN020.""",
    ),
    Story(
        "USN119",
        "info",
        "Lines of root serve LXC, and every engine that uses root's lines",
        """\
newuidmap requires a line even for root, so LXC's containers need a line of root. LXD and Incus
also take ids for their own containers from root's lines, and that includes ours.

    root:524288:65536       for LXC; if Incus runs here, it uses this line too

If LXD or Incus runs here, root's first line has to be a range of their own. See USN123.""",
    ),
    Story(
        "USN120",
        "warning",
        "An engine cannot express the allocation",
        """\
The engine that --engine names cannot make this map, so it was granted nothing. Docker cannot skip
ids, nspawn has a single range that starts at container id 0, and LXC's lines are for containers
with a name.

    usernsplan allocate --strategy single-uid web --engine nspawn

'usernsplan render --list NAME' shows which engines can.""",
    ),
    Story(
        "USN121",
        "info",
        "Nothing was granted to root because LXD or Incus is installed",
        """\
LXD and Incus take ids for their containers from root's lines. They would give a container's range
in these lines to other containers, so root got no lines for LXC.

    incusd is installed

For a container of LXC, LXD or Incus, add --engine lxc, --engine lxd or --engine incus.""",
    ),
    Story(
        "USN122",
        "info",
        "daemon.json was not changed because Docker is not installed",
        """\
allocate without a name makes Docker's own allocation. But dockerd is not installed, and other
engines are.

    podman is installed, dockerd is not

Add --engine docker to write the file anyway.""",
    ),
    Story(
        "USN123",
        "warning",
        "LXD or Incus would give out a container's range",
        """\
LXD and Incus use root's first line of 65536 ids or more for all containers that are not isolated.
That line is one of ours: in the file as it is, or after useradd has sorted it.

    root:524288:65536       granted for one container

Put a line such as root:100000:65536 before the others, in subgid too, and restart the daemon.""",
    ),
    Story(
        "USN124",
        "warning",
        "The pool of an installed engine could not be created",
        """\
The kubelet is installed and wants a line of its own, but it could not get one. Everything that you
asked for by name is done.

    no room for 110 times 65536 ids in the pool

--engine kubernetes asks for that line alone, and prints the reason.""",
    ),
    Story(
        "USN125",
        "warning",
        "The account of a released Docker daemon stays",
        """\
A separate Docker daemon (docker-instance) has an account with the container's name. Its lines are
gone, so the daemon does not start again.

    usernsplan release web      the account usernsplan-web stays

Stop docker-web, then remove the account with userdel.""",
    ),
    Story(
        "USN126",
        "warning",
        "check --fix cannot restore some lines",
        """\
Lines of an allocation are missing or reordered, and usernsplan cannot simply restore them. Their
owner has other lines too, and readers would join all of them; or another owner has the range now.

    usernsplan-web:524288:65536     lost
    alice:524288:65536              granted since then

Remove the other line and run the command again. Or release the allocation, allocate it again and
shift its files. See USN002 and USN052.""",
    ),
    Story(
        "USN127",
        "warning",
        "A plan file reserves ids that are taken",
        """\
A reservation keeps ids out of every pool, because they are used outside this host. A line or an
account of this host already has some of them. These ids now have two owners; a reservation cannot
take them back.

    reservations: [{ids: 700000-765535, for: the NFS server}]
    alice:700000:65536              in subuid

Give that owner another range, and shift the files of its containers.""",
    ),
    Story(
        "USN131",
        "info",
        "A name gets its former range again",
        """\
You allocated a released name again with the same strategy, size and owner. It gets the range that
it had until its release, because its files and volumes still carry those ids.

    usernsplan release web
    usernsplan allocate --strategy per-container web     524288-589823 again

It gets another range if some of the ids now have another owner (USN132), or if the range was
forgotten.""",
    ),
    Story(
        "USN132",
        "warning",
        "A name does not get its former range again",
        """\
You allocated a released name again, and it has other ids than before: the strategy, size or owner
differs, or some of its former ids now have another owner. Its files still carry the former ids,
and nothing maps those now.

    usernsplan release web          524288-589823 is quarantined
    bob:550000:65536                added to subuid since then

'usernsplan find-owned 524288-589823 /' lists the files.
'usernsplan fix-volume DIR --container web --from web' gives them the new ids.""",
    ),
    Story(
        "USN133",
        "info",
        "The volumes of a released container stay as they are",
        """\
release does not touch the container's volumes: their files keep its ids, and its range is
quarantined.

    usernsplan release web          /srv/web still belongs to 524288

If you allocate the container again with the same strategy, size and owner, it gets its range and
its volumes again. To give a volume to another container, run
'usernsplan fix-volume DIR --container NEW --from web'. Or delete the volumes, and then run
'usernsplan release --forget web'.""",
    ),
    Story(
        "USN134",
        "warning",
        "A range was forgotten although not everything was searched",
        """\
'release --forget' searches the volumes in the ledger and each --scan DIR for files that carry the
ids. A volume was missing or could not be read, something is mounted in it, or a process still has
the ids. --unseen allowed it to go on.

    not looked at: /srv/web: the volume of 'web' is not there: removed, or not mounted

If such files come back, the next container that gets the ids owns them. Find them with
'usernsplan find-owned FIRST-LAST DIR'.""",
    ),
    Story(
        "USN135",
        "warning",
        "Running processes have ids of a range that is allocated again",
        """\
A name gets its former range again, and a running user namespace maps ids of that range. Usually
it belongs to the same container, which was never stopped.

    usernsplan release web; usernsplan allocate --strategy per-container web

Another program may have chosen these ids on its own, for example systemd-nspawn -U. If so, stop
it before the container starts. 'usernsplan inspect --all' shows what runs.""",
    ),
)
ADVICE: dict[str, Story] = {story.code: story for story in _STORIES}


def advise(code: str, message: str, hint: str = "") -> Finding:
    """A finding with a code of ADVICE: what happened here, and the remedy."""
    return Finding(code, ADVICE[code].severity, message, hint)
