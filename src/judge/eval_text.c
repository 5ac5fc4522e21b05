/* judge/eval_text.c - documents as pieces that fit the models, each knowing which document it is of. */
#include <stdlib.h>

#include "base/size.h"
#include "judge/eval_internal.h"

size_t rt_eval_count_targets(const uint8_t *mask, size_t n)
{
    size_t targets = 0;
    for (size_t i = 1; i < n; i++)
        targets += mask[i] != 0;
    return targets;
}

rt_status rt_eval_text_split(rt_eval_text *out, const rt_documents *whole, size_t tokens_max, rt_error *err)
{
    rt_eval_text text = {0};
    size_t room = 0;
    for (size_t d = 0; d < whole->n_docs; d++)
        room += rt_size_ceil_div(whole->begins[d + 1] - whole->begins[d], tokens_max);
    text.sources = calloc(rt_size_max(room, 1), sizeof *text.sources);
    if (!text.sources)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu pieces of text", room);
    rt_status status = RT_OK;
    uint32_t source = 0;
    for (size_t d = 0; d < whole->n_docs && status == RT_OK; d++) {
        const size_t end = whole->begins[d + 1], before = text.docs.n_docs;
        const bool answer = !whole->mask[whole->begins[d]]; /* a prompt comes first */
        for (size_t at = whole->begins[d]; at < end && status == RT_OK; at += tokens_max) {
            const size_t n = rt_size_min(tokens_max, end - at);
            if (rt_eval_count_targets(whole->mask + at,
                                      n)) { /* a lone token, or a prompt cut short, says nothing */
                text.sources[text.docs.n_docs] = source;
                status = rt_documents_add(&text.docs, whole->ids + at, whole->mask + at, n, err);
            }
            text.docs.n_cut += answer && n < end - at;
            if (answer)
                break;
        }
        source += text.docs.n_docs > before;
    }
    if (status != RT_OK) {
        rt_eval_text_deinit(&text);
        return status;
    }
    *out = text;
    return RT_OK;
}

void rt_eval_text_deinit(rt_eval_text *text)
{
    rt_documents_deinit(&text->docs);
    free(text->sources);
    free(text->kinds);
    *text = (rt_eval_text){0};
}
