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
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
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

enum verdict { GONE, FOLDER, PLAIN, CARE, FAILED };

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

struct options {
    struct owner *owners;
    size_t owner_count;
    int64_t seen_before;
    int64_t pinning;
    int search;
};

#define BY_NAME (-1)
#define CHUNK 1000 /* names between two looks for a signal */

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

static int
give(int pinned, uint32_t uid, uint32_t gid)
{
    int failed;
    do
        failed = fchownat(pinned, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
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

/* Look at one entry of the current folder, by its name or pinned, and give it its owner. */
static enum verdict
look(struct entry *entry, int pinned, const struct options *options)
{
    struct stat seen;

    if (pinned < 0 ? lstat(entry->name, &seen) : fstat(pinned, &seen))
        return FAILED;
    mode_t kind = seen.st_mode & S_IFMT;
    if (kind == S_IFDIR) {
        entry->also_folder = true;
        if (!options->search)
            return FOLDER;
    }
    if (!options->search && (seen.st_nlink != 1 || kind == S_IFCHR || kind == S_IFBLK))
        return CARE;
    if (kind != S_IFLNK) {
        if (!options->search && seen.st_mode & (S_ISUID | S_ISGID))
            return CARE;
        if (nanoseconds(&seen) >= options->seen_before) {
            int has = has_attributes(entry->name, pinned);
            if (has)
                return has < 0 ? FAILED : CARE;
        }
    }

    entry->uid = seen.st_uid;
    entry->gid = seen.st_gid;
    const struct owner *owner = owner_of(options, seen.st_uid, seen.st_gid);
    if (!owner || (owner->new_uid == owner->uid && owner->new_gid == owner->gid))
        return PLAIN;
    return give(pinned, owner->new_uid, owner->new_gid) ? FAILED : PLAIN;
}

static enum verdict
one(struct entry *entry, const struct options *options)
{
    if (!options->owner_count)
        return look(entry, -1, options);
    int pinned = pin(entry->name, options->pinning == BY_NAME ? 0 : options->pinning);
    if (pinned < 0) {
        struct stat seen;
        if (errno == EXDEV && !lstat(entry->name, &seen) && S_ISDIR(seen.st_mode)) {
            entry->also_folder = true; /* a mount point: whoever opens it is told */
            return FOLDER;
        }
        return FAILED;
    }
    enum verdict found = look(entry, pinned, options);
    int error = errno;
    close(pinned);
    errno = error;
    return found;
}

static void
all(struct entry *entries, Py_ssize_t count, const struct options *options)
{
    for (Py_ssize_t at = 0; at < count; at++) {
        errno = 0;
        entries[at].verdict = one(&entries[at], options);
        if (entries[at].verdict == FAILED) {
            entries[at].error = errno ? errno : EIO;
            if (errno == ENOENT)
                entries[at].verdict = GONE;
        }
    }
}

/* The options from Python's tuple. ``owners`` must be freed, also after an error (-1). */
static int
unpack(PyObject *tuple, struct options *options)
{
    PyObject *owners;
    long long seen_before, pinning;

    if (!PyArg_ParseTuple(tuple, "O!LLp", &PyTuple_Type, &owners, &seen_before, &pinning,
                          &options->search))
        return -1;
    options->seen_before = seen_before;
    options->pinning = pinning;
    Py_ssize_t count = PyTuple_Size(owners);
    options->owners = calloc(count ? count : 1, sizeof *options->owners);
    if (!options->owners) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t at = 0; at < count; at++) {
        struct owner *into = &options->owners[options->owner_count];
        if (!PyArg_ParseTuple(PyTuple_GetItem(owners, at), "(II)(II)", &into->uid, &into->gid,
                              &into->new_uid, &into->new_gid))
            return -1;
        options->owner_count++;
    }
    return 0;
}

/* Append to the list of an owner in ``plain``. ``last`` is the list that was used last. */
static int
append_plain(PyObject *plain, const struct entry *entry, PyObject *name, PyObject **last,
             const struct entry **last_entry)
{
    if (!*last || (*last_entry)->uid != entry->uid || (*last_entry)->gid != entry->gid) {
        PyObject *owner = Py_BuildValue("(II)", entry->uid, entry->gid);
        if (!owner)
            return -1;
        PyObject *list = PyDict_GetItemWithError(plain, owner);
        if (!list && !PyErr_Occurred() && (list = PyList_New(0))) {
            int failed = PyDict_SetItem(plain, owner, list);
            Py_DECREF(list); /* the dict holds it */
            if (failed)
                list = NULL;
        }
        Py_DECREF(owner);
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
    struct entry *entries = NULL;

    if (!PyArg_ParseTuple(arguments, "iOO!", &folder, &list, &PyTuple_Type, &tuple))
        return NULL;
    /* Another thread may change the list while the system is asked. */
    if (!(names = PySequence_Tuple(list)))
        return NULL;
    if (fchdir(folder)) {
        Py_DECREF(names);
        return PyErr_SetFromErrno(PyExc_OSError);
    }

    Py_ssize_t count = PyTuple_Size(names);
    entries = calloc(count ? count : 1, sizeof *entries);
    raw = PyList_New(0);
    if (!entries || !raw) {
        PyErr_NoMemory();
        goto end;
    }
    if (unpack(tuple, &options))
        goto end;
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *bytes = PyUnicode_EncodeFSDefault(PyTuple_GetItem(names, at));
        if (!bytes || PyList_Append(raw, bytes)) {
            Py_XDECREF(bytes);
            goto end;
        }
        entries[at].name = PyBytes_AsString(bytes);
        Py_DECREF(bytes); /* the list holds it */
    }
    for (Py_ssize_t at = 0; at < count; at += CHUNK) {
        Py_BEGIN_ALLOW_THREADS
        all(entries + at, count - at < CHUNK ? count - at : CHUNK, &options);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals())
            goto end;
    }
    found = answer(names, entries, count);
end:
    free(options.owners);
    free(entries);
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

/* What ``carry`` makes of each entry: ``old`` or ``new`` is what it has, ``new`` what it gets. */
struct change {
    struct options options;
    unsigned long long links;
    unsigned int mode;
    struct value old[CAPABILITY], new[CAPABILITY];
    int preview;
};

/* What ``carry`` tells of an entry; above 0: the errno after which it is changed in part. */
enum { RIGHT = 0, CHANGED = -1, OTHER = -2 };

/* Read an attribute of a pinned inode. One that is gone by now was never there. */
static int
read_value(int pinned, int which, struct value *value)
{
    char path[32], raw[XATTR_SIZE_MAX];
    ssize_t size = getxattr(path_of(pinned, path), attributes[which], raw, sizeof raw);
    char *copy;

    if (size < 0)
        return errno == ENODATA ? 0 : -1;
    if (!(copy = malloc(size ? size : 1)))
        return -1;
    value->raw = memcpy(copy, raw, size);
    value->size = size;
    return 0;
}

static int
read_special(struct special *one, int pinned)
{
    if (pinned < 0 || fstat(pinned, &one->seen))
        return -1;
    int has = S_ISLNK(one->seen.st_mode) ? 0 : has_attributes("", pinned);
    int failed = has < 0;
    for (int at = 0; at < ATTRIBUTES && !failed; at++)
        if (has & 1 << at)
            failed = read_value(pinned, at, &one->values[at]);
    return failed;
}

static bool
is_same(const struct value *one, const struct value *other)
{
    return !one->raw == !other->raw && one->size == other->size &&
           (!one->raw || !memcmp(one->raw, other->raw, one->size));
}

/* Give a pinned inode its new owner and ACLs, if it is as noted or half-way from there. */
static int
change_pinned(const struct special *one, int pinned, const struct change *change)
{
    const struct owner *owner = owner_of(&change->options, one->seen.st_uid, one->seen.st_gid);
    struct stat now;
    char path[32];
    int todo = 0;

    if (one->seen.st_mode != change->mode || one->values[CAPABILITY].raw || !owner ||
        (!S_ISDIR(change->mode) && one->seen.st_nlink > change->links))
        return OTHER;
    for (int at = 0; at < CAPABILITY; at++) {
        if (is_same(&one->values[at], &change->new[at]))
            continue;
        if (!change->new[at].raw || !is_same(&one->values[at], &change->old[at]))
            return OTHER;
        todo |= 1 << at;
    }
    bool touched = owner->uid != owner->new_uid || owner->gid != owner->new_gid;
    if (!touched && !todo)
        return RIGHT;
    if (change->preview)
        return CHANGED;

    /* If the system refuses or ignores the owner, nothing was changed: Python asks again. */
    if (touched && (give(pinned, owner->new_uid, owner->new_gid) || fstat(pinned, &now) ||
                    now.st_uid != owner->new_uid || now.st_gid != owner->new_gid))
        return OTHER;
    for (int at = 0; at < CAPABILITY; at++) {
        if (!(todo & 1 << at))
            continue;
        if (setxattr(path_of(pinned, path), attributes[at], change->new[at].raw,
                     change->new[at].size, 0))
            return touched ? errno : OTHER;
        touched = true;
    }
    /* An ACL may change the mode. */
    if (todo && (fstat(pinned, &now) ||
                 (now.st_mode != change->mode && chmod(path, change->mode & 07777))))
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
    for (Py_ssize_t at = 0; at < count && raw && *specials; at++) {
        PyObject *bytes = PyUnicode_EncodeFSDefault(PyList_GetItem(names, at));
        if (!bytes || PyList_Append(raw, bytes))
            Py_CLEAR(raw);
        else
            (*specials)[at].name = PyBytes_AsString(bytes);
        Py_XDECREF(bytes); /* the list holds it */
    }
    if (!*specials)
        Py_CLEAR(raw);
    return raw;
}

static void
free_specials(struct special *specials, Py_ssize_t count)
{
    for (Py_ssize_t at = 0; at < count * ATTRIBUTES && specials; at++)
        free((char *)specials[at / ATTRIBUTES].values[at % ATTRIBUTES].raw);
    free(specials);
}

/* See special.looked. */
static PyObject *
care(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *names, *raw, *found = NULL;
    struct special *specials;
    long long pinning;

    if (!PyArg_ParseTuple(arguments, "O!L", &PyList_Type, &names, &pinning))
        return NULL;
    Py_ssize_t count = PyList_Size(names);
    if (!(raw = pack(names, &specials)))
        goto end;

    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t at = 0; at < count; at++) {
        int pinned = pin(specials[at].name, pinning);
        if (read_special(&specials[at], pinned))
            specials[at].error = errno ? errno : EIO;
        if (pinned >= 0)
            close(pinned);
    }
    Py_END_ALLOW_THREADS

    found = PyErr_CheckSignals() ? NULL : PyList_New(0);
    for (Py_ssize_t at = 0; at < count && found; at++) {
        const struct special *one = &specials[at];
        const struct stat *seen = &one->seen;
        const struct value *value = one->values;
        PyObject *each =
            one->error
                ? PyLong_FromLong(one->error)
                : Py_BuildValue("KL(KKIIIy#y#y#)", (unsigned long long)seen->st_ino,
                                (long long)nanoseconds(seen), (unsigned long long)seen->st_dev,
                                (unsigned long long)seen->st_nlink, seen->st_uid, seen->st_gid,
                                seen->st_mode, value[0].raw, value[0].size, value[1].raw,
                                value[1].size, value[2].raw, value[2].size);
        if (!each || PyList_Append(found, each))
            Py_CLEAR(found);
        Py_XDECREF(each);
    }
end:
    free_specials(specials, count);
    Py_XDECREF(raw);
    return found;
}

/* See special.carried. */
static PyObject *
carry(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *names, *options, *raw = NULL, *found = NULL;
    struct special *specials = NULL;
    struct change change = {0};
    struct value *old = change.old, *new = change.new;
    const char *inodes;
    Py_ssize_t size;

    if (!PyArg_ParseTuple(arguments, "O!y#O!KI(z#z#)(z#z#)p", &PyList_Type, &names, &inodes, &size,
                          &PyTuple_Type, &options, &change.links, &change.mode, &old[0].raw,
                          &old[0].size, &old[1].raw, &old[1].size, &new[0].raw, &new[0].size,
                          &new[1].raw, &new[1].size, &change.preview))
        return NULL;
    Py_ssize_t count = PyList_Size(names);
    if (size != count * (Py_ssize_t)sizeof(uint64_t)) {
        PyErr_SetString(PyExc_ValueError, "not one inode for each name");
        return NULL;
    }
    if (unpack(options, &change.options) || !(raw = pack(names, &specials)))
        goto end;

    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t at = 0; at < count; at++) {
        uint64_t inode;
        memcpy(&inode, inodes + at * sizeof inode, sizeof inode);
        int pinned = pin(specials[at].name, change.options.pinning);
        int failed = read_special(&specials[at], pinned);
        specials[at].error = failed || specials[at].seen.st_ino != inode
                                 ? OTHER
                                 : change_pinned(&specials[at], pinned, &change);
        if (pinned >= 0)
            close(pinned);
    }
    Py_END_ALLOW_THREADS

    found = PyErr_CheckSignals() ? NULL : PyList_New(0);
    for (Py_ssize_t at = 0; at < count && found; at++) {
        PyObject *each = PyLong_FromLong(specials[at].error);
        if (!each || PyList_Append(found, each))
            Py_CLEAR(found);
        Py_XDECREF(each);
    }
end:
    free(change.options.owners);
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
