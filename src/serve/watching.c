/* serve/watching.c - a call and the guard: what the ladder still allows, and what the guard is told. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "serve/fields.h"
#include "serve/service.h"

static bool refuse(rt_fault *fault, const char *param, const char *why)
{
    (void)rt_fault_set(fault, 403, "permission_error", "feature_not_allowed",
                       "%s; GET /v1/account shows the case, POST /v1/account/appeals objects", why);
    (void)snprintf(fault->param, sizeof fault->param, "%s", param);
    fault->no_retry = true;
    return false;
}

/* ---- what the guard sees ---- */

static void append_content(rt_text *out, const json_t *content)
{
    const json_t *part;
    size_t i;
    if (json_is_string(content))
        rt_text_append(out, json_string_value(content), json_string_length(content));
    json_array_foreach((json_t *)content, i, part)
    {
        const json_t *text = json_object_get(part, "text");
        if (json_is_string(text))
            rt_text_append(out, json_string_value(text), json_string_length(text));
    }
}

/* A prompt of completions: a text, a list of texts, or ids, which only a model here can read. */
static void append_prompt(const rt_call *call, rt_text *out)
{
    const json_t *prompt = json_object_get(call->body, "prompt"), *one;
    size_t i;
    rt_error err = {0};
    append_content(out, prompt);
    json_array_foreach((json_t *)prompt, i, one)
    {
        if (!json_is_string(one))
            break;
        append_content(out, one);
        rt_text_puts(out, "\n");
    }
    for (size_t p = 0; out->size == 0 && call->job && p < call->job->n_prompts; p++)
        (void)rt_tokenizer_decode(call->model->tokenizer, call->job->prompts[p].ids, call->job->prompts[p].n,
                                  true, out, &err);
}

/* All messages, or all prompts, one after the other. */
static void collect_prompt(const rt_call *call, rt_text *out)
{
    const json_t *messages = json_object_get(call->body, "messages"), *message;
    size_t i;
    json_array_foreach((json_t *)messages, i, message)
    {
        if (i > 0)
            rt_text_puts(out, "\n");
        append_content(out, json_object_get(message, "content"));
    }
    if (!messages)
        append_prompt(call, out);
}

static rt_guard_span span(const char *text)
{
    return (rt_guard_span){text ? text : "", text ? strlen(text) : 0};
}

static uint32_t count_of(const json_t *body, const char *key, uint32_t fallback)
{
    const json_t *value = json_object_get(body, key);
    const json_int_t n = json_is_integer(value) ? json_integer_value(value) : (json_int_t)fallback;
    return n < 0 ? 0 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static void read_biases(rt_guard_event *event, const json_t *body)
{
    const char *id;
    json_t *value;
    json_object_foreach(json_object_get(body, "logit_bias"), id, value)
    {
        if (event->bias_count == RT_GUARD_BIAS_IDS_MAX)
            break;
        event->bias_ids[event->bias_count++] = (uint32_t)strtoul(id, NULL, 10);
    }
}

/* What was asked for, as it stands in the request: the same for a model here and for one behind the gateway.
 */
static void read_parameters(rt_guard_event *event, const json_t *body, bool chat)
{
    const json_t *temperature = json_object_get(body, "temperature"),
                 *logprobs = json_object_get(body, "logprobs");
    event->temperature = json_is_number(temperature) ? (float)json_number_value(temperature) : 1;
    event->n = count_of(body, "n", 1);
    event->max_tokens = count_of(body, "max_completion_tokens", count_of(body, "max_tokens", 0));
    event->logprobs = json_is_true(logprobs) || json_is_integer(logprobs);
    event->top_logprobs = chat ? count_of(body, "top_logprobs", 0) : count_of(body, "logprobs", 0);
    event->stream = json_is_true(json_object_get(body, "stream"));
    read_biases(event, body);
}

bool rt_call_watch_allows(rt_call *call, rt_fault *fault)
{
    rt_watch *watch = call->serve->options.watch;
    if (!watch || !call->caller)
        return true;
    const rt_watch_rules rules = rt_watch_rules_of(watch, call->caller->account);
    const bool chat = json_object_get(call->body, "messages") != NULL;
    rt_guard_event asked = {0};
    read_parameters(&asked, call->body, chat);
    const json_t *prompt_logprobs = json_object_get(call->body, "prompt_logprobs");
    const uint32_t prompt_top = count_of(call->body, "prompt_logprobs", 0);
    const bool logprobs = asked.logprobs || json_is_integer(prompt_logprobs);
    const uint32_t top = asked.top_logprobs > prompt_top ? asked.top_logprobs : prompt_top;
    if (rules.challenged) {
        (void)rt_fault_set(fault, 403, "permission_error", "account_challenged", "%s%s%s",
                           rt_watch_policy(watch)->challenge_message, *rules.case_id ? " Case " : "",
                           rules.case_id);
        fault->no_retry = true;
        return false;
    }
    if (logprobs && rules.no_logprobs)
        return refuse(fault, "logprobs", "log-probabilities are switched off for this account");
    if (logprobs && top > rules.top_logprobs)
        return refuse(fault, chat ? "top_logprobs" : "logprobs",
                      "this account may see fewer alternatives a token");
    if (logprobs && rules.no_bias_with_logprobs && asked.bias_count > 0)
        return refuse(fault, "logit_bias", "logit_bias and log-probabilities are not given together");
    call->request.hide_reasoning = rules.no_reasoning;
    if (rules.no_reasoning && call->model && call->model->thinks &&
        (!chat || call->request.return_token_ids || logprobs))
        return refuse(fault, chat ? "return_token_ids" : "prompt",
                      "this account is shown answers without their reasoning");
    return true;
}

void rt_call_watch(rt_call *call)
{
    rt_watch *watch = call->serve->options.watch;
    if (!watch || !call->ticket || !call->body || call->note.record)
        return;
    const rt_http_request *request = rt_http_request_of(call->x);
    rt_text prompt = {.size_max = (size_t)16 << 20};
    collect_prompt(call, &prompt);
    rt_guard_event event = {.ts = rt_clock_unix(),
                            .account = span(call->caller->account),
                            .ip = span(request->address),
                            .asn = span(NULL),
                            .user_agent = span(rt_http_request_field(call->x, "user-agent")),
                            .pay_hash = span(NULL),
                            .model = span(json_string_value(json_object_get(call->body, "model"))),
                            .prompt = {prompt.data ? prompt.data : "", prompt.size},
                            .request = span(request->id),
                            .created = call->caller->created,
                            .prompt_tokens = (uint32_t)call->prompt_tokens,
                            .completion_tokens = (uint32_t)call->output_tokens};
    read_parameters(&event, call->body, json_object_get(call->body, "messages") != NULL);
    if (!prompt.failed)
        call->note = rt_watch_note_of(watch, &event);
    rt_text_deinit(&prompt);
}
