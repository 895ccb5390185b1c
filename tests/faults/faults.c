/* What goes wrong below a program: each call that changes a file under a folder is counted, and at the nth the process
   is killed, or told that the disk failed. Loaded with LD_PRELOAD; a process arms it for itself by fault_arm. */

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

static char folder[PATH_MAX];
static atomic_long calls, strike_at;
static int strike_errno; /* 0: kill */
static FILE *trace;

/* Strike at the nth call from now on under a folder (never, when n is 0); with a path, write down the calls there. */
void fault_arm(const char *under, long n, int error, const char *log) {
  snprintf(folder, sizeof folder, "%s", under);
  strike_errno = error;
  atomic_store(&calls, 0);
  atomic_store(&strike_at, n);
  trace = log && *log ? fopen(log, "we") : NULL;
}

long fault_calls(void) { return atomic_load(&calls); }

static int is_under(const char *path) {
  char whole[PATH_MAX * 2];
  if (!folder[0] || !path) return 0;
  if (path[0] != '/') {
    char here[PATH_MAX];
    if (!getcwd(here, sizeof here)) return 0;
    snprintf(whole, sizeof whole, "%s/%s", here, path);
    path = whole;
  }
  /* SQLite's index of its log is memory that is shared, and worked out anew when it is lost. */
  size_t length = strlen(path);
  if (length > 4 && strcmp(path + length - 4, "-shm") == 0) return 0;
  return strncmp(path, folder, strlen(folder)) == 0;
}

static int path_of(int fd, char *path) {
  char link[64];
  path[0] = 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_under(path);
}

/* Whether this call is to fail with an errno: EACCES only where names are made, the others everywhere. A full disk stays
   full; a failure of any other kind passes. What only takes away still works on a full disk. */
static int strikes(const char *what, const char *path, int makes_name, int takes_away) {
  int saved = errno;
  long n = atomic_fetch_add(&calls, 1) + 1, at = atomic_load(&strike_at);
  if (trace) { fprintf(trace, "%s\t%s\n", what, path); fflush(trace); }
  errno = saved;
  if (!at || n < at) return 0;
  if (!strike_errno) { kill(getpid(), SIGKILL); for (;;) pause(); }
  if (strike_errno == ENOSPC) { if (takes_away) return 0; }
  else if (strike_errno == EACCES) { if (!makes_name) return 0; atomic_store(&strike_at, LONG_MAX); }
  else if (n > at) return 0;
  errno = strike_errno;
  return 1;
}

#define NEXT(name) static __typeof__(name) *next; if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define MOST(name, ...) if (path_of(fd, path) && strikes(#name, path, 0, 0)) return -1

/* A write that is struck down was half done. */
#define WRITES(name, half, ...) \
  char path[PATH_MAX]; \
  NEXT(name); \
  if (path_of(fd, path)) { \
    if (strike_at && atomic_load(&calls) + 1 == atomic_load(&strike_at) && !strike_errno) half; \
    if (strikes(#name, path, 0, 0)) return -1; \
  } \
  return next(__VA_ARGS__)

ssize_t write(int fd, const void *data, size_t size) { WRITES(write, (void)!next(fd, data, size / 2), fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { WRITES(pwrite, (void)!next(fd, data, size / 2, at), fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { WRITES(pwrite64, (void)!next(fd, data, size / 2, at), fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { WRITES(writev, , fd, parts, count); }

#define ON_FD(name, ...) char path[PATH_MAX]; NEXT(name); MOST(name); return next(__VA_ARGS__)
/* Counted, and not done: a kill takes nothing from what the kernel holds, and the disk is what a case would wait for. */
#define SYNCS(name) char path[PATH_MAX]; NEXT(name); MOST(name); return is_under(path) ? 0 : next(fd)
int fsync(int fd) { SYNCS(fsync); }
int fdatasync(int fd) { SYNCS(fdatasync); }
int ftruncate(int fd, off_t size) { ON_FD(ftruncate, fd, size); }
int ftruncate64(int fd, off64_t size) { ON_FD(ftruncate64, fd, size); }

static void note(const char *what, const char *path) {
  if (trace && is_under(path)) { fprintf(trace, "%s\t%s\n", what, path); fflush(trace); }
}

#define ON_PATH(name, at, makes, takes, ...) NEXT(name); if (is_under(at) && strikes(#name, at, makes, takes)) return -1; return next(__VA_ARGS__)
int rename(const char *from, const char *to) { note("from", from); ON_PATH(rename, to, 1, 0, from, to); }
int link(const char *from, const char *to) { note("from", from); ON_PATH(link, to, 1, 0, from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) { note("from", from); ON_PATH(linkat, to, 1, 0, a, from, b, to, flags); }
int renameat(int a, const char *from, int b, const char *to) { note("from", from); ON_PATH(renameat, to, 1, 0, a, from, b, to); }
int unlink(const char *path) { ON_PATH(unlink, path, 0, 1, path); }
int mkdir(const char *path, mode_t mode) {
  NEXT(mkdir);
  if (is_under(path) && access(path, F_OK) != 0 && strikes("mkdir", path, 1, 0)) return -1;
  return next(path, mode);
}
int rmdir(const char *path) { ON_PATH(rmdir, path, 0, 1, path); }
int truncate(const char *path, off_t size) { ON_PATH(truncate, path, 0, 0, path, size); }
int truncate64(const char *path, off64_t size) { ON_PATH(truncate64, path, 0, 0, path, size); }

/* Whether a file comes to be, or loses what is in it. */
static int makes(const char *path, int flags) {
  if (!is_under(path)) return 0;
  int saved = errno, is_new = (flags & O_CREAT) && access(path, F_OK) != 0;
  errno = saved;
  return is_new || (flags & O_TRUNC);
}

#define OPENS(name, ...) \
  NEXT(name); \
  mode_t mode = 0; \
  if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
  if (makes(path, flags) && strikes(#name, path, 1, 0)) return -1; \
  return next(__VA_ARGS__, flags, mode)
int open(const char *path, int flags, ...) { OPENS(open, path); }
int open64(const char *path, int flags, ...) { OPENS(open64, path); }
int openat(int at, const char *path, int flags, ...) { OPENS(openat, at, path); }
int openat64(int at, const char *path, int flags, ...) { OPENS(openat64, at, path); }
