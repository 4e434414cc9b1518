/* A file system that lacks something, for LD_PRELOAD.
 *
 * FAKE_STORAGE_FOLDER names a folder. Below it calls fail with these errno values:
 * FAKE_STORAGE_SHARED, mapping a file whose name ends with "-shm"; FAKE_STORAGE_LOCK,
 * fcntl() locks; FAKE_STORAGE_WRITE, writing anything but nothing at all.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))

static int chosen(const char *name) {
    const char *value = getenv(name);
    return value == NULL ? 0 : atoi(value);
}

/* The error for a call on this file, or 0. */
static int error_of(int fd, const char *variable, const char *ending) {
    char link[64];
    char path[PATH_MAX];
    const char *folder = getenv("FAKE_STORAGE_FOLDER");
    int error = chosen(variable);
    if (error == 0 || folder == NULL || fd < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0) return 0;
    size_t tail = strlen(ending);
    if ((size_t)length < tail) return 0;
    return strcmp(path + length - tail, ending) == 0 ? error : 0;
}

SHOWN void *mmap64(void *at, size_t size, int access, int flags, int fd, off_t offset) {
    static void *(*real)(void *, size_t, int, int, int, off_t);
    if (real == NULL) real = dlsym(RTLD_NEXT, "mmap64");
    int error = error_of(fd, "FAKE_STORAGE_SHARED", "-shm");
    if (error) {
        errno = error;
        return MAP_FAILED;
    }
    return real(at, size, access, flags, fd, offset);
}

SHOWN void *mmap(void *at, size_t size, int access, int flags, int fd, off_t offset) {
    return mmap64(at, size, access, flags, fd, offset);
}

static int is_lock(int command) {
    return command == F_SETLK || command == F_SETLKW || command == F_GETLK;
}

SHOWN int fcntl64(int fd, int command, ...) {
    static int (*real)(int, int, ...);
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (real == NULL) real = dlsym(RTLD_NEXT, "fcntl64");
    int error = is_lock(command) ? error_of(fd, "FAKE_STORAGE_LOCK", "") : 0;
    if (error) {
        errno = error;
        return -1;
    }
    return real(fd, command, argument);
}

SHOWN int fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return fcntl64(fd, command, argument);
}

SHOWN ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (real == NULL) real = dlsym(RTLD_NEXT, "pwrite64");
    int error = error_of(fd, "FAKE_STORAGE_WRITE", "");
    if (error) {
        errno = error;
        return -1;
    }
    return real(fd, data, size, offset);
}

SHOWN ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return pwrite64(fd, data, size, offset);
}

SHOWN ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (real == NULL) real = dlsym(RTLD_NEXT, "write");
    int error = error_of(fd, "FAKE_STORAGE_WRITE", "");
    if (error) {
        errno = error;
        return -1;
    }
    return real(fd, data, size);
}
