/* serve/sealed.c - see sealed.h. */
#include "serve/sealed.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"

rt_status rt_sealed_open(int *out, const char *folder, const char *name, rt_error *err)
{
    *out = -1;
    if (sodium_init() < 0)
        return rt_error_set(err, RT_INTERNAL, "libsodium cannot be started");
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return rt_error_set(err, RT_IO, "%.300s: the folder cannot be made: %s", folder, strerror(errno));
    char *path = rt_path_join(folder, name);
    *out = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    struct stat info;
    rt_status status = RT_OK;
    if (*out < 0)
        status = rt_error_set(err, RT_IO, "%.300s/%s: cannot be opened: %s", folder, name, strerror(errno));
    else if (fstat(*out, &info) != 0 || !S_ISREG(info.st_mode) || (info.st_mode & 077))
        status = rt_error_set(err, RT_FORBIDDEN,
                              "%.300s/%s: others may read it, and what is sealed is worth nothing once it is "
                              "known: 'chmod 600' it, or begin in another folder",
                              folder, name);
    free(path);
    return status;
}

bool rt_sealed_append(int fd, const json_t *row)
{
    rt_text line = {0};
    char *text = json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (text)
        rt_text_printf(&line, "%s\n", text);
    const bool ok = text && !line.failed && write(fd, line.data, line.size) == (ssize_t)line.size;
    free(text);
    rt_text_deinit(&line);
    return ok;
}

const char *rt_sealed_prompt(const rt_call *call)
{
    const json_t *messages = json_object_get(call->body, "messages");
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (!messages)
        return json_string_value(json_object_get(call->body, "prompt"));
    return role && strcmp(role, "user") == 0 ? json_string_value(json_object_get(last, "content")) : NULL;
}

bool rt_sealed_suits(const rt_call *call)
{
    return call->caller && !call->scores && call->job->n_choices == 1 &&
           call->job->options.sampling.temperature > 0 &&
           !rt_member(call->body, "seed") && /* a seed promises the same bytes, which a coin would break */
           rt_sealed_prompt(call) != NULL;
}

bool rt_sealed_coin(double share)
{
    return share > 0 && randombytes_uniform(1u << 30) < share * (double)(1u << 30);
}
