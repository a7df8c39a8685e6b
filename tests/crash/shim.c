/* Preloaded into a writer under test: records what it writes below one folder, and fails or kills it at the n-th call.
 *
 * Everything is off until shim_arm() is called (by ctypes). Records go to a descriptor as
 * struct record + data, in the order in which the calls returned; a file called "acks" is recorded as such.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, SYNC, TRUNCATE, UNLINK, FOLDERSYNC, ACK };
enum { ON_WRITE = 1, ON_SYNC = 2, ON_TRUNCATE = 4, ON_OPEN = 8, ON_UNLINK = 16, ON_READ = 32 };
enum { FDS = 1024, NAME = 32, KILL = -1 };

struct record {
    uint32_t op;
    char name[NAME];
    uint32_t unused;
    int64_t offset, length;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char prefix[512];
static size_t prefix_length;
static char names[FDS][NAME];
static int record_fd = -1;
static long calls, first_bad, bad_count, partial;
static int mask, bad_errno, armed;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t raw_write(int fd, const void *data, size_t length) {
    REAL(write);
    return real(fd, data, length);
}

/* record: a descriptor or -1; what: mask of calls that count; the calls n .. n + count - 1 (from 1) fail with `error`
 * (-1: SIGKILL), the first of them, if it writes more than `part` > 0 bytes, after so many. */
void shim_arm(const char *folder, int record, int what, long n, long count, int error, long part) {
    pthread_mutex_lock(&lock);
    strncpy(prefix, folder, sizeof prefix - 1);
    prefix_length = strlen(prefix);
    record_fd = record;
    mask = what, first_bad = n, bad_count = count, bad_errno = error, partial = part, calls = 0;
    armed = 1;
    pthread_mutex_unlock(&lock);
}

void shim_disarm(void) { armed = 0; }
long shim_calls(void) { return calls; }

static void put(uint32_t op, const char *name, int64_t offset, int64_t length, const void *data) {
    struct record entry = {.op = op, .offset = offset, .length = length};
    if (record_fd < 0) return;
    strncpy(entry.name, name, NAME - 1);
    if (raw_write(record_fd, &entry, sizeof entry) != sizeof entry) _exit(97);
    if (data != NULL && length > 0 && raw_write(record_fd, data, (size_t)length) != length) _exit(97);
}

static const char *known(int fd) { return armed && fd >= 0 && fd < FDS && names[fd][0] ? names[fd] : NULL; }

static int is_ack(const char *name) { return strcmp(name, "acks") == 0; }

/* 0: go on; 1: fail now; 2: the first bad call, with a part to be written before */
static int due(int kind) {
    if (!(mask & kind) || first_bad <= 0) {
        if (mask & kind) calls++;
        return 0;
    }
    calls++;
    if (calls < first_bad || calls >= first_bad + bad_count) return 0;
    return calls == first_bad && partial > 0 ? 2 : 1;
}

static int fail(void) {
    if (bad_errno == KILL) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = bad_errno;
    return -1;
}

static const char *below(const char *path) {
    if (!armed || strncmp(path, prefix, prefix_length) != 0) return NULL;
    if (path[prefix_length] == 0) return ".";
    return path[prefix_length] == '/' && strchr(path + prefix_length + 1, '/') == NULL ? path + prefix_length + 1 : NULL;
}

static int opened(const char *path, int flags, int mode, int (*real)(const char *, int, ...)) {
    const char *name = below(path);
    struct stat found;
    int fd, is_new;
    if (name == NULL) return real(path, flags, mode);
    pthread_mutex_lock(&lock);
    if (!is_ack(name) && due(ON_OPEN)) {
        fail();
        pthread_mutex_unlock(&lock);
        return -1;
    }
    is_new = (flags & O_CREAT) && lstat(path, &found) != 0;
    fd = real(path, flags, mode);
    if (fd >= 0 && fd < FDS) {
        strncpy(names[fd], name, NAME - 1);
        if (is_new && !is_ack(name)) put(CREATE, name, 0, 0, NULL);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list list; \
        int mode = 0; \
        REAL(name); \
        va_start(list, flags); \
        if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(list, int); \
        va_end(list); \
        return opened(path, flags, mode, real); \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < FDS) names[fd][0] = 0;
    return real(fd);
}

static ssize_t wrote(int fd, const void *data, size_t length, int64_t offset, int has_offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    const char *name = known(fd);
    struct stat found;
    ssize_t done;
    int how;
    if (real == NULL) real = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (name == NULL) return has_offset ? real(fd, data, length, offset) : raw_write(fd, data, length);
    pthread_mutex_lock(&lock);
    if (is_ack(name)) {
        done = raw_write(fd, data, length);
        put(ACK, name, 0, (int64_t)length, data);
        pthread_mutex_unlock(&lock);
        return done;
    }
    how = due(ON_WRITE);
    if (how == 2 && (long)length <= partial) how = 1;
    if (how == 1) {
        fail();
        pthread_mutex_unlock(&lock);
        return -1;
    }
    if (how == 2) length = (size_t)partial;
    if (!has_offset) {
        if (fcntl(fd, F_GETFL) & O_APPEND) {
            offset = fstat(fd, &found) == 0 ? found.st_size : 0;
        } else {
            offset = lseek(fd, 0, SEEK_CUR);
        }
    }
    done = has_offset ? real(fd, data, length, offset) : raw_write(fd, data, length);
    if (done > 0) put(WRITE, name, offset, done, data);
    if (how == 2 && bad_errno == KILL) fail();
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t length) { return wrote(fd, data, length, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return wrote(fd, data, length, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return wrote(fd, data, length, offset, 1); }

static int synced(int fd, int (*real)(int)) {
    const char *name = known(fd);
    int done;
    if (name == NULL) return real(fd);
    pthread_mutex_lock(&lock);
    if (due(ON_SYNC)) {
        fail();
        pthread_mutex_unlock(&lock);
        return -1;
    }
    done = real(fd);
    if (done == 0) put(strcmp(name, ".") == 0 ? FOLDERSYNC : SYNC, name, 0, 0, NULL);
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd) {
    REAL(fsync);
    return synced(fd, real);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    return synced(fd, real);
}

static int truncated(int fd, int64_t length, int (*real)(int, off64_t)) {
    const char *name = known(fd);
    int done;
    if (name == NULL) return real(fd, length);
    pthread_mutex_lock(&lock);
    if (due(ON_TRUNCATE)) {
        fail();
        pthread_mutex_unlock(&lock);
        return -1;
    }
    done = real(fd, length);
    if (done == 0) put(TRUNCATE, name, length, 0, NULL);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t length) {
    REAL(ftruncate);
    return truncated(fd, length, real);
}

int ftruncate64(int fd, off64_t length) {
    REAL(ftruncate64);
    return truncated(fd, length, real);
}

int unlink(const char *path) {
    const char *name = below(path);
    int done;
    REAL(unlink);
    if (name == NULL) return real(path);
    pthread_mutex_lock(&lock);
    if (due(ON_UNLINK)) {
        fail();
        pthread_mutex_unlock(&lock);
        return -1;
    }
    done = real(path);
    if (done == 0) put(UNLINK, name, 0, 0, NULL);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pread64(int fd, void *data, size_t length, off64_t offset) {
    REAL(pread64);
    if (known(fd) == NULL || is_ack(known(fd))) return real(fd, data, length, offset);
    pthread_mutex_lock(&lock);
    if (due(ON_READ)) {
        fail();
        pthread_mutex_unlock(&lock);
        return -1;
    }
    pthread_mutex_unlock(&lock);
    return real(fd, data, length, offset);
}
