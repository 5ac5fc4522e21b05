/* serve/tokens.c - models, tokenize, detokenize, tokenizer_info (API.md 3 and 9). */
#include <stdlib.h>
#include <string.h>

#include "serve/fields.h"
#include "serve/json_out.h"
#include "serve/service.h"

/* ---- models ---- */

static void write_model(const rt_serve *serve, size_t index, rt_text *out)
{
    const rt_serve_model *m = &serve->options.models[index];
    const rt_served_model *served = &serve->models[index];
    rt_text_puts(out, "{\"id\":");
    rt_json_cstring(out, m->id);
    rt_text_printf(out,
                   ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"retort\",\"max_model_len\":%zu,"
                   "\"permission\":[],\"root\":",
                   (long long)m->created, served->context);
    rt_json_cstring(out, m->id);
    rt_text_printf(out, ",\"parent\":null,\"meta\":{\"vocab\":%zu,\"params\":%zu,\"quant\":", served->n_vocab,
                   rt_model_config_parameters(&m->model->config));
    rt_json_cstring(out, m->quant);
    rt_text_puts(out, ",\"sha256\":");
    rt_json_cstring(out, m->sha256);
    rt_text_puts(out, "}}");
}

void rt_run_models(rt_call *call)
{
    rt_text out = {0};
    rt_text_puts(&out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < call->serve->options.n_models; i++) {
        if (i)
            rt_text_puts(&out, ",");
        write_model(call->serve, i, &out);
    }
    rt_text_puts(&out, "]}");
    rt_call_json(call, 200, &out);
    rt_text_deinit(&out);
}

void rt_run_model(rt_call *call)
{
    const char *path = rt_http_request_of(call->x)->head->path, *id = path + strlen(call->route->path);
    call->body = json_pack("{s:s}", "model", id);
    if (!call->body || !rt_call_find_model(call))
        return;
    rt_text out = {0};
    write_model(call->serve, call->lane, &out);
    rt_call_json(call, 200, &out);
    rt_text_deinit(&out);
}

/* ---- tokens ---- */

static void write_tokens(const rt_call *call, const rt_token_list *ids, bool strings, rt_text *out)
{
    rt_text_printf(out, "{\"count\":%zu,\"max_model_len\":%zu,\"tokens\":[", ids->count,
                   call->model->context);
    for (size_t i = 0; i < ids->count; i++)
        rt_text_printf(out, i ? ",%d" : "%d", (int)ids->ids[i]);
    rt_text_puts(out, strings ? "],\"token_strs\":[" : "],\"token_strs\":null}");
    for (size_t i = 0; strings && i < ids->count; i++) {
        size_t size;
        const char *bytes = rt_tokenizer_token_bytes(call->model->tokenizer, ids->ids[i], &size);
        if (i)
            rt_text_puts(out, ",");
        rt_json_string(out, bytes, size);
    }
    if (strings)
        rt_text_puts(out, "]}");
}

static bool encode(rt_call *call, rt_token_list *ids, bool *strings, rt_fault *fault)
{
    bool special = true, thinking;
    if (!rt_field_bool(call->body, "add_special_tokens", &special, fault) ||
        !rt_field_bool(call->body, "return_token_strs", strings, fault))
        return false;
    if (rt_member(call->body, "messages"))
        return rt_render_messages(call->model, call->body, ids, &thinking, fault);
    const json_t *prompt = rt_member(call->body, "prompt");
    if (!prompt)
        return rt_fault_invalid(fault, "missing_required_parameter", "prompt",
                                "'prompt' or 'messages' is missing");
    if (!json_is_string(prompt))
        return rt_fault_invalid(fault, "invalid_value", "prompt", "'prompt' must be a string");
    return rt_encode_prompt(call->model, json_string_value(prompt), json_string_length(prompt), special,
                            "prompt", ids, fault);
}

/* It has taken a request of the account's rates and no token; false: *fault. */
static bool is_counted(rt_call *call, const rt_fault *why, rt_fault *fault)
{
    if (why) {
        *fault = *why;
        return false;
    }
    call->finish = "stop";
    (void)rt_call_settle(call, 200, false);
    return true;
}

static void tokenize(rt_call *call, const rt_fault *why)
{
    rt_fault fault = {0};
    rt_token_list ids = {0};
    rt_text out = {0};
    bool strings = false;
    if (is_counted(call, why, &fault) && encode(call, &ids, &strings, &fault)) {
        write_tokens(call, &ids, strings, &out);
        rt_call_json(call, 200, &out);
    } else {
        rt_call_fault(call, &fault);
    }
    rt_text_deinit(&out);
    rt_token_list_deinit(&ids);
}

void rt_run_tokenize(rt_call *call)
{
    if (rt_call_body(call))
        rt_call_admit(call, tokenize);
}

static void detokenize(rt_call *call, const rt_fault *why)
{
    rt_fault fault = {0};
    rt_error err = {0};
    rt_text text = {0}, out = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    const json_t *tokens = rt_member(call->body, "tokens");
    bool ok = is_counted(call, why, &fault);
    if (ok && !(ok = json_is_array(tokens)))
        (void)rt_fault_invalid(&fault, tokens ? "invalid_value" : "missing_required_parameter", "tokens",
                               "'tokens' must be a list of token ids");
    ok = ok && rt_field_ids(tokens, "tokens", rt_tokenizer_size(call->model->tokenizer), &ids, &n, &fault);
    if (ok && rt_tokenizer_decode(call->model->tokenizer, ids, n, false, &text, &err) != RT_OK)
        ok = rt_fault_set(&fault, 503, "server_error", "overloaded", "there is no memory for the answer");
    if (ok) {
        rt_text_puts(&out, "{\"prompt\":");
        rt_json_string(&out, text.data ? text.data : "", text.size);
        rt_text_puts(&out, "}");
        rt_call_json(call, 200, &out);
    } else {
        rt_call_fault(call, &fault);
    }
    free(ids);
    rt_text_deinit(&text);
    rt_text_deinit(&out);
}

void rt_run_detokenize(rt_call *call)
{
    if (rt_call_body(call))
        rt_call_admit(call, detokenize);
}

static void token_member(rt_text *out, const char *name, const rt_tokenizer *tokenizer, int32_t id)
{
    size_t size = 0;
    const char *bytes = id >= 0 ? rt_tokenizer_token_bytes(tokenizer, id, &size) : "";
    rt_text_printf(out, ",\"%s\":", name);
    rt_json_string(out, bytes, size);
}

void rt_run_tokenizer_info(rt_call *call)
{
    const rt_served_model *model = &call->serve->models[0];
    const rt_tokenizer *t = model->tokenizer;
    const char *source = rt_tokenizer_chat_template(t);
    rt_text out = {0};
    rt_text_puts(&out, "{\"tokenizer_class\":");
    rt_json_cstring(&out, rt_tokenizer_kind(t));
    token_member(&out, "eos_token", t, rt_tokenizer_eos(t));
    token_member(&out, "bos_token", t, rt_tokenizer_bos(t));
    token_member(&out, "pad_token", t, rt_tokenizer_pad(t));
    rt_text_puts(&out, ",\"chat_template\":");
    rt_json_cstring(&out, source ? source : "");
    rt_text_printf(&out, ",\"model_max_length\":%zu}", model->context);
    rt_call_json(call, 200, &out);
    rt_text_deinit(&out);
}
