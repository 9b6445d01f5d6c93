/* Tells a test what a file system is asked for, and makes some of it fail. For LD_PRELOAD.
 *
 * Each call that writes, syncs, makes room in or removes a file is told to a function before it is done (which may
 * answer an errno instead) and after it has succeeded. In a process that no test listens in, syncs of files below a
 * folder `overlays` fail with EIO while the file that DISK_FAILS names is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

typedef int listener(int is_done, const char *call, const char *path);

static listener *told;

void disk_tell(listener *whom)
{
    told = whom;
}

static void path_of(int fd, char *path, size_t size)
{
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
}

static int is_failing(const char *path)
{
    const char *flag = getenv("DISK_FAILS");
    return flag && strstr(path, "/overlays/") && access(flag, F_OK) == 0;
}

static int refusal(const char *call, const char *path)
{
    return told ? told(0, call, path) : 0;
}

#define TOLD(name, result_type, args, call, fd, syncs)                          \
    result_type name args                                                       \
    {                                                                           \
        static result_type(*next) args;                                         \
        if (!next)                                                              \
            next = (result_type(*) args)dlsym(RTLD_NEXT, #name);                \
        char path[4096];                                                        \
        path_of(fd, path, sizeof path);                                         \
        int error = syncs && is_failing(path) ? EIO : refusal(#name, path);     \
        if (error) {                                                            \
            errno = error;                                                      \
            return -1;                                                          \
        }                                                                       \
        result_type result = next call;                                         \
        if (result >= 0 && told)                                                \
            told(1, #name, path);                                               \
        return result;                                                          \
    }

TOLD(fdatasync, int, (int fd), (fd), fd, 1)
TOLD(fsync, int, (int fd), (fd), fd, 1)
TOLD(pwrite64, ssize_t, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), fd, 0)
TOLD(pwrite, ssize_t, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), fd, 0)
TOLD(writev, ssize_t, (int fd, const struct iovec *parts, int count), (fd, parts, count), fd, 0)
TOLD(pwritev, ssize_t, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at), fd, 0)
TOLD(fallocate64, int, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size), fd, 0)

int unlinkat(int folder, const char *name, int flags)
{
    static int (*next)(int, const char *, int);
    if (!next)
        next = (int (*)(int, const char *, int))dlsym(RTLD_NEXT, "unlinkat");
    char path[4096 + 256];
    path_of(folder, path, 4096);
    size_t length = strlen(path);
    snprintf(path + length, sizeof path - length, "/%s", name);
    int error = refusal("unlinkat", path);
    if (error) {
        errno = error;
        return -1;
    }
    int result = next(folder, name, flags);
    if (result == 0 && told)
        told(1, "unlinkat", path);
    return result;
}
