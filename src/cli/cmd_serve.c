/* cli/cmd_serve.c - `retort serve MODEL ...`: models behind an OpenAI-compatible HTTP API. */
#include <errno.h>
#include <libgen.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/size.h"
#include "account/limits.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/account_db.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/open_model.h"
#include "cli/rows.h"
#include "cli/serve_live.h"
#include "cli/serve_marks.h"
#include "serve/serve.h"

enum { ADMIN_PORT = 8081, ADMIN_PORT_ANY = 1 << 20 }; /* any: not given */

typedef struct settings {
    cli_rest models;
    serve_given live; /* what may change while it runs */
    const char *host, *precision, *log, *db, *secrets, *admin_host;
    size_t port, admin_port, slots, context, queue, prefill, prefix_cache, threads, connections;
    const char *guard_state, *guard_log, *asn, *reference;
    const char *tokenizer;
    bool insecure, ledger_behind, guard;
    const char *reasoning, *prefix_share;
    cli_mark_options mark;
    const char *mark_own, *sealed, *capture;
    cli_list suspects;
    double twins_share, canaries_share;
    const char *canaries;
} settings;

typedef struct server {
    const settings *settings;
    rt_pool *pool;
    cli_model models[RT_SERVE_MODELS_MAX];
    rt_serve_model served[RT_SERVE_MODELS_MAX];
    char *ids[RT_SERVE_MODELS_MAX];
    char hashes[RT_SERVE_MODELS_MAX][65];
    cli_serve_mark marks[RT_SERVE_MODELS_MAX];
    size_t n_models;
    serve_live *live;
    rt_serve *open;
    rt_tokenizer *counter; /* of a gateway; NULL: none */
    FILE *log;
    pthread_mutex_t log_lock;
    rt_gate *gate; /* NULL: no accounts */
    rt_guard_reference *reference;
    rt_watch *watch;       /* NULL: nobody is judged */
    rt_twins *twins;       /* NULL: every answer is drawn once */
    rt_canaries *canaries; /* NULL: none */
    rt_capture *capture;   /* NULL: answers are not kept */
} server;

/* ---- models ---- */

/* The name that clients use: a pulled model's name as given, a file's without folder and ending. */
static char *id_of(const char *argument)
{
    char *copy = strdup(argument);
    if (!copy)
        return NULL;
    size_t size = strlen(copy);
    while (size > 1 && copy[size - 1] == '/')
        copy[--size] = '\0';
    char *name = strdup(basename(copy));
    free(copy);
    char *dot = name ? strrchr(name, '.') : NULL;
    if (dot && (strcmp(dot, ".gguf") == 0 || strcmp(dot, ".safetensors") == 0))
        *dot = '\0';
    return name;
}

/* The element type that most of the weights have. */
static const char *quant_of(const rt_weights *weights)
{
    uint64_t bytes[RT_DTYPE_COUNT] = {0};
    rt_dtype most = 0;
    for (size_t i = 0; i < rt_weights_count(weights); i++)
        bytes[rt_weights_at(weights, i)->dtype] += rt_weights_at(weights, i)->bytes;
    for (rt_dtype type = 0; type < RT_DTYPE_COUNT; type++)
        if (bytes[type] > bytes[most])
            most = type;
    return rt_dtype_get(most)->name;
}

/* The watermark of a model's answers; the log says its scheme and the key's id, clients are not told. */
static rt_status mark_one(server *s, size_t i, rt_error *err)
{
    json_t *record;
    const cli_model *m = &s->models[i];
    if (cli_serve_mark_open(&s->marks[i], &record, &s->settings->mark, s->settings->mark_own,
                            m->model->config.n_vocab, m->tokenizer, err) != RT_OK)
        return err->status;
    s->served[i].marking = s->marks[i].common ? &s->marks[i].marking : NULL;
    if (record) {
        char *line = json_dumps(record, JSON_COMPACT);
        if (line)
            (void)fprintf(s->log ? s->log : stderr, "{\"model\":\"%s\",\"watermark\":%s}\n", s->ids[i], line);
        free(line);
        json_decref(record);
    }
    return RT_OK;
}

static rt_status open_one(server *s, const char *argument, rt_error *err)
{
    const size_t i = s->n_models++;
    cli_model *m = &s->models[i];
    struct stat facts;
    if (cli_model_open(m, argument, cli_precision(s->settings->precision), 0, s->pool, err) != RT_OK)
        return err->status;
    s->ids[i] = id_of(argument);
    if (!s->ids[i])
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a model's name");
    for (size_t k = 0; k < i; k++)
        if (strcmp(s->ids[k], s->ids[i]) == 0)
            return rt_error_set(err, RT_INVALID, "two models would be called %.100s", s->ids[i]);
    const bool is_file = !rt_path_is_dir(m->path);
    if (is_file && rt_sha256_file(s->hashes[i], m->path, err) != RT_OK)
        return err->status;
    s->served[i] = (rt_serve_model){.id = s->ids[i],
                                    .model = m->model,
                                    .tokenizer = m->tokenizer,
                                    .chat_template = m->chat_template,
                                    .quant = quant_of(m->weights),
                                    .sha256 = is_file ? s->hashes[i] : NULL,
                                    .created = stat(m->path, &facts) == 0 ? (int64_t)facts.st_mtime
                                                                          : rt_clock_unix_seconds()};
    return mark_one(s, i, err);
}

/* Of a gateway whose upstreams do not tell what was used. */
static rt_status open_counter(server *s, rt_error *err)
{
    char *path = NULL;
    if (!s->settings->tokenizer)
        return RT_OK;
    rt_status status = cli_model_path(&path, s->settings->tokenizer, err);
    if (status == RT_OK)
        status = rt_tokenizer_open(&s->counter, path, err);
    free(path);
    return status;
}

static rt_status open_models(server *s, rt_error *err)
{
    const cli_rest *names = &s->settings->models;
    if (s->live->upstreams.count > 0) {
        if (names->count > 0)
            return rt_error_set(err, RT_INVALID, "serve: a gateway (--upstream) has no models of its own");
        if (s->settings->mark.key)
            return rt_error_set(
                err, RT_INVALID,
                "serve: a gateway draws no tokens and cannot mark: --watermark belongs to the "
                "server behind it");
        return open_counter(s, err);
    }
    if (s->settings->tokenizer)
        return rt_error_set(err, RT_INVALID, "serve: --tokenizer is for a gateway; models have their own");
    if (names->count == 0)
        return rt_error_set(err, RT_INVALID, "serve: a MODEL is needed; retort help serve shows examples");
    if (names->count > RT_SERVE_MODELS_MAX)
        return rt_error_set(err, RT_INVALID, "serve: at most %d models", RT_SERVE_MODELS_MAX);
    for (size_t i = 0; i < names->count; i++)
        if (open_one(s, names->items[i], err) != RT_OK)
            return err->status;
    return RT_OK;
}

/* ---- the log ---- */

static void write_log(void *context, const char *line)
{
    server *s = context;
    (void)pthread_mutex_lock(&s->log_lock);
    if (s->log) {
        (void)fprintf(s->log, "%s\n", line);
        (void)fflush(s->log);
    }
    (void)pthread_mutex_unlock(&s->log_lock);
}

/* What the rooms below have to say (a refused key and its address, a database that does not answer): a line
 * of the log, or of standard error where there is none.  Any thread. */
static void write_notice(void *context, rt_log_level level, const char *text)
{
    const server *s = context;
    (void)level;
    if (!s->settings->log) {
        (void)fprintf(stderr, "retort: %s\n", text);
        return;
    }
    json_t *line = json_object();
    (void)json_object_set_new(line, "time", json_integer(rt_clock_unix_seconds()));
    (void)json_object_set_new(line, "event", json_string("notice"));
    (void)json_object_set_new(line, "text", rt_json_text(text, strlen(text)));
    char *dump = json_dumps(line, JSON_COMPACT);
    if (dump)
        write_log(context, dump);
    free(dump);
    json_decref(line);
}

static rt_status open_log(server *s, rt_error *err)
{
    const char *path = s->settings->log;
    if (!path)
        return RT_OK;
    FILE *log = strcmp(path, "-") == 0 ? stderr : fopen(path, "a");
    if (!log)
        return rt_error_set(err, RT_IO, "%.300s: cannot be opened for the log: %s", path, strerror(errno));
    (void)pthread_mutex_lock(&s->log_lock);
    if (s->log && s->log != stderr)
        (void)fclose(s->log);
    s->log = log;
    (void)pthread_mutex_unlock(&s->log_lock);
    return RT_OK;
}

/* ---- accounts ---- */

/* A database that was named is used, whatever is in it; the default one only once there are accounts in it,
 * so that a model can be tried on one's own machine without any. */
static rt_status open_accounts(server *s, rt_error *err)
{
    const settings *set = s->settings;
    char *path = NULL;
    char *secrets = NULL;
    const char *given = getenv("RETORT_DB");
    const bool named = set->db || (given && *given);
    if (set->db && strcmp(set->db, "none") == 0)
        return RT_OK;
    if (cli_account_db_path(&path, set->db, err) != RT_OK)
        return err->status;
    rt_status status = cli_account_secrets_path(&secrets, set->secrets, path, err);
    if (status == RT_OK && (named || rt_path_exists(path))) {
        const rt_gate_options options = {
            .db = path, .secrets = secrets, .terms = s->live->terms, .prices = s->live->prices};
        status = rt_gate_open(&s->gate, &options, err);
        if (status == RT_OK && !named && rt_gate_account_count(s->gate) == 0) {
            rt_gate_close(s->gate);
            s->gate = NULL;
        }
    }
    free(secrets);
    free(path);
    return status;
}

/* The guard, where it is asked for: it needs accounts to judge. */
static rt_status open_guard(server *s, rt_error *err)
{
    const settings *set = s->settings;
    if (!set->guard && !s->live->policy_path && !set->guard_state && !set->guard_log)
        return RT_OK;
    if (!s->gate)
        return rt_error_set(err, RT_INVALID,
                            "serve: the guard judges accounts, and there are none: 'retort account create'");
    if ((set->reference && rt_guard_reference_read(&s->reference, set->reference, err) != RT_OK) ||
        serve_live_policy(s->live, err) != RT_OK)
        return err->status;
    const rt_watch_options options = {.guard = {.reference = s->reference, .asn_path = set->asn},
                                      .policy = s->live->policy,
                                      .gate = s->gate,
                                      .state_path = set->guard_state,
                                      .log_path = set->guard_log};
    return rt_watch_open(&s->watch, &options, err);
}

/* Twin answers and canaries, where a folder for them is named. */
static rt_status open_twins(server *s, rt_error *err)
{
    const settings *set = s->settings;
    if (!set->sealed && set->suspects.count == 0 && !set->canaries)
        return RT_OK;
    if (!set->sealed || !s->gate || s->live->upstreams.count > 0)
        return rt_error_set(
            err, RT_INVALID,
            "serve: twin answers and canaries need --sealed DIR for what is kept, accounts to suspect, and "
            "a model of the server's own");
    if (rt_twins_open(&s->twins, set->sealed, set->suspects.items, set->suspects.count, set->twins_share,
                      err) != RT_OK)
        return err->status;
    json_t *list = NULL;
    if (!set->canaries)
        return RT_OK;
    if (cli_rows_read(&list, set->canaries, err) != RT_OK)
        return err->status;
    const rt_status status =
        rt_canaries_open(&s->canaries, set->sealed, list, set->canaries, set->suspects.items,
                         set->suspects.count, set->canaries_share, err);
    json_decref(list);
    return status;
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

static rt_status check_host(const server *s, rt_error *err)
{
    const settings *set = s->settings;
    if (set->port > 65535 || (set->admin_port > 65535 && set->admin_port != ADMIN_PORT_ANY))
        return rt_error_set(err, RT_INVALID, "serve: a port is not in 0..65535");
    if (is_loopback(set->host) || set->insecure || (s->gate && rt_gate_account_count(s->gate) > 0))
        return RT_OK;
    return rt_error_set(
        err, RT_INVALID,
        "serve: there are no accounts, so everybody who reaches %.100s could use the model; create "
        "one with 'retort account create', serve on 127.0.0.1, or say --insecure",
        set->host);
}

/* ---- SIGHUP ---- */

static rt_status take_over(server *s, serve_live *fresh, rt_error *err)
{
    rt_serve_options options = rt_serve_options_default();
    if ((fresh->upstreams.count > 0) != (s->live->upstreams.count > 0))
        return rt_error_set(err, RT_INVALID, "a gateway and a server of models are not made into each other");
    if (!s->watch && fresh->policy_path)
        return rt_error_set(err, RT_INVALID, "the guard does not run: start the server with --guard");
    if (serve_live_aliases(fresh, s->ids, s->n_models, err) != RT_OK ||
        (s->watch && serve_live_policy(fresh, err) != RT_OK))
        return err->status;
    serve_live_fill(fresh, &options);
    if (rt_serve_change(s->open, &options, err) != RT_OK)
        return err->status;
    if (s->gate)
        rt_gate_set_rules(s->gate, fresh->terms, fresh->prices);
    if (s->watch)
        rt_watch_set_policy(s->watch, fresh->policy);
    fresh->older = s->live;
    s->live = fresh;
    return RT_OK;
}

/* The log file is opened again, so that it can be rotated, and the settings are read again.  Requests under
 * way go on; what is not valid changes nothing and is told in one sentence. */
static void reload(void *context)
{
    server *s = context;
    serve_live *fresh = NULL;
    rt_error err = {0};
    if (open_log(s, &err) != RT_OK)
        rt_log(RT_LOG_WARNING, "%s", err.text);
    err = (rt_error){0};
    if (serve_live_open(&fresh, &s->settings->live, &err) == RT_OK && take_over(s, fresh, &err) == RT_OK) {
        rt_log(RT_LOG_WARNING, "the settings were read again");
        return;
    }
    serve_live_close(fresh);
    rt_log(RT_LOG_WARNING, "the settings stay as they were: %s", err.text);
}

/* ---- running ---- */

static rt_status serve(server *s, rt_error *err)
{
    const settings *set = s->settings;
    rt_serve_options options = rt_serve_options_default();
    options.models = s->served;
    options.n_models = s->n_models;
    options.counter = s->counter;
    options.ledger_behind = set->ledger_behind;
    options.host = set->host;
    options.port = (int)set->port;
    options.n_slots = set->slots;
    options.n_positions = set->context;
    options.prefill_tokens = set->prefill;
    options.queue_max = set->queue;
    options.prefix_bytes = set->prefix_cache;
    options.prefix_share_all = strcmp(set->prefix_share, "all") == 0;
    options.reasoning = strcmp(set->reasoning, "none") != 0;
    options.http.connections_max = set->connections;
    options.log = set->log ? write_log : NULL;
    options.reload = reload;
    options.context = s;
    options.gate = s->gate;
    options.watch = s->watch;
    options.twins = s->twins;
    options.canaries = s->canaries;
    options.capture = s->capture;
    options.admin_host = strcmp(set->admin_host, "none") == 0 ? NULL : set->admin_host;
    options.admin_port_any = set->admin_port == ADMIN_PORT_ANY;
    options.admin_port = options.admin_port_any ? ADMIN_PORT : (int)set->admin_port;
    options.signals = true;
    serve_live_fill(s->live, &options);
    if (rt_serve_open(&s->open, &options, err) != RT_OK)
        return err->status;
    const rt_serve *open = s->open;
    if (s->n_models)
        (void)fprintf(stderr, "retort: %s on http://%s:%d/v1 (%zu slots)\n", s->ids[0], set->host,
                      rt_serve_port(open), (size_t)set->slots);
    else
        (void)fprintf(stderr, "retort: gateway on http://%s:%d/v1\n", set->host, rt_serve_port(open));
    if (rt_serve_admin_port(open))
        (void)fprintf(stderr, "retort: admin API on http://%s:%d/admin/v1\n", set->admin_host,
                      rt_serve_admin_port(open));
    if (!s->gate)
        (void)fprintf(stderr, "retort: no accounts: everybody on %s is served\n",
                      is_loopback(set->host) ? "this machine" : "the network");
    const rt_status status = rt_serve_run(s->open, err);
    rt_serve_close(s->open);
    return status;
}

static int work(server *s, rt_error *err)
{
    const settings *set = s->settings;
    if (serve_live_open(&s->live, &set->live, err) != RT_OK || open_accounts(s, err) != RT_OK ||
        open_guard(s, err) != RT_OK || open_twins(s, err) != RT_OK ||
        (set->capture && rt_capture_open(&s->capture, set->capture, err) != RT_OK) ||
        check_host(s, err) != RT_OK || open_log(s, err) != RT_OK ||
        rt_pool_open(&s->pool, (unsigned)rt_size_min(set->threads, 1 << 16), err) != RT_OK ||
        open_models(s, err) != RT_OK || serve_live_aliases(s->live, s->ids, s->n_models, err) != RT_OK ||
        serve(s, err) != RT_OK)
        return cli_fail(err);
    return 0;
}

int cmd_serve(int argc, char **argv)
{
    settings set = {.host = "127.0.0.1",
                    .admin_host = "127.0.0.1",
                    .admin_port = ADMIN_PORT_ANY,
                    .precision = "int8",
                    .reasoning = "deepseek",
                    .port = 8080,
                    .slots = 16,
                    .prefix_cache = (size_t)512 << 20,
                    .prefix_share = "account",
                    .live = {.timeout = SERVE_NOT_GIVEN,
                             .drain = SERVE_NOT_GIVEN,
                             .health_interval = SERVE_NOT_GIVEN,
                             .health_fall = SERVE_NOT_GIVEN,
                             .health_rise = SERVE_NOT_GIVEN},
                    .connections = 16384,
                    .mark = {.alpha = 0.3},
                    .mark_own = "all",
                    .twins_share = 0.02,
                    .canaries_share = 0.005};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Serves models to OpenAI-compatible clients: chat/completions, completions (with echo scoring),\n"
         "models, tokenize, detokenize, health, ready, metrics; streams as server-sent events. SIGTERM lets\n"
         "running answers finish, SIGHUP reads the settings again and opens the log again. Where there are\n"
         "accounts (retort account create) every request needs a key; without any only this machine is "
         "served.\n\n"
         "Examples:\n  retort serve smollm2-135m-instruct\n"
         "  retort serve --upstream http://127.0.0.1:8000/v1 --capture store\n"
         "  retort serve teacher.gguf student/ --port 9000 --alias gpt-4o-mini=student --log access.jsonl"},
        {CLI_REST, "[MODEL...]", &set.models, "GGUF files, folders, or models that were pulled"},
        {CLI_STRING, "--settings FILE", &set.live.settings,
         "YAML: what is read again on SIGHUP (docs/serve.md); options stand above it"},
        {CLI_STRING, "--host ADDRESS", &set.host, "where to listen (default 127.0.0.1)"},
        {CLI_COUNT, "--port N", &set.port, "0 takes a free one (default 8080)"},
        {CLI_LIST, "--alias NAME[=MODEL]", &set.live.aliases, "another name for a model (several times)"},
        {CLI_COUNT, "--slots N", &set.slots, "sequences side by side, of each model (default 16)"},
        {CLI_COUNT, "--context N", &set.context, "tokens of prompt and answer (default: the model's)"},
        {CLI_COUNT, "--queue N", &set.queue, "requests that may wait (default 256)"},
        {CLI_COUNT, "--prefill N", &set.prefill, "prompt tokens between two decoding steps (default 256)"},
        {CLI_COUNT, "--prefix-cache BYTES", &set.prefix_cache,
         "memory for prompts seen before, of all models; 0: only what slots hold (default 512Mi)"},
        {CLI_STRING, "--prefix-cache-share account|all", &set.prefix_share,
         "whose prompts a prompt may begin like (default account);\nall tells accounts by time what others "
         "asked"},
        {CLI_COUNT, "--request-timeout SECONDS", &set.live.timeout,
         "the longest a request may take (default 600)"},
        {CLI_COUNT, "--drain SECONDS", &set.live.drain, "how long SIGTERM waits for answers (default 30)"},
        {CLI_COUNT, "--connections N", &set.connections, "at most so many at a time (default 16384)"},
        {CLI_STRING, "--reasoning-format deepseek|none", &set.reasoning,
         "think tags go to reasoning_content, or stay in the text (default deepseek)"},
        {CLI_LIST, "--cors ORIGIN", &set.live.origins, "a web origin that may call (several times)"},
        {CLI_LIST, "--trusted-proxy NETWORK", &set.live.proxies,
         "believe its X-Forwarded-For: an address, or 10.0.0.0/8 (several times)"},
        {CLI_FLAG, "--open-tokenizer", &set.live.open_tokenizer, "tokenizer endpoints need no key"},
        {CLI_FLAG, "--metrics-open", &set.live.metrics_open, "/metrics needs no key"},
        {CLI_FLAG, "--insecure", &set.insecure, "serve other machines without accounts"},
        {CLI_STRING, "--db PATH", &set.db,
         "accounts: a file, postgres://USER@HOST/NAME, or none (default: accounts.db)"},
        {CLI_STRING, "--secrets FILE", &set.secrets, "the database's keys (default: beside its file)"},
        {CLI_STRING, "--terms FILE", &set.live.terms, "terms of use that accounts must have accepted"},
        {CLI_STRING, "--prices FILE", &set.live.prices, "money per million tokens by model, as JSON"},
        {CLI_STRING, "--admin-host ADDRESS", &set.admin_host,
         "of the admin API, or none (default 127.0.0.1)"},
        {CLI_COUNT, "--admin-port N", &set.admin_port,
         "0 takes a free one (default 8081, or a free one when that is taken)"},
        {CLI_LIST, "--upstream URL", &set.live.upstreams,
         "a gateway to it, no models (several times);\n+ key-env= key-file= weight= models= limit= health="},
        {CLI_STRING, "--upstream-key-env NAME", (void *)&set.live.upstream_key_env,
         "the environment's variable with the upstreams' key"},
        {CLI_COUNT, "--health-interval SECONDS", &set.live.health_interval,
         "between checks of each upstream; 0: none (default 10)"},
        {CLI_COUNT, "--health-fall N", &set.live.health_fall,
         "failed checks until it gets no requests (default 3)"},
        {CLI_COUNT, "--health-rise N", &set.live.health_rise,
         "answered checks until it gets some again (default 2)"},
        {CLI_STRING, "--tokenizer MODEL", &set.tokenizer,
         "counts tokens for upstreams that do not (else bytes/4, marked as estimated)"},
        {CLI_FLAG, "--ledger-behind", &set.ledger_behind,
         "a gateway's answers do not wait for the disk; a crash may lose the last rows"},
        {CLI_FLAG, "--guard", &set.guard, "judge every request; the ladder of responses as in --policy"},
        {CLI_STRING, "--policy FILE", &set.live.policy, "the ladder's thresholds (YAML); implies --guard"},
        {CLI_STRING, "--guard-state FILE", &set.guard_state, "what the guard knows, kept over restarts"},
        {CLI_STRING, "--guard-log FILE", &set.guard_log,
         "appends each request as 'retort guard replay' reads it (it holds prompts)"},
        {CLI_STRING, "--asn FILE", &set.asn, "classes of networks, as in 'retort guard replay'"},
        {CLI_STRING, "--reference FILE", &set.reference, "another reference than the built-in one"},
        {CLI_STRING, "--log FILE", &set.log, "access log, a line of JSON a request (-: standard error)"},
        {CLI_STRING, "--capture DIR", &set.capture,
         "answers become rows of a store to train on; with accounts only of those with the\npermission "
         "'capture' whose prompts are kept in full"},
        CLI_MARK_ROWS(set.mark),
        {CLI_STRING, "--sealed DIR", &set.sealed,
         "draw some answers of suspected accounts twice, send one by a coin, keep the other here"},
        {CLI_LIST, "--suspect ACCOUNT", &set.suspects,
         "an account that is suspected whatever the guard says (several times)"},
        {CLI_REAL, "--twins-share X", &set.twins_share,
         "of the requests of --suspect accounts that are drawn twice (default 0.02)"},
        {CLI_STRING, "--canaries FILE", &set.canaries,
         "rows {id, when, text, variants}: some answers of suspected accounts\nend with one (needs "
         "--sealed)"},
        {CLI_REAL, "--canaries-share X", &set.canaries_share,
         "of the requests of --suspect accounts that do (default 0.005; more is noticed)"},
        {CLI_STRING, "--watermark-own all|guard|nobody", &set.mark_own,
         "accounts with a key of their own; guard: from its rung watermark on (default all)"},
        {CLI_STRING, "--precision " CLI_PRECISIONS, &set.precision, "of the computation (default int8)"},
        {CLI_COUNT, "--threads N", &set.threads, "default: one a processor"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    server s = {.settings = &set, .log_lock = PTHREAD_MUTEX_INITIALIZER};
    rt_log_set(write_notice, &s, RT_LOG_WARNING);
    const int status = work(&s, &err);
    for (size_t i = 0; i < s.n_models; i++) {
        cli_serve_mark_close(&s.marks[i]);
        cli_model_close(&s.models[i]);
        free(s.ids[i]);
    }
    rt_tokenizer_close(s.counter);
    rt_pool_close(s.pool);
    rt_watch_close(s.watch);
    rt_twins_close(s.twins);
    rt_canaries_close(s.canaries);
    rt_capture_close(s.capture);
    rt_guard_reference_close(s.reference);
    rt_gate_close(s.gate);
    rt_log_set(NULL, NULL, RT_LOG_WARNING);
    if (s.log && s.log != stderr)
        (void)fclose(s.log);
    serve_live_close(s.live);
    return status;
}
