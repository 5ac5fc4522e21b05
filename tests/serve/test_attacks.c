/* tests/serve/test_attacks.c - what clients try that mean no good: a gateway with accounts, whose upstream
 * must not see it, whose log and database must come out of it as they were. */
#include "gateway_help.h"

#include "base/json.h"
#include "base/log.h"

/* ---- the log ---- */

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static rt_text log_lines, notices;

static void take_line(void *context, const char *line)
{
    (void)context;
    (void)pthread_mutex_lock(&log_lock);
    rt_text_printf(&log_lines, "%s\n", line);
    (void)pthread_mutex_unlock(&log_lock);
}

static void take_notice(void *context, rt_log_level level, const char *text)
{
    (void)context;
    (void)level;
    (void)pthread_mutex_lock(&log_lock);
    rt_text_printf(&notices, "%s\n", text);
    (void)pthread_mutex_unlock(&log_lock);
}

static void tune_log(rt_serve_options *options)
{
    options->log = take_line;
    options->open_tokenizer = true; /* says nothing on a gateway: it has none */
}

static void open_logged(stage *s)
{
    rt_text_clear(&log_lines);
    rt_text_clear(&notices);
    stage_tune = tune_log;
    open_stage(s, 1, 1, NULL);
    stage_tune = NULL;
}

static answer raw(int port, const char *text, size_t size)
{
    const int fd = dial_port(port);
    assert_int_equal(send(fd, text, size, MSG_NOSIGNAL), size);
    return receive(fd);
}

/* ---- paths ---- */

static void paths_that_climb_reach_nothing(void **state)
{
    (void)state;
    static stage s;
    static const char *const paths[] = {"/v1/models/../files",
                                        "/v1/models/%2e%2e/files",
                                        "/v1/models/..%2ffiles",
                                        "/v1/models/a/../../files",
                                        "/v1/models/./x",
                                        "/v1/models/a//b",
                                        "/v1/models//etc/passwd",
                                        "/v1/models/..",
                                        "/v1/models/..%5cfiles",
                                        "/v1/models/x/",
                                        "/v1/../admin/v1/accounts",
                                        "/admin/v1/accounts",
                                        "/admin",
                                        "//v1/models",
                                        "/v1/account/../models",
                                        "/V1/models",
                                        "/v1/chat/completions/"};
    open_logged(&s);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        const answer a = receive(send_request(&s, "GET", paths[i], ""));
        if (a.status != 404)
            fail_msg("%s: %d", paths[i], a.status);
    }
    assert_int_equal(receive(send_request(&s, "GET", "/v1/models/%00", "")).status, 400);
    assert_int_equal(receive(send_request(&s, "GET", "/v1/models/%0d%0ax", "")).status, 400);
    assert_int_equal(atomic_load(&s.up[0].checks), 0); /* nothing went up */
    close_stage(&s);
}

/* ---- numbers ---- */

static void numbers_that_would_slip_past_the_limits_are_refused_or_counted(void **state)
{
    (void)state;
    static stage s;
    static const struct {
        const char *member;
        int status;
    } cases[] = {
        {"\"max_tokens\":-1", 400},
        {"\"max_tokens\":\"50\"", 400},
        {"\"max_tokens\":1e400", 400},
        {"\"max_tokens\":NaN", 400},
        {"\"max_tokens\":1.5", 400},
        {"\"n\":0", 400},
        {"\"n\":-5", 400},
        {"\"n\":\"9\"", 400},
        {"\"n\":true", 400},
        {"\"best_of\":\"9\"", 400},
        {"\"max_tokens\":50,\"n\":3", 429},
        {"\"max_tokens\":50.0,\"n\":3.0", 429},
        {"\"max_tokens\":50,\"n\":9223372036854775807", 429},
        {"\"max_tokens\":9223372036854775807", 429},
        {"\"max_tokens\":50,\"n\":200", 429},
        {"\"max_tokens\":10,\"best_of\":20", 429},
        {"\"max_tokens\":10,\"max_completion_tokens\":200", 429},
        {"\"max_tokens\":10,\"max_output_tokens\":200", 429},
        {"\"max_tokens\":10,\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\",\"k\"]",
         429},
        {"\"max_tokens\":10", 200},
    };
    open_stage(&s, 1, 1, json_pack("{s:{s:i}}", "budget", "amount", 100));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[300];
        (void)snprintf(body, sizeof body, "{\"model\":\"m\",\"messages\":[],%s}", cases[i].member);
        const answer a = post(&s, body);
        if (a.status != cases[i].status)
            fail_msg("%s: %d %s", cases[i].member, a.status, a.body);
    }
    assert_int_equal(atomic_load(&s.up[0].asked), 1);
    assert_int_equal(ledger_int(&s, "SELECT MAX(reserved_tokens) FROM meters"), 0);
    close_stage(&s);
}

/* ---- texts ---- */

#define SQL "'; DROP TABLE accounts; --"
#define SQL_URL "%27%3B%20DROP%20TABLE%20accounts%3B%20--"

static void sql_in_every_text_stays_text(void **state)
{
    (void)state;
    static stage s;
    char text[2000], path[300];
    open_logged(&s);
    const int admin_port = rt_serve_admin_port(s.serve);
    static const char *const bodies[] = {"{\"name\":\"" SQL "\",\"contact\":\"" SQL "\",\"tier\":\"" SQL
                                         "\"}",
                                         "{\"name\":\"x\",\"permissions\":{\"models\":[\"" SQL "\"]}}"};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(
            receive(send_to(admin_port, s.admin, "POST", "/admin/v1/accounts", bodies[i])).status, 201);
    static const char *const paths[] = {"/accounts/" SQL_URL,
                                        "/accounts?state=" SQL_URL,
                                        "/accounts?after=" SQL_URL,
                                        "/usage?account=" SQL_URL "&group_by=model",
                                        "/usage?group_by=" SQL_URL,
                                        "/usage?bucket=" SQL_URL,
                                        "/usage?model=" SQL_URL,
                                        "/usage?from=" SQL_URL,
                                        "/requests?account=" SQL_URL,
                                        "/requests?limit=" SQL_URL,
                                        "/audit?actor=" SQL_URL,
                                        "/audit?action=" SQL_URL,
                                        "/cases/" SQL_URL,
                                        "/cases?state=" SQL_URL,
                                        "/keys/" SQL_URL,
                                        "/appeals?state=" SQL_URL};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        (void)snprintf(path, sizeof path, "/admin/v1%s", paths[i]);
        const answer a = receive(send_to(admin_port, s.admin, "GET", path, ""));
        if (a.status != 200 && a.status != 400 && a.status != 404)
            fail_msg("%s: %d %s", path, a.status, a.body);
    }
    (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s/suspend", s.account);
    assert_int_equal(
        receive(send_to(admin_port, s.admin, "POST", path,
                        "{\"reason\":\"" SQL "\",\"public_reason\":\"" SQL "\",\"evidence\":[\"" SQL "\"]}"))
            .status,
        200);
    assert_int_equal(
        receive(send_request(&s, "POST", "/v1/account/appeals", "{\"statement\":\"" SQL "\"}")).status, 201);
    (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s/reinstate", s.account);
    assert_int_equal(receive(send_to(admin_port, s.admin, "POST", path, "{\"note\":\"" SQL "\"}")).status,
                     200);
    const char *body = "{\"model\":\"" SQL "\",\"messages\":[],\"user\":\"" SQL "\"}";
    const int size = snprintf(text, sizeof text,
                              "POST /v1/chat/completions HTTP/1.1\r\nHost: " SQL
                              "\r\nx-api-key: %s\r\nConnection: close\r\n"
                              "User-Agent: " SQL "\r\nIdempotency-Key: " SQL "\r\nX-Client-Request-Id: " SQL
                              "\r\nContent-Length: %zu\r\n\r\n%s",
                              s.secret, strlen(body), body);
    assert_int_equal(raw(rt_serve_port(s.serve), text, (size_t)size).status, 200);
    const int wrong = snprintf(text, sizeof text,
                               "GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-rt-" SQL
                               "\r\nConnection: close\r\n\r\n");
    assert_int_equal(raw(rt_serve_port(s.serve), text, (size_t)wrong).status, 401);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM accounts"), 3);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM accounts WHERE name LIKE '%DROP TABLE%'"), 1);
    assert_int_equal(ledger_int(&s,
                                "SELECT COUNT(*) FROM ledger WHERE model LIKE '%DROP TABLE%' AND agent LIKE "
                                "'%DROP TABLE%'"),
                     1);
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM appeals WHERE statement LIKE '%DROP TABLE%'"), 1);
    close_stage(&s);
}

static void a_line_of_the_log_is_one_object_whatever_is_in_it(void **state)
{
    (void)state;
    static stage s;
    char text[2000];
    open_logged(&s);
    const char *body = "{\"model\":\"a\\n{\\\"status\\\":200}\\r\\u001b[31m\\u2028\",\"messages\":[]}";
    const int size = snprintf(text, sizeof text,
                              "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: %s\r\n"
                              "Connection: close\r\nUser-Agent: \"},{\"status\":200,\"x\":\"\xC3(\t\r\n"
                              "X-Client-Request-Id: \"}{\\\r\nContent-Length: %zu\r\n\r\n%s",
                              s.secret, strlen(body), body);
    assert_int_equal(raw(rt_serve_port(s.serve), text, (size_t)size).status, 200);
    static const char *const refused[] = {
        "GET /v1/models HTTP/1.1\r\nHost: x\r\nUser-Agent: a\nb\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\nHost: x\r\nUser-Agent: a\rb\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\nHost: x\r\nUser-Agent: a\x1b[2J\r\n\r\n",
        "GET /a\x1b HTTP/1.1\r\nHost: x\r\n\r\n", "G\xc3 / HTTP/1.1\r\nHost: x\r\n\r\n"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_int_equal(raw(rt_serve_port(s.serve), refused[i], strlen(refused[i])).status, 400);
    stop_gateway(&s);
    size_t lines = 0;
    char *rest = NULL;
    for (char *line = strtok_r(log_lines.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        rt_error err = {0};
        json_t *json = NULL;
        if (rt_json_parse(&json, line, strlen(line), "line", &err) != RT_OK || !json_is_object(json))
            fail_msg("%s: %s", err.text, line);
        for (const char *c = line; *c; c++)
            assert_true((unsigned char)*c >= ' ' && *c != 0x7F);
        json_decref(json);
        lines++;
    }
    assert_int_equal(lines, 1 + sizeof refused / sizeof *refused);
    rt_text_clear(&log_lines);
    close_stage(&s);
}

static void failed_keys_are_told_with_their_address_and_without_themselves(void **state)
{
    (void)state;
    static stage s;
    static const char guess[] = "sk-rt-aaaaaaaa-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    char other[100];
    rt_log_set(take_notice, NULL, RT_LOG_WARNING);
    open_logged(&s);
    (void)snprintf(other, sizeof other, "%.*sxxxx", (int)strlen(s.secret) - 4, s.secret);
    assert_int_equal(receive(send_to(rt_serve_port(s.serve), guess, "GET", "/v1/models", "")).status, 401);
    assert_int_equal(receive(send_to(rt_serve_port(s.serve), other, "GET", "/v1/models", "")).status, 401);
    assert_int_equal(
        receive(send_to(rt_serve_admin_port(s.serve), s.secret, "GET", "/admin/v1/usage", "")).status, 401);
    assert_int_equal(receive(send_request(&s, "GET", "/v1/account", "")).status, 200);
    int refused = 0;
    for (int i = 0; i < 40; i++)
        refused += receive(send_to(rt_serve_port(s.serve), guess, "GET", "/v1/models", "")).status == 429;
    assert_true(refused >= 20);
    assert_int_equal(receive(send_request(&s, "GET", "/v1/account", "")).status,
                     200); /* a right key is served */
    stop_gateway(&s);
    rt_log_set(NULL, NULL, RT_LOG_WARNING);
    assert_non_null(strstr(notices.data, "a key from 127.0.0.1 was refused: invalid_api_key"));
    assert_null(strstr(notices.data, "AAAAAAAA"));
    assert_null(strstr(notices.data, other + 20));
    assert_null(strstr(log_lines.data, "AAAAAAAA"));
    assert_null(strstr(log_lines.data, s.secret + 20));
    assert_non_null(strstr(log_lines.data, "\"ip\":\"127.0.0.1\""));
    close_stage(&s);
}

/* ---- the admin API from somebody's browser ---- */

static void another_page_can_do_nothing_with_the_operators_browser(void **state)
{
    (void)state;
    static stage s;
    char text[1000];
    open_logged(&s);
    const int port = rt_serve_admin_port(s.serve);
    static const char forged[] =
        "POST /admin/v1/accounts HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\n"
        "Cookie: key=%s; session=%s\r\nContent-Type: text/plain\r\n"
        "Connection: close\r\nContent-Length: 14\r\n\r\n{\"name\":\"evil\"}";
    int size = snprintf(text, sizeof text, forged, s.admin, s.admin);
    assert_int_equal(raw(port, text, (size_t)size).status, 401); /* cookies are no keys */
    static const char plain[] =
        "POST /admin/v1/accounts?key=%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
        "Content-Type: %s\r\nConnection: close\r\nContent-Length: 15\r\n\r\n"
        "{\"name\":\"evil\"}";
    static const char *const forms[] = {"text/plain", "application/x-www-form-urlencoded",
                                        "multipart/form-data; boundary=x", "application/jsonx"};
    for (size_t i = 0; i < 4; i++) { /* what a form can send without asking first */
        size = snprintf(text, sizeof text, plain, s.admin, s.admin, forms[i]);
        assert_int_equal(raw(port, text, (size_t)size).status, 415);
    }
    size = snprintf(text, sizeof text,
                    "OPTIONS /admin/v1/accounts HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\n"
                    "Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n");
    const answer a = raw(port, text, (size_t)size);
    assert_true(a.status >= 400);
    assert_null(strcasestr(a.head, "Access-Control-Allow"));
    const answer page = receive(send_to(port, "", "GET", "/admin", ""));
    assert_int_equal(page.status, 200);
    assert_non_null(strstr(page.head, "frame-ancestors 'none'"));
    assert_int_equal(ledger_int(&s, "SELECT COUNT(*) FROM accounts"), 1);
    close_stage(&s);
}

/* ---- floods ---- */

static void tune_slow(rt_serve_options *options)
{
    options->http.timeouts.head_s = 1;
    options->http.timeouts.body_s = 1;
    options->http.connections_max = 64;
}

static void dawdlers_are_sent_away_and_others_are_served_meanwhile(void **state)
{
    (void)state;
    static stage s;
    int slow[20];
    char text[600];
    stage_tune = tune_slow;
    open_stage(&s, 1, 1, NULL);
    stage_tune = NULL;
    for (int i = 0; i < 20; i++) { /* half of them stop in the head, half in the body */
        slow[i] = dial_port(rt_serve_port(s.serve));
        const int size = snprintf(text, sizeof text,
                                  i % 2 ? "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-A: "
                                        : "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: %s\r\n"
                                          "Content-Length: 5000\r\n\r\n{\"model\":\"m\"",
                                  s.secret);
        assert_int_equal(send(slow[i], text, (size_t)size, MSG_NOSIGNAL), size);
    }
    assert_int_equal(post(&s, "{\"model\":\"m\",\"messages\":[]}").status, 200);
    for (int i = 0; i < 20; i++)
        assert_int_equal(receive(slow[i]).status, 408);
    /* more connections than there may be: those beyond are closed, and when the others go all is well again
     */
    int many[80];
    for (int i = 0; i < 80; i++)
        many[i] = dial_port(rt_serve_port(s.serve));
    for (int i = 0; i < 80; i++)
        (void)close(many[i]);
    int status = 0;
    for (int i = 0; i < 100 && status != 200; i++) {
        const int fd = send_request(&s, "GET", "/health", "");
        char first[16] = "";
        if (recv(fd, first, 15, 0) > 9)
            status = (int)strtol(first + 9, NULL, 10);
        (void)close(fd);
        (void)usleep(20000);
    }
    assert_int_equal(status, 200);
    close_stage(&s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_that_climb_reach_nothing),
        cmocka_unit_test(numbers_that_would_slip_past_the_limits_are_refused_or_counted),
        cmocka_unit_test(sql_in_every_text_stays_text),
        cmocka_unit_test(a_line_of_the_log_is_one_object_whatever_is_in_it),
        cmocka_unit_test(failed_keys_are_told_with_their_address_and_without_themselves),
        cmocka_unit_test(another_page_can_do_nothing_with_the_operators_browser),
        cmocka_unit_test(dawdlers_are_sent_away_and_others_are_served_meanwhile),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rt_text_deinit(&log_lines);
    rt_text_deinit(&notices);
    return failed;
}
