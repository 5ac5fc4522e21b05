/* teacher/local.c - opening a model as teacher, and what is known of it; see local.h. */
#include "teacher/local.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "base/size.h"
#include "retort/version.h"
#include "teacher/local_internal.h"
#include "tensor/cpu.h"

enum { SLOTS = 16, SLOTS_STREAMED = 128, POSITIONS = 2048, BATCH = 1024, BATCH_STREAMED = 16384 };

static void local_close(void *self)
{
    local_teacher *t = self;
    if (!t)
        return;
    rt_model_close(t->model);
    rt_chat_template_free(t->chat_template);
    rt_tokenizer_close(t->tokenizer);
    rt_weights_close(t->weights);
    rt_pool_close(t->own_pool);
    free(t->path);
    free(t->name);
    free(t);
}

static const rt_teacher_info *local_info(void *self) { return &((local_teacher *)self)->info; }

/* Which file, in which state, run how: equal ones give equal seeded answers. */
static rt_status make_fingerprint(local_teacher *t, rt_error *err)
{
    rt_text text = {0};
    rt_text_printf(&text, "%s %s %d", RT_VERSION, rt_cpu_name(rt_cpu_level()), (int)t->options.precision);
    for (size_t i = 0; i < rt_weights_count(t->weights); i++) {
        const rt_weight *w = rt_weights_at(t->weights, i);
        rt_text_printf(&text, " %s %d %zu %zu", w->name, (int)w->dtype, w->bytes, w->offset);
        struct stat info;
        const char *path = rt_weights_file_path(t->weights, w->file);
        if ((i == 0 || w->file != rt_weights_at(t->weights, i - 1)->file) && stat(path, &info) == 0)
            rt_text_printf(&text, " %lld %lld", (long long)info.st_size, (long long)info.st_mtime);
    }
    const bool failed = text.failed;
    if (!failed)
        rt_sha256_hex(t->fingerprint, text.data, text.size);
    rt_text_deinit(&text);
    return failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for the teacher's fingerprint") : RT_OK;
}

static rt_status open_words(local_teacher *t, rt_error *err)
{
    const rt_status status = rt_weights_get_format(t->weights) == RT_FORMAT_GGUF
                                 ? rt_tokenizer_from_weights(&t->tokenizer, t->weights, err)
                                 : rt_tokenizer_open(&t->tokenizer, t->path, err);
    const char *source = status == RT_OK ? rt_tokenizer_chat_template(t->tokenizer) : NULL;
    if (!source)
        return status;
    rt_sha256_hex(t->template_hash, source, strlen(source));
    return rt_chat_template_parse(&t->chat_template, source, err);
}

static void fill_defaults(local_teacher *t)
{
    rt_local_options *o = &t->options;
    const size_t context = t->model->config.n_context;
    if (!o->n_slots)
        o->n_slots = o->stream ? SLOTS_STREAMED : SLOTS;
    o->n_positions = rt_size_min(o->n_positions ? o->n_positions : POSITIONS, context);
    if (!o->batch_tokens)
        o->batch_tokens = o->stream ? BATCH_STREAMED : BATCH;
}

static void fill_info(local_teacher *t)
{
    const char *text;
    size_t size;
    if (rt_weights_meta_string(t->weights, "general.license", &text, &size))
        (void)snprintf(t->licence, sizeof t->licence, "%.*s", (int)rt_size_min(size, 60), text);
    t->info = (rt_teacher_info){.kind = "local",
                                .name = t->name,
                                .source = t->path,
                                .n_vocab = t->model->config.n_vocab,
                                .tokenizer_hash = rt_tokenizer_hash(t->tokenizer),
                                .template_hash = t->template_hash,
                                .end_token = rt_tokenizer_eos(t->tokenizer),
                                .licence = t->licence,
                                .terms = "",
                                .fingerprint = t->fingerprint};
}

static rt_status open_model(local_teacher *t, rt_error *err)
{
    if (!t->options.stream) {
        if (rt_weights_open(&t->weights, t->path, err) != RT_OK || open_words(t, err) != RT_OK)
            return err->status;
        return rt_model_open(&t->model, t->weights, t->options.precision, t->pool, err);
    }
    const rt_stream_options options = {.memory_bytes = t->options.stream_memory_bytes};
    if (rt_weights_open_headers(&t->weights, t->path, err) != RT_OK || open_words(t, err) != RT_OK)
        return err->status;
    return rt_model_open_streamed(&t->model, t->weights, t->options.precision, t->pool, &options, err);
}

rt_status rt_local_open(rt_teacher **out, const char *path, const rt_local_options *options, rt_pool *pool,
                        rt_error *err)
{
    static const rt_teacher_verbs verbs = {local_ask, local_score, local_info, local_close};
    *out = NULL;
    local_teacher *t = calloc(1, sizeof *t);
    if (!t)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the teacher");
    t->options = *options;
    const char *slash = strrchr(path, '/');
    t->path = strdup(path);
    t->name = strdup(options->name ? options->name : slash && slash[1] ? slash + 1 : path);
    if (!t->path || !t->name) {
        local_close(t);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the teacher");
    }
    t->options.name = t->name;
    if (!pool && rt_pool_open(&t->own_pool, (unsigned)rt_size_min(options->threads, 1 << 16), err) != RT_OK) {
        local_close(t);
        return err->status;
    }
    t->pool = pool ? pool : t->own_pool;
    if (open_model(t, err) != RT_OK || make_fingerprint(t, err) != RT_OK) {
        local_close(t);
        return err->status;
    }
    fill_defaults(t);
    fill_info(t);
    return rt_teacher_open(out, &verbs, t, err);
}

/* ---- prompts ---- */

static rt_status render(const local_teacher *t, const json_t *messages, rt_text *text, rt_error *err)
{
    if (!t->chat_template) {
        size_t i;
        json_t *message;
        json_array_foreach(messages, i, message)
        {
            const json_t *content = json_object_get(message, "content");
            if (json_is_string(content))
                rt_text_append(text, json_string_value(content), json_string_length(content));
        }
        return RT_OK;
    }
    const char *names[] = {"bos_token", "eos_token"};
    const int32_t ids[] = {rt_tokenizer_bos(t->tokenizer), rt_tokenizer_eos(t->tokenizer)};
    json_t *variables = json_pack("{s:O, s:b}", "messages", messages, "add_generation_prompt", 1);
    for (size_t i = 0; variables && i < 2; i++) {
        size_t size = 0;
        const char *bytes = ids[i] >= 0 ? rt_tokenizer_token_bytes(t->tokenizer, ids[i], &size) : "";
        (void)json_object_set_new(variables, names[i], json_stringn(bytes, size));
    }
    const rt_status status = variables ? rt_chat_template_render(t->chat_template, variables, text, err)
                                       : rt_error_set(err, RT_NO_MEMORY, "no memory for the chat template");
    json_decref(variables);
    return status;
}

static rt_status push_id(rt_token_list *out, int32_t id, rt_error *err)
{
    if (out->count == out->capacity) {
        const size_t capacity = out->capacity * 2 + 64;
        int32_t *ids = realloc(out->ids, capacity * sizeof *ids);
        if (!ids)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for a prompt of %zu tokens", out->count);
        out->ids = ids;
        out->capacity = capacity;
    }
    out->ids[out->count++] = id;
    return RT_OK;
}

static rt_status prompt_of_ids(const local_teacher *t, const json_t *prompt, rt_token_list *out,
                               rt_error *err)
{
    size_t i;
    json_t *item;
    json_array_foreach(prompt, i, item)
    {
        const json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || (size_t)id >= t->model->config.n_vocab)
            return rt_error_set(err, RT_INVALID, "prompt[%zu] is no token id of this model's %zu", i,
                                t->model->config.n_vocab);
        if (push_id(out, (int32_t)id, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status local_prompt(const local_teacher *t, const json_t *body, rt_token_list *out, rt_error *err)
{
    const json_t *messages = json_object_get(body, "messages"), *prompt = json_object_get(body, "prompt");
    rt_status status = RT_OK;
    rt_text text = {0};
    bool special = false;
    if (json_is_array(prompt))
        return prompt_of_ids(t, prompt, out, err);
    if (json_is_array(messages)) {
        special = t->chat_template != NULL;
        status = render(t, messages, &text, err);
    } else if (json_is_string(prompt)) {
        const int32_t bos = rt_tokenizer_bos(t->tokenizer);
        if (rt_tokenizer_adds_bos(t->tokenizer) && bos >= 0)
            status = push_id(out, bos, err);
        rt_text_append(&text, json_string_value(prompt), json_string_length(prompt));
    } else {
        return rt_error_set(err, RT_INVALID,
                            "the request has neither messages nor a prompt (text or token ids)");
    }
    if (status == RT_OK && text.failed)
        status = rt_error_set(err, RT_INVALID, "the prompt is too long");
    if (status == RT_OK)
        status = rt_tokenizer_encode(t->tokenizer, text.data ? text.data : "", text.size, special, out, err);
    rt_text_deinit(&text);
    return status;
}
