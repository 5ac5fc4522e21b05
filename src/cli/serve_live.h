/* cli/serve_live.h - the settings of `retort serve` that may change while it runs: from --settings FILE and
 * the command line (which stands above the file), read again on SIGHUP and taken over as a whole or not at
 * all. */
#ifndef RT_CLI_SERVE_LIVE_H
#define RT_CLI_SERVE_LIVE_H

#include "base/schema.h"
#include "cli/upstreams.h"
#include "guard/policy.h"
#include "serve/serve.h"

typedef struct serve_given { /* what the command line says; NULL, 0, false and NOT_GIVEN: nothing */
    const char *settings, *terms, *prices, *policy, *upstream_key_env;
    cli_list aliases, origins, upstreams, proxies;
    size_t timeout, drain, health_interval, health_fall, health_rise;
    bool open_tokenizer, metrics_open;
} serve_given;
#define SERVE_NOT_GIVEN SIZE_MAX

typedef struct serve_live {
    rt_settings *file;
    struct serve_values *values;
    cli_list alias_list, origins;
    rt_serve_alias aliases[CLI_LIST_MAX];
    char *alias_words[CLI_LIST_MAX];
    size_t n_aliases;
    rt_network proxies[CLI_LIST_MAX];
    size_t n_proxies;
    cli_upstreams upstreams;
    rt_terms *terms; /* NULL: none */
    json_t *prices;  /* NULL: none */
    const char *policy_path;
    rt_guard_policy_file *policy; /* opened by serve_live_policy */
    struct serve_live *older;     /* whose terms and policy a call under way may still read */
} serve_live;

rt_status serve_live_open(serve_live **out, const serve_given *given, rt_error *err);
/* NAME=MODEL, or NAME for the first model. */
rt_status serve_live_aliases(serve_live *live, char *const *ids, size_t n_ids, rt_error *err);
/* The guard's ladder; without a file the built-in one. */
rt_status serve_live_policy(serve_live *live, rt_error *err);
/* Puts them into the server's options, which borrow them. */
void serve_live_fill(const serve_live *live, rt_serve_options *options);
void serve_live_close(serve_live *live); /* and the older ones; NULL is allowed */

#endif
