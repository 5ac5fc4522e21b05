/* cli/collect_settings.c - recipe keys of a collection; see collect_settings.h.
 *
 * Options of the command line become "key=value" words, so that both are checked by one table. */
#include "cli/collect_settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outputs/collect_row.h"

#define AT(member) offsetof(collect_settings, member)

static const rt_field fields[] = {
    {"teacher.url", RT_FIELD_STRING, AT(teacher.url), "''", "base address of an OpenAI-compatible server",
     NULL, 0, 0},
    {"teacher.model", RT_FIELD_STRING, AT(teacher.model), "''", "name of the model there", NULL, 0, 0},
    {"teacher.file", RT_FIELD_STRING, AT(teacher.file), "''",
     "instead of url: a model file or folder on this machine", NULL, 0, 0},
    {"teacher.precision", RT_FIELD_CHOICE, AT(teacher.precision), "int8",
     "of a model file; int8 for quantised ones", "bf16|f32|int8", 0, 0},
    {"teacher.stream", RT_FIELD_BOOL, AT(teacher.stream), "no",
     "a model file larger than memory: layers are read from disk", NULL, 0, 0},
    {"teacher.slots", RT_FIELD_COUNT, AT(teacher.slots), "0",
     "answers side by side of a model file; 0: 16, streamed 128", NULL, 0, 4096},
    {"teacher.key_env", RT_FIELD_STRING, AT(teacher.key_env), "''",
     "environment variable that holds the key; the key itself never stands in a recipe", NULL, 0, 0},
    {"teacher.licence", RT_FIELD_STRING, AT(teacher.licence), "''", "of the outputs, kept with every row",
     NULL, 0, 0},
    {"teacher.terms", RT_FIELD_STRING, AT(teacher.terms), "''", "terms of use: an address or a sentence",
     NULL, 0, 0},
    {"teacher.forbids_training", RT_FIELD_BOOL, AT(teacher.forbids_training), "no",
     "the terms do not allow training on the outputs", NULL, 0, 0},
    {"teacher.n_vocab", RT_FIELD_COUNT, AT(teacher.n_vocab), "0",
     "size of its vocabulary, to check ids; 0: not known", NULL, 0, 1 << 30},
    {"prompts.in", RT_FIELD_STRINGS, AT(prompts.in), "[]", "JSONL (.zst) or .txt files", NULL, 0, 0},
    {"prompts.key", RT_FIELD_STRING, AT(prompts.key), "''", "rows hold the prompt under this key", NULL, 0,
     0},
    {"prompts.system", RT_FIELD_STRING, AT(prompts.system), "''", "said before every prompt", NULL, 0, 0},
    {"prompts.near", RT_FIELD_REAL, AT(prompts.near), "0",
     "drop prompts at least this similar to an earlier one (0.8 is usual); 0: none", NULL, 0, 1},
    {"prompts.limit", RT_FIELD_COUNT, AT(prompts.limit), "0", "ask only the first so many; 0: all", NULL, 0,
     1e15},
    {"ask.endpoint", RT_FIELD_CHOICE, AT(ask.endpoint), "chat", "chat, or texts to be continued",
     "chat|completions", 0, 0},
    {"ask.temperature", RT_FIELD_REAL, AT(ask.temperature), "-1", "-1: the server's default", NULL, -1, 100},
    {"ask.top_p", RT_FIELD_REAL, AT(ask.top_p), "-1", "-1: the server's default", NULL, -1, 1},
    {"ask.max_tokens", RT_FIELD_COUNT, AT(ask.max_tokens), "0", "of an answer; 0: the server's default", NULL,
     0, 1e9},
    {"ask.samples", RT_FIELD_COUNT, AT(ask.samples), "1", "answers to each prompt", NULL, 1, 1e6},
    {"ask.seed", RT_FIELD_STRING, AT(ask.seed), "''", "of the draws; sample i gets seed + i", NULL, 0, 0},
    {"ask.stop", RT_FIELD_STRINGS, AT(ask.stop), "[]", "texts that end an answer", NULL, 0, 0},
    {"ask.params", RT_FIELD_STRINGS, AT(ask.params), "[]", "other members of the request, 'name=JSON'", NULL,
     0, 0},
    {"ask.logprobs", RT_FIELD_COUNT, AT(ask.logprobs), "0",
     "likeliest tokens of each position; 20 is most servers' most", NULL, 0, 4096},
    {"ask.token_ids", RT_FIELD_BOOL, AT(ask.token_ids), "no", "ask for the tokens' ids too", NULL, 0, 0},
    {"ask.stream", RT_FIELD_BOOL, AT(ask.stream), "no", "answers as streams", NULL, 0, 0},
    {"ask.on_length", RT_FIELD_CHOICE, AT(ask.on_length), "keep",
     "answers cut off at max_tokens: marked, left out, or asked again with twice the room",
     "keep|drop|retry:2x", 0, 0},
    {"net.concurrency", RT_FIELD_STRING, AT(net.concurrency), "auto",
     "requests at once; auto: as many as go well", NULL, 0, 0},
    {"net.concurrency_max", RT_FIELD_COUNT, AT(net.concurrency_max), "256", "of auto", NULL, 1, 4096},
    {"net.attempts", RT_FIELD_COUNT, AT(net.attempts), "8", "of one request; a 429 does not count", NULL, 1,
     1000},
    {"net.timeout_s", RT_FIELD_REAL, AT(net.timeout_s), "600", "of one request", NULL, 0.1, 86400},
    {"net.silence_s", RT_FIELD_REAL, AT(net.silence_s), "120", "without a byte from the server", NULL, 1,
     86400},
    {"net.patience_s", RT_FIELD_REAL, AT(net.patience_s), "300", "server out of reach, before the run stops",
     NULL, 0.1, 1e6},
    {"net.poll_s", RT_FIELD_REAL, AT(net.poll_s), "10", "first wait for a batch; later ones are longer", NULL,
     0.05, 3600},
    {"price.table", RT_FIELD_STRING, AT(price.table), "''",
     "YAML file: models: {NAME: {input, cached, output}}", NULL, 0, 0},
    {"price.currency", RT_FIELD_STRING, AT(price.currency), "usd", "of the prices below", NULL, 0, 0},
    {"price.input", RT_FIELD_REAL, AT(price.input), "-1", "per million tokens; -1: not known", NULL, -1, 1e9},
    {"price.cached", RT_FIELD_REAL, AT(price.cached), "-1", "-1: as input", NULL, -1, 1e9},
    {"price.output", RT_FIELD_REAL, AT(price.output), "-1", "per million tokens; -1: not known", NULL, -1,
     1e9},
    {"price.spend_max", RT_FIELD_STRING, AT(price.spend_max), "''", "such as 25usd or 2Mtok; '': no limit",
     NULL, 0, 0},
    {"output.out", RT_FIELD_STRING, AT(output.out), "''", "FILE.jsonl, or the folder of a store", NULL, 0, 0},
    {"output.format", RT_FIELD_CHOICE, AT(output.format), "rows", "own rows, or OpenAI Batch results",
     "rows|batch", 0, 0},
    {"output.ordered", RT_FIELD_BOOL, AT(output.ordered), "no", "sort the rows at the end", NULL, 0, 0},
};

static rt_status override(rt_settings *settings, const char *key, const char *value, bool is_text,
                          rt_error *err)
{
    rt_text word = {0};
    rt_text_printf(&word, "%s=", key);
    if (is_text)
        rt_row_string(&word, value, strlen(value)); /* a JSON string is one of YAML's */
    else
        rt_text_puts(&word, value);
    const rt_status status = word.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for the options")
                                         : rt_settings_override(settings, word.data, err);
    rt_text_deinit(&word);
    return status;
}

static rt_status override_inputs(rt_settings *settings, const cli_list *inputs, rt_error *err)
{
    rt_text list = {0};
    for (size_t i = 0; i < inputs->count; i++) {
        rt_text_puts(&list, i ? ", " : "[");
        rt_row_string(&list, inputs->items[i], strlen(inputs->items[i]));
    }
    rt_text_puts(&list, "]");
    const rt_status status = list.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for the options")
                                         : override(settings, "prompts.in", list.data, false, err);
    rt_text_deinit(&list);
    return status;
}

rt_status collect_settings_read(rt_settings **owner, collect_settings *out, const char *recipe,
                                const collect_word *words, size_t n_words, const cli_list *inputs,
                                const cli_rest *overrides, rt_error *err)
{
    rt_status status = rt_settings_open(owner, fields, sizeof fields / sizeof fields[0], err);
    if (status == RT_OK && recipe)
        status = rt_settings_read(*owner, recipe, err);
    for (size_t i = 0; i < n_words && status == RT_OK; i++)
        if (words[i].value)
            status = override(*owner, words[i].key, words[i].value, words[i].is_text, err);
    if (status == RT_OK && inputs->count)
        status = override_inputs(*owner, inputs, err);
    for (size_t i = 0; i < overrides->count && status == RT_OK; i++)
        status = rt_settings_override(*owner, overrides->items[i], err);
    return status == RT_OK ? rt_settings_fill(*owner, out, err) : status;
}

/* ---- what they mean ---- */

static rt_status add_param(json_t *params, const char *word, rt_error *err)
{
    const char *equals = strchr(word, '=');
    char name[64];
    if (!equals || equals == word || (size_t)(equals - word) >= sizeof name)
        return rt_error_set(err, RT_INVALID, "'%.80s' is no name=value", word);
    (void)snprintf(name, sizeof name, "%.*s", (int)(equals - word), word);
    json_t *value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
    if (!value) /* a bare word is a text */
        value = json_string(equals + 1);
    static const char *const ours[] = {"model", "messages", "prompt", "stream", "n", "stream_options"};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (strcmp(name, ours[i]) == 0) {
            json_decref(value);
            return rt_error_set(err, RT_INVALID, "'%s' has an option of its own", name);
        }
    return json_object_set_new(params, name, value) == 0
               ? RT_OK
               : rt_error_set(err, RT_INVALID, "'%.80s' is no value", word);
}

json_t *collect_params(const collect_settings *s, rt_error *err)
{
    json_t *params = json_object();
    rt_status status = params ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for the settings");
    for (size_t i = 0; i < s->ask.params.count && status == RT_OK; i++)
        status = add_param(params, s->ask.params.items[i], err);
    if (s->ask.temperature >= 0)
        (void)json_object_set_new(params, "temperature", json_real(s->ask.temperature));
    if (s->ask.top_p >= 0)
        (void)json_object_set_new(params, "top_p", json_real(s->ask.top_p));
    if (s->ask.max_tokens)
        (void)json_object_set_new(params, "max_tokens", json_integer((json_int_t)s->ask.max_tokens));
    if (s->ask.seed[0]) {
        size_t seed;
        if (rt_parse_count(&seed, s->ask.seed) && seed <= INT64_MAX / 2)
            (void)json_object_set_new(params, "seed", json_integer((json_int_t)seed));
        else
            status = rt_error_set(err, RT_INVALID, "ask.seed: '%.40s' is no whole number", s->ask.seed);
    }
    if (s->ask.stop.count) {
        json_t *stop = json_array();
        for (size_t i = 0; i < s->ask.stop.count; i++)
            (void)json_array_append_new(stop, json_string(s->ask.stop.items[i]));
        (void)json_object_set_new(params, "stop", stop);
    }
    if (status == RT_OK)
        return params;
    json_decref(params);
    return NULL;
}

rt_status collect_prices(rt_price *price, rt_spend_max *max, const collect_settings *s, rt_error *err)
{
    *price = (rt_price){0};
    *max = (rt_spend_max){0};
    if (s->price.table[0]) {
        if (rt_price_read(price, s->price.table, s->teacher.model, err) != RT_OK)
            return err->status;
    } else if (s->price.input >= 0 && s->price.output >= 0) {
        *price = (rt_price){.input = s->price.input,
                            .cached = s->price.cached >= 0 ? s->price.cached : s->price.input,
                            .output = s->price.output,
                            .known = true};
        (void)snprintf(price->currency, sizeof price->currency, "%s", s->price.currency);
    }
    if (!s->price.spend_max[0])
        return RT_OK;
    if (rt_spend_max_parse(max, s->price.spend_max, err) != RT_OK)
        return err->status;
    if (max->money > 0 && !price->known)
        return rt_error_set(
            err, RT_INVALID,
            "a limit in money needs prices: --prices FILE, or price.input and price.output (per million "
            "tokens)");
    if (max->money > 0 && strcmp(max->currency, price->currency) != 0)
        return rt_error_set(err, RT_INVALID, "the limit is in %s and the prices are in %s", max->currency,
                            price->currency);
    return RT_OK;
}
