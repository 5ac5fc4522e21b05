/* outputs/collect_take.c - from prompts to requests: parameters put in, rows that are there or were met left
 * out, what a request may cost reserved. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "outputs/collect_internal.h"

enum { ITEMS_MAX = 1 << 20, TEMPLATE_TOKENS = 64 };

/* ---- bodies ---- */

json_t *collect_merge(const json_t *body, const json_t *params, size_t index)
{
    json_t *out = json_copy((json_t *)body);
    const char *key;
    json_t *value;
    if (!out)
        return NULL;
    json_object_foreach((json_t *)params, key, value)
    {
        const bool limit = strncmp(key, "max_", 4) == 0 && strstr(key, "tokens");
        const bool has_limit =
            json_object_get(out, "max_tokens") || json_object_get(out, "max_completion_tokens");
        if (!json_object_get(out, key) && !(limit && has_limit))
            (void)json_object_set(out, key, value);
    }
    const json_t *seed = json_object_get(out, "seed");
    if (index && json_is_integer(seed))
        (void)json_object_set_new(out, "seed", json_integer(json_integer_value(seed) + (json_int_t)index));
    return out;
}

uint64_t collect_answer_limit(const json_t *body)
{
    const json_t *limit = json_object_get(body, "max_completion_tokens");
    if (!json_is_integer(limit))
        limit = json_object_get(body, "max_tokens");
    return json_integer_value(limit) > 0 ? (uint64_t)json_integer_value(limit) : 0;
}

static void put_content(rt_text *out, const json_t *content)
{
    if (json_is_string(content))
        rt_text_append(out, json_string_value(content), json_string_length(content));
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *text = json_object_get(json_array_get(content, i), "text");
        if (json_is_string(text))
            rt_text_append(out, json_string_value(text), json_string_length(text));
    }
    rt_text_puts(out, "\n");
}

void collect_prompt_text(rt_text *out, const json_t *body)
{
    const json_t *messages = json_object_get(body, "messages"), *prompt = json_object_get(body, "prompt");
    if (json_is_string(prompt))
        put_content(out, prompt);
    for (size_t i = 0; i < json_array_size(prompt); i++)
        rt_text_printf(out, "%lld ", (long long)json_integer_value(json_array_get(prompt, i)));
    for (size_t i = 0; i < json_array_size(messages); i++)
        put_content(out, json_object_get(json_array_get(messages, i), "content"));
}

/* A token is at least one byte, and a template adds some. */
uint64_t collect_worst_prompt(const json_t *body)
{
    const json_t *messages = json_object_get(body, "messages"), *prompt = json_object_get(body, "prompt");
    uint64_t n = TEMPLATE_TOKENS + 16 * json_array_size(messages);
    if (json_is_array(prompt))
        return n + json_array_size(prompt);
    n += json_string_length(prompt);
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *content = json_object_get(json_array_get(messages, i), "content");
        n += json_string_length(content);
        for (size_t j = 0; j < json_array_size(content); j++)
            n += json_string_length(json_object_get(json_array_get(content, j), "text"));
    }
    return n;
}

static bool is_determined(const json_t *body)
{
    const json_t *temperature = json_object_get(body, "temperature");
    return json_is_integer(json_object_get(body, "seed")) ||
           (json_is_number(temperature) && json_number_value(temperature) == 0);
}

/* ---- items ---- */

static void free_waiters(collect_item *item)
{
    for (collect_waiter *waiter = item->waiters, *next; waiter; waiter = next) {
        next = waiter->next;
        free(waiter->id);
        free(waiter->custom_id);
        free(waiter);
    }
    item->waiters = NULL;
}

void collect_item_free(collect *c, collect_item *item)
{
    free_waiters(item);
    json_decref(item->body);
    free(item->id);
    free(item->custom_id);
    *item = (collect_item){.next = c->free_items};
    c->free_items = item;
}

static collect_item *new_item(collect *c)
{
    collect_item *item = c->free_items;
    if (item) {
        c->free_items = item->next;
        item->next = NULL;
        return item;
    }
    if (c->n_items == c->capacity) {
        const size_t wanted = c->capacity ? 2 * c->capacity : 64;
        collect_item **bigger = wanted <= ITEMS_MAX ? realloc(c->items, wanted * sizeof *bigger) : NULL;
        if (!bigger)
            return NULL;
        c->items = bigger;
        c->capacity = wanted;
    }
    item = calloc(1, sizeof *item);
    if (item)
        c->items[c->n_items++] = item;
    return item;
}

static size_t tag_of(const collect *c, const collect_item *item)
{
    for (size_t i = 0; i < c->n_items; i++)
        if (c->items[i] == item)
            return i + 1;
    return 0;
}

static void no_memory(collect *c)
{
    c->failure = rt_error_set(c->err, RT_NO_MEMORY, "no memory for a request");
}

/* ---- rows ---- */

/* SHA-256 of the canonical body and the model: the same for the same question, whoever asks. */
static bool hash_body(char out[65], const json_t *body, const char *model)
{
    char *canonical = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
    rt_text text = {0};
    if (canonical) {
        rt_text_puts(&text, canonical);
        rt_text_printf(&text, "\n%s\n", model);
    }
    const bool ok = canonical && !text.failed;
    if (ok)
        rt_sha256_hex(out, text.data, text.size);
    rt_text_deinit(&text);
    free(canonical);
    return ok;
}

static bool drop_near(collect *c)
{
    rt_text text = {0};
    uint64_t like = 0;
    collect_prompt_text(&text, c->row.body);
    if (text.failed || rt_near_add(&c->near, text.data ? text.data : "", text.size, c->options->near,
                                   c->n_prompts, &like, c->err) != RT_OK)
        no_memory(c);
    rt_text_deinit(&text);
    return like != 0;
}

/* Reads the next prompt and puts its parameters in; false at the end or on failure. */
static bool next_row(collect *c)
{
    for (;;) {
        bool more = false;
        rt_prompt_row_deinit(&c->row);
        json_decref(c->row_body);
        c->row_body = NULL;
        if (c->options->rows_max && c->n_prompts == c->options->rows_max)
            return false;
        c->failure = rt_prompt_reader_next(c->reader, &c->row, &more, c->err);
        if (c->failure != RT_OK || !more)
            return false;
        c->n_prompts++;
        c->row_index = 0;
        c->row_samples = c->row.samples ? c->row.samples : c->options->samples ? c->options->samples : 1;
        if (c->options->near > 0 && !c->sorting && drop_near(c)) {
            c->report->near++;
            c->rows_total -= c->row_samples;
            continue;
        }
        if (c->failure != RT_OK)
            return false;
        c->row_body = collect_merge(c->row.body, c->options->params, 0);
        if (!c->row_body || !hash_body(c->row_id, c->row_body, c->teacher->name)) {
            no_memory(c);
            return false;
        }
        return true;
    }
}

static char *make_id(const collect *c, size_t index)
{
    char text[96], hash[65];
    rt_text out = {0};
    if (c->row.custom_id) {
        rt_text_puts(&out, c->row.custom_id);
        if (c->row_samples > 1)
            rt_text_printf(&out, "#%zu", index);
        return out.failed ? NULL : out.data;
    }
    const int n = snprintf(text, sizeof text, "%s\n%zu", c->row_id, index);
    rt_sha256_hex(hash, text, (size_t)n);
    return strdup(hash);
}

/* A row that was met before under the same id: with another body it is an error, else it is left out. */
static bool is_new(collect *c, const char *id)
{
    const rt_idkey key = rt_idkey_of(id, strlen(id));
    const uint64_t body = rt_hash64(c->row_id, 64, 1) << 4, known = rt_idmap_get(&c->sink.ids, key);
    if ((known & RT_ID_MET) && c->row.custom_id && (known >> 4 << 4) != body) {
        c->failure = rt_error_set(c->err, RT_CORRUPT,
                                  "%.200s:%zu: the custom_id '%.80s' was met before with another request",
                                  c->row.file, c->row.line, c->row.custom_id);
        return false;
    }
    if (known & RT_ID_MET) {
        c->report->duplicates++;
        c->rows_total -= c->rows_total > 0;
        return false;
    }
    if (rt_idmap_put(&c->sink.ids, key, (known & (RT_ID_DONE | RT_ID_REJECTED)) | RT_ID_MET | body, c->err) !=
        RT_OK)
        c->failure = c->err->status;
    return (known & (RT_ID_DONE | RT_ID_REJECTED)) == 0;
}

static void add_waiter(collect *c, collect_item *asked, collect_item *item)
{
    collect_waiter *waiter = calloc(1, sizeof *waiter);
    if (!waiter) {
        no_memory(c);
        return;
    }
    *waiter = (collect_waiter){.id = item->id,
                               .custom_id = item->custom_id,
                               .index = item->index,
                               .line = item->line,
                               .file = item->file,
                               .next = asked->waiters};
    item->id = item->custom_id = NULL;
    asked->waiters = waiter;
}

/* True when the item needs no request of its own. */
static bool is_shared(collect *c, collect_item *item)
{
    bool found = false;
    if (!is_determined(item->body) || c->options->batch)
        return false;
    if (!hash_body(item->request_hash, item->body, c->teacher->name)) {
        no_memory(c);
        return true;
    }
    item->request_key = rt_idkey_of(item->request_hash, 64);
    item->shareable = true;
    const uint64_t known = rt_idmap_get(&c->requests, item->request_key);
    if (known & 1) {
        add_waiter(c, c->items[known / 2 - 1], item);
        return true;
    }
    if (known > RT_REQUEST_ANEW) {
        c->failure = collect_share(c, item, known / 2 - 2);
        return true;
    }
    if (c->cache) {
        c->failure = collect_from_cache(c, item, &found);
        if (found || c->failure != RT_OK)
            return true;
    }
    if (rt_idmap_put(&c->requests, item->request_key, 2 * (uint64_t)tag_of(c, item) + 1, c->err) != RT_OK)
        c->failure = c->err->status;
    return false;
}

char *collect_next_id(collect *c)
{
    if ((!c->row_body || c->row_index == c->row_samples) && !next_row(c))
        return NULL;
    return make_id(c, c->row_index++);
}

static collect_item *make_item(collect *c)
{
    while (c->failure == RT_OK) {
        if ((!c->row_body || c->row_index == c->row_samples) && !next_row(c))
            return NULL;
        const size_t index = c->row_index++;
        char *id = make_id(c, index);
        if (!id) {
            no_memory(c);
            return NULL;
        }
        if (!is_new(c, id) || c->failure != RT_OK) {
            free(id);
            continue;
        }
        collect_item *item = new_item(c);
        if (!item) {
            free(id);
            no_memory(c);
            return NULL;
        }
        *item = (collect_item){.id = id,
                               .custom_id = c->row.custom_id ? strdup(c->row.custom_id) : NULL,
                               .index = index,
                               .line = c->row.line,
                               .file = c->row.file,
                               .body = collect_merge(c->row.body, c->options->params, index)};
        if (!item->body)
            no_memory(c);
        else if (!is_shared(c, item))
            return item;
        collect_item_free(c, item);
    }
    return NULL;
}

/* ---- money ---- */

rt_status collect_reserve(collect *c, collect_item *item, bool *afforded)
{
    const rt_spend_max *max = &c->options->spend_max;
    rt_collect_totals *t = &c->sink.totals;
    *afforded = true;
    if (max->money <= 0 && max->tokens == 0)
        return RT_OK;
    const uint64_t prompt = collect_worst_prompt(item->body), answer = collect_answer_limit(item->body);
    const double money = rt_price_of(&c->options->price, prompt, 0, answer);
    const uint64_t used = t->usage.prompt + t->usage.completion + t->lost_tokens + t->reserved_tokens;
    if ((max->money > 0 && t->money + t->lost_money + t->reserved + money > max->money) ||
        (max->tokens && used + prompt + answer > max->tokens)) {
        *afforded = false;
        return RT_OK;
    }
    item->reserved = money;
    item->reserved_tokens = prompt + answer;
    t->reserved += money;
    t->reserved_tokens += prompt + answer;
    return rt_collect_sink_reserve(&c->sink, c->err);
}

void collect_settle(collect *c, collect_item *item, const rt_usage *usage)
{
    rt_collect_totals *t = &c->sink.totals;
    t->reserved = t->reserved > item->reserved ? t->reserved - item->reserved : 0;
    t->reserved_tokens -=
        item->reserved_tokens < t->reserved_tokens ? item->reserved_tokens : t->reserved_tokens;
    item->reserved = 0;
    item->reserved_tokens = 0;
    t->usage.prompt += usage->prompt;
    t->usage.cached += usage->cached;
    t->usage.completion += usage->completion;
    t->usage.reasoning += usage->reasoning;
    t->money += rt_price_of(&c->options->price, usage->prompt, usage->cached, usage->completion);
}

collect_item *collect_take(collect *c, bool *later)
{
    *later = false;
    collect_item *item = c->held;
    c->held = NULL;
    if (!item && c->to_ask) {
        item = c->to_ask;
        c->to_ask = item->next;
        item->next = NULL;
    }
    if (!item)
        item = make_item(c);
    if (!item)
        return NULL;
    bool afforded = false;
    if (collect_reserve(c, item, &afforded) != RT_OK) {
        c->failure = c->err->status;
        c->held = item;
        return NULL;
    }
    if (afforded)
        return item;
    c->held = item;
    c->spent = true;
    *later = true;
    return NULL;
}
