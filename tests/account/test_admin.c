/* tests/account/test_admin.c - the admin API on both databases: usage and requests add up, lists go on where
 * they stopped, roles, bad input, what is kept of prompts. */
#include "account_help.h"

#include <pthread.h>

#include <sys/wait.h>

#include "account/gate_internal.h"

#define DAY 86400
#define FIRST_S 1795564800 /* 2026-11-25 00:00 UTC */

static rt_ledger_row row_at(const client *who, int64_t at_s, const char *model, int http, int64_t input,
                            int64_t output)
{
    static int number;
    rt_ledger_row row = {
        .at_ms = at_s * 1000, .http = http, .input = input, .cached = 1, .output = output, .cost = 10};
    (void)snprintf(row.request, sizeof row.request, "req_%d", ++number);
    (void)snprintf(row.account, sizeof row.account, "%s", who->account);
    (void)snprintf(row.key, sizeof row.key, "%s", who->key);
    (void)snprintf(row.model, sizeof row.model, "%s", model);
    (void)snprintf(row.endpoint, sizeof row.endpoint, "chat/completions");
    (void)snprintf(row.outcome, sizeof row.outcome, "stop");
    return row;
}

static void write_rows(const char *where, rt_ledger_row *rows, size_t count)
{
    rt_db *db = NULL;
    rt_error err = {0};
    rt_secrets secrets;
    rt_ledger_row *pointers[16];
    for (size_t i = 0; i < count; i++)
        pointers[i] = &rows[i];
    assert_int_equal(rt_secrets_open(&secrets, secrets_path, where, &err), RT_OK);
    if (rt_db_open(&db, where, &err) != RT_OK ||
        rt_ledger_write(db, &secrets, pointers, count, 0, 0, FIRST_S, &err) != RT_OK)
        fail_msg("%s", err.text);
    rt_db_close(db);
}

static int64_t sum(const json_t *list, const char *key)
{
    int64_t out = 0;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(list, "data"), i, row) out +=
        json_integer_value(json_object_get(row, key));
    return out;
}

static void assert_usage(rt_desk *desk, const char *query, size_t lines, int64_t requests, int64_t output)
{
    json_t *list = desk_call(desk, 200, "GET", "/admin/v1/usage", query, NULL);
    assert_int_equal(json_array_size(json_object_get(list, "data")), lines);
    assert_int_equal(sum(list, "requests"), requests);
    assert_int_equal(sum(list, "output_tokens"), output);
    json_decref(list);
}

static void usage_adds_up(backend kind)
{
    char where[300], query[200];
    (void)snprintf(where, sizeof where, "%s", fresh_database(kind));
    rt_desk *desk = open_desk(where);
    const client a = make_client(desk, NULL), b = make_client(desk, NULL);
    rt_ledger_row rows[] = {
        row_at(&a, FIRST_S + 30, "m", 200, 100, 10),        row_at(&a, FIRST_S + 90, "m", 200, 100, 20),
        row_at(&a, FIRST_S + 3700, "n", 200, 100, 40),      row_at(&b, FIRST_S + 3700, "m", 200, 100, 80),
        row_at(&b, FIRST_S + DAY + 1, "m", 429, 0, 0),      row_at(&b, FIRST_S + DAY + 2, "m", 500, 0, 160),
        row_at(&a, FIRST_S + DAY + 3, "o'--", 499, 5, 320),
    };
    write_rows(where, rows, 4);
    write_rows(where, rows + 4, 3);
    (void)snprintf(query, sizeof query, "from=%d&to=%d", FIRST_S, FIRST_S + 2 * DAY);
    assert_usage(desk, query, 2, 7, 630);
    assert_usage(desk, "from=2026-11-25&to=2026-11-27&group_by=account", 4, 7, 630);
    assert_usage(desk, "from=2026-11-25&to=2026-11-26&group_by=account,model", 3, 4, 150);
    assert_usage(desk, "from=2026-11-25&to=2026-11-26&bucket=1h&group_by=key", 3, 4, 150);
    assert_usage(desk, "from=2026-11-25&to=2026-11-26&bucket=1m", 3, 4, 150);
    assert_usage(desk, "from=2026-11-25T00:01:00Z&to=2026-11-26&bucket=1d", 1, 3,
                 140); /* not at an hour's border */
    assert_usage(desk, "from=2026-11-25&to=2026-11-27&model=o%27--", 1, 1, 320);
    (void)snprintf(query, sizeof query, "from=2026-11-25&to=2026-11-27&account=%s", b.account);
    json_t *list = desk_call(desk, 200, "GET", "/admin/v1/usage", query, NULL);
    assert_int_equal(sum(list, "requests"), 3);
    assert_int_equal(sum(list, "errors"), 1);
    assert_int_equal(sum(list, "limited"), 1);
    assert_int_equal(sum(list, "cached_tokens"), 3);
    json_decref(list);
    (void)snprintf(query, sizeof query, "limit=2&account=%s", a.account);
    list = desk_call(desk, 200, "GET", "/admin/v1/requests", query, NULL);
    assert_int_equal(json_array_size(json_object_get(list, "data")), 2);
    assert_true(json_is_true(json_object_get(list, "has_more")));
    const json_t *newest = json_array_get(json_object_get(list, "data"), 0);
    assert_string_equal(json_string_value(json_object_get(newest, "model")), "o'--");
    (void)snprintf(query, sizeof query, "limit=5&account=%s&after=%s", a.account,
                   json_string_value(json_object_get(list, "last_id")));
    json_decref(list);
    list = desk_call(desk, 200, "GET", "/admin/v1/requests", query, NULL);
    assert_int_equal(json_array_size(json_object_get(list, "data")), 2);
    assert_false(json_is_true(json_object_get(list, "has_more")));
    json_decref(list);
    for (int shape = 0; shape < 3 * 64; shape++) { /* more statements than are kept */
        static const char *const buckets[] = {"1m", "1h", "1d"};
        (void)snprintf(query, sizeof query, "bucket=%s%s%s%s&group_by=model%s%s&from=%d", buckets[shape % 3],
                       shape & 64 ? "&account=x" : "", shape & 32 ? "&key=y" : "",
                       shape & 16 ? "&model=z" : "", shape & 8 ? ",key" : "", shape & 4 ? ",account" : "",
                       FIRST_S + (shape & 1));
        json_decref(desk_call(desk, 200, "GET", "/admin/v1/usage", query, NULL));
    }
    static const char *const bad[] = {"bucket=1y",       "group_by=;DROP", "from=x", "from=-1",
                                      "limit=x&from=1x", "a=%00",          "a=%zz",  "a=%1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        json_decref(desk_call(desk, 400, "GET", "/admin/v1/usage", bad[i], NULL));
    rt_desk_close(desk);
}

static void usage_adds_up_on_sqlite(void **state)
{
    (void)state;
    usage_adds_up(ON_SQLITE);
}
static void usage_adds_up_on_postgres(void **state)
{
    (void)state;
    usage_adds_up(ON_POSTGRES);
}

static void lists_go_on_and_texts_are_kept_as_they_are(backend kind)
{
    char where[300], query[200] = "limit=2";
    (void)snprintf(where, sizeof where, "%s", fresh_database(kind));
    rt_desk *desk = open_desk(where);
    static const char *const names[] = {"'; DROP TABLE accounts; --", "\"$1\" %s %n",
                                        "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "a", "a"};
    size_t seen = 0;
    for (size_t i = 0; i < 5; i++)
        json_decref(
            desk_call(desk, 201, "POST", "/admin/v1/accounts", NULL, json_pack("{s:s}", "name", names[i])));
    for (bool more = true; more;) {
        json_t *list = desk_call(desk, 200, "GET", "/admin/v1/accounts", query, NULL), *row;
        size_t i;
        json_array_foreach(json_object_get(list, "data"), i, row)
        {
            bool known = false;
            for (size_t k = 0; k < 5; k++)
                known = known || strcmp(json_string_value(json_object_get(row, "name")), names[k]) == 0;
            assert_true(known);
            seen++;
        }
        more = json_is_true(json_object_get(list, "has_more"));
        (void)snprintf(query, sizeof query, "limit=2&after=%s",
                       json_string_value(json_object_get(list, "last_id")));
        json_decref(list);
    }
    assert_int_equal(seen, 5);
    json_decref(
        desk_call(desk, 201, "POST", "/admin/v1/admins", NULL, json_pack("{s:s}", "role", "support")));
    static const char *const lists[] = {"/admin/v1/admins", "/admin/v1/cases", "/admin/v1/appeals",
                                        "/admin/v1/audit"};
    for (size_t i = 0; i < 4; i++) {
        json_t *list = desk_call(desk, 200, "GET", lists[i], "limit=3", NULL);
        assert_true(json_is_array(json_object_get(list, "data")));
        assert_string_equal(json_string_value(json_object_get(list, "object")), "list");
        json_decref(list);
    }
    json_t *verified = desk_call(desk, 200, "GET", "/admin/v1/audit/verify", NULL, NULL);
    assert_true(json_is_true(json_object_get(verified, "valid")));
    assert_int_equal(json_integer_value(json_object_get(verified, "rows")), 6);
    json_decref(verified);
    rt_desk_close(desk);
}

static void lists_go_on_on_sqlite(void **state)
{
    (void)state;
    lists_go_on_and_texts_are_kept_as_they_are(ON_SQLITE);
}
static void lists_go_on_on_postgres(void **state)
{
    (void)state;
    lists_go_on_and_texts_are_kept_as_they_are(ON_POSTGRES);
}

static void a_role_may_do_its_part_and_wrong_paths_and_bodies_say_so(void **state)
{
    (void)state;
    rt_desk *desk = open_desk(fresh_database(ON_SQLITE));
    const client who = make_client(desk, NULL);
    char account[100], suspend[120];
    (void)snprintf(account, sizeof account, "/admin/v1/accounts/%s", who.account);
    (void)snprintf(suspend, sizeof suspend, "%s/suspend", account);
    const struct {
        rt_admin_role role;
        const char *method, *path;
        int http;
    } cases[] = {{RT_ROLE_READ, "GET", account, 200},
                 {RT_ROLE_READ, "POST", suspend, 403},
                 {RT_ROLE_SUPPORT, "PATCH", account, 403},
                 {RT_ROLE_SUPPORT, "POST", suspend, 200},
                 {RT_ROLE_FULL, "DELETE", account, 405},
                 {RT_ROLE_FULL, "GET", "/admin/v1/nothing", 404},
                 {RT_ROLE_FULL, "GET", "/v1/accounts", 404},
                 {RT_ROLE_FULL, "GET", "/admin/v1/accounts/acc_none", 404},
                 {RT_ROLE_FULL, "GET", "/admin/v1/accounts//keys", 404},
                 {RT_ROLE_NONE, "GET", account, 403}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const rt_admin admin = {.role = cases[i].role, .name = "x"};
        rt_desk_reply reply = rt_admin_call(desk, &admin, cases[i].method, cases[i].path, NULL, NULL);
        assert_int_equal(reply.http, cases[i].http);
        assert_true(json_is_object(reply.body));
        json_decref(reply.body);
    }
    char *const huge = calloc(1, 10001);
    memset(huge, 'x', 10000);
    json_t *const bodies[] = {
        json_pack("{s:s}", "name", ""),
        json_pack("{s:i}", "name", 1),
        json_pack("{s:s}", "name", "a\nb"),
        json_pack("{s:s}", "name", huge),
        json_object(),
        json_array(),
        json_pack("{s:s, s:{s:f}}", "name", "x", "limits", "rpm", 1.5),
        json_pack("{s:s, s:{s:i}}", "name", "x", "limits", "tpm", -1),
        json_pack("{s:s, s:[]}", "name", "x", "limits"),
        json_pack("{s:s, s:{s:{s:i, s:s}}}", "name", "x", "limits", "budget", "amount", 1, "unit", "eur"),
        json_pack("{s:s, s:{s:{}}}", "name", "x", "limits", "budget"),
        json_pack("{s:s, s:{s:s}}", "name", "x", "permissions", "models", "m"),
        json_pack("{s:s, s:{s:{s:i}}}", "name", "x", "prices", "m", "input", 1),
        json_pack("{s:s, s:{s:s}}", "name", "x", "prompts", "keep", "full")};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        json_decref(desk_call(desk, 400, "POST", "/admin/v1/accounts", NULL, bodies[i]));
    free(huge);
    rt_desk_close(desk);
}

static void prompts_are_kept_by_policy_sealed_and_go_when_their_time_is_over(backend kind)
{
    char where[300], path[120];
    (void)snprintf(where, sizeof where, "%s", fresh_database(kind));
    rt_gate *gate = open_gate(where, NULL);
    rt_desk *desk = rt_gate_desk(gate);
    const client who = make_client(desk, NULL);
    static const char prompt[] = "the secret of the \x01 prompt";
    rt_refusal refusal;
    rt_error err = {0};
    (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s", who.account);
    json_decref(desk_call(desk, 200, "PATCH", path, NULL,
                          json_pack("{s:{s:b}, s:{s:s, s:i}}", "permissions", "prompt_log", 1, "prompts",
                                    "keep", "full", "days", 2)));
    const rt_caller *caller = rt_gate_authenticate(gate, who.secret, "::1", &refusal);
    assert_true(caller->wants_prompt);
    const rt_gate_ask ask = {
        .request_id = "req_p", .endpoint = "e\r\nx", .model = "m", .agent = "\x1b[31m", .user = "someone"};
    const rt_outcome outcome = {
        .http = 200, .outcome = "stop", .prompt = prompt, .prompt_size = sizeof prompt - 1};
    assert_int_equal(rt_gate_settle_wait(gate, rt_gate_admit(gate, caller, &ask, &refusal), &outcome, &err),
                     RT_OK);
    json_t *kept = desk_call(desk, 200, "GET", "/admin/v1/requests/req_p/prompt", NULL, NULL);
    assert_string_equal(json_string_value(json_object_get(kept, "text")), prompt);
    json_decref(kept);
    json_decref(desk_call(desk, 404, "GET", "/admin/v1/requests/req_q/prompt", NULL, NULL));
    json_t *list = desk_call(desk, 200, "GET", "/admin/v1/requests", NULL, NULL);
    const json_t *row = json_array_get(json_object_get(list, "data"), 0);
    assert_string_equal(json_string_value(json_object_get(row, "endpoint")), "e??x");
    assert_string_equal(json_string_value(json_object_get(row, "agent")), "?[31m");
    assert_int_equal(strlen(json_string_value(json_object_get(row, "user_hash"))), 32);
    json_decref(list);
    rt_caller_release(caller);
    rt_gate_close(gate);
    rt_db *db = NULL;
    assert_int_equal(rt_db_open(&db, where, &err), RT_OK);
    const int64_t now_s = query_int(where, "SELECT MAX(at) FROM ledger") / 1000;
    assert_int_equal(rt_ledger_prune(db, now_s + 2 * DAY - 5, 0, &err), RT_OK);
    assert_int_equal(query_int(where, "SELECT COUNT(*) FROM prompts"), 1);
    assert_int_equal(rt_ledger_prune(db, now_s + 2 * DAY + 5, 1, &err), RT_OK);
    assert_int_equal(query_int(where, "SELECT COUNT(*) FROM prompts"), 0);
    assert_int_equal(query_int(where, "SELECT COUNT(*) FROM ledger"), 0);
    rt_db_close(db);
}

static void prompts_are_kept_on_sqlite(void **state)
{
    (void)state;
    prompts_are_kept_by_policy_sealed_and_go_when_their_time_is_over(ON_SQLITE);
}
static void prompts_are_kept_on_postgres(void **state)
{
    (void)state;
    prompts_are_kept_by_policy_sealed_and_go_when_their_time_is_over(ON_POSTGRES);
}

static void a_newer_schema_is_refused(backend kind)
{
    char where[300];
    rt_db *db = NULL;
    rt_error err = {0};
    (void)snprintf(where, sizeof where, "%s", fresh_database(kind));
    assert_int_equal(rt_db_open(&db, where, &err), RT_OK);
    assert_int_equal(rt_db_script(db, "INSERT INTO schema_versions VALUES (1000)", &err), RT_OK);
    rt_db_close(db);
    assert_int_equal(rt_db_open(&db, where, &err), RT_UNSUPPORTED);
    assert_non_null(strstr(err.text, "newer"));
}

static void a_newer_schema_is_refused_on_sqlite(void **state)
{
    (void)state;
    a_newer_schema_is_refused(ON_SQLITE);
}
static void a_newer_schema_is_refused_on_postgres(void **state)
{
    (void)state;
    a_newer_schema_is_refused(ON_POSTGRES);
}

static void a_server_that_died_gives_back_what_it_had_reserved(void **state)
{
    (void)state;
    char where[300];
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_POSTGRES));
    rt_desk *desk = open_desk(where);
    const client who = make_client(desk, json_pack("{s:{s:i}}", "budget", "amount", 100));
    rt_desk_close(desk);
    const pid_t child = fork();
    assert_true(child >= 0);
    rt_refusal refusal;
    const rt_gate_ask ask = {
        .request_id = "req_x", .endpoint = "e", .model = "m", .prompt_tokens = 50, .output_tokens = 50};
    if (child == 0) {
        rt_gate *gate = open_gate(where, NULL);
        const rt_caller *caller = rt_gate_authenticate(gate, who.secret, "::1", &refusal);
        _exit(caller && rt_gate_admit(gate, caller, &ask, &refusal) ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(query_int(where, "SELECT MAX(reserved_tokens) FROM meters"), 100);
    rt_ticket *ticket = NULL;
    for (int i = 0; i < 100 && !ticket; i++) { /* until PostgreSQL has noticed that the connection is gone */
        rt_gate *gate = open_gate(where, NULL);
        const rt_caller *caller = rt_gate_authenticate(gate, who.secret, "::1", &refusal);
        ticket = rt_gate_admit(gate, caller, &ask, &refusal);
        const rt_outcome outcome = {.http = 200, .input_tokens = 50, .output_tokens = 50, .outcome = "stop"};
        if (ticket)
            rt_gate_settle(gate, ticket, &outcome, NULL, NULL);
        rt_caller_release(caller);
        rt_gate_close(gate);
        (void)usleep(ticket ? 0 : 20000);
    }
    assert_non_null(ticket);
    assert_int_equal(query_int(where, "SELECT MAX(total_tokens * 1000 + reserved_tokens) FROM meters"),
                     100000);
}

/* What a server has written without its sums when it dies. */
static void rows_without_their_sums_are_in_the_usage_and_are_added_once(void **state)
{
    (void)state;
    char where[300];
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_SQLITE));
    rt_desk *desk = open_desk(where);
    const client who = make_client(desk, NULL);
    rt_ledger_row rows[] = {row_at(&who, FIRST_S + 10, "a", 200, 7, 5),
                            row_at(&who, FIRST_S + 20, "a", 429, 0, 0),
                            row_at(&who, FIRST_S + 30, "nobody's", 404, 0, 0),
                            row_at(&who, FIRST_S + 3700, "a", 200, 9, 4)},
                  *pointers[] = {&rows[0], &rows[1], &rows[2], &rows[3]};
    rt_db *db = NULL;
    rt_error err = {0};
    rt_secrets secrets;
    assert_int_equal(rt_secrets_open(&secrets, secrets_path, where, &err), RT_OK);
    assert_int_equal(rt_db_open(&db, where, &err), RT_OK);
    assert_int_equal(rt_ledger_append(db, &secrets, pointers, 3, 0, &err), RT_OK);
    assert_int_equal(rt_ledger_sum(db, pointers, 1, FIRST_S, &err), RT_OK);
    assert_int_equal(rt_ledger_append(db, &secrets, &pointers[3], 1, 3, &err), RT_OK);
    for (int turn = 0; turn < 3; turn++) {
        assert_usage(desk, "from=1795564800&bucket=1d", 1, 4, 9);
        assert_usage(desk, "from=1795564800&bucket=1h", 2, 4, 9);
        assert_usage(desk, "from=1795564800&bucket=1h&group_by=model", 3, 4, 9);
        assert_int_equal(query_int(where, "SELECT SUM(requests) FROM sums WHERE width = 3600"), turn ? 4 : 1);
        if (turn == 0) { /* the next server, and the one before after all */
            rt_gate_close(open_gate(where, NULL));
            assert_int_equal(rt_ledger_sum(db, &pointers[1], 3, FIRST_S, &err), RT_OK);
        }
    }
    assert_int_equal(query_int(where, "SELECT MAX(total_tokens) FROM meters"), 9 + 4);
    /* ids are never given twice, though the newest rows are gone */
    int64_t last = 0;
    assert_int_equal(rt_db_script(db, "DELETE FROM ledger", &err), RT_OK);
    assert_int_equal(rt_ledger_last_id(db, &last, &err), RT_OK);
    assert_int_equal(last, 4);
    rt_db_close(db);
    rt_desk_close(desk);
}

/* ---- reviewers ---- */

typedef struct reviewer { /* a session on a server of its own */
    rt_desk *desk;
    const char *path, *outcome;
    pthread_barrier_t *together;
    int http;
    char message[400];
} reviewer;

static void *decide(void *context)
{
    reviewer *r = context;
    json_t *body = json_pack("{s:s, s:s, s:s, s:s}", "outcome", r->outcome, "note", "seen", "reason", "bulk",
                             "seen", "");
    (void)pthread_barrier_wait(r->together);
    rt_desk_reply reply = rt_admin_call(r->desk, &full_admin, "POST", r->path, NULL, body);
    const char *message = json_string_value(json_object_get(json_object_get(reply.body, "error"), "message"));
    r->http = reply.http;
    (void)snprintf(r->message, sizeof r->message, "%s", message ? message : "");
    json_decref(reply.body);
    json_decref(body);
    return NULL;
}

/* Both at once; exactly one is done, and the other is told what that was. */
static void assert_one_decides(rt_desk *desks[2], const char *path, const char *const outcomes[2],
                               const char *const told[2])
{
    pthread_barrier_t together;
    pthread_t threads[2];
    reviewer reviewers[2];
    assert_int_equal(pthread_barrier_init(&together, NULL, 2), 0);
    for (int i = 0; i < 2; i++) {
        reviewers[i] =
            (reviewer){.desk = desks[i], .path = path, .outcome = outcomes[i], .together = &together};
        assert_int_equal(pthread_create(&threads[i], NULL, decide, &reviewers[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    const int first = reviewers[0].http < 300 ? 0 : 1, second = 1 - first;
    assert_true(reviewers[first].http < 300);
    assert_int_equal(reviewers[second].http, 409);
    if (!strstr(reviewers[second].message, told[first]) ||
        !strstr(reviewers[second].message, full_admin.name))
        fail_msg("'%s' does not say '%s' by %s", reviewers[second].message, told[first], full_admin.name);
    (void)pthread_barrier_destroy(&together);
}

static void two_reviewers_at_once_decide_once(backend kind)
{
    char where[300], path[120];
    (void)snprintf(where, sizeof where, "%s", fresh_database(kind));
    rt_desk *desks[2] = {open_desk(where), open_desk(where)};
    static const char *const same[2] = {"uphold", "uphold"}, *const other[2] = {"reinstate", "uphold"},
                             *const suspended[2] = {"account.suspend", "account.suspend"};
    enum { TURNS = 8 };
    for (int turn = 0; turn < TURNS; turn++) {
        const client c = make_client(desks[0], NULL);
        (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s/suspend", c.account);
        assert_one_decides(desks, path, same, suspended);
        json_t *account =
            desk_call(desks[1], 200, "GET",
                      (snprintf(path, sizeof path, "/admin/v1/accounts/%s", c.account), path), NULL, NULL);
        (void)snprintf(path, sizeof path, "/admin/v1/cases/%s/decide",
                       json_string_value(json_object_get(account, "case")));
        json_decref(account);
        assert_one_decides(desks, path, turn % 2 ? same : other, turn % 2 ? same : other);
    }
    assert_int_equal(query_int(where, "SELECT COUNT(*) FROM audit WHERE action = 'account.suspend'"), TURNS);
    assert_int_equal(query_int(where, "SELECT COUNT(*) FROM audit WHERE action = 'case.decide'"), TURNS);
    json_t *check = desk_call(desks[0], 200, "GET", "/admin/v1/audit/verify", NULL, NULL);
    assert_true(json_is_true(json_object_get(check, "valid")));
    json_decref(check);
    rt_desk_close(desks[0]);
    rt_desk_close(desks[1]);
}

static void two_reviewers_at_once_decide_once_on_sqlite(void **state)
{
    (void)state;
    two_reviewers_at_once_decide_once(ON_SQLITE);
}

static void two_reviewers_at_once_decide_once_on_postgres(void **state)
{
    (void)state;
    two_reviewers_at_once_decide_once(ON_POSTGRES);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_adds_up_on_sqlite),
        cmocka_unit_test(usage_adds_up_on_postgres),
        cmocka_unit_test(lists_go_on_on_sqlite),
        cmocka_unit_test(lists_go_on_on_postgres),
        cmocka_unit_test(a_role_may_do_its_part_and_wrong_paths_and_bodies_say_so),
        cmocka_unit_test(two_reviewers_at_once_decide_once_on_sqlite),
        cmocka_unit_test(two_reviewers_at_once_decide_once_on_postgres),
        cmocka_unit_test(prompts_are_kept_on_sqlite),
        cmocka_unit_test(prompts_are_kept_on_postgres),
        cmocka_unit_test(a_newer_schema_is_refused_on_sqlite),
        cmocka_unit_test(a_newer_schema_is_refused_on_postgres),
        cmocka_unit_test(rows_without_their_sums_are_in_the_usage_and_are_added_once),
        cmocka_unit_test(a_server_that_died_gives_back_what_it_had_reserved),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, start_databases, stop_databases);
}
