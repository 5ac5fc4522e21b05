/* tests/serve/test_clerks.c - calls to the admin API that take long hold up nobody else: no clock decides, an
 * admin call waits for a lock that the test holds while streams and other calls go on. */
#include "gateway_help.h"

static rt_db *lock_database(const stage *s)
{
    rt_db *db = NULL;
    rt_error err = {0};
    assert_int_equal(rt_db_open(&db, s->db, &err), RT_OK);
    assert_int_equal(rt_db_begin(db, true, &err), RT_OK);
    return db;
}

static void unlock_database(rt_db *db)
{
    rt_db_rollback(db);
    rt_db_close(db);
}

static int admin_call(const stage *s, const char *method, const char *path, const char *body)
{
    return send_to(rt_serve_admin_port(s->serve), s->admin, method, path, body);
}

static bool has_answered(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void a_change_that_waits_delays_no_stream_and_no_reader(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, NULL);
    rt_db *lock = lock_database(&s);
    const int change = admin_call(&s, "POST", "/admin/v1/accounts", "{\"name\":\"late\"}");
    /* a stream begins, and its first event comes, after the change was sent */
    const int stream_fd = send_request(&s, "POST", "/v1/chat/completions",
                                       "{\"model\":\"hangs\",\"stream\":true,\"messages\":[]}");
    read_until(stream_fd, "one ");
    answer a = receive(admin_call(&s, "GET", "/admin/v1/accounts", ""));
    assert_int_equal(a.status, 200);
    assert_null(strstr(a.body, "late"));
    a = receive(send_request(&s, "GET", "/v1/account/usage", ""));
    assert_int_equal(a.status, 200);
    assert_false(has_answered(change));
    unlock_database(lock);
    assert_int_equal(receive(change).status, 201);
    (void)close(stream_fd);
    close_stage(&s);
}

static void a_client_that_leaves_a_slow_call_and_a_server_that_stops_do_no_harm(void **state)
{
    (void)state;
    static stage s;
    open_stage(&s, 1, 1, NULL);
    rt_db *lock = lock_database(&s);
    const int left = admin_call(&s, "POST", "/admin/v1/accounts", "{\"name\":\"left\"}");
    assert_int_equal(receive(admin_call(&s, "GET", "/admin/v1/audit", "")).status, 200);
    (void)close(left);
    assert_int_equal(receive(send_request(&s, "GET", "/v1/account", "")).status, 200);
    rt_serve_stop(s.serve); /* while the call still waits */
    unlock_database(lock);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM accounts WHERE name = 'left'"), 1);
    close_stage(&s);
}

static void more_calls_than_are_kept_are_told_to_come_back(void **state)
{
    (void)state;
    static stage s;
    enum { CALLS = 80 };
    int calls[CALLS], done = 0, refused = 0;
    open_stage(&s, 1, 1, NULL);
    rt_db *lock = lock_database(&s);
    for (int i = 0; i < CALLS; i++)
        calls[i] = admin_call(&s, "POST", "/admin/v1/accounts", "{\"name\":\"many\"}");
    assert_int_equal(receive(admin_call(&s, "GET", "/admin/v1/accounts", "")).status, 200);
    for (int i = 0; i < 2000 && refused < CALLS - 66; i++) { /* all have been read */
        refused = 0;
        for (int k = 0; k < CALLS; k++)
            refused += has_answered(calls[k]);
        (void)usleep(5000);
    }
    unlock_database(lock);
    refused = 0;
    for (int i = 0; i < CALLS; i++) {
        const answer a = receive(calls[i]);
        done += a.status == 201;
        refused += a.status == 503 && strstr(a.head, "Retry-After: 1") != NULL;
    }
    assert_int_equal(done + refused, CALLS);
    assert_in_range(refused, CALLS - 66, CALLS - 64);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM accounts WHERE name = 'many'"), done);
    close_stage(&s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_that_waits_delays_no_stream_and_no_reader),
        cmocka_unit_test(a_client_that_leaves_a_slow_call_and_a_server_that_stops_do_no_harm),
        cmocka_unit_test(more_calls_than_are_kept_are_told_to_come_back),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
