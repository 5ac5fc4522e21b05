/* serve/compose_logprobs.c - log-probabilities in the three forms of the API. */
#include <string.h>

#include "serve/choice.h"
#include "serve/json_out.h"
#include "serve/compose.h"

size_t rt_code_points(const char *data, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += ((unsigned char)data[i] & 0xC0) != 0x80;
    return n;
}

static const char *bytes_of(const rt_compose *reply, int32_t id, size_t *size)
{
    return rt_tokenizer_token_bytes(reply->model->tokenizer, id, size);
}

static void token_string(const rt_compose *reply, int32_t id, rt_text *out)
{
    if (reply->request->tokens_as_ids) {
        rt_text_printf(out, "\"token_id:%d\"", (int)id);
        return;
    }
    size_t size;
    const char *bytes = bytes_of(reply, id, &size);
    rt_json_string(out, bytes, size);
}

/* "token": …, "logprob": …, "bytes": […] */
static void token_entry(const rt_compose *reply, int32_t id, double logprob, rt_text *out)
{
    size_t size;
    const char *bytes = bytes_of(reply, id, &size);
    rt_text_puts(out, "\"token\":");
    token_string(reply, id, out);
    rt_text_puts(out, ",\"logprob\":");
    rt_json_float(out, logprob);
    rt_text_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < size; i++)
        rt_text_printf(out, i ? ",%u" : "%u", (unsigned)(unsigned char)bytes[i]);
    rt_text_puts(out, "]");
}

void rt_compose_chat_logprobs(const rt_compose *reply, const rt_choice *choice, size_t from, size_t to,
                              rt_text *out)
{
    const size_t n_top = (size_t)reply->job->options.top_logprobs;
    rt_text_puts(out, "{\"content\":[");
    for (size_t i = from; i < to; i++) {
        rt_text_puts(out, i > from ? ",{" : "{");
        token_entry(reply, choice->tokens[i].id, (double)choice->tokens[i].logprob, out);
        rt_text_puts(out, ",\"top_logprobs\":[");
        for (size_t k = 0; k < n_top; k++) {
            const rt_top *top = &choice->top[i * n_top + k];
            rt_text_puts(out, k ? ",{" : "{");
            token_entry(reply, top->id, (double)top->logprob, out);
            rt_text_puts(out, "}");
        }
        rt_text_puts(out, "]}");
    }
    rt_text_puts(out, "],\"refusal\":null}");
}

/* ---- the older form: four parallel arrays ---- */

typedef struct row {         /* a token of the prompt or of the answer */
    const rt_scored *scored; /* NULL: the first of the prompt */
    int32_t id;
    const rt_top *top;
    size_t n_top;
} row;

static bool same_spelling(const rt_compose *reply, int32_t a, int32_t b)
{
    size_t n, m;
    const char *x = bytes_of(reply, a, &n), *y = bytes_of(reply, b, &m);
    if (n == m && memcmp(x, y, n) == 0)
        return true;
    if (rt_utf8_valid(x, n) && rt_utf8_valid(y, m))
        return false;
    rt_text p = {0}, q = {0}; /* different bytes may look alike once they are ill-formed */
    (void)rt_utf8_append(&p, x, n, true);
    (void)rt_utf8_append(&q, y, m, true);
    const bool same = p.size == q.size && (p.size == 0 || memcmp(p.data, q.data, p.size) == 0);
    rt_text_deinit(&p);
    rt_text_deinit(&q);
    return same;
}

/* The key of entry k; one that an earlier entry already has is written as its bytes. */
static void key_of(const rt_compose *reply, const rt_top *entries, size_t k, rt_text *out)
{
    bool taken = false;
    for (size_t i = 0; i < k && !taken && !reply->request->tokens_as_ids; i++)
        taken = same_spelling(reply, entries[i].id, entries[k].id);
    if (!taken) {
        token_string(reply, entries[k].id, out);
        return;
    }
    size_t size;
    const char *bytes = bytes_of(reply, entries[k].id, &size);
    rt_text_puts(out, "\"bytes:");
    for (size_t i = 0; i < size; i++)
        rt_text_printf(out, "\\\\x%02x", (unsigned)(unsigned char)bytes[i]);
    bool again = false; /* even the bytes are the same: the id tells them apart */
    for (size_t i = 0; i < k && !again; i++) {
        size_t other;
        const char *them = bytes_of(reply, entries[i].id, &other);
        again = other == size && memcmp(them, bytes, size) == 0;
    }
    if (again)
        rt_text_printf(out, " id:%d", (int)entries[k].id);
    rt_text_puts(out, "\"");
}

static void top_map(const rt_compose *reply, const row *r, rt_text *out)
{
    rt_top entries[RT_JOB_TOP_MAX + 1];
    size_t n = r->n_top;
    bool listed = false;
    for (size_t i = 0; i < n; i++) {
        entries[i] = r->top[i];
        listed |= entries[i].id == r->id;
    }
    if (!listed)
        entries[n++] = (rt_top){r->id, r->scored->logprob};
    rt_text_puts(out, "{");
    for (size_t i = 0; i < n; i++) {
        if (i)
            rt_text_puts(out, ",");
        key_of(reply, entries, i, out);
        rt_text_puts(out, ":");
        rt_json_float(out, (double)entries[i].logprob);
    }
    rt_text_puts(out, "}");
}

static row row_at(const rt_compose *reply, const rt_choice *choice, size_t n_prompt, size_t from,
                  size_t index)
{
    const rt_job *job = reply->job;
    const size_t asked = (size_t)job->options.top_logprobs;
    if (index < n_prompt) {
        const rt_job_prompt *prompt = &job->prompts[choice->prompt];
        const size_t ld = (size_t)job->options.prompt_top_logprobs;
        return (row){index ? &prompt->scored[index] : NULL, prompt->ids[index], prompt->top + index * ld,
                     asked};
    }
    const size_t at = from + index - n_prompt;
    return (row){&choice->tokens[at], choice->tokens[at].id, choice->top + at * asked, asked};
}

void rt_compose_text_logprobs(const rt_compose *reply, const rt_choice *choice, bool prompt, size_t from,
                              size_t to, size_t *offset, rt_text *out)
{
    const size_t n_prompt = prompt ? reply->job->prompts[choice->prompt].n : 0, n = n_prompt + to - from;
    rt_text_puts(out, "{\"tokens\":[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            rt_text_puts(out, ",");
        token_string(reply, row_at(reply, choice, n_prompt, from, i).id, out);
    }
    rt_text_puts(out, "],\"token_logprobs\":[");
    for (size_t i = 0; i < n; i++) {
        const row r = row_at(reply, choice, n_prompt, from, i);
        if (i)
            rt_text_puts(out, ",");
        if (r.scored)
            rt_json_float(out, (double)r.scored->logprob);
        else
            rt_text_puts(out, "null");
    }
    rt_text_puts(out, "],\"top_logprobs\":[");
    for (size_t i = 0; i < n; i++) {
        const row r = row_at(reply, choice, n_prompt, from, i);
        if (i)
            rt_text_puts(out, ",");
        if (r.scored)
            top_map(reply, &r, out);
        else
            rt_text_puts(out, "null");
    }
    rt_text_puts(out, "],\"text_offset\":[");
    for (size_t i = 0; i < n; i++) {
        size_t size;
        const int32_t id = row_at(reply, choice, n_prompt, from, i).id;
        const char *bytes = bytes_of(reply, id, &size);
        rt_text_printf(out, i ? ",%zu" : "%zu", *offset);
        if (i < n_prompt || !rt_tokenizer_is_special(reply->model->tokenizer, id)) /* hidden in the answer */
            *offset += rt_code_points(bytes, size);
    }
    rt_text_puts(out, "]}");
}

void rt_compose_prompt_logprobs(const rt_compose *reply, size_t index, rt_text *out)
{
    const rt_job_prompt *prompt = &reply->job->prompts[index];
    const size_t ld = (size_t)reply->job->options.prompt_top_logprobs;
    const size_t n_top = (size_t)reply->request->n_prompt_logprobs;
    rt_text_puts(out, "[null");
    for (size_t i = 1; i < prompt->n; i++) {
        const rt_scored *own = &prompt->scored[i];
        bool listed = false;
        rt_text_puts(out, ",{");
        for (size_t k = 0; k <= n_top; k++) {
            if (k == n_top && listed)
                break;
            const rt_top one = k < n_top ? prompt->top[i * ld + k] : (rt_top){own->id, own->logprob};
            size_t size;
            const char *bytes = bytes_of(reply, one.id, &size);
            listed |= one.id == own->id;
            rt_text_printf(out, "%s\"%d\":{\"logprob\":", k ? "," : "", (int)one.id);
            rt_json_float(out, (double)one.logprob);
            rt_text_printf(out, ",\"rank\":%u,\"decoded_token\":", k < n_top ? (unsigned)k + 1 : own->rank);
            rt_json_string(out, bytes, size);
            rt_text_puts(out, "}");
        }
        rt_text_puts(out, "}");
    }
    rt_text_puts(out, "]");
}
