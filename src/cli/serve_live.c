/* cli/serve_live.c - see serve_live.h. */
#include "cli/serve_live.h"

#include <stdlib.h>
#include <string.h>

#include "account/limits.h"

typedef struct serve_values {
    rt_strings aliases, cors, trusted_proxies, upstreams;
    size_t request_timeout, drain, health_interval, health_fall, health_rise;
    bool open_tokenizer, metrics_open;
    const char *terms, *prices, *policy;
} serve_values;

#define AT(member) offsetof(serve_values, member)

static const rt_field fields[] = {
    {"aliases", RT_FIELD_STRINGS, AT(aliases), "[]", "NAME, or NAME=MODEL: other names of models", NULL, 0,
     0},
    {"upstreams", RT_FIELD_STRINGS, AT(upstreams), "[]", "as --upstream", NULL, 0, 0},
    {"health.interval", RT_FIELD_COUNT, AT(health_interval), "10", "seconds between checks; 0: none", NULL, 0,
     86400},
    {"health.fall", RT_FIELD_COUNT, AT(health_fall), "3", "failed checks until it gets no requests", NULL, 1,
     1000},
    {"health.rise", RT_FIELD_COUNT, AT(health_rise), "2", "answered checks until it gets some again", NULL, 1,
     1000},
    {"cors", RT_FIELD_STRINGS, AT(cors), "[]", "web origins that may call", NULL, 0, 0},
    {"trusted_proxies", RT_FIELD_STRINGS, AT(trusted_proxies), "[]", "whose X-Forwarded-For is believed",
     NULL, 0, 0},
    {"request_timeout", RT_FIELD_COUNT, AT(request_timeout), "600", "seconds, the longest a request may take",
     NULL, 1, 86400},
    {"drain", RT_FIELD_COUNT, AT(drain), "30", "seconds that SIGTERM waits for answers", NULL, 0, 86400},
    {"open_tokenizer", RT_FIELD_BOOL, AT(open_tokenizer), "no", "tokenizer endpoints need no key", NULL, 0,
     0},
    {"metrics_open", RT_FIELD_BOOL, AT(metrics_open), "no", "/metrics needs no key", NULL, 0, 0},
    {"terms", RT_FIELD_STRING, AT(terms), "''", "terms of use that accounts must have accepted", NULL, 0, 0},
    {"prices", RT_FIELD_STRING, AT(prices), "''", "money per million tokens by model, a JSON file", NULL, 0,
     0},
    {"policy", RT_FIELD_STRING, AT(policy), "''", "the guard's ladder", NULL, 0, 0},
};

/* The command line's list where it has one, else the file's. */
static rt_status choose(cli_list *out, const cli_list *given, const rt_strings *file, const char *what,
                        rt_error *err)
{
    *out = *given;
    if (given->count > 0)
        return RT_OK;
    if (file->count > CLI_LIST_MAX)
        return rt_error_set(err, RT_INVALID, "serve: %s: at most %d", what, CLI_LIST_MAX);
    for (size_t i = 0; i < file->count; i++)
        out->items[out->count++] = file->items[i];
    return RT_OK;
}

static rt_status read_values(serve_live *live, const serve_given *given, rt_error *err)
{
    serve_values *v = live->values = calloc(1, sizeof *v);
    if (!v)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the settings");
    if (rt_settings_open(&live->file, fields, sizeof fields / sizeof *fields, err) != RT_OK ||
        (given->settings && rt_settings_read(live->file, given->settings, err) != RT_OK) ||
        rt_settings_fill(live->file, v, err) != RT_OK)
        return err->status;
    const struct {
        size_t given, *value;
    } counts[] = {{given->timeout, &v->request_timeout},
                  {given->drain, &v->drain},
                  {given->health_interval, &v->health_interval},
                  {given->health_fall, &v->health_fall},
                  {given->health_rise, &v->health_rise}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].given != SERVE_NOT_GIVEN)
            *counts[i].value = counts[i].given;
    if (v->health_fall == 0 || v->health_rise == 0)
        return rt_error_set(err, RT_INVALID, "serve: --health-fall and --health-rise are 1 or more");
    v->open_tokenizer = v->open_tokenizer || given->open_tokenizer;
    v->metrics_open = v->metrics_open || given->metrics_open;
    v->terms = given->terms ? given->terms : v->terms;
    v->prices = given->prices ? given->prices : v->prices;
    live->policy_path = given->policy ? given->policy : *v->policy ? v->policy : NULL;
    return RT_OK;
}

static rt_status read_proxies(serve_live *live, const cli_list *list, rt_error *err)
{
    for (size_t i = 0; i < list->count; i++)
        if (!rt_network_parse(&live->proxies[live->n_proxies++], list->items[i]))
            return rt_error_set(err, RT_INVALID,
                                "serve: trusted proxy %.80s: expected an address or a network such as "
                                "10.0.0.0/8",
                                list->items[i]);
    return RT_OK;
}

static rt_status read_all(serve_live *live, const serve_given *given, rt_error *err)
{
    cli_list proxies, upstreams;
    const serve_values *v;
    if (read_values(live, given, err) != RT_OK)
        return err->status;
    v = live->values;
    if (choose(&live->alias_list, &given->aliases, &v->aliases, "aliases", err) != RT_OK ||
        choose(&live->origins, &given->origins, &v->cors, "cors", err) != RT_OK ||
        choose(&proxies, &given->proxies, &v->trusted_proxies, "trusted_proxies", err) != RT_OK ||
        choose(&upstreams, &given->upstreams, &v->upstreams, "upstreams", err) != RT_OK ||
        read_proxies(live, &proxies, err) != RT_OK ||
        cli_upstreams_read(&live->upstreams, &upstreams, given->upstream_key_env, err) != RT_OK)
        return err->status;
    if (*v->terms && rt_terms_open(&live->terms, v->terms, err) != RT_OK)
        return err->status;
    if (*v->prices && (rt_json_read(&live->prices, v->prices, 1 << 20, err) != RT_OK ||
                       rt_prices_check(live->prices, err) != RT_OK))
        return rt_error_within(err, v->prices);
    return RT_OK;
}

rt_status serve_live_open(serve_live **out, const serve_given *given, rt_error *err)
{
    serve_live *live = *out = calloc(1, sizeof *live);
    if (!live)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the settings");
    if (read_all(live, given, err) == RT_OK)
        return RT_OK;
    serve_live_close(live);
    *out = NULL;
    return err->status;
}

rt_status serve_live_aliases(serve_live *live, char *const *ids, size_t n_ids, rt_error *err)
{
    if (n_ids == 0 && live->alias_list.count > 0)
        return rt_error_set(err, RT_INVALID,
                            "serve: a gateway has no aliases: say models=NAME=REMOTE in the upstream");
    for (size_t i = 0; i < live->alias_list.count; i++) {
        char *word = live->alias_words[i] = strdup(live->alias_list.items[i]);
        if (!word)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for an alias");
        char *equals = strchr(word, '=');
        const char *model = ids[0];
        if (equals) {
            *equals = '\0';
            model = NULL;
            for (size_t k = 0; k < n_ids; k++)
                if (strcmp(ids[k], equals + 1) == 0)
                    model = ids[k];
            if (!model)
                return rt_error_set(err, RT_INVALID,
                                    "serve: alias %.80s: there is no model %.100s; it is called %.100s", word,
                                    equals + 1, ids[0]);
        }
        live->aliases[live->n_aliases++] = (rt_serve_alias){word, model};
    }
    return RT_OK;
}

rt_status serve_live_policy(serve_live *live, rt_error *err)
{
    return rt_guard_policy_open(&live->policy, live->policy_path, err);
}

void serve_live_fill(const serve_live *live, rt_serve_options *options)
{
    const serve_values *v = live->values;
    options->aliases = live->aliases;
    options->n_aliases = live->n_aliases;
    options->origins = live->origins.items;
    options->n_origins = live->origins.count;
    options->upstreams = live->upstreams.items;
    options->n_upstreams = live->upstreams.count;
    options->health =
        (rt_health_options){(double)v->health_interval, (unsigned)v->health_fall, (unsigned)v->health_rise};
    options->http.trusted = live->proxies;
    options->http.n_trusted = live->n_proxies;
    options->request_timeout_s = (double)v->request_timeout;
    options->drain_s = (double)v->drain;
    options->open_tokenizer = v->open_tokenizer;
    options->metrics_open = v->metrics_open;
    options->terms = live->terms;
}

void serve_live_close(serve_live *live)
{
    while (live) {
        serve_live *older = live->older;
        for (size_t i = 0; i < CLI_LIST_MAX; i++)
            free(live->alias_words[i]);
        cli_upstreams_deinit(&live->upstreams);
        rt_terms_close(live->terms);
        json_decref(live->prices);
        rt_guard_policy_close(live->policy);
        rt_settings_close(live->file);
        free(live->values);
        free(live);
        live = older;
    }
}
