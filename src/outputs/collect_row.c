/* outputs/collect_row.c - rows as JSON lines, written directly: a row with log-probabilities of 20 tokens
 * each has tens of thousands of numbers, and a tree of them would cost more than all else; see collect_row.h.
 */
#include "outputs/collect_row.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "outputs/refusal.h"

void rt_row_string(rt_text *out, const char *text, size_t size)
{
    rt_text_append(out, "\"", 1);
    size_t plain = 0; /* start of what can be copied as it is */
    for (size_t i = 0; i < size;) {
        const unsigned char c = (unsigned char)text[i];
        size_t n = 1;
        if (c >= ' ' && c != '"' && c != '\\' && c < 0x7F) {
            i++;
            continue;
        }
        char escape[8] = "";
        if (c >= 0x80) {
            const uint32_t code = rt_utf8_decode(text + i, size - i, &n);
            if (code != 0xFFFD || (n == 3 && memcmp(text + i, "\xEF\xBF\xBD", 3) == 0)) {
                i += n;
                continue;
            }
            memcpy(escape, "\xEF\xBF\xBD", 4);
        } else if (c == '"' || c == '\\') {
            (void)snprintf(escape, sizeof escape, "\\%c", c);
        } else if (c == '\n') {
            memcpy(escape, "\\n", 3);
        } else if (c == '\0') { /* many readers of JSON end there */
            memcpy(escape, "\xEF\xBF\xBD", 4);
        } else {
            (void)snprintf(escape, sizeof escape, "\\u%04x", c);
        }
        rt_text_append(out, text + plain, i - plain);
        rt_text_puts(out, escape);
        i += n;
        plain = i;
    }
    rt_text_append(out, text + plain, size - plain);
    rt_text_append(out, "\"", 1);
}

static void put_text(rt_text *out, const rt_text *text)
{
    rt_row_string(out, text->data ? text->data : "", text->size);
}

static void put_name(rt_text *out, const char *name) { rt_row_string(out, name, strlen(name)); }

/* Digits enough for a float32. */
static void put_number(rt_text *out, double x)
{
    if (isfinite(x))
        rt_text_printf(out, "%.9g", x);
    else
        rt_text_puts(out, "null");
}

static int put_piece(const char *data, size_t size, void *context)
{
    rt_text_append(context, data, size);
    return 0;
}

static void put_json(rt_text *out, const json_t *json)
{
    if (!json ||
        json_dump_callback(json, put_piece, out, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) != 0)
        rt_text_puts(out, "null");
}

/* ---- log-probabilities ---- */

static void put_alternative(rt_text *out, const rt_answered *reply, const rt_answered_alternative *a)
{
    const char *bytes = reply->pool.data ? reply->pool.data + a->bytes : "";
    rt_text_puts(out, "{\"token\":");
    rt_row_string(out, bytes, a->n_bytes);
    rt_text_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < a->n_bytes; i++)
        rt_text_printf(out, i ? ",%u" : "%u", (unsigned)(unsigned char)bytes[i]);
    rt_text_puts(out, "],\"logprob\":");
    put_number(out, (double)a->logprob);
    if (a->id >= 0)
        rt_text_printf(out, ",\"id\":%d", a->id);
}

static void put_logprobs(rt_text *out, const rt_answered *reply)
{
    if (reply->n_tokens == 0) {
        rt_text_puts(out, "null");
        return;
    }
    for (size_t i = 0; i < reply->n_tokens; i++) {
        const rt_answered_token *token = &reply->tokens[i];
        rt_text_puts(out, i ? "," : "[");
        put_alternative(out, reply, &token->chosen);
        rt_text_puts(out, ",\"top\":[");
        for (size_t j = 0; j < token->n_top; j++) {
            rt_text_puts(out, j ? "," : "");
            put_alternative(out, reply, &reply->alternatives[token->top + j]);
            rt_text_puts(out, "}");
        }
        rt_text_puts(out, "],\"tail\":");
        put_number(out, (double)token->tail);
        rt_text_puts(out, "}");
    }
    rt_text_puts(out, "]");
}

static void put_ids(rt_text *out, const char *key, const int32_t *ids, size_t n)
{
    if (n == 0)
        return;
    rt_text_printf(out, ",\"%s\":[", key);
    for (size_t i = 0; i < n; i++)
        rt_text_printf(out, i ? ",%d" : "%d", ids[i]);
    rt_text_puts(out, "]");
}

/* ---- rows ---- */

static void put_head(rt_text *out, const rt_row_facts *facts)
{
    rt_text_puts(out, "{\"id\":");
    put_name(out, facts->id);
    if (facts->custom_id) {
        rt_text_puts(out, ",\"custom_id\":");
        put_name(out, facts->custom_id);
    }
    rt_text_printf(out, ",\"index\":%zu", facts->index);
    if (facts->form == RT_ROW_STORE) {
        rt_text_puts(out, ",\"key\":");
        put_name(out, facts->id);
        static const char *const asked[] = {"messages", "prompt"};
        for (size_t i = 0; i < 2; i++)
            if (json_object_get(facts->request, asked[i])) {
                rt_text_printf(out, ",\"%s\":", asked[i]);
                put_json(out, json_object_get(facts->request, asked[i]));
            }
        return; /* how it was sampled is in the manifest */
    }
    rt_text_puts(out, ",\"request\":");
    put_json(out, facts->request);
}

static void put_usage(rt_text *out, const rt_usage *u)
{
    rt_text_printf(out,
                   ",\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
                   "\"cached_tokens\":%llu,\"reasoning_tokens\":%llu}",
                   (unsigned long long)u->prompt, (unsigned long long)u->completion,
                   (unsigned long long)(u->prompt + u->completion), (unsigned long long)u->cached,
                   (unsigned long long)u->reasoning);
}

static void put_flags(rt_text *out, const rt_answered *reply)
{
    static const char *const names[] = {"logprobs_sum",     "logprobs_count", "logprobs_bytes",
                                        "token_ids",        "usage",          "model",
                                        "duplicate_chunks", "no_logprobs",    "open_think"};
    bool any = false;
    rt_text_puts(out, ",\"flags\":[");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (reply->flags & (1U << i)) {
            rt_text_printf(out, any ? ",\"%s\"" : "\"%s\"", names[i]);
            any = true;
        }
    rt_text_puts(out, "]");
}

static void put_end(rt_text *out, const rt_row_facts *facts, const rt_answered *reply)
{
    rt_text_printf(out, ",\"attempts\":%u,\"ms\":%.1f,\"cost\":", reply->attempts,
                   facts->shared ? 0 : reply->ms);
    put_number(out, facts->shared ? 0 : facts->cost < 0 ? (double)NAN : facts->cost);
    rt_text_printf(out, ",\"ts\":%lld", (long long)facts->ts);
    if (facts->shared)
        rt_text_puts(out, ",\"shared\":true");
    if (facts->source) {
        rt_text_puts(out, ",\"source\":");
        rt_text_puts(out, facts->source);
    }
    rt_text_puts(out, "}\n");
}

static void put_refusal(rt_text *out, const rt_answered *reply)
{
    const char *phrase = rt_refusal_find(reply->text.data ? reply->text.data : "", reply->text.size);
    rt_text_puts(out, ",\"refusal\":");
    if (reply->has_refusal)
        put_text(out, &reply->refusal);
    else if (phrase)
        put_name(out, phrase);
    else
        rt_text_puts(out, "null");
}

static void put_batch(rt_text *out, const rt_row_facts *facts, const rt_answered *reply)
{
    rt_text_printf(out, "{\"id\":\"batch_req_%.24s\",\"custom_id\":", facts->id);
    put_name(out, facts->custom_id ? facts->custom_id : facts->id);
    rt_text_printf(out, ",\"response\":{\"status_code\":%d,\"request_id\":", reply->http_status);
    put_name(out, reply->request_id);
    rt_text_puts(out, ",\"body\":");
    put_json(out, reply->raw);
    rt_text_puts(out, "},\"error\":null}\n");
}

void rt_row_write(rt_text *out, const rt_row_facts *facts, const rt_answered *reply)
{
    if (facts->form == RT_ROW_BATCH) {
        put_batch(out, facts, reply);
        return;
    }
    put_head(out, facts);
    rt_text_puts(out, facts->form == RT_ROW_STORE ? ",\"completion\":" : ",\"response\":");
    put_text(out, &reply->text);
    rt_text_puts(out, ",\"reasoning\":");
    if (reply->reasoning.size)
        put_text(out, &reply->reasoning);
    else
        rt_text_puts(out, "null");
    rt_text_puts(out, ",\"finish_reason\":");
    if (reply->finish[0])
        put_name(out, reply->finish);
    else
        rt_text_puts(out, "null");
    put_usage(out, &reply->usage);
    rt_text_puts(out, ",\"logprobs\":");
    put_logprobs(out, reply);
    put_ids(out, "token_ids", reply->ids, reply->n_ids);
    put_ids(out, "prompt_token_ids", reply->prompt_ids, reply->n_prompt_ids);
    rt_text_puts(out, ",\"model\":");
    put_name(out, reply->model);
    rt_text_puts(out, ",\"fingerprint\":");
    put_name(out, reply->fingerprint);
    put_refusal(out, reply);
    rt_text_printf(out, ",\"truncated\":%s", facts->truncated ? "true" : "false");
    put_flags(out, reply);
    put_end(out, facts, reply);
}

void rt_row_write_failure(rt_text *out, const rt_row_facts *facts, const rt_answered *reply, const char *code,
                          const char *message)
{
    if (facts->form == RT_ROW_BATCH) {
        rt_text_printf(out, "{\"id\":\"batch_req_%.24s\",\"custom_id\":", facts->id);
        put_name(out, facts->custom_id ? facts->custom_id : facts->id);
        rt_text_puts(out, ",\"response\":null,\"error\":{\"code\":");
        put_name(out, code);
        rt_text_puts(out, ",\"message\":");
        put_name(out, message);
        rt_text_puts(out, "}}\n");
        return;
    }
    put_head(out, facts);
    rt_text_puts(out, ",\"error\":{\"code\":");
    put_name(out, code);
    rt_text_puts(out, ",\"message\":");
    put_name(out, message);
    rt_text_printf(out, "},\"http_status\":%d,\"response\":", reply->http_status);
    put_text(out, &reply->text);
    rt_text_puts(out, ",\"finish_reason\":");
    put_name(out, reply->finish);
    put_usage(out, &reply->usage);
    put_flags(out, reply);
    put_end(out, facts, reply);
}
