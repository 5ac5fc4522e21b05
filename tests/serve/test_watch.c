/* tests/serve/test_watch.c - the guard's state over kills and servers: each server is a process of its own
 * that is told what to do, and is killed in the middle of it. */
#include "account/account_help.h"

#include <signal.h>
#include <sys/wait.h>

#include "account/guard_store.h"
#include "guard/record.h"
#include "serve/watch.h"

enum { ACCOUNTS = 5, ROWS_MAX = 4000, WAIT_MS = 60000 };

/* Any account has these p-values, so that each is decided about: observed, then slowed. */
static const char policy_text[] = "observe: {p: 1}\nwatermark: {p: 0}\ntwins: {p: 0}\nslow: {p: 1}\n"
                                  "logprobs: {p: 0}\nreasoning: {p: 0}\nchallenge: {p: 0}\nsuspend: {p: 0}\n"
                                  "ladder: {requests_min: 26, accuse_by: p}\n";

static client clients[ACCOUNTS];

/* ---- a server ---- */

typedef enum order { SERVE, AWAIT_JUDGED, AWAIT_LEAD, DUMP, CLOSE } order;
typedef struct message {
    order what;
    int64_t count;
    char path[100];
} message;

#define CHECK(holds)                                                                                         \
    do {                                                                                                     \
        if (!(holds)) {                                                                                      \
            (void)fprintf(stderr, "%s:%d: %s does not hold in a server\n", __FILE__, __LINE__, #holds);      \
            _exit(9);                                                                                        \
        }                                                                                                    \
    } while (0)

typedef struct server {
    rt_gate *gate;
    rt_guard_policy_file *policy;
    rt_watch *watch;
    int64_t served;
} server;

static void open_server(server *s, const char *where, const char *state)
{
    rt_error err = {0};
    const rt_gate_options gate = {.db = where, .secrets = secrets_path};
    CHECK(rt_guard_policy_read(&s->policy, policy_text, sizeof policy_text - 1, "policy", &err) == RT_OK);
    CHECK(rt_gate_open(&s->gate, &gate, &err) == RT_OK);
    const rt_watch_options options = {.policy = s->policy, .gate = s->gate, .state_path = state};
    if (rt_watch_open(&s->watch, &options, &err) != RT_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
        _exit(9);
    }
}

static rt_guard_span span(const char *text) { return (rt_guard_span){text, strlen(text)}; }

/* One request from admission to its ledger row; the traffic's own time goes on by a minute. */
static void serve_one(server *s, int64_t i)
{
    rt_refusal refusal;
    rt_error err = {0};
    char id[48], prompt[200];
    const client *c = &clients[(size_t)i % ACCOUNTS];
    (void)snprintf(id, sizeof id, "req_%d_%lld", (int)getpid(), (long long)i);
    (void)snprintf(prompt, sizeof prompt,
                   i % 7 == 0 ? "Where is parcel %lld?\nIt should have come."
                              : "Solve number %lld step by step and show all the work.",
                   (long long)i);
    const rt_caller *caller = rt_gate_authenticate(s->gate, c->secret, "127.0.0.1", &refusal);
    CHECK(caller);
    const rt_gate_ask ask = {.request_id = id,
                             .endpoint = "chat/completions",
                             .model = "m",
                             .prompt_tokens = 9,
                             .output_tokens = 9};
    rt_ticket *ticket = rt_gate_admit(s->gate, caller, &ask, &refusal);
    if (!ticket)
        (void)fprintf(stderr, "%s\n", refusal.message);
    CHECK(ticket);
    const rt_guard_event event = {.ts = 1.8e9 + 60.0 * (double)i,
                                  .account = span(caller->account),
                                  .ip = span("10.0.0.1"),
                                  .user_agent = span("test"),
                                  .model = span("m"),
                                  .prompt = span(prompt),
                                  .request = span(id),
                                  .created = caller->created,
                                  .temperature = 0.5F,
                                  .n = 1,
                                  .prompt_tokens = 9,
                                  .completion_tokens = (uint32_t)(i % 9)};
    const rt_watch_note note = rt_watch_note_of(s->watch, &event);
    CHECK(note.record && !note.line);
    const rt_outcome outcome = {.input_tokens = 9,
                                .output_tokens = 1,
                                .http = 200,
                                .outcome = "stop",
                                .record = note.record,
                                .record_size = note.size};
    CHECK(rt_gate_settle_wait(s->gate, ticket, &outcome, &err) == RT_OK);
    rt_caller_release(caller);
}

static json_t *write_accounts(void *context, const rt_guard *guard, const rt_ladders *ladders)
{
    FILE *file = fopen(context, "wb");
    CHECK(file);
    (void)ladders;
    for (size_t i = 0; i < rt_guard_count(guard); i++)
        CHECK(fwrite(rt_guard_account_at(guard, i), sizeof(rt_guard_account), 1, file) == 1);
    CHECK(fclose(file) == 0);
    return NULL;
}

static void obey(server *s, message *m)
{
    switch (m->what) {
    case SERVE:
        for (int64_t i = 0; i < m->count; i++)
            serve_one(s, s->served++);
        break;
    case AWAIT_JUDGED:
        for (int ms = 0; (int64_t)rt_watch_counts_of(s->watch).judged < m->count && ms < WAIT_MS; ms += 10)
            (void)usleep(10000);
        m->count = (int64_t)rt_watch_counts_of(s->watch).judged;
        break;
    case AWAIT_LEAD:
        for (int ms = 0; !rt_watch_counts_of(s->watch).leads && ms < m->count; ms += 10)
            (void)usleep(10000);
        m->count = rt_watch_counts_of(s->watch).leads;
        break;
    case DUMP:
        (void)rt_watch_view(s->watch, write_accounts, m->path);
        break;
    case CLOSE:
        rt_watch_close(s->watch);
        rt_gate_close(s->gate);
        rt_guard_policy_close(s->policy);
        break;
    }
}

typedef struct process {
    pid_t pid;
    int to, from;
} process;

static process start_server(const char *where, const char *state, int64_t first)
{
    int to[2], from[2];
    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        server s = {.served = first};
        message m = {0};
        open_server(&s, where, state);
        (void)close(to[1]);
        (void)close(from[0]);
        CHECK(write(from[1], &m, sizeof m) == sizeof m);
        while (read(to[0], &m, sizeof m) == sizeof m) {
            obey(&s, &m);
            CHECK(write(from[1], &m, sizeof m) == sizeof m);
        }
        _exit(0);
    }
    (void)close(to[0]);
    (void)close(from[1]);
    return (process){pid, to[1], from[0]};
}

static void send_order(const process *p, order what, int64_t count, const char *path)
{
    message m = {.what = what, .count = count};
    (void)snprintf(m.path, sizeof m.path, "%s", path ? path : "");
    assert_int_equal(write(p->to, &m, sizeof m), sizeof m);
}

static int64_t await(const process *p)
{
    message m;
    if (read(p->from, &m, sizeof m) != sizeof m)
        fail_msg("a server has ended");
    return m.count;
}

static int64_t ask(const process *p, order what, int64_t count, const char *path)
{
    send_order(p, what, count, path);
    return await(p);
}

static void end(process *p, int by)
{
    int status;
    if (by)
        assert_int_equal(kill(p->pid, by), 0);
    (void)close(p->to);
    (void)close(p->from);
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    assert_true(by ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- what the rows say ---- */

typedef struct kept_rows {
    size_t n;
    rt_guard_row_kept rows[ROWS_MAX];
    uint64_t key;
} kept_rows;
static kept_rows kept;

/* Rows that are new since the last time: a server drops those that its state has seen. */
static void keep_rows(const char *where)
{
    rt_error err = {0};
    rt_gate *gate = NULL;
    rt_guard_store *store = NULL;
    size_t n = 1;
    const rt_gate_options options = {.db = where, .secrets = secrets_path};
    if (rt_gate_open(&gate, &options, &err) != RT_OK || rt_guard_store_open(&store, gate, &err) != RT_OK)
        fail_msg("%s", err.text);
    while (n > 0) {
        const int64_t after = kept.n ? kept.rows[kept.n - 1].number : 0;
        assert_int_equal(rt_guard_store_read(store, after, ROWS_MAX - kept.n, kept.rows + kept.n, &n, &err),
                         RT_OK);
        kept.n += n;
    }
    kept.key = rt_guard_store_key(store);
    rt_guard_store_close(store);
    rt_gate_close(gate);
}

static void forget_rows(void)
{
    for (size_t i = 0; i < kept.n; i++)
        free(kept.rows[i].data);
    kept.n = 0;
}

/* The accounts in the file are, to the bit, those of a guard that is given all rows, one after the other. */
static void assert_replayed(const char *path)
{
    rt_error err = {0};
    rt_guard *guard = NULL;
    rt_ladders *ladders = NULL;
    rt_guard_policy_file *policy = NULL;
    rt_guard_options options = {.key = kept.key};
    rt_guard_account account;
    assert_int_equal(rt_guard_policy_read(&policy, policy_text, sizeof policy_text - 1, "policy", &err),
                     RT_OK);
    rt_guard_policy_apply(policy, &options);
    assert_int_equal(rt_guard_open(&guard, &options, &err), RT_OK);
    assert_int_equal(rt_ladders_open(&ladders, guard, rt_guard_policy_of(policy), NULL, &err), RT_OK);
    for (size_t i = 0; i < kept.n; i++) {
        rt_guard_record record;
        rt_guard_verdict verdict;
        assert_int_equal(kept.rows[i].number, i + 1);
        assert_int_equal(rt_guard_record_read(&record, kept.key, kept.rows[i].data, kept.rows[i].size, &err),
                         RT_OK);
        assert_int_equal(rt_ladders_feed_record(ladders, &record, &verdict, &err), RT_OK);
    }
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(rt_guard_count(guard), ACCOUNTS);
    for (size_t i = 0; i < ACCOUNTS; i++) {
        assert_int_equal(fread(&account, sizeof account, 1, file), 1);
        assert_memory_equal(&account, rt_guard_account_at(guard, i), sizeof account);
    }
    assert_int_equal(fgetc(file), EOF);
    (void)fclose(file);
    rt_ladders_close(ladders);
    rt_guard_close(guard);
    rt_guard_policy_close(policy);
}

/* Each account was observed once and slowed once, whatever died meanwhile. */
static void assert_decided_once(const char *where)
{
    assert_int_equal(query_int(where, "SELECT COUNT(*) FROM cases WHERE actor = 'guard'"), 2 * ACCOUNTS);
    assert_int_equal(query_int(where, "SELECT COUNT(*) FROM accounts WHERE state = 'throttled'"), ACCOUNTS);
    assert_int_equal(query_int(where, "SELECT COUNT(*) FROM audit WHERE actor = 'guard'"), 2 * ACCOUNTS);
}

static void make_clients(const char *where)
{
    rt_desk *desk = open_desk(where);
    for (size_t i = 0; i < ACCOUNTS; i++)
        clients[i] = make_client(desk, json_pack("{s:i, s:i}", "rpm", 1000000, "tpm", 100000000));
    rt_desk_close(desk);
    forget_rows();
}

static void a_server_that_is_killed_loses_no_request_and_decides_nothing_twice(void **state)
{
    (void)state;
    char where[300], file[100], dump[100];
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_SQLITE));
    (void)snprintf(file, sizeof file, "%s/guard.state", base_folder);
    (void)snprintf(dump, sizeof dump, "%s/dump", base_folder);
    make_clients(where);
    process p = start_server(where, file, 0);
    (void)await(&p);
    (void)ask(&p, SERVE, 100, NULL); /* observed, not slowed yet */
    assert_int_equal(ask(&p, AWAIT_JUDGED, 100, NULL), 100);
    end(&p, SIGKILL); /* before any state was written */
    keep_rows(where);
    p = start_server(where, file, 100);
    (void)await(&p);
    (void)ask(&p, SERVE, 150, NULL);
    end(&p, SIGKILL);
    keep_rows(where);
    p = start_server(where, file, 250);
    (void)await(&p);
    (void)ask(&p, CLOSE, 0, NULL); /* the state is written, and the rows go */
    end(&p, 0);
    assert_int_equal(query_int(where, "SELECT COUNT(*) FROM guard_rows"), 1);
    p = start_server(where, file, 250);
    (void)await(&p);
    send_order(&p, SERVE, 300, NULL);
    for (int ms = 0; query_int(where, "SELECT COUNT(*) FROM ledger") < 320 && ms < WAIT_MS; ms += 5)
        (void)usleep(5000);
    end(&p, SIGKILL); /* in the middle of a request */
    p = start_server(where, file, 600);
    (void)await(&p);
    (void)ask(&p, SERVE, 60, NULL);
    (void)ask(&p, AWAIT_JUDGED, query_int(where, "SELECT COUNT(*) FROM ledger") - 250, NULL);
    (void)ask(&p, DUMP, 0, dump);
    end(&p, SIGKILL);
    keep_rows(where);
    assert_int_equal(kept.n, query_int(where, "SELECT COUNT(*) FROM ledger"));
    assert_true(kept.n >= 380);
    assert_replayed(dump);
    assert_decided_once(where);
}

static void servers_share_what_they_know_and_one_goes_on_when_the_judging_one_dies(void **state)
{
    (void)state;
    char where[300], dumps[2][100];
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_POSTGRES));
    for (int i = 0; i < 2; i++)
        (void)snprintf(dumps[i], sizeof dumps[i], "%s/dump-%d", base_folder, i);
    make_clients(where);
    process a = start_server(where, NULL, 0);
    (void)await(&a);
    assert_int_equal(ask(&a, AWAIT_LEAD, WAIT_MS, NULL), 1);
    process b = start_server(where, NULL, 1000);
    (void)await(&b);
    send_order(&a, SERVE, 60, NULL);
    send_order(&b, SERVE, 60, NULL);
    (void)await(&a);
    (void)await(&b);
    assert_int_equal(ask(&a, AWAIT_JUDGED, 120, NULL), 120);
    assert_int_equal(ask(&b, AWAIT_JUDGED, 120, NULL), 120);
    assert_int_equal(ask(&b, AWAIT_LEAD, 0, NULL), 0);
    (void)ask(&a, DUMP, 0, dumps[0]);
    (void)ask(&b, DUMP, 0, dumps[1]);
    keep_rows(where);
    assert_replayed(dumps[0]);
    assert_replayed(dumps[1]);
    send_order(&a, SERVE, 500, NULL);
    send_order(&b, SERVE, 300, NULL);
    for (int ms = 0; query_int(where, "SELECT COUNT(*) FROM ledger") < 160 && ms < WAIT_MS; ms += 5)
        (void)usleep(5000);
    end(&a, SIGKILL);
    (void)await(&b);
    assert_int_equal(ask(&b, AWAIT_LEAD, WAIT_MS, NULL), 1);
    const int64_t rows = query_int(where, "SELECT COUNT(*) FROM ledger");
    assert_int_equal(query_int(where, "SELECT COUNT(*) FROM guard_rows"), rows);
    assert_int_equal(ask(&b, AWAIT_JUDGED, rows, NULL), rows);
    (void)ask(&b, DUMP, 0, dumps[1]);
    keep_rows(where);
    assert_int_equal(kept.n, rows);
    assert_replayed(dumps[1]);
    assert_decided_once(where);
    /* one that comes later begins with the state in the database */
    (void)ask(&b, CLOSE, 0, NULL);
    end(&b, 0);
    process c = start_server(where, NULL, 2000);
    (void)await(&c);
    (void)ask(&c, SERVE, 40, NULL);
    assert_int_equal(ask(&c, AWAIT_JUDGED, 40, NULL), 40);
    (void)ask(&c, DUMP, 0, dumps[0]);
    end(&c, SIGKILL);
    keep_rows(where);
    assert_replayed(dumps[0]);
    assert_decided_once(where);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_that_is_killed_loses_no_request_and_decides_nothing_twice),
        cmocka_unit_test(servers_share_what_they_know_and_one_goes_on_when_the_judging_one_dies),
    };
    const int status = cmocka_run_group_tests(tests, start_databases, stop_databases);
    forget_rows();
    return status;
}
