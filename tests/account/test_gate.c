/* tests/account/test_gate.c - keys, states, limits and their headers, on a clock of the test's own. */
#include <sys/wait.h>

#include "account_help.h"

#include "account/gate_internal.h"
#include "account/key.h"

/* Milliseconds of both clocks; the writer thread reads them too. */
#define FIRST_MS 1795564800000 /* 2026-11-25 00:00 UTC */
static _Atomic int64_t test_unix_ms = FIRST_MS;

static double monotonic_s(void *context)
{
    (void)context;
    return (double)(test_unix_ms - FIRST_MS) / 1000 + 1000;
}
static int64_t unix_ms(void *context)
{
    (void)context;
    return test_unix_ms;
}
static const rt_time_source test_clock = {monotonic_s, unix_ms, NULL};

static void pass_seconds(double seconds) { test_unix_ms += (int64_t)(seconds * 1000); }

typedef struct stage {
    char where[300];
    rt_gate *gate;
    rt_desk *desk;
    rt_refusal refusal;
} stage;

static stage open_stage(backend kind)
{
    stage s = {0};
    test_unix_ms = FIRST_MS;
    (void)snprintf(s.where, sizeof s.where, "%s", fresh_database(kind));
    s.gate = open_gate(s.where, &test_clock);
    s.desk = rt_gate_desk(s.gate);
    return s;
}

static void close_stage(stage *s) { rt_gate_close(s->gate); }

static const rt_caller *enter(stage *s, const char *key)
{
    s->refusal = (rt_refusal){0};
    return rt_gate_authenticate(s->gate, key, "192.0.2.1", &s->refusal);
}

static rt_ticket *admit(stage *s, const rt_caller *caller, int64_t prompt, int64_t output)
{
    static int number;
    char id[40];
    (void)snprintf(id, sizeof id, "req_%d", ++number);
    const rt_gate_ask ask = {.request_id = id,
                             .endpoint = "chat/completions",
                             .model = "m",
                             .prompt_tokens = prompt,
                             .output_tokens = output,
                             .max_tokens = output};
    s->refusal = (rt_refusal){0};
    return rt_gate_admit(s->gate, caller, &ask, &s->refusal);
}

static void settle(stage *s, rt_ticket *ticket, int64_t input, int64_t output)
{
    rt_error err = {0};
    const rt_outcome outcome = {
        .input_tokens = input, .output_tokens = output, .http = 200, .outcome = "stop"};
    assert_non_null(ticket);
    assert_int_equal(rt_gate_settle_wait(s->gate, ticket, &outcome, &err), RT_OK);
}

static json_t *change(stage *s, const char *account, const char *tail, json_t *body)
{
    char path[120];
    (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s%s", account, tail);
    return desk_call(s->desk, 200, *tail ? "POST" : "PATCH", path, NULL, body);
}

#define assert_refused(s, status, the_type, the_code)                                                        \
    do {                                                                                                     \
        assert_int_equal((s).refusal.http, status);                                                          \
        assert_string_equal((s).refusal.type, the_type);                                                     \
        assert_string_equal((s).refusal.code, the_code);                                                     \
        assert_true((s).refusal.message[0] != '\0');                                                         \
    } while (0)

static void keys_are_told_apart_and_never_echoed(backend kind)
{
    stage s = open_stage(kind);
    const client who = make_client(s.desk, NULL);
    char wrong[100];
    const rt_caller *caller = enter(&s, who.secret);
    assert_non_null(caller);
    assert_string_equal(caller->account, who.account);
    assert_string_equal(caller->key, who.key);
    rt_caller_release(caller);
    assert_null(enter(&s, NULL));
    assert_refused(s, 401, "authentication_error", "missing_api_key");
    assert_true(s.refusal.authenticate);
    (void)snprintf(wrong, sizeof wrong, "%s", who.secret);
    wrong[strlen(wrong) - 1] = wrong[strlen(wrong) - 1] == 'A' ? 'B' : 'A';
    const char *const bad[] = {wrong,
                               "x",
                               "sk-rt-",
                               "sk-rt-aaaaaaaa-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                               "sk-rt-' OR 1=1 --",
                               "sk-rt-admin-aaaaaaaa-"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(enter(&s, bad[i]));
        assert_refused(s, 401, "authentication_error", "invalid_api_key");
        assert_null(strstr(s.refusal.message, "sk-rt"));
    }
    close_stage(&s);
}

static void keys_are_told_apart_on_sqlite(void **state)
{
    (void)state;
    keys_are_told_apart_and_never_echoed(ON_SQLITE);
}
static void keys_are_told_apart_on_postgres(void **state)
{
    (void)state;
    keys_are_told_apart_and_never_echoed(ON_POSTGRES);
}

static void an_address_that_guesses_is_slowed_and_a_right_key_is_not(void **state)
{
    (void)state;
    stage s = open_stage(ON_SQLITE);
    const client who = make_client(s.desk, NULL);
    int unauthorised = 0, slowed = 0;
    for (int i = 0; i < 40; i++) {
        assert_null(enter(&s, "sk-rt-aaaaaaaa-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
        unauthorised += s.refusal.http == 401;
        slowed += s.refusal.http == 429 && s.refusal.retry_after_s > 0;
    }
    assert_int_equal(unauthorised, 20);
    assert_int_equal(slowed, 20);
    const rt_caller *caller = enter(&s, who.secret);
    assert_non_null(caller);
    rt_caller_release(caller);
    assert_null(rt_gate_authenticate(s.gate, "x", "198.51.100.2", &s.refusal));
    assert_int_equal(s.refusal.http, 401);
    pass_seconds(60);
    assert_null(enter(&s, "x"));
    assert_int_equal(s.refusal.http, 401);
    close_stage(&s);
}

static void a_revoked_or_expired_key_says_so_at_the_next_request(void **state)
{
    (void)state;
    stage s = open_stage(ON_SQLITE);
    const client who = make_client(s.desk, NULL), other = make_client(s.desk, NULL);
    char path[80];
    rt_desk *elsewhere = open_desk(s.where); /* as a command does, while the server runs */
    (void)snprintf(path, sizeof path, "/admin/v1/keys/%s", who.key);
    const rt_caller *caller = enter(&s, who.secret);
    rt_ticket *running = admit(&s, caller, 1, 1);
    json_decref(desk_call(elsewhere, 200, "DELETE", path, NULL, NULL));
    assert_null(enter(&s, who.secret));
    assert_refused(s, 401, "authentication_error", "revoked_api_key");
    assert_false(rt_gate_still_allowed(s.gate, running));
    settle(&s, running, 1, 0);
    rt_caller_release(caller);
    (void)snprintf(path, sizeof path, "/admin/v1/keys/%s", other.key);
    rt_desk_set_clock(elsewhere, &test_clock);
    json_decref(desk_call(elsewhere, 200, "PATCH", path, NULL, json_pack("{s:i}", "expires_in", 10)));
    rt_caller_release(enter(&s, other.secret));
    assert_int_equal(s.refusal.http, 0);
    pass_seconds(11);
    assert_null(enter(&s, other.secret));
    assert_refused(s, 401, "authentication_error", "expired_api_key");
    rt_desk_close(elsewhere);
    close_stage(&s);
}

/* A stream goes on beyond its minute, and the next request waits for it. */
static void a_raise_passes_the_minute_and_the_next_request_waits(void **state)
{
    (void)state;
    stage s = open_stage(ON_SQLITE);
    const client who = make_client(s.desk, json_pack("{s:i}", "tpm", 100));
    const rt_caller *caller = enter(&s, who.secret);
    rt_ticket *running = admit(&s, caller, 50, 40);
    assert_true(rt_gate_raise(s.gate, running, 60, &s.refusal)); /* 150 of 100 */
    settle(&s, running, 50, 100);
    assert_null(admit(&s, caller, 5, 5));
    assert_refused(s, 429, "tokens", "rate_limit_exceeded");
    assert_true(s.refusal.retry_after_s > 30 && s.refusal.retry_after_s < 40); /* 60 tokens at 100 a minute */
    pass_seconds(30);
    assert_null(admit(&s, caller, 5, 5));
    pass_seconds(7);
    settle(&s, admit(&s, caller, 5, 5), 5, 5);
    rt_caller_release(caller);
    close_stage(&s);
}

static void a_rotated_key_overlaps_and_its_spending_goes_on(void **state)
{
    (void)state;
    stage s = open_stage(ON_SQLITE);
    const client who = make_client(s.desk, NULL);
    char path[80];
    (void)snprintf(path, sizeof path, "/admin/v1/keys/%s", who.key);
    json_decref(desk_call(s.desk, 200, "PATCH", path, NULL,
                          json_pack("{s:{s:{s:i}}}", "limits", "budget", "amount", 100)));
    const rt_caller *caller = enter(&s, who.secret);
    settle(&s, admit(&s, caller, 50, 40), 50, 40);
    (void)snprintf(path, sizeof path, "/admin/v1/keys/%s/rotate", who.key);
    json_t *key = desk_call(s.desk, 201, "POST", path, NULL, json_pack("{s:i}", "overlap", 60));
    const rt_caller *rotated = enter(&s, json_string_value(json_object_get(key, "secret")));
    assert_non_null(rotated);
    assert_null(admit(&s, rotated, 5, 6));
    assert_refused(s, 429, "insufficient_quota", "insufficient_quota");
    settle(&s, admit(&s, rotated, 5, 5), 5, 5);
    pass_seconds(61);
    assert_null(enter(&s, who.secret));
    assert_string_equal(s.refusal.code, "expired_api_key");
    rt_caller_release(caller);
    rt_caller_release(rotated);
    json_decref(key);
    close_stage(&s);
}

static void a_suspended_account_is_refused_with_its_case_and_can_appeal(backend kind)
{
    stage s = open_stage(kind);
    const client who = make_client(s.desk, NULL);
    const rt_caller *caller = enter(&s, who.secret);
    rt_ticket *running = admit(&s, caller, 1, 1);
    json_t *account =
        change(&s, who.account, "/suspend",
               json_pack("{s:s, s:s}", "reason", "internal", "public_reason", "bulk collection"));
    const char *case_id = json_string_value(json_object_get(account, "case"));
    assert_true(strncmp(case_id, "case_", 5) == 0);
    assert_false(rt_gate_still_allowed(s.gate, running));
    settle(&s, running, 1, 0);
    assert_false(rt_gate_check_state(s.gate, caller, &s.refusal));
    assert_refused(s, 403, "permission_error", "account_suspended");
    assert_non_null(strstr(s.refusal.message, case_id));
    assert_non_null(strstr(s.refusal.message, "bulk collection"));
    assert_null(strstr(s.refusal.message, "internal"));
    assert_true(s.refusal.no_retry);
    json_t *statement = json_pack("{s:s}", "statement", "It was a benchmark.");
    rt_desk_reply first =
        rt_own_view_call(s.desk, caller, NULL, "POST", "/v1/account/appeals", NULL, statement);
    rt_desk_reply second =
        rt_own_view_call(s.desk, caller, NULL, "POST", "/v1/account/appeals", NULL, statement);
    rt_desk_reply own = rt_own_view_call(s.desk, caller, NULL, "GET", "/v1/account", NULL, NULL);
    assert_int_equal(first.http, 201);
    assert_string_equal(json_string_value(json_object_get(first.body, "state")), "open");
    assert_string_equal(json_string_value(json_object_get(first.body, "case")), case_id);
    assert_int_equal(second.http, 409);
    assert_int_equal(own.http, 200);
    assert_string_equal(json_string_value(json_object_get(own.body, "state")), "suspended");
    char path[100];
    (void)snprintf(path, sizeof path, "/admin/v1/cases/%s/decide", case_id);
    json_decref(desk_call(s.desk, 200, "POST", path, NULL,
                          json_pack("{s:s, s:s}", "outcome", "reduce", "note", "n")));
    rt_caller_release(enter(&s, who.secret));
    assert_true(rt_gate_check_state(s.gate, caller, &s.refusal)); /* throttled is served */
    json_decref(desk_call(s.desk, 200, "POST", path, NULL, json_pack("{s:s}", "outcome", "reinstate")));
    json_decref(desk_call(s.desk, 409, "POST", path, NULL, json_pack("{s:s}", "outcome", "reinstate")));
    rt_caller_release(caller);
    json_decref(first.body);
    json_decref(second.body);
    json_decref(own.body);
    json_decref(statement);
    json_decref(account);
    close_stage(&s);
}

static void a_suspended_account_can_appeal_on_sqlite(void **state)
{
    (void)state;
    a_suspended_account_is_refused_with_its_case_and_can_appeal(ON_SQLITE);
}
static void a_suspended_account_can_appeal_on_postgres(void **state)
{
    (void)state;
    a_suspended_account_is_refused_with_its_case_and_can_appeal(ON_POSTGRES);
}

static void a_suspension_until_a_time_ends_by_itself_and_is_in_the_trail(void **state)
{
    (void)state;
    stage s = open_stage(ON_SQLITE);
    const client who = make_client(s.desk, NULL);
    const rt_caller *caller = enter(&s, who.secret);
    json_decref(
        change(&s, who.account, "/suspend",
               json_pack("{s:s, s:I}", "reason", "r", "until", (json_int_t)(test_unix_ms / 1000 + 60))));
    rt_caller_release(enter(&s, who.secret));
    assert_false(rt_gate_check_state(s.gate, caller, &s.refusal));
    pass_seconds(61);
    assert_true(rt_gate_check_state(s.gate, caller, &s.refusal));
    settle(&s, admit(&s, caller, 1, 1), 1, 1);
    size_t found = 0;
    for (int i = 0; i < 500 && found == 0; i++) { /* the writer thread does it */
        json_t *trail =
            desk_call(s.desk, 200, "GET", "/admin/v1/audit", "actor=system&action=account.reinstate", NULL);
        found = json_array_size(json_object_get(trail, "data"));
        json_decref(trail);
        (void)usleep(10000);
    }
    assert_int_equal(found, 1);
    rt_caller_release(caller);
    close_stage(&s);
}

static void terms_must_be_accepted_in_the_version_in_force(void **state)
{
    (void)state;
    static const char yaml[] =
        "version: '2026-11'\ndistillation: by_agreement\nlink: https://example.org/terms\n";
    rt_terms *terms = NULL;
    rt_error err = {0};
    char where[300];
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_SQLITE));
    assert_int_equal(rt_terms_read(&terms, yaml, strlen(yaml), "terms", &err), RT_OK);
    assert_int_equal(rt_terms_distillation(terms), RT_DISTILLATION_BY_AGREEMENT);
    rt_gate *gate = NULL;
    const rt_gate_options options = {.db = where, .secrets = secrets_path, .terms = terms};
    assert_int_equal(rt_gate_open(&gate, &options, &err), RT_OK);
    const client who = make_client(rt_gate_desk(gate), NULL);
    rt_refusal refusal = {0};
    const rt_caller *caller = rt_gate_authenticate(gate, who.secret, "::1", &refusal);
    assert_false(rt_gate_check_state(gate, caller, &refusal));
    assert_int_equal(refusal.http, 403);
    assert_string_equal(refusal.code, "terms_not_accepted");
    assert_non_null(strstr(refusal.message, "https://example.org/terms"));
    json_t *old = json_pack("{s:s}", "version", "2025-01"), *now = json_pack("{s:s}", "version", "2026-11");
    rt_desk_reply replies[2] = {
        rt_own_view_call(rt_gate_desk(gate), caller, terms, "POST", "/v1/account/terms", NULL, old),
        rt_own_view_call(rt_gate_desk(gate), caller, terms, "POST", "/v1/account/terms", NULL, now)};
    assert_int_equal(replies[0].http, 409);
    assert_int_equal(replies[1].http, 200);
    rt_caller_release(rt_gate_authenticate(gate, who.secret, "::1", &refusal));
    assert_true(rt_gate_check_state(gate, caller, &refusal));
    for (int i = 0; i < 2; i++)
        json_decref(replies[i].body);
    json_decref(old);
    json_decref(now);
    rt_caller_release(caller);
    rt_gate_close(gate);
    rt_terms_close(terms);
    static const char *const bad[] = {"version: x\n", "version: x\ndistillation: perhaps\nlink: y\n",
                                      "version: ''\ndistillation: allowed\nlink: y\n", "[]"};
    for (size_t i = 0; i < 4; i++)
        assert_int_not_equal(rt_terms_read(&terms, bad[i], strlen(bad[i]), "terms", &err), RT_OK);
}

/* --- limits --- */

static void each_limit_refuses_what_is_over_it(backend kind)
{
    stage s = open_stage(kind);
    const client who = make_client(
        s.desk, json_pack("{s:i, s:i, s:i, s:i}", "rpm", 6, "tpm", 1000, "tpd", 2500, "concurrency", 2));
    const rt_caller *caller = enter(&s, who.secret);
    assert_null(admit(&s, caller, 500, 501)); /* more than the bucket ever holds */
    assert_refused(s, 400, "invalid_request_error", "invalid_value");
    rt_ticket *a = admit(&s, caller, 100, 300), *b = admit(&s, caller, 100, 300);
    assert_non_null(a);
    assert_non_null(b);
    assert_null(admit(&s, caller, 1, 1));
    assert_refused(s, 429, "concurrency", "rate_limit_exceeded");
    assert_true(s.refusal.retry_after_s > 0);
    settle(&s, b, 100, 300);
    assert_null(admit(&s, caller, 100, 300));
    assert_refused(s, 429, "tokens", "rate_limit_exceeded");
    assert_true(s.refusal.retry_after_s > 11.9 &&
                s.refusal.retry_after_s < 12.1); /* 200 over at 1000 a minute */
    settle(&s, a, 100, 0);                       /* 300 come back */
    rt_limit_view view = rt_gate_limits(s.gate, caller);
    if (kind == ON_SQLITE) {
        assert_int_equal(view.limit_tokens, 1000);
        assert_int_equal(view.remaining_tokens, 500);
        assert_int_equal(view.limit_requests, 6);
        assert_int_equal(view.remaining_requests, 2);
        assert_true(view.reset_tokens_s > 29.9 && view.reset_tokens_s < 30.1);
    }
    settle(&s, admit(&s, caller, 100, 400), 100, 400);
    assert_null(admit(&s, caller, 1, 1)); /* refused for tokens: costs the sixth request */
    assert_refused(s, 429, "tokens", "rate_limit_exceeded");
    assert_null(admit(&s, caller, 1, 0));
    assert_refused(s, 429, "requests", "rate_limit_exceeded");
    assert_true(s.refusal.retry_after_s > 9.9 && s.refusal.retry_after_s < 10.1);
    for (int i = 0; i < 3; i++) { /* 1000 are used today; 1500 more are let pass */
        pass_seconds(60);
        settle(&s, admit(&s, caller, 100, 400), 100, 400);
    }
    pass_seconds(60);
    assert_null(admit(&s, caller, 1, 0));
    assert_refused(s, 429, "tokens", "rate_limit_exceeded");
    assert_true(s.refusal.no_retry && s.refusal.retry_after_s <= 120);
    pass_seconds(86400);
    settle(&s, admit(&s, caller, 100, 400), 100, 400);
    rt_caller_release(caller);
    close_stage(&s);
}

static void each_limit_refuses_what_is_over_it_on_sqlite(void **state)
{
    (void)state;
    each_limit_refuses_what_is_over_it(ON_SQLITE);
}
static void each_limit_refuses_what_is_over_it_on_postgres(void **state)
{
    (void)state;
    each_limit_refuses_what_is_over_it(ON_POSTGRES);
}

static void a_budget_in_money_is_kept_and_begins_anew_with_its_period(void **state)
{
    (void)state;
    stage s = open_stage(ON_SQLITE);
    const client who = make_client(s.desk, json_pack("{s:{s:f, s:s, s:s}}", "budget", "amount", 0.001, "unit",
                                                     "usd", "period", "month"));
    const rt_caller *caller = enter(&s, who.secret);
    assert_null(admit(&s, caller, 1, 1)); /* no price: nothing is served at price nothing */
    assert_refused(s, 403, "permission_error", "model_not_allowed");
    json_decref(change(
        &s, who.account, "",
        json_pack("{s:{s:{s:i, s:f, s:i}}}", "prices", "default", "input", 1, "cached", 0.5, "output", 2)));
    rt_caller_release(enter(&s, who.secret));
    settle(&s, admit(&s, caller, 400, 300), 400, 300); /* 400 + 600 = 1000 millionths: all of it */
    assert_null(admit(&s, caller, 1, 0));
    assert_refused(s, 429, "insufficient_quota", "insufficient_quota");
    assert_true(s.refusal.no_retry);
    pass_seconds(5 * 86400);
    assert_null(admit(&s, caller, 1, 0));
    pass_seconds(2 * 86400); /* 2 December */
    settle(&s, admit(&s, caller, 400, 300), 400, 300);
    rt_caller_release(caller);
    close_stage(&s);
}

static void what_was_spent_is_known_after_a_restart(void **state)
{
    (void)state;
    stage s = open_stage(ON_SQLITE);
    const client who = make_client(s.desk, json_pack("{s:{s:i}}", "budget", "amount", 100));
    const rt_caller *caller = enter(&s, who.secret);
    settle(&s, admit(&s, caller, 50, 45), 50, 45);
    rt_ticket *open = admit(&s, caller, 2, 2);
    settle(&s, open, 0, 0);
    rt_caller_release(caller);
    rt_gate_close(s.gate);
    s.gate = open_gate(s.where, &test_clock);
    caller = enter(&s, who.secret);
    assert_null(admit(&s, caller, 3, 3));
    settle(&s, admit(&s, caller, 3, 2), 3, 2);
    rt_caller_release(caller);
    close_stage(&s);
}

static void permissions_close_models_and_features(void **state)
{
    (void)state;
    stage s = open_stage(ON_SQLITE);
    const client who = make_client(s.desk, json_pack("{s:i, s:i}", "max_tokens", 50, "top_logprobs", 5));
    json_decref(change(&s, who.account, "", json_pack("{s:{s:[s]}}", "permissions", "models", "a/b")));
    const rt_caller *caller = enter(&s, who.secret);
    assert_int_equal(caller->max_tokens, 50);
    rt_gate_ask ask = {.model = "a/b", .max_tokens = 50, .top_logprobs = 5};
    assert_true(rt_gate_check_ask(s.gate, caller, &ask, &s.refusal));
    ask.model = "other";
    assert_false(rt_gate_check_ask(s.gate, caller, &ask, &s.refusal));
    assert_refused(s, 403, "permission_error", "model_not_allowed");
    ask = (rt_gate_ask){.model = "a/b", .top_logprobs = 6};
    assert_false(rt_gate_check_ask(s.gate, caller, &ask, &s.refusal));
    assert_refused(s, 403, "permission_error", "feature_not_allowed");
    ask = (rt_gate_ask){.model = "a/b", .score = true};
    assert_false(rt_gate_check_ask(s.gate, caller, &ask, &s.refusal));
    rt_caller_release(caller);
    close_stage(&s);
}

static void a_second_server_on_one_file_is_refused(void **state)
{
    (void)state;
    stage s = open_stage(ON_SQLITE);
    rt_gate *second = NULL;
    rt_error err = {0};
    const rt_gate_options options = {.db = s.where, .secrets = secrets_path};
    assert_int_equal(rt_gate_open(&second, &options, &err), RT_BUSY);
    assert_null(second);
    close_stage(&s);
}

/* This program as a command on the database: ends with the number of ledger rows. */
static int count_rows(const char *where)
{
    rt_db *db = NULL;
    rt_error err = {0};
    int64_t n = 255;
    bool found;
    if (rt_db_open(&db, where, &err) == RT_OK)
        (void)rt_db_get_int(db, "SELECT COUNT(*) FROM ledger", NULL, 0, &n, &found, &err);
    rt_db_close(db);
    return (int)n;
}

static int rows_seen_by_a_command(const char *where)
{
    int status;
    const pid_t child = fork();
    if (child == 0) {
        (void)execl("/proc/self/exe", "test_gate", "count", where, (char *)NULL);
        _exit(254);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void commands_that_come_and_go_leave_a_running_server_its_file(void **state)
{
    (void)state;
    char log[320];
    stage s = open_stage(ON_SQLITE);
    const client c = make_client(s.desk, NULL);
    (void)snprintf(log, sizeof log, "%s-wal", s.where);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(rows_seen_by_a_command(s.where), i);
        assert_int_equal(access(log, F_OK), 0); /* a command that thinks it is the last one takes it away */
        const rt_caller *caller = enter(&s, c.secret);
        assert_non_null(caller);
        settle(&s, admit(&s, caller, 3, 4), 3, 4);
        rt_caller_release(caller);
    }
    close_stage(&s);
    assert_int_equal(query_int(s.where, "SELECT COUNT(*) FROM ledger"), 4);
}

static void durations_read_as_the_headers_have_them(void **state)
{
    (void)state;
    const struct {
        double seconds;
        const char *text;
    } cases[] = {{0, "0s"},     {0.25, "250ms"},  {1, "1s"}, {59.2, "1m0s"},
                 {360, "6m0s"}, {3723, "1h2m3s"}, {-1, "0s"}};
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_duration_text(text, cases[i].seconds);
        assert_string_equal(text, cases[i].text);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_told_apart_on_sqlite),
        cmocka_unit_test(keys_are_told_apart_on_postgres),
        cmocka_unit_test(an_address_that_guesses_is_slowed_and_a_right_key_is_not),
        cmocka_unit_test(a_revoked_or_expired_key_says_so_at_the_next_request),
        cmocka_unit_test(a_raise_passes_the_minute_and_the_next_request_waits),
        cmocka_unit_test(a_rotated_key_overlaps_and_its_spending_goes_on),
        cmocka_unit_test(a_suspended_account_can_appeal_on_sqlite),
        cmocka_unit_test(a_suspended_account_can_appeal_on_postgres),
        cmocka_unit_test(a_suspension_until_a_time_ends_by_itself_and_is_in_the_trail),
        cmocka_unit_test(terms_must_be_accepted_in_the_version_in_force),
        cmocka_unit_test(each_limit_refuses_what_is_over_it_on_sqlite),
        cmocka_unit_test(each_limit_refuses_what_is_over_it_on_postgres),
        cmocka_unit_test(a_budget_in_money_is_kept_and_begins_anew_with_its_period),
        cmocka_unit_test(what_was_spent_is_known_after_a_restart),
        cmocka_unit_test(permissions_close_models_and_features),
        cmocka_unit_test(a_second_server_on_one_file_is_refused),
        cmocka_unit_test(commands_that_come_and_go_leave_a_running_server_its_file),
        cmocka_unit_test(durations_read_as_the_headers_have_them),
    };
    if (argc == 3 && strcmp(argv[1], "count") == 0)
        return count_rows(argv[2]);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, start_databases, stop_databases);
}
