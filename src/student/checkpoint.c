/* student/checkpoint.c - see checkpoint.h. */
#include "student/checkpoint.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/size.h"
#include "model/safetensors_write.h"

enum { VERSION = 2, STATE_COUNT = 12, IDENTITY_BYTES = 64 };
static const char *const array_names[] = {"values", "adam_m", "adam_v"};

enum { PARTS_MAX = 12, OWN_PARTS = 4, PART_WORDS = 6, RANKS_MAX = 1 << 16 };
static const char *const own_names[OWN_PARTS] = {"own_ids", "own_mask", "own_logp", "own_begins"};
static const rt_dtype own_types[OWN_PARTS] = {RT_I32, RT_U8, RT_F32, RT_I64};

typedef struct part { /* a tensor of the file: one dimension */
    const char *name;
    rt_dtype dtype;
    size_t count, bytes;
    const void *data;
} part;

static int wider_first(const void *a, const void *b)
{
    const part *x = a, *y = b;
    const size_t m = rt_dtype_get(x->dtype)->block_bytes, n = rt_dtype_get(y->dtype)->block_bytes;
    return m != n ? (m < n) - (m > n) : strcmp(x->name, y->name);
}

static rt_status write_parts(const char *path, part *parts, size_t n, rt_error *err)
{
    qsort(parts, n, sizeof *parts, wider_first); /* so that every tensor lies aligned */
    rt_safetensors_writer *writer;
    if (rt_safetensors_writer_open(&writer, path, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    for (size_t i = 0; i < n && status == RT_OK; i++)
        status = rt_safetensors_writer_tensor(writer, parts[i].name, parts[i].dtype, 1, &parts[i].count, err);
    if (status == RT_OK)
        status = rt_safetensors_writer_begin(writer, err);
    for (size_t i = 0; i < n && status == RT_OK; i++)
        status = rt_safetensors_writer_data(writer, parts[i].data, parts[i].bytes, err);
    if (status == RT_OK)
        return rt_safetensors_writer_commit(writer, err);
    rt_safetensors_writer_abort(writer);
    return status;
}

/* The set of own answers at hand, as parts; words: state and sums; begins: room for n_docs + 1. */
static size_t own_parts(const rt_own *own, part *out, int64_t words[RT_OWN_WORDS + OWN_PARTS],
                        int64_t *begins)
{
    const size_t n = own->docs.n_tokens, docs = own->docs.n_docs;
    for (size_t i = 0; i <= docs; i++)
        begins[i] = docs ? (int64_t)own->docs.begins[i] : 0;
    const struct {
        const void *data;
        size_t count, size;
    } arrays[OWN_PARTS] = {{own->docs.ids, n, sizeof(int32_t)},
                           {own->docs.mask, n, 1},
                           {own->logp_old, own->logp_old ? n : 0, sizeof(float)},
                           {begins, docs + 1, sizeof(int64_t)}};
    rt_own_words(own, words);
    out[0] = (part){"own_state", RT_I64, RT_OWN_WORDS + OWN_PARTS, (RT_OWN_WORDS + OWN_PARTS) * sizeof *words,
                    words};
    for (size_t i = 0; i < OWN_PARTS; i++) {
        out[i + 1] = (part){own_names[i], own_types[i], arrays[i].count, arrays[i].count * arrays[i].size,
                            arrays[i].data};
        words[RT_OWN_WORDS + i] = (int64_t)rt_hash64(arrays[i].data, out[i + 1].bytes, 0);
    }
    return OWN_PARTS + 1;
}

/* "DIR/checkpoint.STEP.RANKofSIZE.safetensors" beside the checkpoint that names it. */
static char *part_path(const char *path, uint64_t step, size_t rank, size_t size)
{
    const char *slash = strrchr(path, '/');
    rt_text out = {0};
    rt_text_append(&out, path, slash ? (size_t)(slash - path) + 1 : 0);
    rt_text_printf(&out, "checkpoint.%llu.%zuof%zu.safetensors", (unsigned long long)step, rank, size);
    return out.data; /* NULL where memory is short */
}

/* One rank's values and moments. */
static rt_status write_part(const char *path, const rt_trainer *t, const char identity[65], rt_error *err)
{
    size_t begin, end;
    rt_trainer_part(t, &begin, &end);
    const float *const arrays[] = {t->values + begin, t->m + begin, t->v + begin};
    const size_t bytes = (end - begin) * sizeof(float);
    int64_t words[PART_WORDS] = {(int64_t)t->step, (int64_t)begin, (int64_t)end};
    part parts[PARTS_MAX] = {{"part", RT_I64, PART_WORDS, sizeof words, words}};
    size_t n = 1;
    for (size_t i = 0; i < 3; i++) {
        words[3 + i] = (int64_t)rt_hash64(arrays[i], bytes, 0);
        parts[n++] = (part){array_names[i], RT_F32, end - begin, bytes, arrays[i]};
    }
    parts[n++] = (part){"identity", RT_U8, IDENTITY_BYTES, IDENTITY_BYTES, identity};
    return write_parts(path, parts, n, err);
}

/* Every rank its part, and only when all are on disk the file that names them. */
static rt_status write_own_part(const char *path, const rt_trainer *t, const char identity[65], rt_error *err)
{
    const rt_ranks *ranks = t->options.ranks;
    char *file = part_path(path, t->step, ranks->rank, ranks->size);
    rt_status status =
        file ? write_part(file, t, identity, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    free(file);
    double failed = status != RT_OK;
    rt_error sum_err = {0};
    if (ranks->sum(ranks->self, &failed, 1, &sum_err) != RT_OK && status == RT_OK) {
        *err = sum_err;
        return sum_err.status;
    }
    if (status == RT_OK && failed > 0)
        return rt_error_set(err, RT_IO,
                            "another rank could not write its part of the checkpoint; the last one stands");
    return status;
}

/* Deletes parts of other steps than the one that the checkpoint names now. */
static void remove_old_parts(const char *path, uint64_t step, bool keep)
{
    const char *slash = strrchr(path, '/');
    char dir[512], kept[64];
    const size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof dir)
        return;
    memcpy(dir, path, n);
    dir[n] = '\0';
    (void)snprintf(kept, sizeof kept, "checkpoint.%llu.", (unsigned long long)step);
    DIR *folder = opendir(n ? dir : ".");
    for (const struct dirent *entry; folder && (entry = readdir(folder));) {
        unsigned long long of;
        size_t rank, size;
        int end = 0;
        if (sscanf(entry->d_name, "checkpoint.%llu.%zuof%zu.safetensors%n", &of, &rank, &size, &end) == 3 &&
            end > 0 && !entry->d_name[end] && !(keep && strncmp(entry->d_name, kept, strlen(kept)) == 0)) {
            (void)unlinkat(dirfd(folder), entry->d_name, 0);
        }
    }
    if (folder)
        (void)closedir(folder);
}

static rt_status write_whole(const char *path, const rt_trainer *t, const rt_run_state *state,
                             const rt_own *own, const char identity[65], bool named, rt_error *err)
{
    const float *const arrays[] = {t->values, t->m, t->v};
    const size_t bytes = named ? 0 : t->total * sizeof(float);
    int64_t words[STATE_COUNT] = {VERSION, (int64_t)state->step, (int64_t)state->cursor,
                                  (int64_t)state->tokens, (int64_t)(state->seconds * 1000)};
    const double taid[] = {t->taid.t, t->taid.mean, t->taid.last_loss};
    memcpy(words + 8, taid, sizeof taid);
    words[11] = (int64_t)t->taid.step;
    part parts[PARTS_MAX] = {{"state", RT_I64, STATE_COUNT, sizeof words, words}};
    size_t n = 1;
    for (size_t i = 0; i < 3; i++) {
        words[5 + i] = named ? 0 : (int64_t)rt_hash64(arrays[i], bytes, 0);
        if (!named)
            parts[n++] = (part){array_names[i], RT_F32, t->total, bytes, arrays[i]};
    }
    const int64_t size = named ? (int64_t)t->options.ranks->size : 0;
    if (named)
        parts[n++] = (part){"parts", RT_I64, 1, sizeof size, &size};
    parts[n++] = (part){"identity", RT_U8, IDENTITY_BYTES, IDENTITY_BYTES, identity};
    int64_t own_words[RT_OWN_WORDS + OWN_PARTS], *begins = NULL;
    if (own) {
        begins = calloc(own->docs.n_docs + 1, sizeof *begins);
        if (!begins)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu documents", own->docs.n_docs);
        n += own_parts(own, parts + n, own_words, begins);
    }
    const rt_status status = write_parts(path, parts, n, err);
    free(begins);
    return status;
}

rt_status rt_checkpoint_write(const char *path, const rt_trainer *t, const rt_run_state *state,
                              const rt_own *own, const char identity[65], rt_error *err)
{
    const rt_ranks *ranks = t->options.ranks;
    if (ranks && write_own_part(path, t, identity, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    if (!ranks || ranks->rank == 0)
        status = write_whole(path, t, state, own, identity, ranks != NULL, err);
    double failed = status != RT_OK; /* nobody goes on before it is on disk */
    rt_error sum_err = {0};
    if (ranks && ranks->sum(ranks->self, &failed, 1, &sum_err) != RT_OK && status == RT_OK) {
        *err = sum_err;
        return sum_err.status;
    }
    if (status == RT_OK && failed > 0)
        return rt_error_set(err, RT_IO, "the first rank could not write the checkpoint; the last one stands");
    if (status == RT_OK && (!ranks || ranks->rank == 0))
        remove_old_parts(path, t->step, ranks != NULL);
    return status;
}

static rt_status read_own(const rt_weights *file, rt_own *own, rt_error *err)
{
    const rt_weight *state = rt_weights_find(file, "own_state"), *parts[OWN_PARTS];
    int64_t words[RT_OWN_WORDS + OWN_PARTS];
    bool fits = state && state->bytes == sizeof words;
    if (fits)
        memcpy(words, state->data, sizeof words);
    for (size_t i = 0; i < OWN_PARTS && fits; i++) {
        parts[i] = rt_weights_find(file, own_names[i]);
        fits = parts[i] && parts[i]->dtype == own_types[i] &&
               (int64_t)rt_hash64(parts[i]->data, parts[i]->bytes, 0) == words[RT_OWN_WORDS + i];
    }
    const size_t n = fits ? parts[0]->bytes / sizeof(int32_t) : 0;
    const size_t logp = fits ? parts[2]->bytes / sizeof(float) : 0;
    fits = fits && parts[1]->bytes == n && (logp == n || logp == 0) && parts[3]->bytes >= sizeof(int64_t);
    if (!fits)
        return rt_error_set(
            err, RT_CORRUPT,
            "the student's own answers are missing or damaged: delete the file to begin anew");
    /* a file's data may lie unaligned */
    const size_t docs = parts[3]->bytes / sizeof(int64_t) - 1;
    int32_t *ids = malloc(rt_size_max(parts[0]->bytes, 1));
    float *logp_old = calloc(rt_size_max(n, 1), sizeof *logp_old);
    int64_t *begins = malloc(parts[3]->bytes);
    rt_status status = RT_OK;
    if (!ids || !logp_old || !begins) {
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for %zu tokens", n);
    } else {
        if (n)
            memcpy(ids, parts[0]->data, parts[0]->bytes);
        if (logp)
            memcpy(logp_old, parts[2]->data, parts[2]->bytes);
        memcpy(begins, parts[3]->data, parts[3]->bytes);
        status = rt_own_restore(own, words, ids, parts[1]->data, logp_old, n, begins, docs, err);
    }
    free(ids);
    free(logp_old);
    free(begins);
    return status;
}

static rt_status check(const rt_weights *file, const char identity[65], int64_t words[STATE_COUNT],
                       rt_error *err)
{
    const rt_weight *state = rt_weights_find(file, "state"), *owner = rt_weights_find(file, "identity");
    if (!state || state->bytes < sizeof *words || !owner || owner->bytes != IDENTITY_BYTES)
        return rt_error_set(err, RT_CORRUPT, "not a checkpoint of this program");
    memcpy(words, state->data, rt_size_min(state->bytes, STATE_COUNT * sizeof *words));
    if (words[0] == VERSION && state->bytes != STATE_COUNT * sizeof *words)
        return rt_error_set(err, RT_CORRUPT, "not a checkpoint of this program");
    if (words[0] != VERSION)
        return rt_error_set(err, RT_UNSUPPORTED, "a checkpoint of version %lld; this build writes version %d",
                            (long long)words[0], (int)VERSION);
    if (memcmp(owner->data, identity, IDENTITY_BYTES) != 0)
        return rt_error_set(
            err, RT_MISMATCH,
            "the run in this folder was made with other settings, data or models; use another folder, or "
            "--restart to begin anew");
    return RT_OK;
}

static rt_status damaged(const char *what, rt_error *err)
{
    return rt_error_set(err, RT_CORRUPT,
                        "%s does not agree with its sum: the file is damaged; delete it to begin anew", what);
}

/* The arrays of a file, [begin, end) of the trainer's, into it: values whole, moments as far as they are its
 * own. */
static rt_status take_arrays(const rt_weights *file, rt_trainer *t, size_t begin, size_t end,
                             const int64_t sums[3], rt_error *err)
{
    float *const arrays[] = {t->values, t->m, t->v};
    const size_t bytes = (end - begin) * sizeof(float);
    size_t from, to;
    for (size_t i = 0; i < 3; i++) {
        const rt_weight *w = rt_weights_find(file, array_names[i]);
        if (!w || w->dtype != RT_F32 || w->bytes != bytes)
            return rt_error_set(err, RT_CORRUPT, "%s has another size than the student", array_names[i]);
        if ((int64_t)rt_hash64(w->data, bytes, 0) != sums[i])
            return damaged(array_names[i], err);
    }
    rt_trainer_part(t, &from, &to);
    for (size_t i = 0; i < 3; i++) {
        const size_t first = i ? rt_size_max(begin, from) : begin, last = i ? rt_size_min(end, to) : end;
        const float *data = rt_weights_find(file, array_names[i])->data;
        if (first < last)
            memcpy(arrays[i] + first, (const char *)data + (first - begin) * sizeof *data,
                   (last - first) * sizeof *data);
    }
    return RT_OK;
}

static rt_status read_part(const char *path, rt_trainer *t, uint64_t step, const char identity[65],
                           size_t *next, rt_error *err)
{
    rt_weights *file;
    const rt_status opened = rt_weights_open(&file, path, err);
    if (opened == RT_NOT_FOUND) /* which would read as: there is no checkpoint */
        return rt_error_set(err, RT_CORRUPT,
                            "%.300s, a part of the checkpoint, is missing; --restart begins anew", path);
    if (opened != RT_OK)
        return opened;
    const rt_weight *head = rt_weights_find(file, "part"), *owner = rt_weights_find(file, "identity");
    int64_t words[PART_WORDS];
    rt_status status = RT_OK;
    if (head && head->bytes == sizeof words)
        memcpy(words, head->data, sizeof words);
    if (!head || head->bytes != sizeof words || !owner || owner->bytes != IDENTITY_BYTES ||
        memcmp(owner->data, identity, IDENTITY_BYTES) != 0 || (uint64_t)words[0] != step ||
        (uint64_t)words[1] != *next || words[2] < words[1] || (uint64_t)words[2] > t->total)
        status =
            rt_error_set(err, RT_CORRUPT, "not the part that the checkpoint names; --restart begins anew");
    else
        status = take_arrays(file, t, (size_t)words[1], (size_t)words[2], words + 3, err);
    *next = status == RT_OK ? (size_t)words[2] : *next;
    rt_weights_close(file);
    return status == RT_OK ? RT_OK : rt_error_within(err, path);
}

/* Parts that any number of ranks wrote. */
static rt_status read_all_parts(const char *path, rt_trainer *t, const rt_weight *count, uint64_t step,
                                const char identity[65], rt_error *err)
{
    int64_t size = 0;
    size_t next = 0;
    if (count->bytes == sizeof size)
        memcpy(&size, count->data, sizeof size);
    if (size < 1 || size > RANKS_MAX)
        return rt_error_set(err, RT_CORRUPT, "names no parts");
    for (size_t rank = 0; rank < (size_t)size; rank++) {
        char *file = part_path(path, step, rank, (size_t)size);
        const rt_status status = file ? read_part(file, t, step, identity, &next, err)
                                      : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
        free(file);
        if (status != RT_OK)
            return status;
    }
    return next == t->total ? RT_OK : rt_error_set(err, RT_CORRUPT, "its parts are not the whole student");
}

rt_status rt_checkpoint_read(const char *path, rt_trainer *t, rt_run_state *state, rt_own *own,
                             const char identity[65], rt_error *err)
{
    if (!rt_path_exists(path))
        return rt_error_set(err, RT_NOT_FOUND, "%.300s: there is no checkpoint", path);
    rt_weights *file;
    if (rt_weights_open(&file, path, err) != RT_OK)
        return err->status;
    int64_t words[STATE_COUNT];
    rt_status status = check(file, identity, words, err);
    const rt_weight *parts = rt_weights_find(file, "parts");
    if (status == RT_OK && own)
        status = read_own(file, own, err);
    if (status == RT_OK && parts)
        status = read_all_parts(path, t, parts, (uint64_t)words[1], identity, err);
    else if (status == RT_OK)
        status = take_arrays(file, t, 0, t->total, words + 5, err);
    if (status == RT_OK) {
        t->step = (uint64_t)words[1];
        double taid[3];
        memcpy(taid, words + 8, sizeof taid);
        t->taid.t = taid[0];
        t->taid.mean = taid[1];
        t->taid.last_loss = taid[2];
        t->taid.step = (uint64_t)words[11];
        *state = (rt_run_state){.step = t->step,
                                .cursor = (uint64_t)words[2],
                                .tokens = (uint64_t)words[3],
                                .seconds = (double)words[4] / 1000};
        rt_trainer_sync(t);
    } else {
        (void)rt_error_within(err, path);
    }
    rt_weights_close(file);
    return status;
}
