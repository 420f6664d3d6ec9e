/* The step that runs for every inode, compiled: ``step`` of folder.py in C, by the same contract.
   Below it, ``care`` and ``carry`` do the same for the entries that need care, see special.py.

   The docstrings there say what they do, and why. Python packs the names, the system calls run
   without Python's lock, and Python gets the answers. Only the limited API of CPython 3.10 is used,
   so that one build serves every later version. */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437 /* the same number on all architectures */
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

/* UNNAMED: it is gone, or not searched for. */
enum verdict { UNNAMED, FOLDER, PLAIN, CARE, FAILED };

struct entry {
    const char *name;
    uint32_t uid, gid;
    int error;
    uint8_t verdict;
    bool also_folder; /* a search looks at a folder like at any other entry */
};

struct owner {
    uint32_t uid, gid, new_uid, new_gid;
};

struct range {
    uint32_t first, last;
};

struct ranges { /* ascending */
    const struct range *at;
    Py_ssize_t size; /* in bytes */
};

struct options {
    struct owner *owners;
    size_t owner_count;
    int64_t seen_before;
    int64_t pinning;
    int64_t until;
    int search;
    struct ranges uids, gids;
    int threads;
};

/* The entries of one step, of which each of its threads takes some at a time. */
struct work {
    struct entry *entries;
    Py_ssize_t count, next;
    const struct options *options;
};

#define BY_NAME (-1)
#define PORTION 100       /* names that a thread takes at once, between two looks for a signal */
#define WORTH_A_THREAD 1000 /* so many names take a hundred times as long as the start of a thread */
#define MOST_THREADS 64

static int64_t
nanoseconds(const struct stat *seen)
{
    return (int64_t)seen->st_ctim.tv_sec * 1000000000 + seen->st_ctim.tv_nsec;
}

/* The attributes that need care. The ACLs come first. */
enum { ACL, DEFAULT_ACL, CAPABILITY, ATTRIBUTES };
static const char *const attributes[] = {"system.posix_acl_access", "system.posix_acl_default",
                                         "security.capability"};

/* Which of them a list has, names that each end with a NUL: a bit for each. */
static int
listed(const char *list, ssize_t size)
{
    int found = 0;
    for (const char *name = list; name < list + size; name += strlen(name) + 1)
        for (int at = 0; at < ATTRIBUTES; at++)
            if (!strcmp(name, attributes[at]))
                found |= 1 << at;
    return found;
}

/* Look at an entry: a pinned inode, or what has the name in the current folder. */
static int
stat_of(const char *name, int pinned, struct stat *seen)
{
    return pinned < 0 ? lstat(name, seen) : fstat(pinned, seen);
}

/* The path of a pinned inode: what takes a descriptor refuses one of O_PATH. */
static const char *
path_of(int pinned, char path[32])
{
    snprintf(path, 32, "/proc/self/fd/%d", pinned);
    return path;
}

/* Which of the attributes an entry of the current folder has: a bit for each; -1 and errno. */
static int
has_attributes(const char *name, int pinned)
{
    char small[512], path[32], *list = small;
    ssize_t size;

    if (pinned >= 0)
        name = path_of(pinned, path);

    while ((size = (pinned < 0 ? llistxattr : listxattr)(
                name, list, list == small ? sizeof small : XATTR_LIST_MAX)) < 0) {
        if (errno == EINTR)
            continue;
        if (errno == ERANGE && list == small && (list = malloc(XATTR_LIST_MAX)))
            continue;
        break;
    }
    int found = size < 0 ? (errno == ENOTSUP ? 0 : -1) : listed(list, size);
    if (list != small) {
        int error = errno;
        free(list);
        errno = error;
    }
    return found;
}

static int
pin(const char *name, int64_t resolve)
{
    int flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, found;
    struct {
        uint64_t flags, mode, resolve;
    } how = {(uint64_t)flags, 0, (uint64_t)resolve};

    do
        found = resolve ? (int)syscall(SYS_openat2, AT_FDCWD, name, &how, sizeof how)
                        : open(name, flags);
    while (found < 0 && errno == EINTR);
    return found;
}

static void
close_quietly(int pinned)
{
    int error = errno;
    close(pinned);
    errno = error;
}

/* Give an entry its owner: a pinned inode, or what has the name in the current folder. */
static int
give(const char *name, int pinned, uint32_t uid, uint32_t gid)
{
    int failed;
    do
        failed = pinned < 0 ? lchown(name, uid, gid)
                            : fchownat(pinned, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
    while (failed && errno == EINTR);
    return failed;
}

static const struct owner *
owner_of(const struct options *options, uint32_t uid, uint32_t gid)
{
    for (size_t at = 0; at < options->owner_count; at++)
        if (options->owners[at].uid == uid && options->owners[at].gid == gid)
            return &options->owners[at];
    return NULL;
}

static bool
changes(const struct owner *owner)
{
    return owner->new_uid != owner->uid || owner->new_gid != owner->gid;
}

static bool
has(const struct ranges *ranges, uint32_t id)
{
    size_t low = 0, count = (size_t)ranges->size / sizeof *ranges->at, high = count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges->at[middle].last < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && ranges->at[low].first <= id;
}

/* Look at one entry of the current folder, by its name or pinned, and give it its owner. */
static enum verdict
look(struct entry *entry, int pinned, const struct options *options)
{
    struct stat seen;

    if (stat_of(entry->name, pinned, &seen))
        return FAILED;
    mode_t kind = seen.st_mode & S_IFMT;
    if (kind == S_IFDIR) {
        entry->also_folder = true;
        if (!options->search)
            return FOLDER;
    }
    if (!options->search && (nanoseconds(&seen) > options->until || seen.st_nlink != 1 ||
                             kind == S_IFCHR || kind == S_IFBLK))
        return CARE;
    if (kind != S_IFLNK) {
        if (!options->search && seen.st_mode & (S_ISUID | S_ISGID))
            return CARE;
        if (nanoseconds(&seen) >= options->seen_before) {
            int found = has_attributes(entry->name, pinned);
            if (found)
                return found < 0 ? FAILED : CARE;
        }
    }

    if (options->search && !has(&options->uids, seen.st_uid) && !has(&options->gids, seen.st_gid))
        return UNNAMED;
    entry->uid = seen.st_uid;
    entry->gid = seen.st_gid;
    const struct owner *owner = owner_of(options, seen.st_uid, seen.st_gid);
    if (!owner || !changes(owner))
        return PLAIN;
    return give(entry->name, pinned, owner->new_uid, owner->new_gid) ? FAILED : PLAIN;
}

static enum verdict
one(struct entry *entry, const struct options *options)
{
    if (!options->owner_count || options->pinning == BY_NAME)
        return look(entry, -1, options);
    int pinned = pin(entry->name, options->pinning);
    if (pinned < 0) {
        struct stat seen;
        if (errno == EXDEV && !lstat(entry->name, &seen) && S_ISDIR(seen.st_mode)) {
            entry->also_folder = true; /* a mount point: the error comes when it is opened */
            return FOLDER;
        }
        return FAILED;
    }
    enum verdict found = look(entry, pinned, options);
    close_quietly(pinned);
    return found;
}

/* Do the next entries that no thread has taken; false if there are none. */
static bool
portion(struct work *work)
{
    Py_ssize_t at = __atomic_fetch_add(&work->next, PORTION, __ATOMIC_RELAXED);
    for (Py_ssize_t end = at + PORTION; at < end && at < work->count; at++) {
        struct entry *entry = &work->entries[at];
        errno = 0;
        entry->verdict = one(entry, work->options);
        if (entry->verdict == FAILED) {
            entry->error = errno ? errno : EIO;
            if (errno == ENOENT)
                entry->verdict = UNNAMED;
        }
    }
    return at < work->count;
}

static void *
portions(void *work)
{
    while (portion(work))
        ;
    return NULL;
}

/* Do all entries; -1 if the handler of a signal raised an error. The threads of a process have one
   current folder. A thread that cannot be started leaves its work to the others. */
static int
all(struct work *work)
{
    pthread_t threads[MOST_THREADS];
    Py_ssize_t most = work->count / WORTH_A_THREAD, started = 0;
    int failed = 0, more = 1;

    while (started < most && started < MOST_THREADS && started < work->options->threads - 1 &&
           !pthread_create(&threads[started], NULL, portions, work))
        started++;
    while (more && !failed) {
        Py_BEGIN_ALLOW_THREADS
        more = portion(work);
        Py_END_ALLOW_THREADS
        failed = PyErr_CheckSignals();
    }

    Py_BEGIN_ALLOW_THREADS
    if (failed)
        __atomic_store_n(&work->next, work->count, __ATOMIC_RELAXED);
    while (started--)
        pthread_join(threads[started], NULL);
    Py_END_ALLOW_THREADS
    return failed;
}

/* An id, for PyArg_ParseTuple: "I" would cut a larger number to another id. */
static int
to_id(PyObject *number, void *into)
{
    unsigned long long id = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred())
        return 0;
    if (id >= UINT32_MAX) { /* to chown(2), the highest number means no change */
        PyErr_SetString(PyExc_OverflowError, "an id has 32 bits, and is not -1");
        return 0;
    }
    *(uint32_t *)into = (uint32_t)id;
    return 1;
}

/* The pairs of owners from Python's tuple. ``owners`` must be freed, also after an error (-1). */
static int
unpack_owners(PyObject *owners, struct options *options)
{
    Py_ssize_t count = PyTuple_Size(owners);
    options->owners = calloc(count ? count : 1, sizeof *options->owners);
    if (!options->owners) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t at = 0; at < count; at++) {
        struct owner *into = &options->owners[options->owner_count];
        if (!PyArg_ParseTuple(PyTuple_GetItem(owners, at), "(O&O&)(O&O&)", to_id, &into->uid, to_id,
                              &into->gid, to_id, &into->new_uid, to_id, &into->new_gid))
            return -1;
        options->owner_count++;
    }
    return 0;
}

/* The options from Python's tuple, as above. */
static int
unpack(PyObject *tuple, struct options *options)
{
    PyObject *owners;
    long long seen_before, pinning, until;

    if (!PyArg_ParseTuple(tuple, "O!LLLpy#y#i", &PyTuple_Type, &owners, &seen_before, &pinning,
                          &until, &options->search, &options->uids.at, &options->uids.size,
                          &options->gids.at, &options->gids.size, &options->threads))
        return -1;
    options->seen_before = seen_before;
    options->pinning = pinning;
    options->until = until;
    return unpack_owners(owners, options);
}

/* The list at a key of the dict, a new one if there is none. It takes the reference of the key, NULL
   after an error. */
static PyObject *
list_at(PyObject *dict, PyObject *key)
{
    PyObject *list = key ? PyDict_GetItemWithError(dict, key) : NULL;
    if (key && !list && !PyErr_Occurred() && (list = PyList_New(0))) {
        int failed = PyDict_SetItem(dict, key, list);
        Py_DECREF(list); /* the dict holds it */
        if (failed)
            list = NULL;
    }
    Py_XDECREF(key);
    return list;
}

/* A name as bytes, which the list ``raw`` holds. Without a size, a NUL in it is an error. */
static int
as_bytes(PyObject *name, PyObject *raw, const char **into)
{
    char *text;
    PyObject *bytes = PyUnicode_EncodeFSDefault(name);
    int failed =
        !bytes || PyList_Append(raw, bytes) || PyBytes_AsStringAndSize(bytes, &text, NULL);
    if (!failed)
        *into = text;
    Py_XDECREF(bytes);
    return failed;
}

/* Append to the list of an owner in ``plain``. ``last`` is the list that was used last. */
static int
append_plain(PyObject *plain, const struct entry *entry, PyObject *name, PyObject **last,
             const struct entry **last_entry)
{
    if (!*last || (*last_entry)->uid != entry->uid || (*last_entry)->gid != entry->gid) {
        PyObject *list = list_at(plain, Py_BuildValue("(II)", entry->uid, entry->gid));
        if (!list)
            return -1;
        *last = list;
        *last_entry = entry;
    }
    return PyList_Append(*last, name);
}

static int
append_failure(PyObject *failures, PyObject *name, int error)
{
    PyObject *pair = Py_BuildValue("(Oi)", name, error);
    if (!pair)
        return -1;
    int failed = PyList_Append(failures, pair);
    Py_DECREF(pair);
    return failed;
}

/* The four fields of a FolderListing, in its order. */
static PyObject *
answer(PyObject *names, const struct entry *entries, Py_ssize_t count)
{
    PyObject *folders = PyList_New(0), *plain = PyDict_New(), *care = PyList_New(0);
    PyObject *failures = PyList_New(0), *found = NULL, *last = NULL;
    const struct entry *last_entry = NULL;
    int failed = !folders || !plain || !care || !failures;

    for (Py_ssize_t at = 0; at < count && !failed; at++) {
        const struct entry *entry = &entries[at];
        PyObject *name = PyTuple_GetItem(names, at);
        if (entry->also_folder)
            failed = PyList_Append(folders, name);
        if (!failed && entry->verdict == PLAIN)
            failed = append_plain(plain, entry, name, &last, &last_entry);
        else if (!failed && entry->verdict == CARE)
            failed = PyList_Append(care, name);
        else if (!failed && entry->verdict == FAILED)
            failed = append_failure(failures, name, entry->error);
    }
    if (!failed)
        found = PyTuple_Pack(4, folders, plain, care, failures);
    Py_XDECREF(folders);
    Py_XDECREF(plain);
    Py_XDECREF(care);
    Py_XDECREF(failures);
    return found;
}

static PyObject *
step(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    int folder;
    PyObject *list, *tuple, *names, *found = NULL, *raw = NULL;
    struct options options = {0};
    struct work work = {.options = &options};

    if (!PyArg_ParseTuple(arguments, "iOO!", &folder, &list, &PyTuple_Type, &tuple))
        return NULL;
    /* Another thread may change the list while the system is asked. */
    if (!(names = PySequence_Tuple(list)))
        return NULL;
    if (fchdir(folder)) {
        Py_DECREF(names);
        return PyErr_SetFromErrno(PyExc_OSError);
    }

    work.count = PyTuple_Size(names);
    work.entries = calloc(work.count ? work.count : 1, sizeof *work.entries);
    raw = PyList_New(0);
    if (!work.entries || !raw) {
        PyErr_NoMemory();
        goto end;
    }
    if (unpack(tuple, &options))
        goto end;
    for (Py_ssize_t at = 0; at < work.count; at++)
        if (as_bytes(PyTuple_GetItem(names, at), raw, &work.entries[at].name))
            goto end;
    if (!all(&work))
        found = answer(names, work.entries, work.count);
end:
    free(options.owners);
    free(work.entries);
    Py_XDECREF(raw);
    Py_DECREF(names);
    return found;
}

/* Entries that need care. */

/* The bytes of an attribute. ``raw`` is NULL if there is none. */
struct value {
    const char *raw;
    Py_ssize_t size;
};

struct special {
    const char *name;
    struct stat seen;
    struct value values[ATTRIBUTES];
    int error;
};

/* What ``carry`` makes of so many entries: ``old`` or ``new`` is what each has, ``new`` what it
   gets. */
struct change {
    Py_ssize_t count;
    struct options options;
    unsigned long long links;
    unsigned int mode;
    struct value old[CAPABILITY], new[CAPABILITY];
};

/* What ``carry`` tells of an entry; above 0: the errno after which it is changed in part. */
enum { RIGHT = 0, CHANGED = -1, OTHER = -2 };

static void
forget(struct special *one)
{
    for (int at = 0; at < ATTRIBUTES; at++)
        free((char *)one->values[at].raw);
    memset(one->values, 0, sizeof one->values);
}

/* Read an entry of the current folder, by its name or pinned. One call is made for each attribute;
   one that is gone by then was never there. */
static int
read_special(struct special *one, int pinned)
{
    char buffer[32], raw[XATTR_SIZE_MAX], *copy;
    const char *path = pinned < 0 ? one->name : path_of(pinned, buffer);

    if (stat_of(path, pinned, &one->seen))
        return -1;
    int has = S_ISLNK(one->seen.st_mode) ? 0 : has_attributes(one->name, pinned);
    for (int at = 0; at < ATTRIBUTES && has > 0; at++) {
        if (!(has & 1 << at))
            continue;
        ssize_t size = (pinned < 0 ? lgetxattr : getxattr)(path, attributes[at], raw, sizeof raw);
        if (size < 0 && errno == ENODATA)
            continue;
        if (size < 0 || !(copy = malloc(size ? size : 1)))
            return -1;
        one->values[at] = (struct value){memcpy(copy, raw, size), size};
    }
    return has < 0 ? -1 : 0;
}

static bool
is_same(const struct value *one, const struct value *other)
{
    return !one->raw == !other->raw && one->size == other->size &&
           (!one->raw || !memcmp(one->raw, other->raw, one->size));
}

/* Whether an entry is right, or changes: if it is as noted, or half-way from there. ``todo`` are
   the bits of the ACLs to set. */
static int
weigh(const struct special *one, const struct change *change, int *todo)
{
    const struct owner *owner = owner_of(&change->options, one->seen.st_uid, one->seen.st_gid);

    if (one->seen.st_mode != change->mode || one->values[CAPABILITY].raw || !owner ||
        (!S_ISDIR(change->mode) && one->seen.st_nlink > change->links))
        return OTHER;
    for (int at = 0; at < CAPABILITY; at++) {
        if (is_same(&one->values[at], &change->new[at]))
            continue;
        if (!change->new[at].raw || !is_same(&one->values[at], &change->old[at]))
            return OTHER;
        *todo |= 1 << at;
    }
    return *todo || changes(owner) ? CHANGED : RIGHT;
}

/* Give an entry its new owner, ACLs and mode: a pinned inode, or what has the name in the current
   folder. */
static int
change_one(const struct special *one, int pinned, const struct change *change, int preview)
{
    const struct owner *owner = owner_of(&change->options, one->seen.st_uid, one->seen.st_gid);
    struct stat now = one->seen;
    char buffer[32];
    const char *path = pinned < 0 ? one->name : path_of(pinned, buffer);
    int todo = 0, verdict = weigh(one, change, &todo);
    bool touched = verdict == CHANGED && changes(owner);

    if (verdict != CHANGED || preview)
        return verdict;

    if (touched) {
        int failed = give(path, pinned, owner->new_uid, owner->new_gid);
        if (stat_of(path, pinned, &now))
            return failed ? OTHER : errno;
        /* If the system refuses or ignores the owner, Python asks again, and finds the inode with
           all its bits. If somebody else owns it by now, they stay off. */
        if (failed || now.st_uid != owner->new_uid || now.st_gid != owner->new_gid)
            return now.st_uid == owner->uid && now.st_gid == owner->gid &&
                           now.st_mode != change->mode && chmod(path, change->mode & 07777)
                       ? errno
                       : OTHER;
    }
    for (int at = 0; at < CAPABILITY; at++) {
        if (!(todo & 1 << at))
            continue;
        if ((pinned < 0 ? lsetxattr : setxattr)(path, attributes[at], change->new[at].raw,
                                                change->new[at].size, 0))
            return touched ? errno : OTHER;
        touched = true;
    }
    /* An ACL may change the mode, and chown takes setuid and setgid bits. */
    if ((todo && stat_of(path, pinned, &now)) ||
        (now.st_mode != change->mode && chmod(path, change->mode & 07777)))
        return errno;
    return CHANGED;
}

/* The names as bytes, to which ``specials`` point then. NULL after an error. */
static PyObject *
pack(PyObject *names, struct special **specials)
{
    Py_ssize_t count = PyList_Size(names);
    PyObject *raw = PyList_New(0);

    *specials = calloc(count ? count : 1, sizeof **specials);
    if (!*specials)
        PyErr_NoMemory();
    for (Py_ssize_t at = 0; at < count && raw && *specials; at++)
        if (as_bytes(PyList_GetItem(names, at), raw, &(*specials)[at].name))
            Py_CLEAR(raw);
    if (!*specials)
        Py_CLEAR(raw);
    return raw;
}

static void
free_specials(struct special *specials, Py_ssize_t count)
{
    for (Py_ssize_t at = 0; at < count && specials; at++)
        forget(&specials[at]);
    free(specials);
}

/* A change pins the entry and compares it, so a look may take its name. But what a file with power
   has, and what proves its content, must be of one inode. */
static void
look_at(struct special *one, int64_t pinning)
{
    int failed = read_special(one, -1);
    if (!failed && (one->values[CAPABILITY].raw || one->seen.st_mode & (S_ISUID | S_ISGID))) {
        forget(one);
        int pinned = pin(one->name, pinning);
        failed = pinned < 0 || read_special(one, pinned);
        if (pinned >= 0)
            close_quietly(pinned);
    }
    if (failed)
        one->error = errno ? errno : EIO;
}

static bool
is_alike(const struct special *one, const struct special *other)
{
    for (int at = 0; at < ATTRIBUTES; at++)
        if (!is_same(&one->values[at], &other->values[at]))
            return false;
    return one->seen.st_dev == other->seen.st_dev && one->seen.st_nlink == other->seen.st_nlink &&
           one->seen.st_uid == other->seen.st_uid && one->seen.st_gid == other->seen.st_gid &&
           one->seen.st_mode == other->seen.st_mode;
}

/* The group of an entry in the dict: what its entries share, and the list of those. */
static PyObject *
group_of(PyObject *groups, const struct special *one)
{
    const struct stat *seen = &one->seen;
    const struct value *value = one->values;
    PyObject *key = Py_BuildValue("(KKIIIy#y#y#)", (unsigned long long)seen->st_dev,
                                  (unsigned long long)seen->st_nlink, seen->st_uid, seen->st_gid,
                                  seen->st_mode, value[0].raw, value[0].size, value[1].raw,
                                  value[1].size, value[2].raw, value[2].size);
    return list_at(groups, key);
}

/* See special.looked. */
static PyObject *
care(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *names, *raw = NULL, *list = NULL, *groups = PyDict_New(), *failures = PyList_New(0);
    PyObject *found = NULL;
    struct special *specials = NULL, *last = NULL;
    long long pinning;
    Py_ssize_t count = 0;

    if (!PyArg_ParseTuple(arguments, "O!L", &PyList_Type, &names, &pinning))
        goto end;
    count = PyList_Size(names);
    raw = pack(names, &specials);
    if (!raw || !groups || !failures)
        goto end;

    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t at = 0; at < count; at++)
        look_at(&specials[at], pinning);
    Py_END_ALLOW_THREADS

    int failed = PyErr_CheckSignals();
    for (Py_ssize_t at = 0; at < count && !failed; at++) {
        struct special *one = &specials[at];
        PyObject *name = PyList_GetItem(names, at);
        if (one->error) {
            failed = one->error != ENOENT && append_failure(failures, name, one->error);
            continue;
        }
        if (!last || !is_alike(one, last))
            list = group_of(groups, one);
        last = one;
        PyObject *entry = list ? Py_BuildValue("(OKL)", name, (unsigned long long)one->seen.st_ino,
                                               (long long)nanoseconds(&one->seen))
                               : NULL;
        failed = !entry || PyList_Append(list, entry);
        Py_XDECREF(entry);
    }
    if (!failed)
        found = PyTuple_Pack(2, groups, failures);
end:
    free_specials(specials, count);
    Py_XDECREF(raw);
    Py_XDECREF(groups);
    Py_XDECREF(failures);
    return found;
}

static int
carry_one(struct special *one, uint64_t inode, const struct change *change, int64_t pinning,
          int preview)
{
    int todo = 0;
    if (change->links > 1 && !S_ISDIR(change->mode)) {
        if (!read_special(one, -1) && one->seen.st_ino == inode &&
            weigh(one, change, &todo) == RIGHT)
            return RIGHT; /* another of its names came first */
        forget(one);
    }
    /* A bit is put back on the inode that lost it, whatever has its name by then. */
    bool by_name = pinning == BY_NAME && !(change->mode & (S_ISUID | S_ISGID));
    int pinned = -1, found = OTHER;
    if (!by_name && (pinned = pin(one->name, pinning == BY_NAME ? 0 : pinning)) < 0)
        return OTHER;
    if (!read_special(one, pinned) && one->seen.st_ino == inode)
        found = change_one(one, pinned, change, preview);
    if (pinned >= 0)
        close(pinned);
    return found;
}

/* The changes from Python's list, for so many entries in all; -1 after an error. They point to what
   the list holds. */
static int
unpack_changes(PyObject *orders, struct change *changes, Py_ssize_t entries)
{
    for (Py_ssize_t at = 0; at < PyList_Size(orders); at++) {
        struct change *into = &changes[at];
        struct value *old = into->old, *new = into->new;
        Py_ssize_t size;
        if (!PyArg_ParseTuple(PyList_GetItem(orders, at), "nKy#I(z#z#)(z#z#)", &into->count,
                              &into->links, &into->options.owners, &size, &into->mode, &old[0].raw,
                              &old[0].size, &old[1].raw, &old[1].size, &new[0].raw, &new[0].size,
                              &new[1].raw, &new[1].size))
            return -1;
        into->options.owner_count = (size_t)size / sizeof *into->options.owners;
        if (into->count < 0 || into->count > entries || size % sizeof *into->options.owners)
            break;
        entries -= into->count;
    }
    if (!entries)
        return 0;
    PyErr_SetString(PyExc_ValueError, "not one change for each name");
    return -1;
}

/* See special.carried. */
static PyObject *
carry(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *names, *orders, *raw = NULL, *found = NULL;
    struct special *specials = NULL;
    const char *inodes;
    Py_ssize_t size, at = 0;
    long long pinning;
    int preview;

    if (!PyArg_ParseTuple(arguments, "O!y#O!Lp", &PyList_Type, &names, &inodes, &size,
                          &PyList_Type, &orders, &pinning, &preview))
        return NULL;
    Py_ssize_t count = PyList_Size(names), parts = PyList_Size(orders);
    if (size != count * (Py_ssize_t)sizeof(uint64_t)) {
        PyErr_SetString(PyExc_ValueError, "not one inode for each name");
        return NULL;
    }
    struct change *changes = calloc(parts ? parts : 1, sizeof *changes);
    if (!changes)
        return PyErr_NoMemory();
    if (unpack_changes(orders, changes, count) || !(raw = pack(names, &specials)))
        goto end;

    Py_BEGIN_ALLOW_THREADS
    for (const struct change *change = changes; change < changes + parts; change++)
        for (Py_ssize_t end = at + change->count; at < end; at++) {
            uint64_t inode;
            memcpy(&inode, inodes + at * sizeof inode, sizeof inode);
            specials[at].error = carry_one(&specials[at], inode, change, pinning, preview);
        }
    Py_END_ALLOW_THREADS

    found = PyErr_CheckSignals() ? NULL : PyList_New(0);
    for (at = 0; at < count && found; at++) {
        PyObject *each = PyLong_FromLong(specials[at].error);
        if (!each || PyList_Append(found, each))
            Py_CLEAR(found);
        Py_XDECREF(each);
    }
end:
    free(changes);
    free_specials(specials, count);
    Py_XDECREF(raw);
    return found;
}

static PyMethodDef methods[] = {
    {"step", step, METH_VARARGS, "See usernsplan.volume.folder.step."},
    {"care", care, METH_VARARGS, "See usernsplan.volume.special.looked."},
    {"carry", carry, METH_VARARGS, "See usernsplan.volume.special.carried."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_step", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__step(void)
{
    return PyModule_Create(&module);
}
