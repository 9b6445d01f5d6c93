// calls ACT PLACE COUNT: the system calls that bench `mount` times, without an interpreter around them. Prints
// nanoseconds a call. PLACE is a folder, or for read, write and their random kinds a file of COUNT blocks of 4 KiB.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, BULK = 1 << 20, PER_BULK = BULK / BLOCK };

static char bytes[BULK];

static void check(int succeeded, const char *what) {
    if (!succeeded) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void make(const char *path, int length) {
    int file = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
    check(file >= 0, path);
    check(length == 0 || write(file, bytes, length) == length, path);
    check(close(file) == 0, path);
}

static void list(const char *path, long count) {
    DIR *folder = opendir(path);
    check(folder != NULL, path);
    long found = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        found += entry->d_name[0] != '.';
    closedir(folder);
    errno = ERANGE;
    check(found == count, path);
}

static void each_file(const char *act, const char *folder, long count) {
    char path[4096];
    struct stat found;
    for (long at = 0; at < count; at++) {
        snprintf(path, sizeof path, "%s/%06ld", folder, at);
        if (!strcmp(act, "create"))
            make(path, 0);
        else if (!strcmp(act, "create4k"))
            make(path, BLOCK);
        else if (!strcmp(act, "stat"))
            check(stat(path, &found) == 0, path);
        else
            check(unlink(path) == 0, path);
    }
}

// Every block once, in an order that is the same in every run.
static long shuffled(long at, long count) { return (at * 7919L + 4801L) % count; }

static void blocks(const char *act, int file, long count) {
    int reads = strstr(act, "read") != NULL;
    for (long at = 0; at < count; at++) {
        off_t place = shuffled(at, count) * BLOCK;
        if (!strcmp(act, "reread"))
            place = at % 16 * BLOCK;
        check((reads ? pread(file, bytes, BLOCK, place) : pwrite(file, bytes, BLOCK, place)) == BLOCK, act);
    }
}

static void bulk(const char *act, int file, long count) {
    for (long at = 0; at < count / PER_BULK; at++)
        check((!strcmp(act, "read") ? read(file, bytes, BULK) : write(file, bytes, BULK)) == BULK, act);
}

int main(int number, char **words) {
    check(number == 4, "calls ACT PLACE COUNT");
    const char *act = words[1], *place = words[2];
    long count = atol(words[3]);
    int file = -1;
    int of_file = strstr(act, "read") != NULL || strstr(act, "write") != NULL;
    if (of_file && strcmp(act, "readdir")) {
        file = open(place, O_RDWR | (!strcmp(act, "write") ? O_CREAT | O_TRUNC : 0), 0644);
        check(file >= 0, place);
        memset(bytes, 7, sizeof bytes);
    }
    double start = now();
    if (!strcmp(act, "readdir"))
        list(place, count);
    else if (!strcmp(act, "read") || !strcmp(act, "write"))
        bulk(act, file, count);
    else if (file >= 0)
        blocks(act, file, count);
    else
        each_file(act, place, count);
    printf("%.1f\n", (now() - start) / count);
    return 0;
}
