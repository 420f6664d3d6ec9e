/* The step that runs for every inode, compiled: ``step`` of folder.py in C, by the same contract.

   The docstring there says what it does, and why. Python packs the names, the system calls run
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

/* Whether a list of attributes, names that each end with a NUL, has one that needs care. */
static bool
needs_care(const char *list, ssize_t size)
{
    for (const char *name = list; name < list + size; name += strlen(name) + 1)
        if (!strcmp(name, "system.posix_acl_access") || !strcmp(name, "system.posix_acl_default") ||
            !strcmp(name, "security.capability"))
            return true;
    return false;
}

/* 1 if an entry of the current folder has an ACL or a capability, 0 if not, -1 and errno. */
static int
has_attributes(const char *name, int pinned)
{
    char small[512], path[32], *list = small;
    ssize_t size;

    if (pinned >= 0) { /* flistxattr(2) refuses a descriptor of O_PATH */
        snprintf(path, sizeof path, "/proc/self/fd/%d", pinned);
        name = path;
    }

    while ((size = (pinned < 0 ? llistxattr : listxattr)(
                name, list, list == small ? sizeof small : XATTR_LIST_MAX)) < 0) {
        if (errno == EINTR)
            continue;
        if (errno == ERANGE && list == small && (list = malloc(XATTR_LIST_MAX)))
            continue;
        break;
    }
    int found = size < 0 ? (errno == ENOTSUP ? 0 : -1) : needs_care(list, size);
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

static const struct owner *
owner_of(const struct options *options, uint32_t uid, uint32_t gid)
{
    for (size_t at = 0; at < options->owner_count; at++)
        if (options->owners[at].uid == uid && options->owners[at].gid == gid)
            return &options->owners[at];
    return NULL;
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

    if (pinned < 0 ? lstat(entry->name, &seen) : fstat(pinned, &seen))
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
    if (!owner || (owner->new_uid == owner->uid && owner->new_gid == owner->gid))
        return PLAIN;
    int failed;
    do
        failed = fchownat(pinned, "", owner->new_uid, owner->new_gid,
                          AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
    while (failed && errno == EINTR);
    return failed ? FAILED : PLAIN;
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

/* The options from Python's tuple. ``owners`` must be freed, also after an error (-1). */
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
    for (Py_ssize_t at = 0; at < work.count; at++) {
        PyObject *bytes = PyUnicode_EncodeFSDefault(PyTuple_GetItem(names, at));
        char *name;
        if (!bytes || PyList_Append(raw, bytes) || PyBytes_AsStringAndSize(bytes, &name, NULL)) {
            Py_XDECREF(bytes); /* without a size, a NUL in it is an error */
            goto end;
        }
        work.entries[at].name = name;
        Py_DECREF(bytes); /* the list holds it */
    }
    if (!all(&work))
        found = answer(names, work.entries, work.count);
end:
    free(options.owners);
    free(work.entries);
    Py_XDECREF(raw);
    Py_DECREF(names);
    return found;
}

static PyMethodDef methods[] = {
    {"step", step, METH_VARARGS, "See usernsplan.volume.folder.step."},
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
