/* serve/score.c - /v1/retort/score: the model's distribution after every token of given sequences, as its
 * likeliest ids and the mass of all others.  One prefill a sequence; charged as prompt tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    if (strcmp(format, "json") != 0)
        return rt_fault_invalid(fault,
                                strcmp(format, "binary") == 0 ? "unsupported_parameter" : "invalid_value",
                                "format", "'format' must be json; this server writes no other form");
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

void rt_run_score(rt_call *call)
{
    rt_fault fault = {0};
    call->scores = true;
    if (!rt_call_body(call) || !rt_call_idempotency(call))
        return;
    if (!read_score(call, &fault) || !rt_call_start(call, &fault))
        rt_call_give_up(call, &fault);
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
