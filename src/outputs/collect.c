/* outputs/collect.c - the collection as a whole: survey, the teacher's callbacks, what becomes of an answer,
 * the end; see collect.h. */
#include "outputs/collect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "outputs/collect_internal.h"
#include "outputs/refusal.h"

/* ---- survey ---- */

rt_status rt_collect_survey_files(rt_collect_survey *out, const rt_collect_options *options, rt_error *err)
{
    *out = (rt_collect_survey){.all_limited = true};
    rt_prompt_reader *reader = NULL;
    if (rt_prompt_reader_open(&reader, &options->inputs, &options->prompts, err) != RT_OK)
        return err->status;
    rt_prompt_row row = {0};
    rt_text text = {0};
    bool more = true;
    const uint64_t usual = collect_answer_limit(options->params);
    rt_status status = RT_OK;
    while (!options->rows_max || out->prompts < options->rows_max) {
        status = rt_prompt_reader_next(reader, &row, &more, err);
        if (status != RT_OK || !more)
            break;
        const size_t samples = row.samples ? row.samples : options->samples ? options->samples : 1;
        const uint64_t own = collect_answer_limit(row.body), limit = own ? own : usual;
        rt_text_clear(&text);
        collect_prompt_text(&text, row.body);
        out->prompts++;
        out->rows += samples;
        out->prompt_bytes += samples * text.size;
        out->answer_tokens_worst += samples * limit;
        out->all_limited = out->all_limited && limit;
        rt_prompt_row_deinit(&row);
    }
    out->prompt_tokens = out->prompt_bytes / 4 + 8 * out->rows;
    rt_text_deinit(&text);
    rt_prompt_row_deinit(&row);
    rt_prompt_reader_close(reader);
    if (status == RT_OK && out->prompts == 0)
        status = rt_error_set(err, RT_INVALID, "%.200s: there is no prompt in it",
                              options->inputs.count ? options->inputs.items[0] : "(no file)");
    return status;
}

/* ---- rows ---- */

rt_row_facts collect_facts(const collect *c, const collect_item *item, double cost)
{
    return (rt_row_facts){.form = c->options->batch  ? RT_ROW_BATCH
                                  : c->sink.is_store ? RT_ROW_STORE
                                                     : RT_ROW_OWN,
                          .id = item->id,
                          .custom_id = item->custom_id,
                          .index = item->index,
                          .request = item->body,
                          .source = c->source_text,
                          .file = item->file,
                          .line = item->line,
                          .cost = cost,
                          .ts = rt_clock_unix_seconds()};
}

/* A row that is there already, once more under the item's id. */
static rt_status write_again(collect *c, collect_item *item, json_t *row)
{
    (void)json_object_set_new(row, "id", json_string(item->id));
    if (json_object_get(row, "key"))
        (void)json_object_set_new(row, "key", json_string(item->id));
    if (item->custom_id)
        (void)json_object_set_new(row, "custom_id", json_string(item->custom_id));
    else
        (void)json_object_del(row, "custom_id");
    (void)json_object_set_new(row, "index", json_integer((json_int_t)item->index));
    (void)json_object_set_new(row, "cost", json_integer(0));
    (void)json_object_set_new(row, "shared", json_true());
    char *text = json_dumps(row, JSON_COMPACT);
    rt_text_clear(&c->line);
    if (text)
        rt_text_printf(&c->line, "%s\n", text);
    free(text);
    c->report->shared++;
    return c->line.size ? rt_collect_sink_add(&c->sink, item->id, &c->line, c->err)
                        : rt_error_set(c->err, RT_NO_MEMORY, "no memory for a row");
}

/* The answer to an identical request, read back from the output under another id. */
rt_status collect_share(collect *c, collect_item *item, uint64_t offset)
{
    const size_t step = 1 << 16;
    char *buffer = malloc(step);
    rt_text line = {0};
    bool whole = false;
    for (uint64_t at = offset; buffer && !whole && at < c->sink.size;) {
        const ssize_t n = pread(c->sink.fd, buffer, step, (off_t)at);
        if (n <= 0)
            break;
        const char *end = memchr(buffer, '\n', (size_t)n);
        rt_text_append(&line, buffer, end ? (size_t)(end - buffer) : (size_t)n);
        at += (uint64_t)n;
        whole = end != NULL;
    }
    free(buffer);
    json_t *row = whole && !line.failed ? json_loadb(line.data, line.size, JSON_ALLOW_NUL, NULL) : NULL;
    rt_text_deinit(&line);
    const rt_status status = row ? write_again(c, item, row)
                                 : rt_error_set(c->err, RT_IO, "%.200s: the row at %llu cannot be read back",
                                                c->sink.path, (unsigned long long)offset);
    json_decref(row);
    return status;
}

/* What else than the request decides the row: who was asked, and for what beside the text. */
static void cache_key(char out[65], const collect *c, const collect_item *item)
{
    char text[512];
    const json_t *settings = c->options->settings;
    const int n =
        snprintf(text, sizeof text, "%s\n%.300s\n%d %lld %d", item->request_hash, c->teacher->source,
                 c->sink.is_store, (long long)json_integer_value(json_object_get(settings, "logprobs")),
                 json_is_true(json_object_get(settings, "token_ids")));
    rt_sha256_hex(out, text, (size_t)n);
}

rt_status collect_from_cache(collect *c, collect_item *item, bool *found)
{
    char key[65];
    rt_text text = {0};
    cache_key(key, c, item);
    rt_status status = rt_answer_cache_get(c->cache, key, &text, found, c->err);
    json_t *row = status == RT_OK && *found ? json_loadb(text.data, text.size, 0, NULL) : NULL;
    rt_text_deinit(&text);
    *found = row != NULL;
    if (row)
        status = write_again(c, item, row);
    json_decref(row);
    return status;
}

/* The rows that waited for this answer get it too. */
static rt_status write_waiters(collect *c, collect_item *item, const rt_answered *reply, bool good,
                               const char *code, const char *message, bool truncated)
{
    rt_status status = RT_OK;
    for (const collect_waiter *w = item->waiters; w && status == RT_OK; w = w->next) {
        rt_row_facts facts = collect_facts(c, item, 0);
        facts.id = w->id;
        facts.custom_id = w->custom_id;
        facts.index = w->index;
        facts.shared = true;
        facts.truncated = truncated;
        rt_text_clear(&c->line);
        if (good)
            rt_row_write(&c->line, &facts, reply);
        else
            rt_row_write_failure(&c->line, &facts, reply, code, message);
        c->report->shared++;
        status = good ? rt_collect_sink_add(&c->sink, w->id, &c->line, c->err)
                      : rt_collect_sink_reject(&c->sink, w->id, &c->line, c->err);
    }
    return status;
}

static rt_status keep(collect *c, collect_item *item, const rt_answered *reply, double cost, bool truncated)
{
    rt_row_facts facts = collect_facts(c, item, cost);
    facts.truncated = truncated;
    const uint64_t offset = c->sink.size;
    rt_text_clear(&c->line);
    rt_row_write(&c->line, &facts, reply);
    if (rt_collect_sink_add(&c->sink, item->id, &c->line, c->err) != RT_OK)
        return c->err->status;
    if (item->shareable && c->cache) {
        char key[65];
        cache_key(key, c, item);
        if (rt_answer_cache_put(c->cache, key, c->line.data, c->line.size - 1, c->err) != RT_OK)
            return c->err->status;
    }
    if (item->shareable && !c->sink.is_store &&
        rt_idmap_put(&c->requests, item->request_key, 2 * (offset + 2), c->err) != RT_OK)
        return c->err->status;
    return write_waiters(c, item, reply, true, "", "", truncated);
}

static rt_status reject(collect *c, collect_item *item, const rt_answered *reply, double cost,
                        const char *code, const char *message)
{
    const rt_row_facts facts = collect_facts(c, item, cost);
    rt_text_clear(&c->line);
    rt_row_write_failure(&c->line, &facts, reply, code, message);
    if (rt_collect_sink_reject(&c->sink, item->id, &c->line, c->err) != RT_OK)
        return c->err->status;
    return write_waiters(c, item, reply, false, code, message, false);
}

/* ---- what becomes of an answer ---- */

static void ask_again(collect *c, collect_item *item)
{
    item->again++;
    item->next = c->to_ask;
    c->to_ask = item;
}

static bool is_blank(const rt_text *text)
{
    for (size_t i = 0; i < text->size; i++)
        if (!strchr(" \t\r\n", text->data[i]) || text->data[i] == '\0')
            return false;
    return true;
}

static bool wants_json(const collect_item *item)
{
    const json_t *format = json_object_get(item->body, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));
    return type && strncmp(type, "json", 4) == 0;
}

static bool is_json(const rt_text *text)
{
    json_t *json = json_loadb(text->data ? text->data : "", text->size, JSON_ALLOW_NUL, NULL);
    json_decref(json);
    return json != NULL;
}

/* Twice the room for an answer that was cut off; false when it had no limit to double. */
static bool double_limit(collect_item *item)
{
    static const char *const keys[] = {"max_completion_tokens", "max_tokens"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *limit = json_object_get(item->body, keys[i]);
        if (json_is_integer(limit) && json_integer_value(limit) < (json_int_t)1 << 30)
            return json_object_set_new(item->body, keys[i], json_integer(2 * json_integer_value(limit))) == 0;
    }
    return false;
}

static void say_flags(collect *c, const rt_answered *reply)
{
    const unsigned fresh = reply->flags & ~c->flags_said;
    unsigned cursor = 0;
    c->flags_said |= fresh;
    c->report->flags |= reply->flags;
    for (const char *text = rt_answered_flag_text(fresh, &cursor); text;
         text = rt_answered_flag_text(fresh, &cursor))
        rt_log(RT_LOG_WARNING, "%.200s: %s (rows are marked; said once)%s%s", c->teacher->source, text,
               text[0] == 'a' && reply->model[0] ? ": " : "", text[0] == 'a' ? reply->model : "");
}

/* True when the item is finished, and not to be asked again. */
static bool take_answer(collect *c, collect_item *item, const rt_answered *reply, double cost)
{
    const rt_collect_options *o = c->options;
    const bool cut = strcmp(reply->finish, "length") == 0;
    say_flags(c, reply);
    if (strcmp(reply->finish, "content_filter") == 0) {
        c->failure = reject(c, item, reply, cost, "content_filter", "the server filtered the answer");
        return true;
    }
    if (cut && o->on_length == RT_ON_LENGTH_RETRY && item->again == 0 && double_limit(item)) {
        ask_again(c, item);
        return false;
    }
    if (is_blank(&reply->text) && !reply->has_refusal && !(cut && reply->reasoning.size) &&
        strcmp(reply->finish, "tool_calls") != 0) {
        c->report->no_answer++;
        c->failure = reject(c, item, reply, cost, "empty", "the answer is empty");
        return true;
    }
    if (wants_json(item) && !cut && !is_json(&reply->text)) {
        if (item->again == 0) {
            ask_again(c, item);
            return false;
        }
        c->failure =
            reject(c, item, reply, cost, "invalid_json", "JSON was asked for, and twice the answer was none");
        return true;
    }
    if (cut) {
        c->report->truncated++;
        if (o->on_length == RT_ON_LENGTH_DROP) {
            c->failure =
                reject(c, item, reply, cost, "length", "the answer was cut off at its limit of tokens");
            return true;
        }
    }
    if (reply->has_refusal || rt_refusal_find(reply->text.data ? reply->text.data : "", reply->text.size))
        c->report->refusals++;
    c->failure = keep(c, item, reply, cost, cut);
    return true;
}

/* ---- the teacher's callbacks ---- */

static rt_next on_next(void *context, rt_ask *out)
{
    collect *c = context;
    if (c->failure != RT_OK)
        return RT_NEXT_END;
    if (c->ended) /* until the next answer, which may ask for another try */
        return RT_NEXT_LATER;
    bool later = false;
    collect_item *item = collect_take(c, &later);
    if (!item) {
        c->ended = !later && c->failure == RT_OK;
        return c->failure != RT_OK ? RT_NEXT_END : RT_NEXT_LATER;
    }
    size_t tag = 0;
    while (c->items[tag] != item)
        tag++;
    *out = (rt_ask){.tag = tag + 1, .body = json_incref(item->body)};
    rt_text key = {0};
    rt_text_printf(&key, "%s\n%u", item->id, item->again);
    if (!key.failed)
        rt_sha256_hex(out->key, key.data, key.size);
    rt_text_deinit(&key);
    return RT_NEXT_TAKE;
}

static void on_done(void *context, uint64_t tag, const rt_answered *reply)
{
    collect *c = context;
    collect_item *item = c->items[tag - 1];
    bool finished = true;
    if (c->failure != RT_OK)
        return;
    if (reply->status == RT_OK) {
        collect_settle(c, item, &reply->usage);
        const double cost = c->options->price.known
                                ? rt_price_of(&c->options->price, reply->usage.prompt, reply->usage.cached,
                                              reply->usage.completion)
                                : -1;
        finished = take_answer(c, item, reply, cost);
    } else {
        collect_settle(c, item, &(rt_usage){0});
        c->failure = reject(c, item, reply, 0, reply->error_code[0] ? reply->error_code : "refused",
                            reply->error_text[0] ? reply->error_text : "no answer");
    }
    if (finished) {
        if (item->shareable && rt_idmap_get(&c->requests, item->request_key) & 1)
            (void)rt_idmap_put(&c->requests, item->request_key, RT_REQUEST_ANEW, c->err);
        collect_item_free(c, item);
    }
    c->ended = false; /* there may be a row to ask again, or money for the one that is held */
}

static rt_status on_tick(void *context, const rt_teacher_state *state, rt_error *err)
{
    collect *c = context;
    c->now = c->options->clock ? c->options->clock(c->options->context) : rt_clock_seconds();
    if (c->failure == RT_OK && rt_collect_sink_commit(&c->sink, c->now, false, c->err) != RT_OK)
        c->failure = c->err->status;
    if (c->failure == RT_OK && c->cache && c->now - c->cached_at >= 1) { /* others may wait to write */
        c->cached_at = c->now;
        c->failure = rt_answer_cache_commit(c->cache, c->err);
    }
    if (c->failure != RT_OK) {
        *err = *c->err;
        return c->failure;
    }
    c->report->attempts = state->attempts;
    c->report->retries = state->retries;
    c->report->limited = state->limited;
    c->report->failures = state->failures;
    const rt_collect_progress progress = {.totals = &c->sink.totals,
                                          .state = state,
                                          .rows_total = c->rows_total,
                                          .rows_before = c->rows_before,
                                          .duplicates = c->report->duplicates,
                                          .near = c->report->near,
                                          .refusals = c->report->refusals,
                                          .truncated = c->report->truncated,
                                          .shared = c->report->shared,
                                          .tokens_here = c->sink.totals.usage.completion - c->tokens_before,
                                          .elapsed_s = c->now - c->started_at};
    return c->options->progress ? c->options->progress(c->options->context, &progress, err) : RT_OK;
}

/* ---- the whole ---- */

static rt_status open_all(collect *c)
{
    const rt_collect_options *o = c->options;
    rt_collect_survey survey;
    if (rt_collect_survey_files(&survey, o, c->err) != RT_OK)
        return c->err->status;
    if ((o->spend_max.money > 0 || o->spend_max.tokens) && !survey.all_limited)
        return rt_error_set(c->err, RT_INVALID,
                            "a limit of spending needs a limit of every answer: give max_tokens");
    if (o->cache && rt_answer_cache_open(&c->cache, o->cache, c->err) != RT_OK)
        return c->err->status;
    const rt_collect_sink_options sink = {.out = o->out,
                                          .settings = o->settings,
                                          .teacher = o->teacher,
                                          .sampling = o->params,
                                          .new_run = o->new_run,
                                          .retry_failed = o->retry_failed,
                                          .batch = o->batch};
    if (rt_collect_sink_open(&c->sink, &sink, c->err) != RT_OK ||
        rt_idmap_reserve(&c->sink.ids, c->sink.ids.count + survey.rows, c->err) != RT_OK ||
        rt_prompt_reader_open(&c->reader, &o->inputs, &o->prompts, c->err) != RT_OK)
        return c->err->status;
    c->report->adopted = (size_t)c->sink.adopted;
    c->report->cut_bytes = c->sink.cut_bytes;
    c->rows_before = c->sink.totals.rows + c->sink.totals.rejected;
    c->tokens_before = c->sink.totals.usage.completion;
    c->rows_total = survey.rows;
    c->source_text = o->source ? json_dumps(o->source, JSON_COMPACT) : NULL;
    return RT_OK;
}

static json_t *make_manifest(const collect *c, bool complete)
{
    const rt_collect_options *o = c->options;
    const rt_collect_totals *t = &c->sink.totals;
    json_t *inputs = json_array();
    for (size_t i = 0; i < o->inputs.count; i++) {
        char hash[65] = "";
        rt_error ignored = {0};
        (void)rt_sha256_file(hash, o->inputs.items[i], &ignored);
        (void)json_array_append_new(inputs,
                                    json_pack("{s:s, s:s}", "file", o->inputs.items[i], "sha256", hash));
    }
    return json_pack("{s:i, s:O, s:O, s:O, s:o, s:s, s:I, s:b, s:{s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:f}}",
                     "version", 1, "teacher", o->teacher, "sampling", o->params, "settings", o->settings,
                     "prompts", inputs, "who", o->who ? o->who : "", "updated",
                     (json_int_t)rt_clock_unix_seconds(), "complete", complete, "totals", "rows",
                     (json_int_t)t->rows, "rejected", (json_int_t)t->rejected, "prompt_tokens",
                     (json_int_t)t->usage.prompt, "cached_tokens", (json_int_t)t->usage.cached,
                     "completion_tokens", (json_int_t)t->usage.completion, "money", t->money, "currency",
                     o->price.known ? o->price.currency : "", "in_flight_when_killed", t->lost_money);
}

static rt_status close_all(collect *c, rt_status status)
{
    const bool complete = status == RT_OK;
    rt_error err = {0};
    if (c->sink.path) {
        c->sink.totals.reserved = 0;
        c->sink.totals.reserved_tokens = 0;
        rt_status closing = rt_collect_sink_commit(&c->sink, c->now, true, &err);
        json_t *manifest = make_manifest(c, complete);
        if (closing == RT_OK && manifest)
            closing = rt_collect_sink_manifest(&c->sink, manifest, &err);
        json_decref(manifest);
        if (closing == RT_OK && complete && c->options->ordered && !c->sink.is_store) {
            closing = collect_sort(c);
            if (closing != RT_OK)
                err = *c->err;
        }
        c->report->totals = c->sink.totals;
        if (closing == RT_OK)
            closing = rt_collect_sink_close(&c->sink, &err);
        else
            (void)rt_collect_sink_close(&c->sink, &(rt_error){0});
        if (closing != RT_OK && complete) {
            *c->err = err;
            status = closing;
        }
    }
    rt_prompt_row_deinit(&c->row);
    json_decref(c->row_body);
    rt_prompt_reader_close(c->reader);
    for (size_t i = 0; i < c->n_items; i++) {
        collect_item_free(c, c->items[i]);
        free(c->items[i]);
    }
    free(c->items);
    rt_idmap_deinit(&c->requests);
    rt_near_deinit(&c->near);
    rt_answer_cache_close(c->cache);
    rt_text_deinit(&c->line);
    free(c->source_text);
    return status;
}

rt_status rt_collect(rt_teacher *teacher, const rt_collect_options *options, rt_collect_report *report,
                     rt_error *err)
{
    *report = (rt_collect_report){0};
    collect c = {.options = options, .teacher = rt_teacher_info_of(teacher), .report = report, .err = err};
    c.sink.fd = -1;
    c.started_at = c.now = options->clock ? options->clock(options->context) : rt_clock_seconds();
    rt_status status = open_all(&c);
    if (status == RT_OK) {
        const rt_ask_calls calls = {.next = on_next, .done = on_done, .tick = on_tick, .context = &c};
        rt_error why = {0};
        status = rt_teacher_ask(teacher, &calls, &why);
        if (c.failure != RT_OK)
            status = c.failure;
        else if (status != RT_OK)
            *err = why;
        else if (c.held)
            status = rt_error_set(
                err, RT_STOPPED,
                "the limit of spending leaves no room for the next request (%.6g spent, %.6g in doubt "
                "from killed runs); with a higher limit the same command goes on",
                c.sink.totals.money, c.sink.totals.lost_money);
    }
    if (status == RT_OK && c.to_ask)
        status = rt_error_set(err, RT_INTERNAL,
                              "rows are left that should be asked again; the same command asks them");
    report->rows_total = c.rows_total;
    status = close_all(&c, status);
    report->complete = status == RT_OK;
    return status;
}
