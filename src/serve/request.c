/* serve/request.c - see request.h.  Checks in the order of API.md: what is missing, types and ranges, what
 * this server does not do, and last whether the prompt fits. */
#include "serve/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/size.h"
#include "serve/fields.h"

typedef struct reader {
    rt_request *out;
    const json_t *body;
    const rt_served_model *model;
    rt_fault *fault;
} reader;

static bool no_memory(rt_fault *fault)
{
    return rt_fault_set(fault, 503, "server_error", "overloaded", "there is no memory for the request");
}

/* ---- known names ---- */

static const char *const common_names[] = {"model",
                                           "max_tokens",
                                           "temperature",
                                           "top_p",
                                           "top_k",
                                           "min_p",
                                           "frequency_penalty",
                                           "presence_penalty",
                                           "repetition_penalty",
                                           "logit_bias",
                                           "seed",
                                           "stop",
                                           "stop_token_ids",
                                           "ignore_eos",
                                           "n",
                                           "logprobs",
                                           "stream",
                                           "stream_options",
                                           "user",
                                           "return_token_ids",
                                           "prompt_logprobs",
                                           "return_tokens_as_token_ids",
                                           "best_of",
                                           "safety_identifier",
                                           "metadata",
                                           "store",
                                           "service_tier",
                                           "response_format",
                                           NULL};
static const char *const chat_names[] = {"messages",
                                         "max_completion_tokens",
                                         "top_logprobs",
                                         "tools",
                                         "tool_choice",
                                         "functions",
                                         "function_call",
                                         "prompt_cache_key",
                                         "parallel_tool_calls",
                                         "verbosity",
                                         "reasoning_effort",
                                         "modalities",
                                         "add_generation_prompt",
                                         "continue_final_message",
                                         "chat_template_kwargs",
                                         NULL};
static const char *const text_names[] = {"prompt", "suffix", "echo", "add_special_tokens", NULL};

static bool is_in(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

static bool check_names(const reader *r, const rt_request_rules *rules)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)r->body, name, value)
    {
        if (is_in(common_names, name) || is_in(r->out->chat ? chat_names : text_names, name))
            continue;
        if (rules->strict)
            return rt_fault_invalid(r->fault, "unsupported_parameter", name, "the field '%.64s' is not known",
                                    name);
        if (rules->unknown)
            rules->unknown(rules->context, name);
    }
    return true;
}

/* ---- what is not done here is never ignored ---- */

static bool refuse(const reader *r, const char *name, const char *why)
{
    return rt_fault_invalid(r->fault, "unsupported_parameter", name, "'%s' is not supported: %s", name, why);
}

/* {"type": "text" | "json_object" | "json_schema", "json_schema": {"schema": ...}} */
static bool read_format(const reader *r)
{
    const json_t *format = rt_member(r->body, "response_format");
    rt_error err = {0};
    rt_status status = RT_OK;
    if (!format)
        return true;
    const char *type = json_string_value(json_object_get(format, "type"));
    if (!type)
        return rt_fault_invalid(r->fault, "invalid_value", "response_format",
                                "'response_format' needs a \"type\"");
    if (strcmp(type, "text") == 0)
        return true;
    if (strcmp(type, "json_object") == 0) {
        status = rt_grammar_object(&r->out->options.grammar, &err);
    } else if (strcmp(type, "json_schema") == 0) {
        const json_t *schema = rt_member(rt_member(format, "json_schema"), "schema");
        if (!schema)
            return rt_fault_invalid(r->fault, "missing_required_parameter",
                                    "response_format.json_schema.schema",
                                    "'response_format.json_schema.schema' is missing");
        status = rt_grammar_schema(&r->out->options.grammar, schema, &err);
    } else {
        return refuse(r, "response_format", "its type must be text, json_object or json_schema");
    }
    if (status == RT_OK)
        return true;
    if (status == RT_NO_MEMORY)
        return no_memory(r->fault);
    return rt_fault_invalid(r->fault, status == RT_UNSUPPORTED ? "unsupported_parameter" : "invalid_value",
                            "response_format", "%.400s", err.text);
}

static bool check_unsupported(const reader *r)
{
    const char *const lists[] = {"tools", "functions"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *list = rt_member(r->body, lists[i]);
        if (list && !(json_is_array(list) && json_array_size(list) == 0))
            return refuse(r, lists[i], "this server has no templates for tools");
    }
    const char *choices[] = {"tool_choice", "function_call"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *choice = rt_member(r->body, choices[i]);
        const char *word = json_string_value(choice);
        if (choice && !(word && (strcmp(word, "none") == 0 || strcmp(word, "auto") == 0)))
            return refuse(r, choices[i], "there are no tools to choose from");
    }
    const json_t *modalities = rt_member(r->body, "modalities");
    if (modalities && !(json_array_size(modalities) == 1 && json_is_string(json_array_get(modalities, 0)) &&
                        strcmp(json_string_value(json_array_get(modalities, 0)), "text") == 0))
        return refuse(r, "modalities", "this model writes text only");
    const json_t *suffix = rt_member(r->body, "suffix");
    if (suffix && !(json_is_string(suffix) && json_string_length(suffix) == 0))
        return refuse(r, "suffix", "the model has no infill tokens");
    return read_format(r);
}

/* ---- sampling ---- */

static bool read_sampling(const reader *r)
{
    rt_job_options *o = &r->out->options;
    const json_t *body = r->body;
    rt_fault *fault = r->fault;
    int64_t top_k = 0, seed = 0;
    o->sampling = rt_sampling_default();
    o->sampling.temperature = 1;
    o->penalties.repetition = 1;
    if (!rt_field_real(body, "temperature", 0, 2, &o->sampling.temperature, fault) ||
        !rt_field_real(body, "top_p", 0, 1, &o->sampling.top_p, fault) ||
        !rt_field_real(body, "min_p", 0, 1, &o->sampling.min_p, fault) ||
        !rt_field_int(body, "top_k", -1, INT64_MAX, &top_k, fault) ||
        !rt_field_real(body, "frequency_penalty", -2, 2, &o->penalties.frequency, fault) ||
        !rt_field_real(body, "presence_penalty", -2, 2, &o->penalties.presence, fault) ||
        !rt_field_real(body, "repetition_penalty", 0, 100, &o->penalties.repetition, fault) ||
        !rt_field_int(body, "seed", INT64_MIN, INT64_MAX, &seed, fault))
        return false;
    if (top_k < 0)
        return rt_fault_invalid(fault, "invalid_value", "top_k",
                                "'top_k' must be a whole number, at least 0");
    if (o->sampling.top_p <= 0)
        return rt_fault_invalid(fault, "invalid_value", "top_p", "'top_p' must be above 0 and at most 1");
    if (o->penalties.repetition <= 0)
        return rt_fault_invalid(fault, "invalid_value", "repetition_penalty",
                                "'repetition_penalty' must be above 0");
    o->sampling.top_k = (size_t)top_k < r->model->n_vocab ? (size_t)top_k : 0;
    o->sampling.seed = (uint64_t)seed;
    if (!rt_member(body, "seed"))
        randombytes_buf(&o->sampling.seed, sizeof o->sampling.seed);
    return true;
}

static bool read_bias(const reader *r)
{
    const json_t *map = rt_member(r->body, "logit_bias");
    rt_job_options *o = &r->out->options;
    if (!map)
        return true;
    if (!json_is_object(map))
        return rt_fault_invalid(r->fault, "invalid_value", "logit_bias",
                                "'logit_bias' must be an object of token ids and numbers");
    o->biases = calloc(json_object_size(map) + 1, sizeof *o->biases);
    if (!o->biases)
        return no_memory(r->fault);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value)
    {
        char *end;
        const unsigned long id = strtoul(key, &end, 10);
        char where[96];
        (void)snprintf(where, sizeof where, "logit_bias.%.40s", key);
        if (key[0] < '0' || key[0] > '9' || *end || strlen(key) > 10 || id >= r->model->n_vocab)
            return rt_fault_invalid(r->fault, "invalid_value", where, "'%s' is not a token id below %zu",
                                    where, r->model->n_vocab);
        const double bias = json_number_value(value);
        if (!json_is_number(value) || !(bias >= -100 && bias <= 100))
            return rt_fault_invalid(r->fault, "invalid_value", where,
                                    "'%s' must be a number from -100 to 100", where);
        o->biases[o->penalties.n_biases++] = (rt_logit_bias){(int32_t)id, (float)bias};
    }
    return true;
}

static bool add_stop(const reader *r, const json_t *value, const char *where)
{
    rt_job_options *o = &r->out->options;
    const size_t size = json_string_length(value);
    if (!json_is_string(value) || size == 0 || size > RT_STOP_BYTES_MAX)
        return rt_fault_invalid(r->fault, "invalid_value", where, "'%s' must be a string of 1 to %d bytes",
                                where, RT_STOP_BYTES_MAX);
    memcpy(o->stops[o->n_stops].bytes, json_string_value(value), size);
    o->stops[o->n_stops++].size = size;
    return true;
}

static bool read_stops(const reader *r)
{
    rt_job_options *o = &r->out->options;
    const json_t *stop = rt_member(r->body, "stop"), *ids = rt_member(r->body, "stop_token_ids");
    const size_t count = json_is_array(stop) ? json_array_size(stop) : 1;
    if (stop && count > RT_STOPS_MAX)
        return rt_fault_invalid(r->fault, "invalid_value", "stop", "'stop' may hold at most %d strings",
                                RT_STOPS_MAX);
    if (stop && !(o->stops = calloc(count + 1, sizeof *o->stops)))
        return no_memory(r->fault);
    for (size_t i = 0; stop && i < count; i++) {
        char where[32] = "stop";
        if (json_is_array(stop))
            (void)snprintf(where, sizeof where, "stop[%zu]", i);
        if (!add_stop(r, json_is_array(stop) ? json_array_get(stop, i) : stop, where))
            return false;
    }
    if (!ids)
        return true;
    int32_t *list = NULL;
    size_t n = 0;
    if (!json_is_array(ids) || json_array_size(ids) > RT_STOP_IDS_MAX)
        return rt_fault_invalid(r->fault, "invalid_value", "stop_token_ids",
                                "'stop_token_ids' must be a list of at most %d token ids", RT_STOP_IDS_MAX);
    if (!rt_field_ids(ids, "stop_token_ids", r->model->n_vocab, &list, &n, r->fault))
        return false;
    memcpy(o->stop_ids, list, n * sizeof *list);
    o->n_stop_ids = n;
    free(list);
    return true;
}

/* ---- how many, and what to tell of them ---- */

static bool read_counts(const reader *r)
{
    rt_job_options *o = &r->out->options;
    int64_t n = 1, best = 0, tokens = -1;
    const char *name =
        r->out->chat && rt_member(r->body, "max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
    if (!rt_field_int(r->body, "n", 1, RT_CHOICES_MAX, &n, r->fault) ||
        !rt_field_int(r->body, "best_of", 1, INT64_MAX, &best, r->fault) ||
        !rt_field_int(r->body, name, 0, INT64_MAX, &tokens, r->fault))
        return false;
    if (best && best != n)
        return rt_fault_invalid(r->fault, "unsupported_parameter", "best_of",
                                "'best_of' must be equal to 'n'");
    const bool zero = !r->out->chat && (r->out->echo || r->out->has_prompt_logprobs);
    if (tokens == 0 && !zero)
        return rt_fault_invalid(r->fault, "invalid_value", name, "'%s' must be at least 1%s", name,
                                r->out->chat ? "" : ", or 0 with 'echo' or 'prompt_logprobs'");
    r->out->has_tokens_max = tokens >= 0;
    o->tokens_max = tokens >= 0 ? (size_t)tokens : r->out->chat ? SIZE_MAX : 16;
    o->n = (size_t)n;
    return true;
}

static bool read_logprobs(const reader *r)
{
    rt_request *q = r->out;
    int64_t top = -1, prompt = -1;
    if (q->chat) {
        bool wanted = false;
        if (!rt_field_bool(r->body, "logprobs", &wanted, r->fault) ||
            !rt_field_int(r->body, "top_logprobs", 0, RT_JOB_TOP_MAX, &top, r->fault))
            return false;
        if (top >= 0 && !wanted)
            return rt_fault_invalid(r->fault, "invalid_value", "top_logprobs",
                                    "'top_logprobs' needs 'logprobs': true");
        q->has_logprobs = wanted;
        top = wanted && top < 0 ? 0 : top;
    } else if (!rt_field_int(r->body, "logprobs", 0, RT_JOB_TOP_MAX, &top, r->fault)) {
        return false;
    } else {
        q->has_logprobs = top >= 0;
    }
    if (!rt_field_int(r->body, "prompt_logprobs", 0, RT_JOB_TOP_MAX, &prompt, r->fault))
        return false;
    q->has_prompt_logprobs = prompt >= 0;
    q->n_prompt_logprobs = (int)prompt;
    const int64_t echoed = q->echo && q->has_logprobs ? top : -1;
    q->options.top_logprobs = (int)top;
    q->options.prompt_top_logprobs = (int)(echoed > prompt ? echoed : prompt);
    return true;
}

static bool read_stream(const reader *r)
{
    rt_request *q = r->out;
    const json_t *options = rt_member(r->body, "stream_options");
    if (!rt_field_bool(r->body, "stream", &q->stream, r->fault))
        return false;
    if (!options)
        return true;
    if (!q->stream)
        return rt_fault_invalid(r->fault, "invalid_value", "stream_options",
                                "'stream_options' needs 'stream': true");
    if (!json_is_object(options))
        return rt_fault_invalid(r->fault, "invalid_value", "stream_options",
                                "'stream_options' must be an object");
    return rt_field_bool(options, "include_usage", &q->include_usage, r->fault);
}

/* ---- prompts of completions ---- */

static bool add_prompts(const reader *r, size_t count)
{
    r->out->prompts = calloc(count, sizeof *r->out->prompts);
    r->out->prompt_texts = calloc(count, sizeof *r->out->prompt_texts);
    r->out->n_prompts = count;
    return (r->out->prompts && r->out->prompt_texts) || no_memory(r->fault);
}

static bool read_text(const reader *r, const json_t *text, size_t index, bool special)
{
    rt_token_list *ids = &r->out->prompts[index];
    rt_text_append(&r->out->prompt_texts[index], json_string_value(text), json_string_length(text));
    if (!rt_encode_prompt(r->model, json_string_value(text), json_string_length(text), special, "prompt", ids,
                          r->fault))
        return false;
    const int32_t bos = rt_tokenizer_bos(r->model->tokenizer);
    if (ids->count > 0 || bos < 0)
        return true;
    free(ids->ids);
    *ids = (rt_token_list){.ids = malloc(sizeof bos), .count = 1, .capacity = 1};
    if (!ids->ids) {
        ids->count = 0;
        return no_memory(r->fault);
    }
    ids->ids[0] = bos; /* an empty text begins where every text does */
    return true;
}

static bool read_ids(const reader *r, const json_t *list, size_t index, const char *path)
{
    rt_token_list *ids = &r->out->prompts[index];
    if (!rt_field_ids(list, path, r->model->n_vocab, &ids->ids, &ids->count, r->fault))
        return false;
    ids->capacity = ids->count + 1;
    rt_error err = {0};
    if (r->out->echo && rt_tokenizer_decode(r->model->tokenizer, ids->ids, ids->count, false,
                                            &r->out->prompt_texts[index], &err) != RT_OK)
        rt_text_clear(&r->out->prompt_texts[index]); /* ids of rows that no token has: nothing to show */
    return true;
}

static bool wrong_prompt(const reader *r)
{
    return rt_fault_invalid(r->fault, "invalid_value", "prompt",
                            "'prompt' must be a string, a list of strings, a list of token ids, or a list of "
                            "lists of token ids");
}

static bool read_prompts(const reader *r)
{
    const json_t *prompt = rt_member(r->body, "prompt");
    bool special = true;
    if (!rt_field_bool(r->body, "add_special_tokens", &special, r->fault))
        return false;
    if (!prompt)
        return rt_fault_invalid(r->fault, "missing_required_parameter", "prompt", "'prompt' is missing");
    if (json_is_string(prompt))
        return add_prompts(r, 1) && read_text(r, prompt, 0, special);
    const size_t n = json_array_size(prompt);
    const json_t *first = json_array_get(prompt, 0);
    if (n == 0)
        return wrong_prompt(r);
    if (json_is_number(first))
        return add_prompts(r, 1) && read_ids(r, prompt, 0, "prompt");
    if (n > RT_PROMPTS_MAX)
        return rt_fault_invalid(r->fault, "invalid_value", "prompt", "'prompt' may hold at most %d prompts",
                                RT_PROMPTS_MAX);
    if (!add_prompts(r, n))
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(prompt, i);
        char where[32];
        (void)snprintf(where, sizeof where, "prompt[%zu]", i);
        if (json_typeof(one) != json_typeof(first) || !(json_is_string(one) || json_is_array(one)))
            return wrong_prompt(r);
        if (!(json_is_string(one) ? read_text(r, one, i, special) : read_ids(r, one, i, where)))
            return false;
    }
    return true;
}

/* ---- does it fit ---- */

static bool check_room(const reader *r, const rt_request_rules *rules)
{
    rt_job_options *o = &r->out->options;
    const char *param = r->out->chat ? "messages" : "prompt";
    size_t longest = 0, total = 0;
    for (size_t i = 0; i < r->out->n_prompts; i++) {
        const size_t n = r->out->prompts[i].count;
        if (n == 0)
            return rt_fault_invalid(r->fault, "invalid_value", param,
                                    "the prompt is empty, and this model has no token to begin a text with");
        longest = rt_size_max(longest, n);
        total += n;
    }
    const size_t context = r->model->context, least = o->tokens_max == 0 ? 0 : 1;
    const size_t asked = r->out->has_tokens_max ? o->tokens_max : least;
    if (longest > context || asked > context - longest)
        return rt_fault_invalid(
            r->fault, "context_length_exceeded", param,
            "this model's context holds %zu tokens, and %zu are asked for: %zu in the %s and "
            "%zu for the answer",
            context, longest + asked, longest, param, asked);
    if (!r->out->has_tokens_max) {
        o->tokens_max = rt_size_min(o->tokens_max, context - longest);
        if (rules->tokens_cap >= 1)
            o->tokens_max = rt_size_min(o->tokens_max, (size_t)rules->tokens_cap);
        const size_t answers = o->n * r->out->n_prompts;
        if (rules->tokens_room > 0 && (size_t)rules->tokens_room > total + answers)
            o->tokens_max = rt_size_min(o->tokens_max, ((size_t)rules->tokens_room - total) / answers);
    }
    return true;
}

static bool read_all(const reader *r, const rt_request_rules *rules)
{
    rt_request *q = r->out;
    if (!check_names(r, rules) || (!q->chat && !rt_field_bool(r->body, "echo", &q->echo, r->fault)) ||
        !read_logprobs(r) || !read_counts(r) || !read_sampling(r) || !read_bias(r) || !read_stops(r) ||
        !read_stream(r) || !rt_field_bool(r->body, "ignore_eos", &q->options.ignore_eos, r->fault) ||
        !rt_field_bool(r->body, "return_token_ids", &q->return_token_ids, r->fault) ||
        !rt_field_bool(r->body, "return_tokens_as_token_ids", &q->tokens_as_ids, r->fault) ||
        !rt_field_string(r->body, "user", &q->user, r->fault) ||
        (!q->user && !rt_field_string(r->body, "safety_identifier", &q->user, r->fault)) ||
        !check_unsupported(r))
        return false;
    if (q->chat) {
        if (!add_prompts(r, 1) ||
            !rt_render_messages(r->model, r->body, &q->prompts[0], &q->thinking, r->fault))
            return false;
    } else if (!read_prompts(r)) {
        return false;
    }
    return check_room(r, rules);
}

bool rt_request_read(rt_request *out, bool chat, const json_t *body, const rt_served_model *model,
                     const rt_request_rules *rules, rt_fault *fault)
{
    *out = (rt_request){.chat = chat};
    const reader r = {out, body, model, fault};
    if (read_all(&r, rules))
        return true;
    rt_request_deinit(out);
    return false;
}

void rt_request_deinit(rt_request *q)
{
    for (size_t i = 0; q->prompts && i < q->n_prompts; i++)
        rt_token_list_deinit(&q->prompts[i]);
    for (size_t i = 0; q->prompt_texts && i < q->n_prompts; i++)
        rt_text_deinit(&q->prompt_texts[i]);
    free(q->prompts);
    free(q->prompt_texts);
    rt_job_options_deinit(&q->options);
    *q = (rt_request){0};
}
