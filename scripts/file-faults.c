/* Preloaded by scripts/file-faults: makes the N-th open, write, fsync or rename below a folder fail.
 *
 * From the environment, for a whole program:
 *     FAULT_FOLDER   only files below it count, and the standard output where FAULT_STDOUT is set
 *     FAULT          "CALL ERRNO N", for instance "write 28 3"
 *     FAULT_FIRED    a file that is made when the fault has happened
 *
 * A program may also ask while it runs, by opening names that no file has: "/fault/arm CALL ERRNO N" arms and is never
 * there; "/fault/fired" disarms, and is there (/dev/null) if the fault has happened since.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char call[16];
static int number, left, fired;

static void arm(const char *text) {
  pthread_mutex_lock(&lock);
  fired = 0;
  if (sscanf(text, "%15s %d %d", call, &number, &left) != 3) left = 0;
  pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void begin(void) {
  const char *text = getenv("FAULT");
  if (text) arm(text);
}

/* Whether this call is to fail; sets errno then. */
static int fails(const char *name) {
  pthread_mutex_lock(&lock);
  const int now = left > 0 && strcmp(name, call) == 0 && --left == 0;
  if (now) fired = 1;
  pthread_mutex_unlock(&lock);
  if (!now) return 0;
  const char *told = getenv("FAULT_FIRED");
  if (told) close(REAL(open)(told, O_WRONLY | O_CREAT, 0600));
  errno = number;
  return 1;
}

static int is_ours(const char *path) {
  const char *folder = getenv("FAULT_FOLDER");
  return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_our_file(int fd) {
  char name[64], path[4096];
  if (fd == 1 && getenv("FAULT_STDOUT")) return 1;
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(name, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_ours(path);
}

/* An open that was asked of us: -1 with errno, a file, or -2 where it is none of ours. */
static int asked(const char *path) {
  if (strncmp(path, "/fault/arm ", 11) == 0) {
    arm(path + 11);
    errno = ENOENT;
    return -1;
  }
  if (strcmp(path, "/fault/fired") == 0) {
    left = 0;
    if (fired) return REAL(open)("/dev/null", O_RDONLY);
    errno = ENOENT;
    return -1;
  }
  if (is_ours(path) && fails("open")) return -1;
  return -2;
}

#define OPEN(name)                                    \
  int name(const char *path, int flags, ...) {        \
    const int answer = asked(path);                   \
    if (answer != -2) return answer;                  \
    va_list rest;                                     \
    va_start(rest, flags);                            \
    const mode_t mode = va_arg(rest, mode_t);         \
    va_end(rest);                                     \
    return REAL(name)(path, flags, mode);             \
  }

OPEN(open)
OPEN(open64)

#define OPENAT(name)                                          \
  int name(int folder, const char *path, int flags, ...) {    \
    const int answer = asked(path);                           \
    if (answer != -2) return answer;                          \
    va_list rest;                                             \
    va_start(rest, flags);                                    \
    const mode_t mode = va_arg(rest, mode_t);                 \
    va_end(rest);                                             \
    return REAL(name)(folder, path, flags, mode);             \
  }

OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                         \
  FILE *name(const char *path, const char *mode) {          \
    return asked(path) == -2 ? REAL(name)(path, mode) : NULL; \
  }

FOPEN(fopen)
FOPEN(fopen64)

DIR *opendir(const char *path) { return asked(path) == -2 ? REAL(opendir)(path) : NULL; }

ssize_t write(int fd, const void *bytes, size_t count) {
  return is_our_file(fd) && fails("write") ? -1 : REAL(write)(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
  return is_our_file(fd) && fails("write") ? -1 : REAL(writev)(fd, pieces, count);
}

int fsync(int fd) { return is_our_file(fd) && fails("fsync") ? -1 : REAL(fsync)(fd); }

int rename(const char *from, const char *to) {
  return is_ours(to) && fails("rename") ? -1 : REAL(rename)(from, to);
}

int renameat(int folder, const char *from, int other, const char *to) {
  return is_ours(to) && fails("rename") ? -1 : REAL(renameat)(folder, from, other, to);
}
