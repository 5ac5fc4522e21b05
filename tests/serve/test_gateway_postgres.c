/* tests/serve/test_gateway_postgres.c - the gateway on PostgreSQL: what runs does not wait for the database,
 * even one that hangs; budgets hold while streams reserve more beside the loop. */
#include "../account/account_help.h"
#include "gateway_help.h"

#include "base/rng.h"

static void open_shared(stage *s, json_t *limits)
{
    static char where[300];
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_POSTGRES));
    stage_db = where;
    stage_secrets = secrets_path;
    open_stage(s, 1, 1, limits);
}

/* The server and every process of it. */
static void signal_postgres(const char *name)
{
    char command[300];
    (void)snprintf(command, sizeof command,
                   "pid=$(head -1 %s/pg/data/postmaster.pid) && kill -%s $pid && pkill -%s -P $pid",
                   base_folder, name, name);
    run_command(command);
}

static void a_stream_reserves_more_and_ends_where_the_budget_ends(void **state)
{
    (void)state;
    static stage s;
    open_shared(&s, json_pack("{s:{s:i}}", "budget", "amount", 1500));
    answer a = post(&s, "{\"model\":\"excessive\",\"stream\":true,\"messages\":[],\"max_tokens\":20,"
                        "\"user\":\"forgets\"}");
    assert_int_equal(a.status, 200);
    assert_null(strstr(a.body, "length"));
    assert_string_equal(a.body + strlen(a.body) - strlen(event_done), event_done);
    int cut = 0;
    for (int i = 0; i < 20 && !cut; i++) {
        a = post(&s, "{\"model\":\"excessive\",\"stream\":true,\"messages\":[],\"max_tokens\":20,"
                     "\"user\":\"forgets\"}");
        cut = strstr(a.body, "\"finish_reason\":\"length\"") != NULL;
        assert_int_equal(a.status, 200);
        assert_string_equal(a.body + strlen(a.body) - strlen(event_done), event_done);
    }
    assert_true(cut);
    const int64_t total = ledger_int(&s, "SELECT CAST(SUM(input + output) AS BIGINT) FROM ledger");
    assert_in_range(total, 1485, 1500); /* what there was, but for less than an event */
    assert_int_equal(ledger_int(&s, "SELECT MAX(total_tokens) FROM meters"), total);
    assert_int_equal(ledger_int(&s, "SELECT MAX(ABS(reserved_tokens) + ABS(running)) FROM meters"), 0);
    close_stage(&s);
}

static void a_database_that_hangs_stops_no_stream_and_refuses_new_requests(void **state)
{
    (void)state;
    static stage s;
    open_shared(&s, json_pack("{s:{s:i}}", "budget", "amount", 100000));
    const int plain = send_request(&s, "POST", "/v1/chat/completions",
                                   "{\"model\":\"waits\",\"stream\":true,\"messages\":[]}"),
              more = send_request(
                  &s, "POST", "/v1/chat/completions",
                  "{\"model\":\"waits-more\",\"stream\":true,\"messages\":[],\"max_tokens\":20}");
    read_until(plain, "one ");
    read_until(more, "one ");
    signal_postgres("STOP");
    const int asked = send_request(&s, "POST", "/v1/chat/completions", "{\"model\":\"m\",\"messages\":[]}");
    up_go_on(&s.up[0]);
    read_until(plain, "t\\u0077o"); /* its next event, while nothing is heard from the database */
    read_until(more, "some");
    assert_int_equal(receive(send_request(&s, "GET", "/v1/health", "")).status, 200);
    answer a = receive(asked);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "the account database does not answer"));
    assert_non_null(strstr(a.head, "Retry-After: "));
    assert_int_equal(receive(send_request(&s, "GET", "/v1/models", "")).status, 503);
    assert_int_equal(
        receive(send_to(rt_serve_admin_port(s.serve), s.admin, "GET", "/admin/v1/accounts", "")).status, 503);
    signal_postgres("CONT");
    read_until(plain, "[DONE]");                      /* the row is written */
    read_until(more, "\"finish_reason\":\"length\""); /* no more could be reserved */
    for (int i = 0; i < 100; i++) {
        a = post(&s, "{\"model\":\"m\",\"messages\":[]}");
        if (a.status == 200)
            break;
        (void)usleep(100000);
    }
    assert_int_equal(a.status, 200);
    (void)close(plain);
    (void)close(more);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM ledger WHERE http = 200"), 3);
    assert_int_equal(ledger_int(&s, "SELECT MAX(ABS(reserved_tokens) + ABS(running)) FROM meters"), 0);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM reservations"), 0);
    close_stage(&s);
}

/* ---- at once ---- */

enum { CLIENTS = 6, REQUESTS = 15, BUDGET = 40000 };

typedef struct asker {
    const stage *s;
    uint64_t seed;
    int served;
} asker;

static void *ask_at_random(void *context)
{
    asker *c = context;
    rt_rng rng = rt_rng_make(c->seed, 6);
    for (int i = 0; i < REQUESTS; i++) {
        char body[300], text[4096];
        (void)snprintf(body, sizeof body, "{\"model\":\"%s\",\"stream\":%s,\"messages\":[]%s%s}",
                       rt_rng_below(&rng, 4) ? "excessive" : "m", rt_rng_below(&rng, 2) ? "true" : "false",
                       rt_rng_below(&rng, 2) ? ",\"max_tokens\":7" : "",
                       rt_rng_below(&rng, 2) ? ",\"user\":\"forgets\"" : "");
        const int fd = send_request(c->s, "POST", "/v1/chat/completions", body);
        const int leave = (int)rt_rng_below(&rng, 8); /* before it is admitted, in the middle, at the end */
        ssize_t n = leave == 0 ? 0 : recv(fd, text, sizeof text, 0);
        c->served += n > 12 && memcmp(text + 9, "200", 3) == 0;
        while (leave > 1 && n > 0)
            n = recv(fd, text, sizeof text, 0);
        (void)close(fd);
    }
    return NULL;
}

static void settled_and_reserved_never_pass_the_budget_whoever_leaves(void **state)
{
    (void)state;
    static stage s;
    asker clients[CLIENTS];
    pthread_t threads[CLIENTS];
    int served = 0;
    open_shared(&s, json_pack("{s:{s:i}}", "budget", "amount", BUDGET));
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (asker){.s = &s, .seed = (uint64_t)i + 3};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_at_random, &clients[i]), 0);
    }
    for (int i = 0; i < 30; i++)
        assert_true(query_int(s.db, "SELECT MAX(total_tokens + reserved_tokens) FROM meters") <= BUDGET);
    for (int i = 0; i < CLIENTS; i++) {
        (void)pthread_join(threads[i], NULL);
        served += clients[i].served;
    }
    assert_true(served > 10);
    assert_in_range(ledger_int(&s, "SELECT MAX(total_tokens) FROM meters"), BUDGET / 4, BUDGET);
    assert_int_equal(ledger_int(&s, "SELECT MAX(ABS(reserved_tokens) + ABS(running)) FROM meters"), 0);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM reservations"), 0);
    close_stage(&s);
}

static int stop_all(void **state)
{
    char command[200];
    if (*postgres_bin) {
        (void)snprintf(command, sizeof command,
                       "pid=$(head -1 %s/pg/data/postmaster.pid); kill -CONT $pid; pkill -CONT -P $pid; true",
                       base_folder);
        run_command(command);
    }
    return stop_databases(state);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_reserves_more_and_ends_where_the_budget_ends),
        cmocka_unit_test(a_database_that_hangs_stops_no_stream_and_refuses_new_requests),
        cmocka_unit_test(settled_and_reserved_never_pass_the_budget_whoever_leaves),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, start_databases, stop_all);
}
