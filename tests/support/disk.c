/* A disk that is watched: preloaded into redis-server, it notes what fsync and fdatasync have really confirmed, in the folder
   DISK_NOTES. support/disk.rs reads that, and leaves after a loss of power what was confirmed and nothing else.

   Each note is one line that is appended to the file "log" with one write, after the call has returned and before Redis knows it:
     file INODE LENGTH           so much of this file is on the disk, at least
     cut INODE LENGTH            it was made shorter, so no more of it is
     folder INODE NAME ...       these files, and no others, have a name in the folder of the append-only file
   A file is kept under its inode, as a hard link in DISK_NOTES, so that a name which has been overwritten or removed since, without
   the folder being confirmed again, can be given back; and so that its inode is nobody else's later.

   While somebody holds the lock of the file "stall", no call begins: a disk that is too busy. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char AOF_FOLDER[] = "/appendonlydir";

/* What is not noted would be lost although it was confirmed: rather no server than one that is watched wrongly. */
static void need(int so, const char *what) {
    if (so) return;
    perror(what);
    abort();
}

static void in_notes(char *path, size_t size, const char *name) {
    const char *folder = getenv("DISK_NOTES");
    need(folder != NULL, "DISK_NOTES");
    need(snprintf(path, size, "%s/%s", folder, name) < (int)size, "a path that is too long");
}

static void note(const char *line) {
    char path[4096];
    in_notes(path, sizeof path, "log");
    int log = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    need(log >= 0, path);
    need(write(log, line, strlen(line)) == (ssize_t)strlen(line), path);
    close(log);
}

static void note_length(const char *what, const struct stat *file) {
    char line[128];
    snprintf(line, sizeof line, "%s %llu %llu\n", what, (unsigned long long)file->st_ino,
             (unsigned long long)file->st_size);
    note(line);
}

static void keep(const char *path, unsigned long long inode) {
    char name[32], kept[4096];
    snprintf(name, sizeof name, "%llu", inode);
    in_notes(kept, sizeof kept, name);
    int failed = linkat(AT_FDCWD, path, AT_FDCWD, kept, AT_SYMLINK_FOLLOW);
    /* A file whose last name is gone cannot come back. */
    need(!failed || errno == EEXIST || errno == ENOENT, kept);
}

static void wait_while_stalled(void) {
    char path[4096];
    in_notes(path, sizeof path, "stall");
    int stall = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    need(stall >= 0, path);
    while (flock(stall, LOCK_SH)) need(errno == EINTR, path);
    close(stall);
}

/* What has a name in the folder now, as a note. */
static void names_in(const char *folder, char *line, size_t size) {
    DIR *entries = opendir(folder);
    need(entries != NULL, folder);
    size_t length = snprintf(line, size, "folder");
    struct dirent *entry;
    while ((entry = readdir(entries))) {
        if (entry->d_name[0] == '.') continue;
        char path[4096 + 256];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        keep(path, entry->d_ino);
        length += snprintf(line + length, size - length, " %llu %s", (unsigned long long)entry->d_ino, entry->d_name);
        need(length + 2 < size, "too many files");
    }
    closedir(entries);
    strcpy(line + length, "\n");
}

static int confirmed(int file, long call) {
    wait_while_stalled();
    char link[64], path[4096], names[16384];
    struct stat before;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    int is_known = length > 0 && !fstat(file, &before);
    path[is_known ? length : 0] = 0;
    int is_file = is_known && S_ISREG(before.st_mode);
    size_t suffix = sizeof AOF_FOLDER - 1;
    int is_folder = is_known && S_ISDIR(before.st_mode) && strlen(path) > suffix
        && !strcmp(path + strlen(path) - suffix, AOF_FOLDER);
    if (is_folder) names_in(path, names, sizeof names);
    int failed = (int)syscall(call, file), error = errno;
    /* What was written meanwhile may be on the disk or not: the length is that of before. */
    if (!failed && is_file) {
        keep(link, before.st_ino);
        note_length("file", &before);
    }
    if (!failed && is_folder) note(names);
    errno = error;
    return failed;
}

int fsync(int file) { return confirmed(file, SYS_fsync); }

int fdatasync(int file) { return confirmed(file, SYS_fdatasync); }

int ftruncate64(int file, off64_t length) {
    struct stat cut;
    int failed = (int)syscall(SYS_ftruncate, file, length);
    if (!failed && !fstat(file, &cut)) note_length("cut", &cut);
    return failed;
}

int truncate64(const char *path, off64_t length) {
    struct stat cut;
    int failed = (int)syscall(SYS_truncate, path, length);
    if (!failed && !stat(path, &cut)) note_length("cut", &cut);
    return failed;
}
