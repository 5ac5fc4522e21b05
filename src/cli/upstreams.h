/* cli/upstreams.h - the upstreams of a gateway, from the command line.
 *
 *   --upstream 'http://127.0.0.1:8000/v1'
 *   --upstream 'https://api.example.com/v1 key-env=EXAMPLE_KEY weight=3 models=gpt-x,small=remote-small'
 *   --upstream 'https://api.example.com/v1 key-file=/run/secrets/key health=none' */
#ifndef RT_CLI_UPSTREAMS_H
#define RT_CLI_UPSTREAMS_H

#include "cli/cli.h"
#include "serve/gateway.h"

typedef struct cli_upstreams {
    rt_upstream items[CLI_LIST_MAX];
    rt_upstream_model models[CLI_LIST_MAX][RT_UPSTREAM_MODELS_MAX];
    char *words[CLI_LIST_MAX]; /* what the others point into */
    char *keys[CLI_LIST_MAX];  /* from files */
    size_t count;
} cli_upstreams;

/* key_env: the name of the environment's variable with the key, for upstreams that name none; or NULL. */
rt_status cli_upstreams_read(cli_upstreams *out, const cli_list *list, const char *key_env, rt_error *err);
void cli_upstreams_deinit(cli_upstreams *upstreams);

#endif
