/* serve/score.c - /v1/retort/score: the model's distribution after every token of given sequences, as its
 * likeliest ids and the mass of all others.  One prefill a sequence; charged as prompt tokens.
 *
 * The binary form is a .rls file (docs/rls.md): every token but the first is a target, its row is the
 * distribution before it, with the token itself beside the likeliest ids. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outputs/rls.h"
#include "serve/fields.h"
#include "serve/json_out.h"
#include "serve/service.h"

enum { TOP_K_MAX = 512, ENTRIES_MAX = 1 << 22 }; /* entries: positions times top_k of one answer */

static bool read_sequences(rt_call *call, rt_fault *fault)
{
    const json_t *lists = rt_member(call->body, "tokens");
    rt_request *q = &call->request;
    const size_t n = json_array_size(lists);
    if (!lists)
        return rt_fault_invalid(fault, "missing_required_parameter", "tokens", "'tokens' is missing");
    if (n == 0 || n > RT_PROMPTS_MAX)
        return rt_fault_invalid(fault, "invalid_value", "tokens",
                                "'tokens' must be a list of 1 to %d lists of ids", RT_PROMPTS_MAX);
    q->prompts = calloc(n, sizeof *q->prompts);
    if (!q->prompts)
        return rt_fault_set(fault, 503, "server_error", "overloaded", "there is no memory for the request");
    for (q->n_prompts = 0; q->n_prompts < n; q->n_prompts++) {
        const json_t *list = json_array_get(lists, q->n_prompts);
        rt_token_list *ids = &q->prompts[q->n_prompts];
        char where[32];
        (void)snprintf(where, sizeof where, "tokens[%zu]", q->n_prompts);
        if (!json_is_array(list) || json_array_size(list) == 0)
            return rt_fault_invalid(fault, "invalid_value", where, "'%s' must be a list of token ids", where);
        if (!rt_field_ids(list, where, call->model->n_vocab, &ids->ids, &ids->count, fault))
            return false;
        if (ids->count > call->model->context)
            return rt_fault_invalid(fault, "context_length_exceeded", where,
                                    "this model's context holds %zu tokens, and '%s' has %zu",
                                    call->model->context, where, ids->count);
    }
    return true;
}

static bool read_score(rt_call *call, rt_fault *fault)
{
    int64_t top_k = 0;
    bool tail = true;
    const char *format = "json";
    size_t positions = 0;
    rt_request *q = &call->request;
    if (!rt_field_int(call->body, "top_k", 0, TOP_K_MAX, &top_k, fault) ||
        !rt_field_bool(call->body, "tail", &tail, fault) ||
        !rt_field_string(call->body, "format", &format, fault) || !read_sequences(call, fault))
        return false;
    call->binary = strcmp(format, "binary") == 0;
    if (!call->binary && strcmp(format, "json") != 0)
        return rt_fault_invalid(fault, "invalid_value", "format", "'format' must be json or binary");
    for (size_t i = 0; i < q->n_prompts; i++)
        positions += q->prompts[i].count;
    if ((size_t)top_k > call->model->n_vocab || positions * (size_t)top_k > ENTRIES_MAX)
        return rt_fault_invalid(fault, "invalid_value", "top_k",
                                "positions times 'top_k' may be at most %d in one request", ENTRIES_MAX);
    q->options.sampling = rt_sampling_default();
    q->options.penalties.repetition = 1;
    q->options.n = 1;
    q->options.top_logprobs = -1;
    q->options.prompt_top_logprobs = (int)top_k;
    q->options.score_last = true;
    q->has_tokens_max = true;
    call->tail = tail;
    return true;
}

static void score(rt_call *call, const rt_fault *why)
{
    (void)why;
    rt_fault fault = {0};
    if (!read_score(call, &fault) || !rt_call_start(call, &fault))
        rt_call_give_up(call, &fault);
}

void rt_run_score(rt_call *call)
{
    call->scores = true;
    if (rt_call_body(call))
        rt_call_idempotency(call, score);
}

static void write_position(const rt_call *call, const rt_job_prompt *prompt, size_t at, rt_text *out)
{
    const size_t k = (size_t)call->job->options.prompt_top_logprobs;
    const rt_top *top = prompt->top + at * k;
    double mass = 0;
    rt_text_puts(out, "{\"ids\":[");
    for (size_t i = 0; i < k; i++)
        rt_text_printf(out, i ? ",%d" : "%d", (int)top[i].id);
    rt_text_puts(out, "],\"logprobs\":[");
    for (size_t i = 0; i < k; i++) {
        if (i)
            rt_text_puts(out, ",");
        rt_json_float(out, (double)top[i].logprob);
        mass += exp((double)top[i].logprob);
    }
    rt_text_puts(out, "]");
    if (call->tail) {
        rt_text_puts(out, ",\"tail_logprob\":");
        if (mass < 1)
            rt_json_float(out, log1p(-mass));
        else
            rt_text_puts(out, "null");
    }
    rt_text_puts(out, "}");
}

void rt_compose_score(rt_call *call, rt_text *out)
{
    const rt_job *job = call->job;
    rt_text_puts(out, "{\"object\":\"retort.score\",\"model\":");
    rt_json_cstring(out, call->model->id);
    rt_text_puts(out, ",\"data\":[");
    for (size_t i = 0; i < job->n_prompts; i++) {
        const rt_job_prompt *prompt = &job->prompts[i];
        rt_text_printf(out, "%s{\"index\":%zu,\"token_logprobs\":[null", i ? "," : "", i);
        for (size_t k = 1; k < prompt->n; k++) {
            rt_text_puts(out, ",");
            rt_json_float(out, (double)prompt->scored[k].logprob);
        }
        rt_text_puts(out, "],\"positions\":[");
        for (size_t k = 1; k <= prompt->n; k++) {
            if (k > 1)
                rt_text_puts(out, ",");
            write_position(call, prompt, k, out);
        }
        rt_text_puts(out, "]}");
    }
    const size_t n = rt_job_prompt_tokens(job);
    rt_text_printf(out, "],\"usage\":{\"prompt_tokens\":%zu,\"completion_tokens\":0,\"total_tokens\":%zu}}",
                   n, n);
}

/* ---- the binary form ---- */

static double by_id_logq(const rt_top *top, size_t k, uint32_t *ids, float *logq)
{
    double mass = 0;
    for (size_t i = 0; i < k; i++) { /* by insertion: k is small, and mostly ascending already in parts */
        size_t at = i;
        while (at > 0 && ids[at - 1] > (uint32_t)top[i].id) {
            ids[at] = ids[at - 1];
            logq[at] = logq[at - 1];
            at--;
        }
        ids[at] = (uint32_t)top[i].id;
        logq[at] = top[i].logprob;
        mass += exp((double)top[i].logprob);
    }
    return mass;
}

/* The row of target `at`, the token at that place of the sequence. */
static rt_status add_row(rt_store_document *doc, const rt_job_prompt *prompt, size_t at, size_t k,
                         rt_error *err)
{
    uint32_t ids[TOP_K_MAX + 1];
    float logq[TOP_K_MAX + 1];
    const uint16_t counts[TOP_K_MAX + 1] = {0};
    const double mass = by_id_logq(prompt->top + at * k, k, ids, logq);
    bool there = false;
    for (size_t i = 0; i < k; i++)
        there = there || ids[i] == (uint32_t)doc->ids[at];
    ids[k] = (uint32_t)doc->ids[at];
    logq[k] = prompt->scored[at].logprob;
    return rt_sparse_rows_add(&doc->rows,
                              &(rt_sparse_row){.ids = ids,
                                               .logq = logq,
                                               .counts = counts,
                                               .n = (uint32_t)(k + !there),
                                               .n_topk = (uint32_t)k,
                                               .tail_logprob = k == 0     ? 0
                                                               : mass < 1 ? (float)log1p(-mass)
                                                                          : -INFINITY,
                                               .log_z = NAN},
                              err);
}

static rt_status make_document(rt_store_document *doc, const rt_job_prompt *prompt, size_t k, uint64_t number,
                               rt_error *err)
{
    doc->number = number;
    doc->n_tokens = doc->capacity = prompt->n;
    doc->ids = calloc(prompt->n, sizeof *doc->ids);
    doc->mask = calloc(prompt->n, sizeof *doc->mask);
    if (!doc->ids || !doc->mask)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a scored sequence");
    memcpy(doc->ids, prompt->ids, prompt->n * sizeof *doc->ids);
    for (size_t at = 1; at < prompt->n; at++) {
        doc->mask[at] = 1;
        if (add_row(doc, prompt, at, k, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status rt_compose_score_binary(const rt_call *call, rt_text *out, rt_error *err)
{
    const rt_job *job = call->job;
    const size_t k = (size_t)job->options.prompt_top_logprobs;
    const rt_serve_model *model = &call->serve->options.models[call->lane];
    rt_rls_header header = {.version = RT_RLS_VERSION,
                            .n_vocab = (uint32_t)call->model->n_vocab,
                            .n_logits = (uint32_t)model->model->config.n_vocab,
                            .topk = (uint32_t)k,
                            .code_bits = 16,
                            .end_id = -1,
                            .proposal = 1,
                            .temperature = 1};
    rt_rls_header_identify(&header, model->tokenizer, false, model->sha256);
    rt_store_document *docs = calloc(job->n_prompts, sizeof *docs);
    rt_status status = docs ? rt_rls_header_check(&header, err)
                            : rt_error_set(err, RT_NO_MEMORY, "no memory for scored sequences");
    for (size_t i = 0; i < job->n_prompts && status == RT_OK; i++)
        status = make_document(&docs[i], &job->prompts[i], k, i, err);
    if (status == RT_OK)
        status = rt_rls_to_memory(out, &header, docs, job->n_prompts, err);
    for (size_t i = 0; docs && i < job->n_prompts; i++)
        rt_store_document_deinit(&docs[i]);
    free(docs);
    return status;
}
