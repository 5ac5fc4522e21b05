/* serve/compose.c - see compose.h. */
#include "serve/compose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/size.h"
#include "serve/json_out.h"

rt_status rt_compose_init(rt_compose *reply, const rt_served_model *model, const rt_request *request,
                          rt_job *job, const char *fingerprint, bool reasoning, rt_error *err)
{
    *reply = (rt_compose){.model = model,
                          .request = request,
                          .job = job,
                          .created = rt_clock_unix_seconds(),
                          .fingerprint = fingerprint,
                          .cursors = calloc(job->n_choices, sizeof *reply->cursors)};
    if (!reply->cursors)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an answer");
    unsigned char random[12];
    char hex[25];
    randombytes_buf(random, sizeof random);
    (void)sodium_bin2hex(hex, sizeof hex, random, sizeof random);
    (void)snprintf(reply->id, sizeof reply->id, "%s-%s", request->chat ? "chatcmpl" : "cmpl", hex);
    for (size_t i = 0; i < job->n_choices; i++) {
        const rt_text *text =
            request->chat || !request->prompt_texts ? NULL : &request->prompt_texts[job->choices[i].prompt];
        reply->cursors[i].think =
            rt_think_make(request->chat && reasoning && model->thinks, request->thinking);
        if (text && !request->echo)
            reply->cursors[i].offset = rt_code_points(text->data ? text->data : "", text->size);
    }
    return RT_OK;
}

void rt_compose_deinit(rt_compose *reply)
{
    free(reply->cursors);
    *reply = (rt_compose){0};
}

static const char *finish_word(const rt_choice *choice)
{
    return choice->finish == RT_JOB_STOP ? "\"stop\"" : "\"length\"";
}

static void head(const rt_compose *r, const char *object, rt_text *out)
{
    rt_text_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", r->id, object,
                   (long long)r->created);
    rt_json_cstring(out, r->model->id);
    rt_text_puts(out, ",\"system_fingerprint\":");
    rt_json_cstring(out, r->fingerprint);
}

static void ids_array(rt_text *out, const char *name, const int32_t *ids, size_t n)
{
    rt_text_printf(out, ",\"%s\":[", name);
    for (size_t i = 0; i < n; i++)
        rt_text_printf(out, i ? ",%d" : "%d", (int)ids[i]);
    rt_text_puts(out, "]");
}

static void choice_ids(rt_text *out, const rt_choice *choice, size_t from, size_t to)
{
    rt_text_puts(out, ",\"token_ids\":[");
    for (size_t i = from; i < to; i++)
        rt_text_printf(out, i > from ? ",%d" : "%d", (int)choice->tokens[i].id);
    rt_text_puts(out, "]");
}

/* ---- usage ---- */

size_t rt_compose_sampled(const rt_compose *reply)
{
    size_t total = 0;
    (void)pthread_mutex_lock(&reply->job->lock);
    for (size_t i = 0; i < reply->job->n_choices; i++)
        total += reply->job->choices[i].n_sampled;
    (void)pthread_mutex_unlock(&reply->job->lock);
    return total;
}

static size_t reasoning_tokens(const rt_compose *r)
{
    size_t total = 0;
    for (size_t i = 0; i < r->job->n_choices; i++)
        for (size_t k = 0; k < r->job->choices[i].n_tokens; k++)
            total += r->job->choices[i].tokens[k].text_end <= r->cursors[i].think.thoughts_end;
    return total;
}

static void usage(const rt_compose *r, rt_text *out)
{
    size_t prompt = rt_job_prompt_tokens(r->job), sampled = 0, cached = 0;
    for (size_t i = 0; i < r->job->n_choices; i++)
        sampled += r->job->choices[i].n_sampled;
    for (size_t i = 0; i < r->job->n_prompts; i++)
        cached += r->job->prompts[i].cached;
    rt_text_printf(out,
                   "{\"prompt_tokens\":%zu,\"completion_tokens\":%zu,\"total_tokens\":%zu,"
                   "\"prompt_tokens_details\":{\"cached_tokens\":%zu},"
                   "\"completion_tokens_details\":{\"reasoning_tokens\":%zu}}",
                   prompt, sampled, prompt + sampled, cached, reasoning_tokens(r));
}

/* ---- whole answers ---- */

static void chat_message(rt_compose *r, const rt_choice *choice, rt_compose_cursor *cursor, rt_text *out)
{
    rt_text content = {0}, thoughts = {0};
    rt_think_part part;
    const char *text = choice->text.data ? choice->text.data : "";
    while (rt_think_next(&cursor->think, text, choice->text.size, true, &part))
        rt_text_append(part.thought ? &thoughts : &content, part.data, part.size);
    rt_text_puts(out, "{\"role\":\"assistant\",\"content\":");
    rt_json_string(out, content.data ? content.data : "", content.size);
    if (thoughts.size && !r->request->hide_reasoning) {
        rt_text_puts(out, ",\"reasoning_content\":");
        rt_json_string(out, thoughts.data, thoughts.size);
    }
    rt_text_puts(out, ",\"refusal\":null}");
    rt_text_deinit(&content);
    rt_text_deinit(&thoughts);
}

static void text_field(const rt_compose *r, const rt_choice *choice, rt_text *out)
{
    rt_text text = {0};
    if (r->request->echo) {
        const rt_text *prompt = &r->request->prompt_texts[choice->prompt];
        rt_text_append(&text, prompt->data ? prompt->data : "", prompt->size);
    }
    rt_text_append(&text, choice->text.data ? choice->text.data : "", choice->text.size);
    rt_json_string(out, text.data ? text.data : "", text.size);
    rt_text_deinit(&text);
}

static void whole_choice(rt_compose *r, size_t index, rt_text *out)
{
    const rt_choice *choice = &r->job->choices[index];
    const rt_request *q = r->request;
    rt_compose_cursor *cursor = &r->cursors[index];
    rt_text_printf(out, "{\"index\":%zu,", index);
    if (q->chat) {
        rt_text_puts(out, "\"message\":");
        chat_message(r, choice, cursor, out);
    } else {
        rt_text_puts(out, "\"text\":");
        text_field(r, choice, out);
    }
    rt_text_puts(out, ",\"logprobs\":");
    if (!q->has_logprobs)
        rt_text_puts(out, "null");
    else if (q->chat)
        rt_compose_chat_logprobs(r, choice, 0, choice->n_tokens, out);
    else
        rt_compose_text_logprobs(r, choice, q->echo, 0, choice->n_tokens, &cursor->offset, out);
    rt_text_printf(out, ",\"finish_reason\":%s", finish_word(choice));
    if (q->return_token_ids) {
        const rt_job_prompt *prompt = &r->job->prompts[choice->prompt];
        if (!q->chat)
            ids_array(out, "prompt_token_ids", prompt->ids, prompt->n);
        choice_ids(out, choice, 0, choice->n_tokens);
    }
    if (!q->chat && q->has_prompt_logprobs) {
        rt_text_puts(out, ",\"prompt_logprobs\":");
        rt_compose_prompt_logprobs(r, choice->prompt, out);
    }
    rt_text_puts(out, "}");
}

void rt_compose_whole(rt_compose *r, rt_text *out)
{
    const rt_request *q = r->request;
    (void)pthread_mutex_lock(&r->job->lock);
    head(r, q->chat ? "chat.completion" : "text_completion", out);
    rt_text_puts(out, ",\"choices\":[");
    for (size_t i = 0; i < r->job->n_choices; i++) {
        if (i)
            rt_text_puts(out, ",");
        whole_choice(r, i, out);
    }
    rt_text_puts(out, "],\"usage\":");
    usage(r, out);
    if (q->chat && q->return_token_ids)
        ids_array(out, "prompt_token_ids", r->job->prompts[0].ids, r->job->prompts[0].n);
    if (q->chat && q->has_prompt_logprobs) {
        rt_text_puts(out, ",\"prompt_logprobs\":");
        rt_compose_prompt_logprobs(r, 0, out);
    }
    rt_text_puts(out, "}");
    (void)pthread_mutex_unlock(&r->job->lock);
}

/* ---- streams ---- */

static void event_begin(const rt_compose *r, rt_text *out)
{
    rt_text_puts(out, "data: ");
    head(r, r->request->chat ? "chat.completion.chunk" : "text_completion", out);
    rt_text_puts(out, ",\"choices\":[");
}

static void event_end(const rt_compose *r, rt_text *out)
{
    rt_text_puts(out, r->request->include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

/* Tokens [from, to) ride on this chunk. */
static void chunk_rest(const rt_compose *r, const rt_choice *choice, rt_compose_cursor *cursor, bool prompt,
                       size_t from, size_t to, const char *finish, rt_text *out)
{
    const rt_request *q = r->request;
    rt_text_puts(out, ",\"logprobs\":");
    if (!q->has_logprobs || (from == to && !prompt))
        rt_text_puts(out, "null");
    else if (q->chat)
        rt_compose_chat_logprobs(r, choice, from, to, out);
    else
        rt_compose_text_logprobs(r, choice, prompt, from, to, &cursor->offset, out);
    rt_text_printf(out, ",\"finish_reason\":%s", finish);
    if (q->return_token_ids && to > from)
        choice_ids(out, choice, from, to);
}

static void chat_event(rt_compose *r, size_t index, const char *key, const char *data, size_t size,
                       size_t from, size_t to, const char *finish, rt_text *out)
{
    event_begin(r, out);
    rt_text_printf(out, "{\"index\":%zu,\"delta\":{", index);
    if (key) {
        rt_text_printf(out, "\"%s\":", key);
        rt_json_string(out, data, size);
    }
    rt_text_puts(out, "}");
    chunk_rest(r, &r->job->choices[index], &r->cursors[index], false, from, to, finish, out);
    rt_text_puts(out, "}");
    event_end(r, out);
}

static void chat_first(rt_compose *r, size_t index, rt_text *out)
{
    const rt_job_prompt *prompt = &r->job->prompts[0];
    event_begin(r, out);
    rt_text_printf(out,
                   "{\"index\":%zu,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                   "\"finish_reason\":null}",
                   index);
    rt_text_puts(out, "]");
    if (index == 0 && r->request->return_token_ids)
        ids_array(out, "prompt_token_ids", prompt->ids, prompt->n);
    if (index == 0 && r->request->has_prompt_logprobs) {
        rt_text_puts(out, ",\"prompt_logprobs\":");
        rt_compose_prompt_logprobs(r, 0, out);
    }
    rt_text_puts(out, r->request->include_usage ? ",\"usage\":null}\n\n" : "}\n\n");
}

static void chat_news(rt_compose *r, size_t index, rt_text *out)
{
    const rt_choice *choice = &r->job->choices[index];
    rt_compose_cursor *cursor = &r->cursors[index];
    const bool ended = choice->finish != RT_JOB_RUNNING;
    rt_think_part part;
    const char *text = choice->text.data ? choice->text.data : "";
    while (rt_think_next(&cursor->think, text, choice->text.size, ended, &part)) {
        if (part.thought && r->request->hide_reasoning)
            continue;
        chat_event(r, index, part.thought ? "reasoning_content" : "content", part.data, part.size,
                   cursor->tokens, choice->n_ready, "null", out);
        cursor->tokens = choice->n_ready;
    }
    if (!ended || choice->finish == RT_JOB_ABORTED)
        return;
    if (cursor->tokens < choice->n_ready && (r->request->has_logprobs || r->request->return_token_ids)) {
        chat_event(r, index, "content", "", 0, cursor->tokens, choice->n_ready, "null", out);
        cursor->tokens = choice->n_ready;
    }
    chat_event(r, index, NULL, NULL, 0, 0, 0, finish_word(choice), out);
    cursor->finished = true;
}

static void text_event(rt_compose *r, size_t index, const char *data, size_t size, bool prompt, size_t from,
                       size_t to, const char *finish, rt_text *out)
{
    const rt_choice *choice = &r->job->choices[index];
    const rt_job_prompt *p = &r->job->prompts[choice->prompt];
    rt_compose_cursor *cursor = &r->cursors[index];
    event_begin(r, out);
    rt_text_printf(out, "{\"index\":%zu,\"text\":", index);
    rt_json_string(out, data, size);
    chunk_rest(r, choice, cursor, prompt, from, to, finish, out);
    if (!cursor->begun && r->request->return_token_ids)
        ids_array(out, "prompt_token_ids", p->ids, p->n);
    if (!cursor->begun && r->request->has_prompt_logprobs) {
        rt_text_puts(out, ",\"prompt_logprobs\":");
        rt_compose_prompt_logprobs(r, choice->prompt, out);
    }
    cursor->begun = true;
    rt_text_puts(out, "}");
    event_end(r, out);
}

static void text_news(rt_compose *r, size_t index, rt_text *out)
{
    const rt_choice *choice = &r->job->choices[index];
    rt_compose_cursor *cursor = &r->cursors[index];
    const bool ended = choice->finish != RT_JOB_RUNNING && choice->finish != RT_JOB_ABORTED;
    if (!cursor->begun && r->request->echo) {
        const rt_text *prompt = &r->request->prompt_texts[choice->prompt];
        text_event(r, index, prompt->data ? prompt->data : "", prompt->size, true, 0, 0, "null", out);
    }
    if (cursor->text < choice->text.size || ended) {
        text_event(r, index, choice->text.data ? choice->text.data + cursor->text : "",
                   choice->text.size - cursor->text, false, cursor->tokens, choice->n_ready,
                   ended ? finish_word(choice) : "null", out);
        cursor->text = choice->text.size;
        cursor->tokens = choice->n_ready;
    }
    cursor->finished = ended;
}

void rt_compose_events(rt_compose *r, rt_text *out)
{
    (void)pthread_mutex_lock(&r->job->lock);
    for (size_t i = 0; i < r->job->n_choices; i++) {
        rt_compose_cursor *cursor = &r->cursors[i];
        const rt_choice *choice = &r->job->choices[i];
        if (cursor->finished || (choice->n_sampled == 0 && choice->finish == RT_JOB_RUNNING))
            continue; /* scores of a prompt are whole only when its answer begins */
        if (r->request->chat && !cursor->begun) {
            chat_first(r, i, out);
            cursor->begun = true;
        }
        if (r->request->chat)
            chat_news(r, i, out);
        else
            text_news(r, i, out);
    }
    (void)pthread_mutex_unlock(&r->job->lock);
}

void rt_compose_last_events(rt_compose *r, rt_text *out)
{
    if (r->request->include_usage) {
        (void)pthread_mutex_lock(&r->job->lock);
        rt_text_puts(out, "data: ");
        head(r, r->request->chat ? "chat.completion.chunk" : "text_completion", out);
        rt_text_puts(out, ",\"choices\":[],\"usage\":");
        usage(r, out);
        rt_text_puts(out, "}\n\n");
        (void)pthread_mutex_unlock(&r->job->lock);
    }
    rt_text_puts(out, "data: [DONE]\n\n");
}
