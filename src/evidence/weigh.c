/* evidence/weigh.c - see weigh.h. */
#include "evidence/weigh.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/ops.h"

rt_status rt_weigh_text(float *weights, rt_subject *speaker, const rt_text_item *text, rt_error *err)
{
    rt_token_list prompt = {0};
    float *rows = NULL;
    size_t first = 0, n = 0;
    const size_t vocab = speaker->model->config.n_vocab;
    memset(weights, 0, text->ids.count * sizeof *weights);
    rt_status status = rt_subject_prompt(speaker, text->prompt, &prompt, err);
    if (status == RT_OK)
        status = rt_subject_logits(speaker, &prompt, text->ids.ids, text->ids.count, &rows, &first, &n, err);
    for (size_t i = 0; status == RT_OK && i < n; i++) {
        float *row = rows + i * vocab;
        const int32_t id = text->ids.ids[i + first];
        if (id < 0 || (size_t)id >= vocab)
            continue;
        (void)rt_ops_get()->softmax(row, vocab, 1);
        const float p = row[id];
        if (!(p <= 1.0001F))
            status = rt_error_set(err, RT_NOT_FINITE, "%.200s: a probability is not a number", speaker->name);
        weights[i + first] = fmaxf(0, 1 - p);
    }
    rt_token_list_deinit(&prompt);
    return status;
}

rt_status rt_weigh_add(rt_reading *reading, size_t h, const int32_t *ids, const float *weights, size_t n,
                       rt_error *err)
{
    rt_pairs *fresh; /* the text's own contexts, each once */
    rt_status status = rt_pairs_open(&fresh, h, RT_DEDUP_CONTEXT, err);
    for (size_t i = h; status == RT_OK && i < n; i++) {
        const size_t before = rt_pairs_count(fresh);
        status = rt_pairs_add_gram(fresh, ids + i - h, err);
        if (status == RT_OK && rt_pairs_count(fresh) > before && weights[i] > 0)
            status = rt_reading_add(reading, ids + i - h, ids[i], (double)weights[i], err);
    }
    rt_pairs_close(fresh);
    return status;
}
