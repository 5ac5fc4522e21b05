/* tests/account/test_stored.c - answers under an Idempotency-Key: over restarts, between servers, bounded. */
#include "account_help.h"

#include "account/stored.h"

static _Atomic int64_t test_unix_ms = 1795564800000;

static double monotonic_s(void *context)
{
    (void)context;
    return (double)test_unix_ms / 1000;
}

static int64_t unix_ms(void *context)
{
    (void)context;
    return test_unix_ms;
}

static const rt_time_source test_clock = {monotonic_s, unix_ms, NULL};

static char id_of_key[65], request_1[65], request_2[65];

static void make_names(void)
{
    memset(id_of_key, 'a', 64);
    memset(request_1, 'b', 64);
    memset(request_2, 'c', 64);
}

static rt_stored_state begin(rt_gate *gate, const char *id, const char *request, rt_text *body, bool *stream)
{
    *body = (rt_text){0};
    return rt_gate_stored_begin(gate, id, request, 10, body, stream);
}

static void answers_outlive_a_server(backend kind)
{
    char where[300];
    static const char answer[] = "data: {\"text\":\"only the account may read this\"}\n\n\0data: [DONE]\n\n";
    rt_text body;
    bool stream;
    make_names();
    (void)snprintf(where, sizeof where, "%s", fresh_database(kind));
    rt_gate *gate = open_gate(where, &test_clock);
    assert_int_equal(begin(gate, id_of_key, request_1, &body, &stream), RT_STORED_NEW);
    rt_text_append(&body, answer, sizeof answer - 1);
    rt_gate_stored_end(gate, id_of_key, request_1, &body, true);
    rt_text_deinit(&body);
    rt_gate_close(gate);

    gate = open_gate(where, &test_clock);
    assert_int_equal(begin(gate, id_of_key, request_1, &body, &stream), RT_STORED_DONE);
    assert_true(stream);
    assert_int_equal(body.size, sizeof answer - 1);
    assert_memory_equal(body.data, answer, sizeof answer - 1);
    rt_text_deinit(&body);
    assert_int_equal(begin(gate, id_of_key, request_2, &body, &stream), RT_STORED_CONFLICT);
    test_unix_ms += 24 * 3600 * 1000 + 1000;
    assert_int_equal(begin(gate, id_of_key, request_2, &body, &stream), RT_STORED_NEW);
    rt_gate_stored_end(gate, id_of_key, request_2, NULL, false); /* it failed: the key is free */
    rt_gate_close(gate);
    gate = open_gate(where, &test_clock);
    assert_int_equal(begin(gate, id_of_key, request_1, &body, &stream), RT_STORED_NEW);
    rt_gate_close(gate);
    assert_int_equal(
        query_int(where, "SELECT COUNT(*) FROM answers WHERE CAST(sealed AS TEXT) LIKE '%account%'"), 0);
}

static void answers_outlive_a_server_on_sqlite(void **state)
{
    (void)state;
    answers_outlive_a_server(ON_SQLITE);
}

static void answers_outlive_a_server_on_postgres(void **state)
{
    (void)state;
    answers_outlive_a_server(ON_POSTGRES);
}

static void a_second_server_knows_what_the_first_one_runs_and_has_answered(void **state)
{
    (void)state;
    char where[300];
    rt_text body;
    bool stream;
    make_names();
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_POSTGRES));
    rt_gate *first = open_gate(where, &test_clock), *second = open_gate(where, &test_clock);
    assert_int_equal(begin(first, id_of_key, request_1, &body, &stream), RT_STORED_NEW);
    assert_int_equal(begin(second, id_of_key, request_1, &body, &stream), RT_STORED_RUNNING);
    assert_int_equal(begin(second, id_of_key, request_2, &body, &stream), RT_STORED_CONFLICT);
    rt_text answer = {0};
    rt_text_puts(&answer, "answer");
    rt_gate_stored_end(first, id_of_key, request_1, &answer, false);
    rt_text_deinit(&answer);
    rt_gate_close(first);
    assert_int_equal(begin(second, id_of_key, request_1, &body, &stream), RT_STORED_DONE);
    assert_string_equal(body.data, "answer");
    assert_false(stream);
    rt_text_deinit(&body);
    /* a server that died with its claim holds the key no longer than its requests may take */
    assert_int_equal(begin(second, request_1, request_1, &body, &stream), RT_STORED_NEW);
    rt_gate_close(second);
    first = open_gate(where, &test_clock);
    assert_int_equal(begin(first, request_1, request_1, &body, &stream), RT_STORED_RUNNING);
    test_unix_ms += 71 * 1000;
    assert_int_equal(begin(first, request_1, request_1, &body, &stream), RT_STORED_NEW);
    rt_gate_close(first);
}

static void the_oldest_leave_first_and_giants_are_not_kept(void **state)
{
    (void)state;
    char where[300], ids[4][65];
    rt_text body;
    bool stream;
    make_names();
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_SQLITE));
    for (size_t i = 0; i < 4; i++) {
        rt_gate *gate = open_gate(where, &test_clock);
        memset(ids[i], '0' + (int)i, 64);
        ids[i][64] = '\0';
        rt_text answer = {0};
        rt_text_puts(&answer, "answer");
        rt_gate_stored_end(gate, ids[i], request_1, &answer, false);
        rt_text_deinit(&answer);
        rt_gate_close(gate);
        test_unix_ms += 1000;
        rt_db *db = NULL; /* as if each had 100 MiB */
        rt_error err = {0};
        assert_int_equal(rt_db_open(&db, where, &err), RT_OK);
        assert_int_equal(rt_db_script(db, "UPDATE answers SET bytes = 104857600", &err), RT_OK);
        rt_db_close(db);
    }
    rt_gate *gate = open_gate(where, &test_clock);
    const rt_stored_state wanted[] = {RT_STORED_NEW, RT_STORED_DONE, RT_STORED_DONE, RT_STORED_DONE};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(begin(gate, ids[i], request_1, &body, &stream), wanted[i]);
        rt_text_deinit(&body);
    }
    rt_text giant = {0};
    char *piece = calloc(1, 1 << 20);
    assert_non_null(piece);
    for (int i = 0; i < 9; i++)
        rt_text_append(&giant, piece, 1 << 20);
    free(piece);
    rt_gate_stored_end(gate, id_of_key, request_1, &giant, false);
    rt_text_deinit(&giant);
    rt_gate_close(gate);
    assert_int_equal(query_int(where, "SELECT MAX(LENGTH(sealed)) FROM answers"), 6 + 40);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_outlive_a_server_on_sqlite),
        cmocka_unit_test(answers_outlive_a_server_on_postgres),
        cmocka_unit_test(a_second_server_knows_what_the_first_one_runs_and_has_answered),
        cmocka_unit_test(the_oldest_leave_first_and_giants_are_not_kept),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, start_databases, stop_databases);
}
