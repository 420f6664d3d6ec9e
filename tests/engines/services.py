"""Services that programs load as libraries, made for a test: subordinate ids for shadow, accounts for glibc."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.engines.throwaway import require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

# As shadow's lib/prototypes.h and libsubid/subid.h want it. It knows one range, of web.
SUBID = r"""
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
struct subid_range { unsigned long start, count; };
enum { SUCCESS, UNKNOWN_USER };
int shadow_subid_has_range(const char *owner, unsigned long start, unsigned long count, int type, bool *has) {
    (void)type;
    *has = !strcmp(owner, "web") && start >= 800000 && start + count <= 865536;
    return SUCCESS;
}
int shadow_subid_list_owner_ranges(const char *owner, int type, struct subid_range **ranges, int *count) {
    (void)type;
    if (strcmp(owner, "web"))
        return UNKNOWN_USER;
    *ranges = malloc(sizeof **ranges);
    **ranges = (struct subid_range){800000, 65536};
    *count = 1;
    return SUCCESS;
}
int shadow_subid_find_subid_owners(unsigned long id, int type, uid_t **uids, int *count) {
    (void)id, (void)type;
    *uids = NULL;
    *count = 0;
    return SUCCESS;
}
void shadow_subid_free(void *what) { free(what); }
"""
# As glibc's nss.h wants it. It answers for carl and for dora, and has no setpwent: it lists nobody.
ACCOUNTS = r"""
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <string.h>
static struct passwd people[] = {
    {"carl", "x", 70001, 70001, "", "/home/carl", "/bin/sh"},
    {"dora", "x", 655360, 70001, "", "/home/dora", "/bin/sh"},
};
static char *nobody[] = {NULL};
static struct group staff = {"staff-of-carl", "x", 70001, nobody};
enum nss_status _nss_own_getpwnam_r(const char *name, struct passwd *out, char *b, size_t n, int *e) {
    (void)b, (void)n, (void)e;
    for (int i = 0; i < 2; i++)
        if (!strcmp(people[i].pw_name, name))
            return *out = people[i], NSS_STATUS_SUCCESS;
    return NSS_STATUS_NOTFOUND;
}
enum nss_status _nss_own_getpwuid_r(uid_t uid, struct passwd *out, char *b, size_t n, int *e) {
    (void)b, (void)n, (void)e;
    for (int i = 0; i < 2; i++)
        if (people[i].pw_uid == uid)
            return *out = people[i], NSS_STATUS_SUCCESS;
    return NSS_STATUS_NOTFOUND;
}
enum nss_status _nss_own_getgrgid_r(gid_t gid, struct group *out, char *b, size_t n, int *e) {
    (void)b, (void)n, (void)e;
    return gid == staff.gr_gid ? (*out = staff, NSS_STATUS_SUCCESS) : NSS_STATUS_NOTFOUND;
}
"""


def install(host: ThrowawayHost, path: str, source: str) -> None:
    """Put the library of this source at a path of the host. Skips without a C compiler."""
    require("gcc")
    host.write(path, _compiled(source), 0o755)


@functools.cache
def _compiled(source: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "library.so")
        words = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-xc", "-", "-o", str(library)]
        subprocess.run(words, input=source.encode(), check=True)
        return library.read_bytes()
