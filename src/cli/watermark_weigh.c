/* cli/watermark_weigh.c - `retort watermark detect --weigh`: each place counts as much as the model was free
 * there. */
#include <math.h>
#include <stdlib.h>

#include "base/json.h"
#include "cli/open_model.h"
#include "cli/watermark_weigh.h"
#include "evidence/weigh.h"

rt_status cli_weights_open(cli_weights *out, const char *model_name, const rt_texts *texts, rt_pool *pool,
                           rt_error *err)
{
    cli_model model = {0};
    rt_subject speaker = {0};
    *out = (cli_weights){.texts = texts, .list = calloc(texts->count + 1, sizeof *out->list)};
    if (!out->list)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the weights of %zu texts", texts->count);
    rt_status status = cli_model_open(&model, model_name, RT_PRECISION_INT8, 0, pool, err);
    if (status == RT_OK)
        status =
            rt_subject_open(&speaker, model_name, model.model, model.tokenizer, model.chat_template, err);
    for (size_t i = 0; status == RT_OK && i < texts->count; i++) {
        out->list[i] = calloc(texts->list[i].ids.count + 1, sizeof *out->list[i]);
        status = out->list[i] ? rt_weigh_text(out->list[i], &speaker, &texts->list[i], err)
                              : rt_error_set(err, RT_NO_MEMORY, "no memory for a text's weights");
    }
    rt_subject_close(&speaker);
    cli_model_close(&model);
    return status;
}

void cli_weights_close(cli_weights *w)
{
    for (size_t i = 0; w->list && i < w->texts->count; i++)
        free(w->list[i]);
    free(w->list);
    *w = (cli_weights){0};
}

static rt_status test_key(rt_reading_result *out, const rt_reading *reading, const rt_watermark *mark,
                          rt_error *err)
{
    rt_scorer *scorer;
    if (rt_scorer_open(&scorer, mark, err) != RT_OK)
        return err->status;
    const rt_status status = rt_reading_test(reading, scorer, out, err);
    rt_scorer_close(scorer);
    return status;
}

/* Mean and sd of random keys' z, which are 0 and 1 when the null is right here. */
static rt_status check_keys(json_t *out, const rt_reading *reading, const rt_watermark *mark, double z,
                            size_t keys, uint64_t seed, rt_error *err)
{
    double sum = 0, squares = 0, above = 0;
    for (size_t i = 0; i < keys; i++) {
        rt_watermark other = *mark;
        rt_reading_result r;
        rt_mark_key_randomise(&other, seed, i);
        if (test_key(&r, reading, &other, err) != RT_OK)
            return err->status;
        sum += r.z;
        squares += r.z * r.z;
        above += r.z >= z;
    }
    const double n = (double)keys, mean = sum / n, sd = sqrt(fmax(0, squares / n - mean * mean));
    (void)json_object_set_new(out, "key_check",
                              json_pack("{s:I,s:f,s:f,s:f}", "keys", (json_int_t)keys, "mean", mean, "sd", sd,
                                        "p", (1 + above) / (n + 1)));
    return RT_OK;
}

json_t *cli_weighed_json(const cli_weights *w, size_t from, size_t to, const rt_watermark *mark,
                         size_t random_keys, uint64_t seed, rt_error *err)
{
    const size_t h = rt_watermark_context(mark);
    rt_reading *reading = NULL;
    rt_reading_result r = {0};
    json_t *out = NULL;
    rt_status status = rt_reading_open(&reading, h, err);
    for (size_t i = from; status == RT_OK && i < to; i++)
        status =
            rt_weigh_add(reading, h, w->texts->list[i].ids.ids, w->list[i], w->texts->list[i].ids.count, err);
    if (status == RT_OK)
        status = rt_reading_freeze(reading, 0, err);
    if (status == RT_OK)
        status = test_key(&r, reading, mark, err);
    if (status == RT_OK) {
        out = json_pack("{s:I,s:f,s:f}", "n", (json_int_t)r.n, "z", r.z, "log10_p", r.log10_p);
        if (random_keys > 0 && check_keys(out, reading, mark, r.z, random_keys, seed, err) != RT_OK) {
            json_decref(out);
            out = NULL;
        }
    }
    rt_reading_close(reading);
    return out;
}
