/* A file system that fails when it is told to.
 *
 * LD_PRELOADed, it counts every call that opens, changes or locks something below one directory, and fails the calls
 * number FIRST to LAST, of the kinds asked for, with an errno; SHORT writes half of what it was given instead, and never nothing.
 * Controlled through ctypes by the process it sits in, or for a whole program by
 *
 *     FAULTY=<first>:<last>:<errno>:<kinds>:<directory>
 *
 * Only the process that asked is watched: a child that it forks has a disk that works.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, READ = 2, WRITE = 4, RENAME = 8, MKDIR = 16, UNLINK = 32, LINK = 64, TRUNCATE = 128, SYNC = 256,
       LOCK = 512, CLOSE = 1024 };
enum { SHORT = -1, SITES = 65536 };

static char root[PATH_MAX];
static size_t root_length;
static pid_t watched;
static int first, last, error, kinds;
static atomic_int count, hits;
static char *sites[SITES];
static __thread int off;

/* -- which calls concern us ------------------------------------------------------------------------------------------ */

static int below(const char *path) {
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static int watching(void) { return root_length && !off && syscall(SYS_getpid) == watched; }

/* Count the call. 1 if it is to fail, with errno set; 2 if it is to do half. */
static int strikes(int kind, const char *name, const char *path) {
    int number = atomic_fetch_add(&count, 1) + 1;
    const char *relative = path[root_length] ? path + root_length + 1 : ".";
    if (number <= SITES && asprintf(&sites[number - 1], "%d %s %s", kind, name, relative) < 0) abort();
    if (number < first || number > last || !(kinds & kind)) return 0;
    atomic_fetch_add(&hits, 1);
    if (error == SHORT) return 2;
    errno = error;
    return 1;
}

static int at_path(int kind, const char *name, int directory, const char *path) {
    char whole[2 * PATH_MAX], link[64];
    if (!watching() || !path) return 0;
    if (path[0] != '/') {
        ssize_t length;
        if (directory == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        if ((length = readlink(link, whole, PATH_MAX)) < 0) return 0;
        snprintf(whole + length, sizeof whole - length, "/%s", path);
        path = whole;
    }
    return below(path) ? strikes(kind, name, path) : 0;
}

static int at_fd(int kind, const char *name, int fd) {
    char path[PATH_MAX], link[64];
    if (!watching()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path) ? strikes(kind, name, path) : 0;
}

/* -- for the process that it sits in --------------------------------------------------------------------------------- */

/* Watch a directory from now on, counting from nothing; "" watches nothing. */
void faulty_watch(const char *directory) {
    root_length = 0;
    first = last = kinds = 0;
    watched = syscall(SYS_getpid);
    atomic_store(&count, 0);
    atomic_store(&hits, 0);
    snprintf(root, sizeof root, "%s", directory);
    root_length = strlen(root);
}

void faulty_arm(int from, int to, int number, int which) { first = from, last = to, error = number, kinds = which; }

/* What this thread does meanwhile is neither counted nor failed. */
void faulty_off(int yes) { off = yes; }

int faulty_count(void) { return atomic_load(&count); }
int faulty_hits(void) { return atomic_load(&hits); }
const char *faulty_site(int number) { return number > 0 && number <= SITES ? sites[number - 1] : NULL; }

__attribute__((constructor)) static void from_the_environment(void) {
    const char *said = getenv("FAULTY");
    int a, b, c, d, at = 0;
    if (!said || sscanf(said, "%d:%d:%d:%d:%n", &a, &b, &c, &d, &at) != 4 || !at) return;
    faulty_watch(said + at);
    faulty_arm(a, b, c, d);
}

/* -- libc's calls ---------------------------------------------------------------------------------------------------- */

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

#define MODE(flags, mode)                                                                                              \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                           \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode = va_arg(arguments, mode_t);                                                                              \
        va_end(arguments);                                                                                             \
    }

static int kind_of(int flags) { return (flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT) ? READ : OPEN; }
static const char *name_of(int flags) { return kind_of(flags) == READ ? "read" : "open"; }

#define OPENS(name)                                                                                                    \
    int name(const char *path, int flags, ...) {                                                                       \
        REAL(int, name, const char *, int, ...);                                                                       \
        MODE(flags, mode)                                                                                              \
        return at_path(kind_of(flags), name_of(flags), AT_FDCWD, path) ? -1 : real(path, flags, mode);                 \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                                                                 \
    int name(int directory, const char *path, int flags, ...) {                                                        \
        REAL(int, name, int, const char *, int, ...);                                                                  \
        MODE(flags, mode)                                                                                              \
        return at_path(kind_of(flags), name_of(flags), directory, path) ? -1 : real(directory, path, flags, mode);     \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define CREATES(name)                                                                                                  \
    int name(const char *path, mode_t mode) {                                                                          \
        REAL(int, name, const char *, mode_t);                                                                         \
        return at_path(OPEN, "open", AT_FDCWD, path) ? -1 : real(path, mode);                                          \
    }
CREATES(creat)
CREATES(creat64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    int struck = at_fd(WRITE, "write", fd);
    return struck == 1 ? -1 : real(fd, data, struck ? (size + 1) / 2 : size);
}

#define WRITES_AT(name)                                                                                                \
    ssize_t name(int fd, const void *data, size_t size, off64_t offset) {                                              \
        REAL(ssize_t, name, int, const void *, size_t, off64_t);                                                       \
        int struck = at_fd(WRITE, "pwrite", fd);                                                                       \
        return struck == 1 ? -1 : real(fd, data, struck ? (size + 1) / 2 : size, offset);                                    \
    }
WRITES_AT(pwrite)
WRITES_AT(pwrite64)

ssize_t writev(int fd, const struct iovec *parts, int number) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    int struck = at_fd(WRITE, "writev", fd);
    return struck == 1 ? -1 : struck ? write(fd, parts[0].iov_base, (parts[0].iov_len + 1) / 2) : real(fd, parts, number);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    return at_path(RENAME, "rename", AT_FDCWD, to) ? -1 : real(from, to);
}

int renameat(int from_directory, const char *from, int directory, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    return at_path(RENAME, "rename", directory, to) ? -1 : real(from_directory, from, directory, to);
}

int renameat2(int from_directory, const char *from, int directory, const char *to, unsigned flags) {
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    return at_path(RENAME, "rename", directory, to) ? -1 : real(from_directory, from, directory, to, flags);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    return at_path(MKDIR, "mkdir", AT_FDCWD, path) ? -1 : real(path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode) {
    REAL(int, mkdirat, int, const char *, mode_t);
    return at_path(MKDIR, "mkdir", directory, path) ? -1 : real(directory, path, mode);
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    return at_path(UNLINK, "unlink", AT_FDCWD, path) ? -1 : real(path);
}

int unlinkat(int directory, const char *path, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    return at_path(UNLINK, "unlink", directory, path) ? -1 : real(directory, path, flags);
}

int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    return at_path(LINK, "link", AT_FDCWD, to) ? -1 : real(from, to);
}

int symlink(const char *target, const char *path) {
    REAL(int, symlink, const char *, const char *);
    return at_path(LINK, "symlink", AT_FDCWD, path) ? -1 : real(target, path);
}

#define TRUNCATES(name)                                                                                                \
    int name(int fd, off64_t size) {                                                                                   \
        REAL(int, name, int, off64_t);                                                                                 \
        return at_fd(TRUNCATE, "ftruncate", fd) ? -1 : real(fd, size);                                                 \
    }
TRUNCATES(ftruncate)
TRUNCATES(ftruncate64)

#define SYNCS(name)                                                                                                    \
    int name(int fd) {                                                                                                 \
        REAL(int, name, int);                                                                                          \
        return at_fd(SYNC, "fsync", fd) ? -1 : real(fd);                                                               \
    }
SYNCS(fsync)
SYNCS(fdatasync)

int flock(int fd, int operation) {
    REAL(int, flock, int, int);
    return at_fd(LOCK, "flock", fd) ? -1 : real(fd, operation);
}

static int locks(int command) {
    return command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
}

#define CONTROLS(name)                                                                                                 \
    int name(int fd, int command, ...) {                                                                               \
        REAL(int, name, int, int, ...);                                                                                \
        va_list arguments;                                                                                             \
        va_start(arguments, command);                                                                                  \
        void *argument = va_arg(arguments, void *);                                                                    \
        va_end(arguments);                                                                                             \
        return locks(command) && at_fd(LOCK, "fcntl", fd) ? -1 : real(fd, command, argument);                          \
    }
CONTROLS(fcntl)
CONTROLS(fcntl64)

/* What was written late (NFS, quota) is refused when the file is closed; the descriptor is gone all the same. */
int close(int fd) {
    REAL(int, close, int);
    int struck = 0, flags;
    if (watching() && (flags = fcntl(fd, F_GETFL)) >= 0 && (flags & O_ACCMODE) != O_RDONLY)
        struck = at_fd(CLOSE, "close", fd);
    int number = errno, done = real(fd);
    if (!struck) return done;
    errno = number;
    return -1;
}
