/* Preloaded into a process: counts the calls of the C library that change files below a folder, also those of native
 * code; at one of them the process dies, or they fail. `breaks.py` compiles it and says what `Break` means. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READ = 1, OPEN = 2, WRITE = 4, FSYNC = 8, RENAME = 16, MKDIR = 32, LINK = 64, TRUNCATE = 128, REMOVE = 256 };
enum { FAILS = -1, PASSES = 0, DIES = 1 };

static char root[PATH_MAX];
static int kinds, failure, lasting, torn;
static long at;
static atomic_long calls;

void break_at(const char *folder, int which, long number, int error, int lasts, int tears) {
    root[0] = 0; /* nothing counts while the rest changes */
    kinds = which, at = number, failure = error, lasting = lasts, torn = tears;
    atomic_store(&calls, 0);
    strncpy(root, folder, sizeof root - 1);
}

long broken_calls(void) { return atomic_load(&calls); }

/* A process that another one starts is told by its environment. */
__attribute__((constructor)) static void told(void) {
    const char *text = getenv("TESTS_BREAK");
    int which, error, lasts, tears, begins = 0;
    long number;
    if (text && sscanf(text, "%d %ld %d %d %d %n", &which, &number, &error, &lasts, &tears, &begins) == 5 && begins)
        break_at(text + begins, which, number, error, lasts, tears);
}

static int inside(const char *path) {
    size_t length = strlen(root);
    return !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int ours_fd(int fd) {
    char name[64], path[PATH_MAX];
    if (!root[0]) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return inside(path);
}

static int ours(int folder, const char *name) {
    char path[2 * PATH_MAX], here[PATH_MAX], link[64];
    if (!root[0] || !name) return 0;
    if (name[0] == '/') return inside(name);
    snprintf(link, sizeof link, "/proc/self/%s", "cwd");
    if (folder != AT_FDCWD) snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, here, sizeof here - 1);
    if (length <= 0) return 0;
    here[length] = 0;
    snprintf(path, sizeof path, "%s/%s", here, name);
    return inside(path);
}

static int step(int kind) {
    if (!(kinds & kind)) return PASSES;
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (!at || (number != at && !(lasting && number > at))) return PASSES;
    if (!failure) return DIES;
    errno = failure;
    return FAILS;
}

static void die(int does) {
    if (does == DIES) kill(getpid(), SIGKILL);
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define BROKEN(is_ours, kind, failed, call)          \
    do {                                             \
        int does = (is_ours) ? step(kind) : PASSES;  \
        if (does == FAILS) return failed;            \
        __typeof__(call) result = call;              \
        die(does);                                   \
        return result;                               \
    } while (0)

static int opening(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT) ? OPEN : READ; }

static mode_t mode_of(int flags, va_list more) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; }

#define OPENS(name)                                                   \
    int name(const char *path, int flags, ...) {                      \
        va_list more;                                                 \
        va_start(more, flags);                                        \
        mode_t mode = mode_of(flags, more);                           \
        va_end(more);                                                 \
        REAL(name);                                                   \
        BROKEN(ours(AT_FDCWD, path), opening(flags), -1, real(path, flags, mode)); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                \
    int name(int folder, const char *path, int flags, ...) {          \
        va_list more;                                                 \
        va_start(more, flags);                                        \
        mode_t mode = mode_of(flags, more);                           \
        va_end(more);                                                 \
        REAL(name);                                                   \
        BROKEN(ours(folder, path), opening(flags), -1, real(folder, path, flags, mode)); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define OPENS_STREAM(name)                                            \
    FILE *name(const char *path, const char *mode) {                  \
        REAL(name);                                                   \
        BROKEN(ours(AT_FDCWD, path), mode[0] == 'r' && !strchr(mode, '+') ? READ : OPEN, NULL, real(path, mode)); \
    }
OPENS_STREAM(fopen)
OPENS_STREAM(fopen64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    int does = ours_fd(fd) ? step(WRITE) : PASSES;
    if (does == PASSES) return real(fd, data, size);
    if (does == FAILS) /* a disk that becomes full takes a part */
        return size > 1 && lasting && atomic_load(&calls) == at ? real(fd, data, size / 2) : -1;
    real(fd, data, torn ? size / 2 : size);
    die(does);
    return -1;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    BROKEN(ours_fd(fd), WRITE, -1, real(fd, parts, count));
}

#define WRITES_AT(name, kind_of_offset)                               \
    ssize_t name(int fd, const void *data, size_t size, kind_of_offset offset) { \
        REAL(name);                                                   \
        BROKEN(ours_fd(fd), WRITE, -1, real(fd, data, size, offset)); \
    }
WRITES_AT(pwrite, off_t)
WRITES_AT(pwrite64, off64_t)

/* Nobody cuts the power, and to flush takes most of the time. */
#define FLUSHES(name)                                                 \
    int name(int fd) {                                                \
        REAL(name);                                                   \
        BROKEN(ours_fd(fd), FSYNC, -1, ours_fd(fd) ? 0 : real(fd));   \
    }
FLUSHES(fsync)
FLUSHES(fdatasync)

int rename(const char *old, const char *new) {
    REAL(rename);
    BROKEN(ours(AT_FDCWD, new), RENAME, -1, real(old, new));
}

int renameat(int from, const char *old, int to, const char *new) {
    REAL(renameat);
    BROKEN(ours(to, new), RENAME, -1, real(from, old, to, new));
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    BROKEN(ours(AT_FDCWD, path), MKDIR, -1, real(path, mode));
}

int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(mkdirat);
    BROKEN(ours(folder, path), MKDIR, -1, real(folder, path, mode));
}

int link(const char *old, const char *new) {
    REAL(link);
    BROKEN(ours(AT_FDCWD, new), LINK, -1, real(old, new));
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
    REAL(linkat);
    BROKEN(ours(to, new), LINK, -1, real(from, old, to, new, flags));
}

#define TRUNCATES(name, kind_of_size)                                 \
    int name(const char *path, kind_of_size size) {                   \
        REAL(name);                                                   \
        BROKEN(ours(AT_FDCWD, path), TRUNCATE, -1, real(path, size)); \
    }
TRUNCATES(truncate, off_t)
TRUNCATES(truncate64, off64_t)

#define TRUNCATES_OPEN(name, kind_of_size)                            \
    int name(int fd, kind_of_size size) {                             \
        REAL(name);                                                   \
        BROKEN(ours_fd(fd), TRUNCATE, -1, real(fd, size));            \
    }
TRUNCATES_OPEN(ftruncate, off_t)
TRUNCATES_OPEN(ftruncate64, off64_t)

int unlink(const char *path) {
    REAL(unlink);
    BROKEN(ours(AT_FDCWD, path), REMOVE, -1, real(path));
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    BROKEN(ours(folder, path), REMOVE, -1, real(folder, path, flags));
}

int rmdir(const char *path) {
    REAL(rmdir);
    BROKEN(ours(AT_FDCWD, path), REMOVE, -1, real(path));
}
