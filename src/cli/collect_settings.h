/* cli/collect_settings.h - the settings of `retort collect`: a recipe's keys, and the options that say the
 * same. */
#ifndef RT_CLI_COLLECT_SETTINGS_H
#define RT_CLI_COLLECT_SETTINGS_H

#include "base/schema.h"
#include "cli/cli.h"
#include "outputs/collect.h"

typedef struct collect_settings {
    struct {
        const char *url, *model, *file, *key_env, *licence, *terms;
        bool forbids_training, stream;
        int precision;
        size_t n_vocab, slots;
    } teacher;
    struct {
        rt_strings in;
        const char *key, *system;
        double near;
        size_t limit;
    } prompts;
    struct {
        int endpoint, on_length;
        double temperature, top_p;
        size_t max_tokens, samples, logprobs;
        const char *seed;
        rt_strings stop, params;
        bool stream, token_ids;
    } ask;
    struct {
        const char *concurrency;
        size_t concurrency_max, attempts;
        double timeout_s, silence_s, patience_s, poll_s;
    } net;
    struct {
        const char *table, *currency, *spend_max;
        double input, cached, output;
    } price;
    struct {
        const char *out;
        int format;
        bool ordered;
    } output;
} collect_settings;

/* Recipe (may be NULL), then the options that were given, as "key" "value" pairs. */
typedef struct collect_word {
    const char *key, *value; /* value NULL: not given */
    bool is_text;            /* to be quoted */
} collect_word;
rt_status collect_settings_read(rt_settings **owner, collect_settings *out, const char *recipe,
                                const collect_word *words, size_t n_words, const cli_list *inputs,
                                const cli_rest *overrides, rt_error *err);

/* What the settings mean for a request: {temperature, max_tokens, ...}. */
json_t *collect_params(const collect_settings *s, rt_error *err);
/* Prices by table or numbers, and the limit; both zeroed where nothing is said. */
rt_status collect_prices(rt_price *price, rt_spend_max *max, const collect_settings *s, rt_error *err);

#endif
