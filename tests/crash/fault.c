/* Makes one write or flush of a store's data file fail, or kills the process there. For LD_PRELOAD.
 *
 * Counts every call that writes or flushes a file named data.mdb; the one whose number is armed fails with an errno,
 * or is the last thing the process does. A short write is what a full disk gives: half of the bytes, then nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { NOTHING, FAIL, KILL_BEFORE, KILL_AFTER, TEAR };

static long calls, armed;
static enum action action;
static int fault_errno;

void fault_arm(long at, int what, int error)
{
    calls = 0, armed = at, action = what, fault_errno = error;
}

long fault_calls(void)
{
    return calls;
}

static int concerns(int fd)
{
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return length >= 8 && !memcmp(path + length - 8, "data.mdb", 8);
}

static enum action due(int fd)
{
    if (!concerns(fd) || ++calls != armed)
        return NOTHING;
    if (action == KILL_BEFORE)
        kill(getpid(), SIGKILL);
    return action;
}

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

#define FAULTY(name, result_type, args, call, half)                     \
    result_type name args                                               \
    {                                                                   \
        static result_type(*next) args;                                 \
        if (!next)                                                      \
            next = (result_type(*) args)real(#name);                    \
        enum action what = due(fd);                                     \
        if (what == FAIL) {                                             \
            errno = fault_errno;                                        \
            return -1;                                                  \
        }                                                               \
        if (what == TEAR) {                                             \
            half;                                                       \
            kill(getpid(), SIGKILL);                                    \
        }                                                               \
        result_type result = next call;                                 \
        if (what == KILL_AFTER)                                         \
            kill(getpid(), SIGKILL);                                    \
        return result;                                                  \
    }

FAULTY(pwrite, ssize_t, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), next(fd, data, size / 2, at))
FAULTY(pwrite64, ssize_t, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), next(fd, data, size / 2, at))
FAULTY(write, ssize_t, (int fd, const void *data, size_t size), (fd, data, size), next(fd, data, size / 2))
FAULTY(writev, ssize_t, (int fd, const struct iovec *parts, int count), (fd, parts, count), next(fd, parts, count / 2))
FAULTY(pwritev, ssize_t, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at), next(fd, parts, count / 2, at))
FAULTY(fdatasync, int, (int fd), (fd), (void)0)
FAULTY(fsync, int, (int fd), (fd), (void)0)
FAULTY(ftruncate, int, (int fd, off_t length), (fd, length), (void)0)
