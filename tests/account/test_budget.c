/* tests/account/test_budget.c - what an account may spend is never passed: parallel requests, two servers,
 * random work, and a process killed under load. */
#include "account_help.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "account/gate_internal.h"
#include "base/rng.h"

static rt_gate_ask ask_of(const char *id, int64_t prompt, int64_t output)
{
    return (rt_gate_ask){.request_id = id,
                         .endpoint = "chat/completions",
                         .model = "m",
                         .address = "127.0.0.1",
                         .prompt_tokens = prompt,
                         .output_tokens = output,
                         .max_tokens = output};
}

/* --- 50 at once against a budget for 10 --- */

typedef struct one_request {
    rt_gate *gate;
    const client *who;
    pthread_barrier_t *start, *all_asked;
    int index;
    bool admitted, refused_rightly;
} one_request;

static void *one_request_run(void *context)
{
    one_request *r = context;
    rt_refusal refusal = {0};
    char id[64];
    (void)snprintf(id, sizeof id, "req_%d_%d", (int)getpid(), r->index);
    const rt_gate_ask ask = ask_of(id, 30, 70);
    const rt_caller *caller = rt_gate_authenticate(r->gate, r->who->secret, "127.0.0.1", &refusal);
    (void)pthread_barrier_wait(r->start);
    rt_ticket *ticket = caller ? rt_gate_admit(r->gate, caller, &ask, &refusal) : NULL;
    (void)pthread_barrier_wait(r->all_asked);
    r->admitted = ticket != NULL;
    r->refused_rightly = !ticket && refusal.http == 429 && strcmp(refusal.code, "insufficient_quota") == 0 &&
                         refusal.no_retry && refusal.retry_after_s < 0;
    rt_error err = {0};
    const rt_outcome outcome = {.input_tokens = 30, .output_tokens = 70, .http = 200, .outcome = "length"};
    if (ticket && rt_gate_settle_wait(r->gate, ticket, &outcome, &err) != RT_OK)
        r->admitted = false;
    rt_caller_release(caller);
    return NULL;
}

/* The number admitted, or -1 when something else went wrong. */
static int ask_at_once(const char *where, const client *who, int count)
{
    one_request requests[64] = {{0}};
    pthread_t threads[64];
    pthread_barrier_t start, all_asked;
    rt_gate *gate = open_gate(where, NULL);
    int admitted = 0;
    (void)pthread_barrier_init(&start, NULL, (unsigned)count);
    (void)pthread_barrier_init(&all_asked, NULL, (unsigned)count);
    for (int i = 0; i < count; i++) {
        requests[i] =
            (one_request){.gate = gate, .who = who, .start = &start, .all_asked = &all_asked, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, one_request_run, &requests[i]), 0);
    }
    for (int i = 0; i < count; i++) {
        (void)pthread_join(threads[i], NULL);
        admitted += requests[i].admitted;
        if (!requests[i].admitted && !requests[i].refused_rightly)
            admitted = -1000;
    }
    rt_gate_close(gate);
    (void)pthread_barrier_destroy(&start);
    (void)pthread_barrier_destroy(&all_asked);
    return admitted;
}

static client budget_client(const char *where, int64_t tokens)
{
    rt_desk *desk = open_desk(where);
    const client who = make_client(desk, json_pack("{s:{s:I}}", "budget", "amount", (json_int_t)tokens));
    rt_desk_close(desk);
    return who;
}

static void assert_spent(const char *where, const client *who, int64_t tokens, int64_t refused)
{
    char sql[200];
    const char *const subjects[] = {who->account, who->key};
    for (int i = 0; i < 2; i++) {
        (void)snprintf(sql, sizeof sql, "SELECT total_tokens FROM meters WHERE subject = '%s'", subjects[i]);
        assert_int_equal(query_int(where, sql), tokens);
        (void)snprintf(sql, sizeof sql, "SELECT reserved_tokens + running FROM meters WHERE subject = '%s'",
                       subjects[i]);
        assert_int_equal(query_int(where, sql), 0);
    }
    assert_int_equal(query_int(where, "SELECT SUM(input + output) FROM ledger"), tokens);
    assert_int_equal(query_int(where, "SELECT SUM(input + output) FROM sums WHERE width = 86400"), tokens);
    assert_int_equal(query_int(where, "SELECT SUM(limited) FROM sums WHERE width = 3600"), refused);
}

static void fifty_at_once_get_what_the_budget_allows_on_sqlite(void **state)
{
    (void)state;
    char where[300];
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_SQLITE));
    const client who = budget_client(where, 1099);
    assert_int_equal(ask_at_once(where, &who, 50), 10);
    assert_spent(where, &who, 1000, 40);
    /* 99 are left: the next needs 100. */
    assert_int_equal(ask_at_once(where, &who, 1), 0);
}

static void fifty_at_once_on_two_servers_get_what_the_budget_allows_on_postgres(void **state)
{
    (void)state;
    char where[300];
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_POSTGRES));
    const client who = budget_client(where, 1099);
    pid_t children[2];
    int admitted = 0;
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0)
            _exit(ask_at_once(where, &who, 25) & 0xff);
    }
    for (int i = 0; i < 2; i++) {
        int status = 0;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status));
        admitted += WEXITSTATUS(status);
    }
    assert_int_equal(admitted, 10);
    assert_spent(where, &who, 1000, 40);
}

/* --- random work --- */

enum { WORKERS = 6, ROUNDS = 150, BUDGET = 20000 };

typedef struct worker {
    rt_gate *gate;
    const client *who;
    uint64_t seed;
    int64_t used, refused;
} worker;

static void *worker_run(void *context)
{
    worker *w = context;
    rt_rng rng = rt_rng_make(w->seed, 1);
    rt_ticket *open[4] = {NULL};
    int64_t asked[4] = {0};
    rt_refusal refusal;
    char id[64];
    const rt_caller *caller = rt_gate_authenticate(w->gate, w->who->secret, "::1", &refusal);
    for (int i = 0; caller && i < ROUNDS + 4; i++) {
        const int place = i < ROUNDS ? (int)rt_rng_below(&rng, 4) : i - ROUNDS;
        if (open[place]) { /* from nothing at all to half more than was reserved, raised before or not */
            const int64_t used = (int64_t)rt_rng_below(&rng, (uint64_t)asked[place] * 3 / 2 + 1);
            const int64_t more = (int64_t)rt_rng_below(&rng, 40);
            if (rt_rng_below(&rng, 2) == 1 && rt_gate_raise(w->gate, open[place], more, &refusal))
                asked[place] += more;
            const rt_outcome outcome = {.input_tokens = used < 10 ? used : 10,
                                        .output_tokens = used < 10 ? 0 : used - 10,
                                        .http = 200,
                                        .outcome = "stop"};
            rt_gate_settle(w->gate, open[place], &outcome, NULL, NULL);
            open[place] = NULL;
            w->used += used < asked[place] ? used : asked[place];
        } else if (i < ROUNDS) {
            (void)snprintf(id, sizeof id, "req_%llu_%d", (unsigned long long)w->seed, i);
            asked[place] = 10 + (int64_t)rt_rng_below(&rng, 300);
            const rt_gate_ask ask = ask_of(id, 10, asked[place] - 10);
            open[place] = rt_gate_admit(w->gate, caller, &ask, &refusal);
            w->refused += !open[place];
        }
    }
    rt_caller_release(caller);
    return NULL;
}

static bool within_budget(rt_gate *gate, const char *where, const client *who)
{
    if (gate->shared)
        return query_int(where, "SELECT MAX(total_tokens + reserved_tokens) FROM meters") <= BUDGET;
    (void)pthread_mutex_lock(&gate->mutex);
    const account_entry *account = id_map_get(&gate->accounts, who->account);
    const rt_meter *meter = &account->counted.meter;
    const bool holds =
        rt_meter_settled(meter, &account->limits) + rt_meter_reserved(meter, &account->limits) <=
            account->limits.budget &&
        meter->reserved_tokens >= 0 && meter->running >= 0;
    (void)pthread_mutex_unlock(&gate->mutex);
    return holds;
}

static void random_work(backend kind)
{
    char where[300];
    (void)snprintf(where, sizeof where, "%s", fresh_database(kind));
    const client who = budget_client(where, BUDGET);
    rt_gate *gate = open_gate(where, NULL);
    worker workers[WORKERS];
    pthread_t threads[WORKERS];
    int64_t used = 0, refused = 0;
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (worker){.gate = gate, .who = &who, .seed = (uint64_t)i + 7};
        assert_int_equal(pthread_create(&threads[i], NULL, worker_run, &workers[i]), 0);
    }
    for (int i = 0; i < (kind == ON_SQLITE ? 2000 : 30); i++)
        assert_true(within_budget(gate, where, &who));
    for (int i = 0; i < WORKERS; i++) {
        (void)pthread_join(threads[i], NULL);
        used += workers[i].used;
        refused += workers[i].refused;
    }
    rt_gate_close(gate);
    assert_true(used <= BUDGET);
    assert_true(refused > 0);
    assert_spent(where, &who, used, refused);
}

static void settled_and_reserved_never_pass_the_budget_on_sqlite(void **state)
{
    (void)state;
    random_work(ON_SQLITE);
}
static void settled_and_reserved_never_pass_the_budget_on_postgres(void **state)
{
    (void)state;
    random_work(ON_POSTGRES);
}

/* --- killed under load --- */

typedef struct acknowledged { /* requests that the child has said are on the disk */
    int fd, count;
} acknowledged;

static void *settle_for_ever(void *context)
{
    worker *w = context;
    rt_refusal refusal;
    rt_error err = {0};
    char id[64];
    const rt_caller *caller = rt_gate_authenticate(w->gate, w->who->secret, "::1", &refusal);
    for (int i = 0; caller; i++) {
        (void)snprintf(id, sizeof id, "req_%llu_%d_%d", (unsigned long long)w->seed, (int)getpid(), i);
        const rt_gate_ask ask = ask_of(id, 10, 20);
        const rt_outcome outcome = {.input_tokens = 10, .output_tokens = 5, .http = 200, .outcome = "stop"};
        rt_ticket *ticket = rt_gate_admit(w->gate, caller, &ask, &refusal);
        if (ticket && rt_gate_settle_wait(w->gate, ticket, &outcome, &err) == RT_OK &&
            write((int)w->used, id, sizeof id) != (ssize_t)sizeof id)
            break;
    }
    return NULL;
}

static void child_works(const char *where, const client *who, int fd)
{
    rt_gate *gate = open_gate(where, NULL);
    worker workers[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        workers[i] = (worker){.gate = gate, .who = who, .seed = (uint64_t)i, .used = fd};
        (void)pthread_create(&threads[i], NULL, settle_for_ever, &workers[i]);
    }
    for (;;) { /* and the trail grows too */
        char path[100];
        (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s", who->account);
        json_t *body = json_pack("{s:s}", "contact", "x");
        rt_desk_reply reply = rt_admin_call(rt_gate_desk(gate), &full_admin, "PATCH", path, NULL, body);
        json_decref(body);
        json_decref(reply.body);
        (void)usleep(1000);
    }
}

/* Kills the child after `wanted` acknowledgements; all that it had acknowledged by then must be there. */
static int kill_once(const char *where, const client *who, int wanted, FILE *ids)
{
    int ends[2], count = 0;
    char id[64];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)close(ends[0]);
        child_works(where, who, ends[1]);
        _exit(1);
    }
    (void)close(ends[1]);
    while (read(ends[0], id, sizeof id) == (ssize_t)sizeof id) {
        (void)fprintf(ids, "%s\n", id);
        if (++count == wanted)
            (void)kill(child, SIGKILL);
    }
    (void)close(ends[0]);
    (void)waitpid(child, NULL, 0);
    return count;
}

static void assert_all_there(const char *where, FILE *ids)
{
    rt_db *db = NULL;
    rt_error err = {0};
    char id[80];
    assert_int_equal(rt_db_open(&db, where, &err), RT_OK);
    rewind(ids);
    while (fgets(id, sizeof id, ids)) {
        int64_t count = 0;
        bool found;
        id[strcspn(id, "\n")] = '\0';
        const rt_sql_value value = rt_sql_text(id);
        assert_int_equal(rt_db_get_int(db, "SELECT COUNT(*) FROM ledger WHERE request = $1", &value, 1,
                                       &count, &found, &err),
                         RT_OK);
        assert_int_equal(count, 1);
    }
    rt_db_close(db);
}

static void killed_under_load(backend kind)
{
    char where[300];
    (void)snprintf(where, sizeof where, "%s", fresh_database(kind));
    const client who = budget_client(where, 1000000000);
    rt_rng rng = rt_rng_make(11, 0);
    FILE *ids = tmpfile();
    int acknowledged_count = 0;
    assert_non_null(ids);
    for (int i = 0; i < 20; i++)
        acknowledged_count += kill_once(where, &who, 1 + (int)rt_rng_below(&rng, 40), ids);
    rt_gate_close(open_gate(where, NULL)); /* a server that comes after takes nothing for reserved */
    assert_true(acknowledged_count >= 20);
    assert_all_there(where, ids);
    (void)fclose(ids);
    const int64_t rows = query_int(where, "SELECT COUNT(*) FROM ledger WHERE http = 200");
    assert_true(rows >= acknowledged_count);
    assert_int_equal(query_int(where, "SELECT COUNT(DISTINCT request) FROM ledger WHERE http = 200"), rows);
    assert_int_equal(query_int(where, "SELECT SUM(requests - errors) FROM sums WHERE width = 86400"), rows);
    assert_int_equal(query_int(where, "SELECT MAX(total_tokens) FROM meters"), 15 * rows);
    assert_int_equal(query_int(where, "SELECT MAX(reserved_tokens) FROM meters"), 0);
    rt_desk *desk = open_desk(where);
    json_t *report = desk_call(desk, 200, "GET", "/admin/v1/audit/verify", NULL, NULL);
    assert_true(json_is_true(json_object_get(report, "valid")));
    assert_true(json_integer_value(json_object_get(report, "rows")) > 2);
    json_decref(report);
    rt_desk_close(desk);
}

static void killed_twenty_times_nothing_settled_is_lost_or_counted_twice_on_sqlite(void **state)
{
    (void)state;
    killed_under_load(ON_SQLITE);
}
static void killed_twenty_times_nothing_settled_is_lost_or_counted_twice_on_postgres(void **state)
{
    (void)state;
    killed_under_load(ON_POSTGRES);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fifty_at_once_get_what_the_budget_allows_on_sqlite),
        cmocka_unit_test(fifty_at_once_on_two_servers_get_what_the_budget_allows_on_postgres),
        cmocka_unit_test(settled_and_reserved_never_pass_the_budget_on_sqlite),
        cmocka_unit_test(settled_and_reserved_never_pass_the_budget_on_postgres),
        cmocka_unit_test(killed_twenty_times_nothing_settled_is_lost_or_counted_twice_on_sqlite),
        cmocka_unit_test(killed_twenty_times_nothing_settled_is_lost_or_counted_twice_on_postgres),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, start_databases, stop_databases);
}
