/* evidence/subject.c - see subject.h. */
#include "evidence/subject.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "model/generate.h"
#include "student/data.h"
#include "tensor/ops.h"

enum { POSITIONS_MAX = 2048 };

rt_status rt_subject_open(rt_subject *out, const char *name, const rt_model *model,
                          const rt_tokenizer *tokenizer, const rt_chat_template *chat_template, rt_error *err)
{
    *out = (rt_subject){.name = name, .model = model, .tokenizer = tokenizer, .chat_template = chat_template};
    const size_t n = rt_size_min(model->config.n_context, POSITIONS_MAX);
    return rt_session_open(&out->session, model, 1, n, err);
}

void rt_subject_open_endpoint(rt_subject *out, const char *name, rt_endpoint *endpoint,
                              const rt_tokenizer *tokenizer, const rt_chat_template *chat_template)
{
    *out = (rt_subject){
        .name = name, .endpoint = endpoint, .tokenizer = tokenizer, .chat_template = chat_template};
}

void rt_subject_close(rt_subject *s)
{
    rt_session_close(s->session);
    free(s->rows);
    *s = (rt_subject){0};
}

rt_status rt_subject_prompt(const rt_subject *s, const char *prompt, rt_token_list *out, rt_error *err)
{
    if (!prompt || !prompt[0])
        return RT_OK;
    json_t *messages =
        json_pack("[{s:s,s:o}]", "role", "user", "content", rt_json_text(prompt, strlen(prompt)));
    if (!messages)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a prompt");
    const rt_status status = rt_render_prompt(s->tokenizer, s->chat_template, messages, out, err);
    json_decref(messages);
    return status;
}

static rt_status room_for(rt_subject *s, size_t rows, rt_error *err)
{
    size_t count;
    if (rows <= s->room)
        return RT_OK;
    float *more =
        rt_size_mul(rows, s->model->config.n_vocab * sizeof(float), &count) ? realloc(s->rows, count) : NULL;
    if (!more)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the logits of %zu tokens", rows);
    s->rows = more;
    s->room = rows;
    return RT_OK;
}

rt_status rt_subject_logits(rt_subject *s, const rt_token_list *prompt, const int32_t *answer, size_t n,
                            float **rows, size_t *first, size_t *n_rows, rt_error *err)
{
    const size_t capacity = rt_session_capacity(s->session), n_prompt = prompt ? prompt->count : 0;
    *first = n_prompt == 0;
    *n_rows = 0;
    *rows = NULL;
    if (n_prompt + 1 >= capacity || n <= *first)
        return RT_OK; /* the question fills the context, or nothing follows anything */
    const size_t kept = rt_size_min(n, capacity - n_prompt), count = kept - *first;
    if (room_for(s, count, err) != RT_OK)
        return err->status;
    int32_t *ids = malloc(count * sizeof *ids);
    if (!ids)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu ids", count);
    ids[0] = n_prompt ? prompt->ids[n_prompt - 1] : answer[0];
    memcpy(ids + 1, answer + *first, (count - 1) * sizeof *ids);
    rt_session_truncate(s->session, 0, 0);
    rt_status status = RT_OK;
    if (n_prompt > 1)
        status = rt_session_prefill(s->session, 0, prompt->ids, n_prompt - 1, NULL, err);
    if (status == RT_OK)
        status = rt_session_score(s->session, 0, ids, count, s->rows, err);
    free(ids);
    if (status != RT_OK)
        return status;
    *rows = s->rows;
    *n_rows = count;
    return RT_OK;
}

static int by_double(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ln P of an id under a row of logits. */
static double ln_p(const float *row, size_t n, int32_t id)
{
    double most = -HUGE_VAL, sum = 0;
    for (size_t v = 0; v < n; v++)
        most = fmax(most, (double)row[v]);
    for (size_t v = 0; v < n; v++)
        sum += (double)expf(row[v] - (float)most);
    return (double)row[id] - most - log(sum);
}

rt_status rt_subject_scores(rt_subject *s, const rt_token_list *prompt, const int32_t *answer, size_t n,
                            const rt_scored **scored, rt_error *err)
{
    const size_t before = prompt->count,
                 kept = rt_size_min(n, POSITIONS_MAX - rt_size_min(before, POSITIONS_MAX));
    *scored = NULL;
    if (kept == 0 || before + kept < 2)
        return RT_OK;
    int32_t *ids = malloc((before + kept) * sizeof *ids);
    if (!ids)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu ids", before + kept);
    if (before)
        memcpy(ids, prompt->ids, before * sizeof *ids);
    memcpy(ids + before, answer, kept * sizeof *ids);
    rt_status status = RT_OK;
    if (rt_endpoint_dry(s->endpoint)) {
        status = rt_endpoint_want(s->endpoint, ids, before + kept, err);
    } else {
        *scored = rt_endpoint_scored(s->endpoint, ids, before + kept);
        if (!*scored)
            status = rt_error_set(err, RT_NOT_FOUND, "%.200s: a text of %zu tokens was not scored", s->name,
                                  before + kept);
    }
    free(ids);
    return status;
}

/* ln P of each of the answer's first ids; *first ids have none. */
static rt_status each_ln_p(rt_subject *s, const rt_token_list *before, const rt_token_list *ids, size_t n,
                           double **each, size_t *first, size_t *count, rt_error *err)
{
    float *rows = NULL;
    const rt_scored *scored = NULL;
    *each = NULL;
    *count = *first = 0;
    rt_status status = s->endpoint ? rt_subject_scores(s, before, ids->ids, n, &scored, err)
                                   : rt_subject_logits(s, before, ids->ids, n, &rows, first, count, err);
    if (scored) {
        *first = before->count == 0;
        *count = scored->n - before->count - *first;
    }
    if (status == RT_OK && !(*each = malloc((*count + 1) * sizeof **each)))
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for %zu tokens", *count);
    for (size_t i = 0; status == RT_OK && i < *count; i++) {
        const size_t vocab = scored ? 0 : s->model->config.n_vocab;
        (*each)[i] = scored ? (double)scored->own[before->count + *first + i]
                            : ln_p(rows + i * vocab, vocab, ids->ids[i + *first]);
        if (!isfinite((*each)[i]))
            status = rt_error_set(err, RT_NOT_FINITE, "%.200s: a log-probability is not a number", s->name);
    }
    return status;
}

rt_status rt_subject_likelihood(rt_subject *s, const char *prompt, const char *answer, size_t most,
                                rt_likelihood *out, rt_error *err)
{
    *out = (rt_likelihood){0};
    rt_token_list before = {0}, ids = {0};
    size_t first = 0, n = 0;
    double *each = NULL;
    rt_status status = rt_subject_prompt(s, prompt, &before, err);
    if (status == RT_OK)
        status = rt_tokenizer_encode(s->tokenizer, answer, strlen(answer), false, &ids, err);
    if (status == RT_OK)
        status = each_ln_p(s, &before, &ids, most ? rt_size_min(most, ids.count) : ids.count, &each, &first,
                           &n, err);
    for (size_t i = 0; status == RT_OK && i < n; i++) {
        size_t bytes = 0;
        (void)rt_tokenizer_token_bytes(s->tokenizer, ids.ids[i + first], &bytes);
        out->sum += each[i];
        out->tokens++;
        out->bytes += bytes;
    }
    if (status == RT_OK && n > 0) {
        const size_t low = rt_size_max(n / 5, 1);
        qsort(each, n, sizeof *each, by_double);
        for (size_t i = 0; i < low; i++)
            out->least += each[i] / (double)low;
    }
    free(each);
    rt_token_list_deinit(&before);
    rt_token_list_deinit(&ids);
    return status;
}

typedef struct sampling {
    const rt_subject *subject;
    const rt_texts *prompts;
    rt_texts *out;
    bool (*stop)(void);
    rt_error failed;
} sampling;

static bool keep_answer(void *context, const rt_answer *answer)
{
    sampling *s = context;
    const rt_text_item *asked = &s->prompts->list[answer->index];
    rt_text text = {0};
    rt_text_append(&text, "", 0);
    if (rt_tokenizer_decode(s->subject->tokenizer, answer->ids, answer->n, true, &text, &s->failed) ==
            RT_OK &&
        rt_texts_add_answer(s->out, asked->prompt ? asked->prompt : asked->text, asked->unit,
                            text.data ? text.data : "", text.size, answer->ids, answer->n,
                            &s->failed) == RT_OK &&
        text.failed)
        (void)rt_error_set(&s->failed, RT_NO_MEMORY, "no memory for an answer");
    rt_text_deinit(&text);
    return s->failed.status == RT_OK && !(s->stop && s->stop());
}

rt_status rt_subject_sample(const rt_subject *subject, const rt_texts *prompts, size_t tokens,
                            size_t answer_tokens, double temperature, uint64_t seed, bool (*stop)(void),
                            rt_texts *out, rt_error *err)
{
    if (prompts->count == 0)
        return rt_error_set(err, RT_INVALID, "sampling needs prompts");
    rt_prompt *asked = calloc(prompts->count, sizeof *asked);
    rt_token_list *ids = calloc(prompts->count, sizeof *ids);
    rt_status status = asked && ids ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for the prompts");
    for (size_t i = 0; status == RT_OK && i < prompts->count; i++) {
        const rt_text_item *item = &prompts->list[i];
        status = rt_subject_prompt(subject, item->prompt ? item->prompt : item->text, &ids[i], err);
        if (status == RT_OK && ids[i].count == 0)
            status = rt_error_set(err, RT_INVALID, "prompt %zu is empty", i + 1);
    }
    sampling s = {.subject = subject, .prompts = prompts, .out = out, .stop = stop};
    rt_generate_options options = {.sampling = rt_sampling_default(), .answer = keep_answer, .context = &s};
    options.sampling.temperature = temperature;
    options.sampling.seed = seed;
    options.n_positions = rt_size_min(subject->model->config.n_context, POSITIONS_MAX);
    for (size_t round = 0; status == RT_OK && out->tokens < tokens; round++) {
        const size_t before = out->tokens,
                     wanted = rt_size_ceil_div(tokens - out->tokens, rt_size_max(answer_tokens, 1));
        const size_t n = rt_size_min(prompts->count, rt_size_max(wanted, 1));
        rt_generate_stats stats;
        for (size_t i = 0; i < n; i++)
            asked[i] = (rt_prompt){ids[i].ids, ids[i].count, answer_tokens, round * prompts->count + i};
        status = rt_generate(subject->model, subject->tokenizer, asked, n, &options, &stats, err);
        if (status == RT_OK && out->tokens == before)
            status = rt_error_set(err, RT_INVALID, "%.200s: answers nothing to these prompts", subject->name);
    }
    if (s.failed.status != RT_OK) {
        *err = s.failed;
        status = err->status;
    }
    for (size_t i = 0; ids && i < prompts->count; i++)
        rt_token_list_deinit(&ids[i]);
    free(ids);
    free(asked);
    return status;
}
