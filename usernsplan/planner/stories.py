"""The findings of allocate, release and check --fix: each code with severity, title and story.

The rules of ``check`` carry their own stories, in ``audit``. A story says what was found, why it
matters, how it comes about, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.model import Finding
from usernsplan.values import NamedTuple

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
    dockremap:589824:2
    dockremap:3:65533       useradd moves this line to the second place

With --pass, the line of an id of the host stands between the two parts of the range, and useradd
moves it to the first place.

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
    /var/lib/docker/589824.589824       from the next start on

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
    dockremap:589824:2

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

    usernsplan-web:765536:65536     added by another tool
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
        "Root has lines for a container",
        """\
newuidmap requires lines even for root, so the containers of LXC, LXD and Incus need lines of root.
LXD and Incus also take ids for their own instances from root's lines of 65536 ids or more. A
container's range is therefore granted in smaller lines: newuidmap joins them, and LXD and Incus
skip them.

    root:589824:32768       both for one container with 65536 ids
    root:622592:32768

If LXD or Incus runs here, root also needs one line of 65536 ids or more, for their instances. See
USN087 and USN089.""",
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
On a host with LXD or Incus, most containers are instances to which these two give ids themselves.
Root therefore got no lines for LXC.

    incusd is installed

For a container of LXC, LXD or Incus that is to have the range, add --engine lxc, --engine lxd or
--engine incus.""",
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
        "LXD or Incus finds no range for its instances among root's lines",
        """\
LXD and Incus take ids for their own instances from root's lines of 65536 ids or more. Without such
a line, no unprivileged instance starts, also not one with ids of ours. With two of them, no plain
instance of Incus starts.

    root:589824:32768       lines of a container do not count
    root:622592:32768

Run the command that is shown, and restart the daemon. See USN087 and USN089.""",
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

    usernsplan-web:589824:65536     lost
    alice:589824:65536              granted since then

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

    reservations: [{ids: 765536-831071, for: the NFS server}]
    alice:765536:65536              in subuid

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
    usernsplan allocate --strategy per-container web     589824-655359 again

It gets another range if some of the ids now have another owner (USN132), or if the range was
forgotten. While something runs with these ids, allocate refuses the name: nobody can tell whether
it is this container or a stranger.""",
    ),
    Story(
        "USN132",
        "warning",
        "A name does not get its former range again",
        """\
You allocated a released name again, and it has other ids than before: the strategy, size or owner
differs, or some of its former ids now have another owner. Its files still carry the former ids,
and nothing maps those now.

    usernsplan release web          589824-655359 is quarantined
    bob:615536:65536                added to subuid since then

'usernsplan find-owned 589824-655359 /' lists the files.
'usernsplan fix-volume DIR --container web --from web' gives them the new ids.""",
    ),
    Story(
        "USN133",
        "info",
        "The volumes of a released container stay as they are",
        """\
release does not touch the container's volumes: their files keep its ids, and its range is
quarantined.

    usernsplan release web          /srv/web still belongs to 589824

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
You released a container while it ran, and gave the name its former range again with --start. A
running user namespace or a mount has ids of that range.

    usernsplan release web; usernsplan allocate --strategy per-container web --start 589824

Without --start this is refused: after the release, another program may have chosen these ids on
its own, for example systemd-nspawn -U. If so, stop it before the container starts.
'usernsplan inspect --all' shows what runs.""",
    ),
    Story(
        "USN138",
        "warning",
        "The container of this name has another map",
        """\
A container of LXC or Proxmox VE, or a .container file of root's for Podman, has the name of the
allocation, and its config maps other ids: it was written before, or a remap has changed the map
since. It uses those as before, and leaves the ids of the allocation unused.

    lxc.idmap = u 0 100000 65536        /var/lib/lxc/web/config
    usernsplan allocate --strategy per-container web --engine lxc
                                        web has 589824-655359

Replace the lxc.idmap lines of its config with those of 'usernsplan render lxc web'. Then move its
root file system out of the old map and into the new one: 'usernsplan fix-volume DIR --mode shift
--reverse --uid-map 0:100000:65536 --gid-map 0:100000:65536', and 'usernsplan fix-volume DIR --mode
shift --container web'. If it is another container, choose another name.""",
    ),
    Story(
        "USN139",
        "warning",
        "Root also gets the ids that LXD or Incus gives to instances",
        """\
While subuid or subgid is missing, LXD and Incus give 1000000-1000999999 to their instances. Once
both files exist, they take only the ids of root's lines, and without such a line no unprivileged
instance starts. allocate creates the files, so it also writes this line to both.

    root:1000000:1000000000

The ids of the instances stay the same. Restart the daemon. 'release' leaves the line.""",
    ),
    Story(
        "USN140",
        "warning",
        "Root's line for a container is replaced by smaller ones",
        """\
LXD and Incus take ids for their own instances from root's lines of 65536 ids or more. Root had such
a line for one container, from before LXD or Incus was installed. The same ids are now in smaller
lines: newuidmap joins them, and LXD and Incus skip them.

    root:589824:65536       before
    root:589824:32768       now
    root:622592:32768

Restart the daemon: it reads the files only when it starts. See USN028 and USN087.""",
    ),
    Story(
        "USN142",
        "warning",
        "A range lies among those that useradd computes",
        """\
With SUB_UID_DETERMINISTIC in login.defs, useradd computes the range of a new account from its uid
and writes the line, even if somebody has the ids already. No account has the uid in question yet,
so the range was given out, because --pool or --start asked for it.

    SUB_UID_DETERMINISTIC yes       in login.defs
    usernsplan allocate --strategy per-container --start 589824 web
                                    the account that gets uid 1007 has 558752-624287

Without --pool and --start, usernsplan takes a range behind the computed ones. 'check' reports the
overlap for as long as it lasts (USN091).""",
    ),
    Story(
        "USN144",
        "warning",
        "The service of subordinate ids is not installed",
        """\
nsswitch.conf takes subordinate ids from a service. shadow and Podman load it as a library,
libsubid_SERVICE.so. The library is not installed, so they read subuid and subgid, and the ranges
that usernsplan writes there count. As soon as a package installs the library, these programs read
the files no more, and containers lose their ranges.

    subid: sss              libsubid_sss.so comes with SSSD

Write 'subid: files' in nsswitch.conf, or grant ranges in that service. See USN062 and USN093.""",
    ),
    Story(
        "USN145",
        "info",
        "An allocation is in the ledger only",
        """\
With --no-lines ('lines: false' in a plan file), an allocation has no lines in subuid and subgid.
crun, runc, containerd, systemd-nspawn and Podman as root need none. usernsplan gives the ids to
nobody else. But programs that read the files do not see them: useradd may give out the same ids if
its SUB_UID_MAX reaches that far.

    usernsplan allocate --strategy per-container web --no-lines

'usernsplan render --list web' shows the engines that can use it. To give it lines, release it and
allocate it again without --no-lines: it keeps its range. 'usernsplan ledger rebuild' cannot find
such an allocation, because only the ledger has it.""",
    ),
    Story(
        "USN146",
        "info",
        "Whether the owner is an account cannot be known",
        """\
--root names the tree of another host, whose accounts also come from a directory service. Only that
host can ask the service. The owner of the lines is in no file of the tree: it may be an account of
the service, or no account.

    passwd: files sss       in nsswitch.conf of the tree
    usernsplan allocate --strategy per-container web --owner carl --root ./image

Run 'usernsplan check' on that host when it runs. If carl is no account there, the next account of
that name gets the range (USN020).""",
    ),
    Story(
        "USN147",
        "warning",
        "The kubelet gives each pod another number of ids",
        """\
The kubelet's pool was made for pods of one size, and the kubelet's configuration has another one.
It is userNamespaces.idsPerPod, by default 65536; Kubernetes 1.35 is the first that heeds it. The
kubelet does not start if its line does not suit that number.

    usernsplan allocate --engine kubernetes --pods 110 --ids-per-pod 131072

    userNamespaces:             in /var/lib/kubelet/config.yaml
      idsPerPod: 131072

Write the number into the configuration, and restart the kubelet. See USN026.""",
    ),
    Story(
        "USN148",
        "warning",
        "The kubelet lacks getsubids",
        """\
The kubelet's pool belongs to the account kubelet. A kubelet that finds this account runs the
program getsubids to read its line, and ends with an error if the program is missing.

    getsubids kubelet           command not found

Install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora) before you restart the kubelet.
See USN097.""",
    ),
    Story(
        "USN150",
        "info",
        "The owner of an engine's pool is no account",
        """\
allocate publishes a pool under other names, such as containers--0, so that systemd-nspawn does not
take its ids. An account of the name that the engine looks for is yours to decide. Programs built
with libsubid of shadow 4.20 ignore lines whose owner has no account.

    containers:1048576:65536        podman --userns=auto takes containers' ranges from here

The hint has the command that makes a locked account. Do not do it for the kubelet where getsubids
is missing: with an account but without getsubids it does not start.""",
    ),
    Story(
        "USN151",
        "warning",
        "A range is not published",
        """\
A published range has a locked account for each of its 65536 ids, so that systemd-nspawn and others
that look only at accounts keep away from it. Here an account or a group has the name or the id
already, or the owner cannot be the name of an account, or another program wrote a record of that
name.

    usernsplan allocate --strategy per-container web
    /etc/userdb/usernsplan-web.user         not written by usernsplan

Everything else is done. Remove what is in the way, then run the same command again. --publish none
asks for no record.""",
    ),
    Story(
        "USN152",
        "warning",
        "Only systemd sees the published ranges",
        """\
A record in /etc/userdb is seen by systemd itself: userdbctl, newer versions of systemd-nspawn,
nsresourced. All other programs ask NSS, and see it only through nss-systemd: ls -l, getpwnam,
systemd-nspawn of systemd 252, and programs built with libsubid of shadow 4.20, which ignores lines
whose owner has no account.

    passwd: files                   in nsswitch.conf, without systemd

Install libnss-systemd and add 'systemd' to the lines passwd and group. Or publish ranges as system
accounts: --publish passwd, or 'publish: passwd' in /etc/usernsplan/config.yaml.""",
    ),
    Story(
        "USN153",
        "warning",
        "An account that published a range stays",
        """\
A range that was published with --publish passwd has a locked system account. release removes it
with userdel at the end, and userdel refuses while a process has the id, or another program holds
its locks.

    userdel: user usernsplan-web is currently used by process 4711

Stop the container, then run the command of the hint.""",
    ),
    Story(
        "USN154",
        "info",
        "A container shows ids of the host",
        """\
With --pass, ids of the host appear in a container that otherwise has ids of its own. The container
can use every file, device and socket that these ids may use, and what it makes with them belongs
to the host's account or group.

    usernsplan allocate media --pass u:1000 --pass g:render:107

        g 0 589824 107          container gid 107 is the host's render, 104
        g 107 104 1
        g 108 589932 65428

The ids of the range whose place they take (here 589931) stay reserved: nobody else gets them.""",
    ),
    Story(
        "USN155",
        "warning",
        "An id that passes through belongs to no account or group",
        """\
The number may be mistyped. If it is not, useradd or groupadd may give it to the next account or
group, and the container then has the files of that one.

    usernsplan allocate media --pass u:1010         the account has 1001

Name the account instead of the number, or create an account or a group with this number.""",
    ),
    Story(
        "USN156",
        "warning",
        "Container root is an id of the host",
        """\
A pass takes container id 0. Everything that starts as root in the container then has the rights of
a person or a service of this host: it can change their files, and what it makes belongs to them.

    usernsplan allocate web --pass b:1000:0         root of web is the host's 1000

Pass the id to another container id, and let the program in the container run as that one.""",
    ),
    Story(
        "USN157",
        "warning",
        "A container shows an id that can become root of the host",
        """\
Uid 0, and groups such as docker, disk, lxd or shadow, can become root of the host, or read what
only root may. Anyone who takes over a container that shows one of them has the host, too.

    usernsplan allocate builder --pass g:docker --pass-privileged

Release the container and allocate it again without that id, or trust it as you trust root.""",
    ),
    Story(
        "USN158",
        "warning",
        "An account can take ids of the host that pass through",
        """\
newuidmap and newgidmap give an account every id of its lines. A pass to a container whose lines
belong to an account therefore gives that account the id: it becomes another user, or gets a group,
without any container.

    usernsplan allocate web --owner alice --pass u:bob
                                        alice can become bob

Leave --owner out: no account owns the lines then, and root starts the container.""",
    ),
    Story(
        "USN163",
        "warning",
        "Somebody else has ids of what was adopted",
        """\
adopt takes over what stands on the host, and changes nothing. Here several have the same ids:
containers with the same map, lines that overlap, or an account inside a range. Each of them can
change the files of the others.

    /etc/pve/lxc/101.conf and 102.conf      unprivileged: Proxmox VE gives both 100000-165535

The ledger notes the ids for the one that was named. Give each of the others a range of its own
('usernsplan allocate NAME', 'usernsplan fix-volume'), one at a time.""",
    ),
    Story(
        "USN164",
        "info",
        "Something that stands here was not adopted",
        """\
'usernsplan adopt --all' takes what is certain. It leaves what several have, and what it does not
understand: lines that readers take for different ranges, a map that the kernel would refuse, a
container without a map of its own.

    bob:0x186a0:65536           /etc/subuid: shadow reads it, others do not
    UserNS=auto                 Podman takes ids at each start

The message says why for each. 'usernsplan adopt NAME' takes one of several that have the same ids.
What is not adopted stays as it is; no new range takes the ids of its lines.""",
    ),
    Story(
        "USN165",
        "warning",
        "Some configurations could not be read",
        """\
adopt also looks for containers in the homes of accounts: LXC's in ~/.local/share/lxc, and Podman's
.container files in ~/.config/containers/systemd. Some of them could not be read, so containers
there are not in the list.

    /home/alice: permission denied

Run it as root, or mount the home, and run it again. Nothing is lost: what was not found is not
changed.""",
    ),
    Story(
        "USN167",
        "info",
        "What a slice leaves of its owner's lines",
        """\
A slice has ids of lines that somebody has already. The owner's own engines keep all of these ids:
they read the lines and not the ledger. A container without a map of its own, as 'podman run' makes
it, still maps all of them, and so it can reach the files of a slice. Slices are taken from the end
of the lines, because engines begin at the start: 'podman run --userns=auto' takes the first ids
that no container of its has.

    alice:100000:65536
    usernsplan allocate web --within alice --size 1000      164536-165535, 64536 ids are left

A container that must not reach another one's files needs a slice, too. A map of 65536 ids, which
images with files of nobody (65534) need, fits only into a piece of that size. See USN059.""",
    ),
    Story(
        "USN168",
        "warning",
        "Somebody may use ids of a slice now",
        """\
The lines had no other ids left: a running user namespace or a mount has some of those that the
slice got, or a convention gives them to another program. Often it is a container of the same owner
that maps all ids of its lines. It can reach the files of the slice.

    alice:100000:65536
    podman run …                    runs, with all ids of alice
    usernsplan allocate web --within alice

'usernsplan inspect --all' shows what runs. Give that container a slice of its own, or use a smaller
--size.""",
    ),
    Story(
        "USN169",
        "warning",
        "Podman may give ids of a slice to other containers",
        """\
'podman run --userns=auto' as root gives each container ids of the lines of 'containers'. It knows
the containers of Podman, and no others: neither the ledger, nor a container that was not created
yet. It takes the lowest ids that are free, and slices are the highest, so the two meet only when
the lines are nearly full.

    containers:2147483647:2147483648
    usernsplan allocate web --within containers

Leave room between the two, or take the slice from other lines.""",
    ),
    Story(
        "USN170",
        "info",
        "Something still has the old name",
        """\
rename changes the name in the ledger. The lines of subuid and subgid keep their owner, and so do
the records in /etc/userdb: no file changes, and nothing has to be restarted. What an engine was
given before still has the old name: a unit, a file of Quadlet, a container of LXC.

    usernsplan rename db db2
    usernsplan-db:655360:65536      the owner of the lines of 'db2'

Render the new name where the engine's own container gets it, too. LXC and Incus know a container
by its name: until it has the new one, 'check' does not know that it is the same.""",
    ),
    Story(
        "USN171",
        "warning",
        "In the plan file, only a name changed",
        """\
The host has an allocation that the file does not name, and the file has a new name with the same
options. To a plan file that is one container less and one more: the new one gets other ids, and
--prune releases the old one. The volumes keep the ids of the old one.

    - {name: db}
    + {name: db2}

If it is the same container with a new name, write '{name: db2, was: db}': then ids, lines, volumes
and history stay. 'was' may stay in the file. If it is another container, you do not have to do
anything.""",
    ),
    Story(
        "USN172",
        "warning",
        "A remap changes which ids a container has",
        """\
remap gives an allocation another map. A container that was configured with the old one has to get
the new one, and must not run with the old one any more: what it writes would have ids that it does
not own. The files in its recorded volumes move with it. Files elsewhere keep the old ids, which
stay quarantined under its name.

    usernsplan remap web --size 131072
    usernsplan find-owned 589824-655359 /       files that carry the old ids

Render the container again, and start it with the new map. 'usernsplan remap web --undo' returns to
the old one.""",
    ),
    Story(
        "USN173",
        "warning",
        "A remap is not finished",
        """\
The map of an allocation has changed, and some of its volumes are not moved yet: their files have
the ids of the former map. The container cannot use them.

    usernsplan remap web --size 131072      killed while a volume was moved

'usernsplan remap web' moves the others. 'usernsplan remap web --undo' returns to the former map.
See USN067.""",
    ),
    Story(
        "USN180",
        "info",
        "A mount that is gone is forgotten",
        """\
The ledger had a mount of a volume for this container, and it does not stand any more: the machine
was started again, or somebody unmounted it. It was not one that returns at boot. release forgets it
with the container. Nothing on the disk was ever changed for it.

    usernsplan mount-volume /srv/web --container web        gone after a reboot
    usernsplan release web

A mount that stands, or returns at boot, stops the release: it would show the volume with ids that
another container may get. 'usernsplan undo' takes it away.""",
    ),
    Story(
        "USN181",
        "info",
        "A mount gets the new map",
        """\
The container has mounts of volumes (mount-volume). remap gives each of them the new map: the same
mount point shows the same files with the new ids, and nothing on the disk changes. A process that
has its own copy of such a mount, in another mount namespace, keeps the old map until it ends.

    usernsplan remap web --size 131072

Start the container with the new map: it then gets the new mount.""",
    ),
    Story(
        "USN182",
        "warning",
        "A policy gives a container much",
        """\
harden was asked to leave the container something that its profile takes away, and that has often
been a way out of containers: a great capability, a system call that the engine refuses, or setuid
programs that raise the privileges of a process.

    usernsplan harden web --profile seed --cap-add sys_admin

In a user namespace a capability counts only over what the namespace has. But it opens code of the
kernel that is seldom used by others. Leave it out unless the container's program needs it.""",
    ),
    Story(
        "USN195",
        "info",
        "Other hosts of the fleet still have a range",
        """\
A name has the same ids on every host of a fleet, and files with them may be on each. So a released
range is given out again only when every host that had it has forgotten it: each searches its own
volumes and the folders of --scan.

    a$ usernsplan release --forget web --scan /srv      web is quarantined on b, too
    b$ usernsplan release --forget web --scan /srv      now any host may get the range

A host that left the fleet is one of them, as "NAME, left NUMBER": see USN196.""",
    ),
    Story(
        "USN196",
        "info",
        "The fleet keeps the ids of a host that left",
        """\
Files on storage that hosts share may carry ids of a host that left the fleet, and it cannot be
asked any more. So its ids stay quarantined, under the name "NAME, left NUMBER", which 'whois
--fleet' shows. If the machine joins again, it has them as before. An operator who knows that no
file carries them any more ends it on any host of the fleet:

    release --forget web --of 'a, left 1'

It does not look for files: 'find-owned' does, on the hosts that see the storage.""",
    ),
)
ADVICE: dict[str, Story] = {story.code: story for story in _STORIES}


def advise(code: str, message: str, hint: str = "") -> Finding:
    """A finding with a code of ADVICE: what happened here, and the remedy."""
    return Finding(code, ADVICE[code].severity, message, hint)
