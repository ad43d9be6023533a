/* Put before the C library's by LD_PRELOAD: syncs, writes and reads of files whose path contains
   FAULTS_PATH fail, or take their time, as the shared page FAULTS_CONTROL says at that moment; or the
   process dies before the step that the page counts down to.
   Compiled by shim.rs, which also has the meaning of the page's words. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SYNC_DELAY_MS, SYNC_ERRNO, WRITE_ERRNO, READ_ERRNO, HITS, KILL_AT };
/* Where the page names the step that was died at. */
enum { STEP = 64, STEP_SIZE = 512 };

static volatile uint32_t *control;
static const char *wanted;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_CONTROL");
    wanted = getenv("FAULTS_PATH");
    int file = path && wanted ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) control = page;
    close(file);
}

static int ours(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, wanted) != NULL;
}

/* A change of what is on the disk is about to be made. */
static void step(const char *what, const char *path) {
    if (!control || !control[KILL_AT] || !strstr(path, wanted)) return;
    if (__sync_fetch_and_sub(&control[KILL_AT], 1) != 1) return;
    const char *name = strrchr(path, '/');
    snprintf((char *)control + STEP, STEP_SIZE, "%s %s", what, name ? name + 1 : path);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static void step_on(const char *what, int file) {
    char link[64], path[4096];
    if (!control || !control[KILL_AT]) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    step(what, path);
}

/* Whether this call fails; errno is set then. */
static int fails(int which, int file) {
    int code = control ? (int)control[which] : 0;
    if (!code || !ours(file)) return 0;
    __sync_fetch_and_add(&control[HITS], 1);
    errno = code;
    return 1;
}

static int slow_sync(int file, const char *name) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    step_on(name, file);
    uint32_t delay = control ? control[SYNC_DELAY_MS] : 0;
    if (delay && ours(file)) {
        struct timespec time = {delay / 1000, (long)(delay % 1000) * 1000000};
        __sync_fetch_and_add(&control[HITS], 1);
        while (nanosleep(&time, &time) && errno == EINTR) {}
    }
    if (fails(SYNC_ERRNO, file)) return -1;
    return next(file);
}

int fdatasync(int file) { return slow_sync(file, "fdatasync"); }
int fsync(int file) { return slow_sync(file, "fsync"); }

#define POSITIONED(name, buffer, which)                                        \
    ssize_t name(int file, buffer bytes, size_t count, off64_t at) {           \
        static ssize_t (*next)(int, buffer, size_t, off64_t);                  \
        if (!next) next = (ssize_t (*)(int, buffer, size_t, off64_t))dlsym(RTLD_NEXT, #name); \
        if (fails(which, file)) return -1;                                     \
        return next(file, bytes, count, at);                                   \
    }

POSITIONED(pwrite64, const void *, WRITE_ERRNO)
POSITIONED(pwrite, const void *, WRITE_ERRNO)
POSITIONED(pread64, void *, READ_ERRNO)
POSITIONED(pread, void *, READ_ERRNO)

ssize_t write(int file, const void *bytes, size_t count) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next) next = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    step_on("write", file);
    if (fails(WRITE_ERRNO, file)) return -1;
    return next(file, bytes, count);
}

#define OPENED(name)                                                           \
    int name(const char *path, int flags, ...) {                               \
        int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        mode_t mode = 0;                                                       \
        if (flags & (O_CREAT | O_TMPFILE)) {                                   \
            va_list more;                                                      \
            va_start(more, flags);                                             \
            mode = va_arg(more, mode_t);                                       \
            va_end(more);                                                      \
        }                                                                      \
        if (flags & O_CREAT) step("create", path);                             \
        return next(path, flags, mode);                                        \
    }

OPENED(open)
OPENED(open64)

int rename(const char *from, const char *to) {
    int (*next)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    step("rename to", to);
    return next(from, to);
}

int unlink(const char *path) {
    int (*next)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    step("unlink", path);
    return next(path);
}
