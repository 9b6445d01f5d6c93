/* Kills or stops a process after one of its steps in a folder. For LD_PRELOAD.
 *
 * A step is a call that makes, removes, renames or syncs something below STEPS_IN, the insides of a
 * repository left out. Each is written to STEPS_LOG when it has succeeded; after that with the number STEPS_KILL that can
 * be seen by others (no sync) the process is killed; after the first one whose line is STEPS_STOP it is stopped. What
 * it starts is left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[4096];
static int log_to = -1;
static char stop_at[4096];
static long done, last;

__attribute__((constructor)) static void begin(void)
{
    const char *in = getenv("STEPS_IN"), *log = getenv("STEPS_LOG"), *kill_at = getenv("STEPS_KILL");
    if (in && log) {
        snprintf(folder, sizeof folder, "%s", in);
        log_to = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        last = kill_at ? atol(kill_at) : 0;
        snprintf(stop_at, sizeof stop_at, "%s\n", getenv("STEPS_STOP") ? getenv("STEPS_STOP") : "");
    }
    unsetenv("STEPS_IN"), unsetenv("STEPS_LOG"), unsetenv("STEPS_KILL"), unsetenv("STEPS_STOP"), unsetenv("LD_PRELOAD");
}

static int is_inside(const char *path)
{
    static const char *const parts[] = {".fusecas.new-", "/store", "/overlays", "/run", ".lock"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(path, parts[i]))
            return 1;
    return 0;
}

static void step(const char *what, int at, const char *path, int is_seen)
{
    char whole[8192] = "", link[64], line[9000];
    if (log_to < 0)
        return;
    if (at != AT_FDCWD && (!path || path[0] != '/')) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, whole, 4096);
        snprintf(whole + (length < 0 ? 0 : length), 4000, "%s%s", path ? "/" : "", path ? path : "");
    } else {
        snprintf(whole, sizeof whole, "%s", path);
    }
    size_t above = strlen(folder);
    if (strncmp(whole, folder, above) || (whole[above] != '/' && whole[above]) || is_inside(whole + above))
        return;
    int length = snprintf(line, sizeof line, "%s %s\n", what, whole[above] ? whole + above + 1 : ".");
    if (write(log_to, line, length) != length)
        abort();
    if (is_seen && ++done == last)
        kill(getpid(), SIGKILL);
    if (!strcmp(line, stop_at)) {
        stop_at[0] = 0;
        kill(getpid(), SIGSTOP);
    }
}

#define NEXT(type, name, args) static type(*next) args; if (!next) next = (type(*) args)dlsym(RTLD_NEXT, name)

#define STEP(name, args, call, at, path, is_seen)                                   \
    int name args                                                                   \
    {                                                                               \
        NEXT(int, #name, args);                                                     \
        int result = next call;                                                     \
        if (result == 0)                                                            \
            step(#name, at, path, is_seen);                                         \
        return result;                                                              \
    }

STEP(mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path, 1)
STEP(mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), at, path, 1)
STEP(rmdir, (const char *path), (path), AT_FDCWD, path, 1)
STEP(unlink, (const char *path), (path), AT_FDCWD, path, 1)
STEP(unlinkat, (int at, const char *path, int flags), (at, path, flags), at, path, 1)
STEP(chmod, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path, 1)
STEP(rename, (const char *from, const char *to), (from, to), AT_FDCWD, to, 1)
STEP(renameat, (int from_at, const char *from, int at, const char *to), (from_at, from, at, to), at, to, 1)
STEP(renameat2, (int from_at, const char *from, int at, const char *to, unsigned how), (from_at, from, at, to, how), at, to, 1)
STEP(fsync, (int fd), (fd), fd, NULL, 0)
STEP(syncfs, (int fd), (fd), fd, NULL, 0)

#define OPENING(name)                                                               \
    int name(const char *path, int flags, ...)                                      \
    {                                                                               \
        NEXT(int, #name, (const char *, int, ...));                                 \
        va_list rest;                                                               \
        va_start(rest, flags);                                                      \
        mode_t mode = va_arg(rest, mode_t);                                         \
        va_end(rest);                                                               \
        int result = next(path, flags, mode);                                       \
        if (result >= 0 && flags & O_CREAT)                                         \
            step("create", AT_FDCWD, path, 1);                                      \
        return result;                                                              \
    }

OPENING(open)
OPENING(open64)
