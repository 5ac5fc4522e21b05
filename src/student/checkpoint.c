/* student/checkpoint.c - see checkpoint.h. */
#include "student/checkpoint.h"

#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/size.h"
#include "model/safetensors_write.h"

enum { VERSION = 2, STATE_COUNT = 12, IDENTITY_BYTES = 64 };
static const char *const array_names[] = {"values", "adam_m", "adam_v"};

rt_status rt_checkpoint_write(const char *path, const rt_trainer *t, const rt_run_state *state,
                              const char identity[65], rt_error *err)
{
    const float *const arrays[] = {t->values, t->m, t->v};
    const size_t total = t->total, bytes = total * sizeof(float), state_count = STATE_COUNT,
                 identity_bytes = IDENTITY_BYTES;
    int64_t words[STATE_COUNT] = {VERSION, (int64_t)state->step, (int64_t)state->cursor,
                                  (int64_t)state->tokens, (int64_t)(state->seconds * 1000)};
    for (size_t i = 0; i < 3; i++)
        words[5 + i] = (int64_t)rt_hash64(arrays[i], bytes, 0);
    const double taid[] = {t->taid.t, t->taid.mean, t->taid.last_loss};
    memcpy(words + 8, taid, sizeof taid);
    words[11] = (int64_t)t->taid.step;
    rt_safetensors_writer *writer;
    if (rt_safetensors_writer_open(&writer, path, err) != RT_OK)
        return err->status;
    rt_status status = rt_safetensors_writer_tensor(writer, "state", RT_I64, 1, &state_count, err);
    for (size_t i = 0; i < 3 && status == RT_OK; i++)
        status = rt_safetensors_writer_tensor(writer, array_names[i], RT_F32, 1, &total, err);
    if (status == RT_OK)
        status = rt_safetensors_writer_tensor(writer, "identity", RT_U8, 1, &identity_bytes, err);
    if (status == RT_OK)
        status = rt_safetensors_writer_begin(writer, err);
    if (status == RT_OK)
        status = rt_safetensors_writer_data(writer, words, sizeof words, err);
    for (size_t i = 0; i < 3 && status == RT_OK; i++)
        status = rt_safetensors_writer_data(writer, arrays[i], bytes, err);
    if (status == RT_OK)
        status = rt_safetensors_writer_data(writer, identity, IDENTITY_BYTES, err);
    if (status == RT_OK)
        return rt_safetensors_writer_commit(writer, err);
    rt_safetensors_writer_abort(writer);
    return status;
}

static rt_status check(const rt_weights *file, const rt_trainer *t, const char identity[65],
                       int64_t words[STATE_COUNT], const void *data[3], rt_error *err)
{
    const rt_weight *state = rt_weights_find(file, "state"), *owner = rt_weights_find(file, "identity");
    const size_t bytes = t->total * sizeof(float);
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
    for (size_t i = 0; i < 3; i++) {
        const rt_weight *w = rt_weights_find(file, array_names[i]);
        if (!w || w->dtype != RT_F32 || w->bytes != bytes)
            return rt_error_set(err, RT_CORRUPT, "%s has another size than the student", array_names[i]);
        if ((int64_t)rt_hash64(w->data, bytes, 0) != words[5 + i])
            return rt_error_set(
                err, RT_CORRUPT,
                "%s does not agree with its sum: the file is damaged; delete it to begin anew",
                array_names[i]);
        data[i] = w->data;
    }
    return RT_OK;
}

rt_status rt_checkpoint_read(const char *path, rt_trainer *t, rt_run_state *state, const char identity[65],
                             rt_error *err)
{
    if (!rt_path_exists(path))
        return rt_error_set(err, RT_NOT_FOUND, "%.300s: there is no checkpoint", path);
    rt_weights *file;
    if (rt_weights_open(&file, path, err) != RT_OK)
        return err->status;
    int64_t words[STATE_COUNT];
    const void *data[3];
    rt_status status = check(file, t, identity, words, data, err);
    if (status == RT_OK) {
        float *const arrays[] = {t->values, t->m, t->v};
        for (size_t i = 0; i < 3; i++)
            memcpy(arrays[i], data[i], t->total * sizeof(float));
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
