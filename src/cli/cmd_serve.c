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
#include "cli/upstreams.h"
#include "cli/serve_marks.h"
#include "serve/serve.h"

enum { ADMIN_PORT = 8081, ADMIN_PORT_ANY = 1 << 20 }; /* any: not given */

typedef struct settings {
    cli_rest models;
    cli_list aliases, origins, upstreams, proxies;
    const char *upstream_key_env;
    const char *host, *precision, *log, *db, *secrets, *terms, *prices, *admin_host;
    size_t port, admin_port, slots, context, queue, prefill, threads, connections, timeout, drain;
    const char *policy, *guard_state, *guard_log, *asn, *reference;
    bool insecure, open_tokenizer, metrics_open, ledger_behind, guard;
    const char *reasoning;
    cli_mark_options mark;
    const char *mark_own;
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
    rt_serve_alias aliases[CLI_LIST_MAX];
    char *alias_words[CLI_LIST_MAX];
    size_t n_aliases;
    cli_upstreams upstreams;
    rt_network proxies[CLI_LIST_MAX];
    FILE *log;
    pthread_mutex_t log_lock;
    rt_gate *gate; /* NULL: no accounts */
    rt_terms *terms;
    json_t *prices;
    rt_guard_reference *reference;
    rt_guard_policy_file *policy;
    rt_watch *watch; /* NULL: nobody is judged */
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

static rt_status open_models(server *s, rt_error *err)
{
    const cli_rest *names = &s->settings->models;
    if (s->settings->upstreams.count > 0) {
        if (names->count > 0)
            return rt_error_set(err, RT_INVALID, "serve: a gateway (--upstream) has no models of its own");
        if (s->settings->mark.key)
            return rt_error_set(
                err, RT_INVALID,
                "serve: a gateway draws no tokens and cannot mark: --watermark belongs to the "
                "server behind it");
        if (s->settings->aliases.count > 0)
            return rt_error_set(err, RT_INVALID,
                                "serve: a gateway has no --alias: say models=NAME=REMOTE in --upstream");
        return cli_upstreams_read(&s->upstreams, &s->settings->upstreams, s->settings->upstream_key_env, err);
    }
    if (names->count == 0)
        return rt_error_set(err, RT_INVALID, "serve: a MODEL is needed; retort help serve shows examples");
    if (names->count > RT_SERVE_MODELS_MAX)
        return rt_error_set(err, RT_INVALID, "serve: at most %d models", RT_SERVE_MODELS_MAX);
    for (size_t i = 0; i < names->count; i++)
        if (open_one(s, names->items[i], err) != RT_OK)
            return err->status;
    return RT_OK;
}

/* NAME=MODEL, or NAME for the first model. */
static rt_status read_aliases(server *s, rt_error *err)
{
    for (size_t i = 0; i < s->settings->aliases.count; i++) {
        char *word = s->alias_words[i] = strdup(s->settings->aliases.items[i]);
        if (!word)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for an alias");
        char *equals = strchr(word, '=');
        const char *model = s->ids[0];
        if (equals) {
            *equals = '\0';
            model = NULL;
            for (size_t k = 0; k < s->n_models; k++)
                if (strcmp(s->ids[k], equals + 1) == 0)
                    model = s->ids[k];
            if (!model)
                return rt_error_set(err, RT_INVALID,
                                    "serve: --alias %.80s: there is no model %.100s; it is called %.100s",
                                    word, equals + 1, s->ids[0]);
        }
        s->aliases[s->n_aliases++] = (rt_serve_alias){word, model};
    }
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

/* SIGHUP: the log file is opened again, so that it can be rotated; requests are not disturbed. */
static void reload(void *context)
{
    rt_error err = {0};
    if (open_log(context, &err) != RT_OK)
        (void)fprintf(stderr, "retort: %s\n", err.text);
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
    if (status == RT_OK && set->terms)
        status = rt_terms_open(&s->terms, set->terms, err);
    if (status == RT_OK && set->prices &&
        (status = rt_json_read(&s->prices, set->prices, 1 << 20, err)) == RT_OK)
        status = rt_prices_check(s->prices, err);
    if (status == RT_OK && (named || rt_path_exists(path))) {
        const rt_gate_options options = {
            .db = path, .secrets = secrets, .terms = s->terms, .prices = s->prices};
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
    if (!set->guard && !set->policy && !set->guard_state && !set->guard_log)
        return RT_OK;
    if (!s->gate)
        return rt_error_set(err, RT_INVALID,
                            "serve: the guard judges accounts, and there are none: 'retort account create'");
    if ((set->reference && rt_guard_reference_read(&s->reference, set->reference, err) != RT_OK) ||
        rt_guard_policy_open(&s->policy, set->policy, err) != RT_OK)
        return err->status;
    const rt_watch_options options = {.guard = {.reference = s->reference, .asn_path = set->asn},
                                      .policy = s->policy,
                                      .desk = rt_gate_desk(s->gate),
                                      .state_path = set->guard_state,
                                      .log_path = set->guard_log};
    return rt_watch_open(&s->watch, &options, err);
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

static rt_status read_proxies(server *s, rt_error *err)
{
    const cli_list *list = &s->settings->proxies;
    for (size_t i = 0; i < list->count; i++)
        if (!rt_network_parse(&s->proxies[i], list->items[i]))
            return rt_error_set(err, RT_INVALID,
                                "serve: --trusted-proxy %.80s: expected an address or a network such as "
                                "10.0.0.0/8",
                                list->items[i]);
    return RT_OK;
}

/* ---- running ---- */

static rt_status serve(server *s, rt_error *err)
{
    const settings *set = s->settings;
    rt_serve_options options = rt_serve_options_default();
    options.models = s->served;
    options.n_models = s->n_models;
    options.aliases = s->aliases;
    options.n_aliases = s->n_aliases;
    options.upstreams = s->upstreams.items;
    options.n_upstreams = s->upstreams.count;
    options.ledger_behind = set->ledger_behind;
    options.host = set->host;
    options.port = (int)set->port;
    options.n_slots = set->slots;
    options.n_positions = set->context;
    options.prefill_tokens = set->prefill;
    options.queue_max = set->queue;
    options.request_timeout_s = (double)set->timeout;
    options.drain_s = (double)set->drain;
    options.open_tokenizer = set->open_tokenizer;
    options.metrics_open = set->metrics_open;
    options.reasoning = strcmp(set->reasoning, "none") != 0;
    options.origins = set->origins.items;
    options.n_origins = set->origins.count;
    options.http.connections_max = set->connections;
    options.http.trusted = s->proxies;
    options.http.n_trusted = set->proxies.count;
    options.log = set->log ? write_log : NULL;
    options.reload = reload;
    options.context = s;
    options.gate = s->gate;
    options.watch = s->watch;
    options.terms = s->terms;
    options.admin_host = strcmp(set->admin_host, "none") == 0 ? NULL : set->admin_host;
    options.admin_port_any = set->admin_port == ADMIN_PORT_ANY;
    options.admin_port = options.admin_port_any ? ADMIN_PORT : (int)set->admin_port;
    options.signals = true;
    rt_serve *open = NULL;
    if (rt_serve_open(&open, &options, err) != RT_OK)
        return err->status;
    (void)fprintf(stderr, "retort: %s on http://%s:%d/v1 (%zu slots)\n", s->n_models ? s->ids[0] : "gateway",
                  set->host, rt_serve_port(open), s->n_models ? set->slots : 0);
    if (rt_serve_admin_port(open))
        (void)fprintf(stderr, "retort: admin API on http://%s:%d/admin/v1\n", set->admin_host,
                      rt_serve_admin_port(open));
    if (!s->gate)
        (void)fprintf(stderr, "retort: no accounts: everybody on %s is served\n",
                      is_loopback(set->host) ? "this machine" : "the network");
    const rt_status status = rt_serve_run(open, err);
    rt_serve_close(open);
    return status;
}

static int work(server *s, rt_error *err)
{
    const settings *set = s->settings;
    if (open_accounts(s, err) != RT_OK || open_guard(s, err) != RT_OK || check_host(s, err) != RT_OK ||
        read_proxies(s, err) != RT_OK || open_log(s, err) != RT_OK ||
        rt_pool_open(&s->pool, (unsigned)rt_size_min(set->threads, 1 << 16), err) != RT_OK ||
        open_models(s, err) != RT_OK || read_aliases(s, err) != RT_OK || serve(s, err) != RT_OK)
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
                    .timeout = 600,
                    .drain = 30,
                    .connections = 16384,
                    .mark = {.alpha = 0.3},
                    .mark_own = "all"};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Serves models to OpenAI-compatible clients: chat/completions, completions (with echo scoring),\n"
         "models, tokenize, detokenize, health, ready, metrics; streams as server-sent events. SIGTERM lets\n"
         "running answers finish, SIGHUP opens the log file again. Where there are accounts (retort account\n"
         "create) every request needs a key; without any only this machine is served.\n\n"
         "Examples:\n  retort serve smollm2-135m-instruct\n"
         "  retort serve teacher.gguf student/ --port 9000 --alias gpt-4o-mini=student --log access.jsonl"},
        {CLI_REST, "[MODEL...]", &set.models, "GGUF files, folders, or models that were pulled"},
        {CLI_STRING, "--host ADDRESS", &set.host, "where to listen (default 127.0.0.1)"},
        {CLI_COUNT, "--port N", &set.port, "0 takes a free one (default 8080)"},
        {CLI_LIST, "--alias NAME[=MODEL]", &set.aliases, "another name for a model (several times)"},
        {CLI_COUNT, "--slots N", &set.slots, "sequences side by side, of each model (default 16)"},
        {CLI_COUNT, "--context N", &set.context, "tokens of prompt and answer (default: the model's)"},
        {CLI_COUNT, "--queue N", &set.queue, "requests that may wait (default 256)"},
        {CLI_COUNT, "--prefill N", &set.prefill, "prompt tokens between two decoding steps (default 256)"},
        {CLI_COUNT, "--request-timeout SECONDS", &set.timeout,
         "the longest a request may take (default 600)"},
        {CLI_COUNT, "--drain SECONDS", &set.drain, "how long SIGTERM waits for answers (default 30)"},
        {CLI_COUNT, "--connections N", &set.connections, "at most so many at a time (default 16384)"},
        {CLI_STRING, "--reasoning-format deepseek|none", &set.reasoning,
         "think tags go to reasoning_content, or stay in the text (default deepseek)"},
        {CLI_LIST, "--cors ORIGIN", &set.origins, "a web origin that may call (several times)"},
        {CLI_LIST, "--trusted-proxy NETWORK", &set.proxies,
         "believe its X-Forwarded-For: an address, or 10.0.0.0/8 (several times)"},
        {CLI_FLAG, "--open-tokenizer", &set.open_tokenizer, "tokenizer endpoints need no key"},
        {CLI_FLAG, "--metrics-open", &set.metrics_open, "/metrics needs no key"},
        {CLI_FLAG, "--insecure", &set.insecure, "serve other machines without accounts"},
        {CLI_STRING, "--db PATH", &set.db,
         "accounts: a file, postgres://USER@HOST/NAME, or none (default: accounts.db)"},
        {CLI_STRING, "--secrets FILE", &set.secrets, "the database's keys (default: beside its file)"},
        {CLI_STRING, "--terms FILE", &set.terms, "terms of use that accounts must have accepted"},
        {CLI_STRING, "--prices FILE", &set.prices, "money per million tokens by model, as JSON"},
        {CLI_STRING, "--admin-host ADDRESS", &set.admin_host,
         "of the admin API, or none (default 127.0.0.1)"},
        {CLI_COUNT, "--admin-port N", &set.admin_port,
         "0 takes a free one (default 8081, or a free one when that is taken)"},
        {CLI_LIST, "--upstream URL", &set.upstreams,
         "a gateway to this server, no models (several times); + key-env= weight= models="},
        {CLI_STRING, "--upstream-key-env NAME", (void *)&set.upstream_key_env,
         "the environment's variable with the upstreams' key"},
        {CLI_FLAG, "--ledger-behind", &set.ledger_behind,
         "a gateway's answers do not wait for the disk; a crash may lose the last rows"},
        {CLI_FLAG, "--guard", &set.guard, "judge every request; the ladder of responses as in --policy"},
        {CLI_STRING, "--policy FILE", &set.policy, "the ladder's thresholds (YAML); implies --guard"},
        {CLI_STRING, "--guard-state FILE", &set.guard_state, "what the guard knows, kept over restarts"},
        {CLI_STRING, "--guard-log FILE", &set.guard_log,
         "appends each request as 'retort guard replay' reads it (it holds prompts)"},
        {CLI_STRING, "--asn FILE", &set.asn, "classes of networks, as in 'retort guard replay'"},
        {CLI_STRING, "--reference FILE", &set.reference, "another reference than the built-in one"},
        {CLI_STRING, "--log FILE", &set.log, "access log, a line of JSON a request (-: standard error)"},
        CLI_MARK_ROWS(set.mark),
        {CLI_STRING, "--watermark-own all|guard|nobody", &set.mark_own,
         "accounts with a key of their own beside the common one; guard: from its rung watermark on (default "
         "all)"},
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
    for (size_t i = 0; i < CLI_LIST_MAX; i++)
        free(s.alias_words[i]);
    cli_upstreams_deinit(&s.upstreams);
    rt_pool_close(s.pool);
    rt_watch_close(s.watch);
    rt_guard_policy_close(s.policy);
    rt_guard_reference_close(s.reference);
    rt_gate_close(s.gate);
    rt_log_set(NULL, NULL, RT_LOG_WARNING);
    if (s.log && s.log != stderr)
        (void)fclose(s.log);
    rt_terms_close(s.terms);
    json_decref(s.prices);
    return status;
}
