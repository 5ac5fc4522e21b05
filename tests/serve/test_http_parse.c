/* tests/serve/test_http_parse.c - request heads and chunked bodies: what is read, and what is refused with
 * which status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "serve/forwarded.h"

#define HOST "Host: x\r\n"

/* Status of the fault, 0: it was read; -1: not complete. */
static int read_head(rt_http_head *head, char *data)
{
    const rt_http_limits limits = rt_http_limits_default();
    rt_http_fault fault = {0};
    size_t scanned = 0;
    const size_t end = rt_http_head_end(data, strlen(data), &scanned, &limits, &fault);
    if (fault.status)
        return fault.status;
    if (end == 0)
        return -1;
    return rt_http_head_parse(head, data, end, &limits, &fault) ? 0 : fault.status;
}

static int status_of(const char *text)
{
    rt_http_head head;
    char *copy = strdup(text);
    assert_non_null(copy);
    const int status = read_head(&head, copy);
    free(copy);
    return status;
}

static void what_is_ambiguous_or_malformed_is_refused_with_its_status(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"GET / HTTP/1.1\r\n" HOST "\r\n", 0},
        {"GET / HTTP/1.1\r\n" HOST, -1},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 0},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length: 5, 5\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length: 0x5\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked\r\n\r\n", 501},
        {"GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n", 501},
        {"GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "Transfer-Encoding : chunked\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "A: b\r\n c: d\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "no colon\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST ": empty\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "A: b\001\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "A: b\rc\r\n\r\n", 400},
        {"GET / HTTP/1.1\n" HOST "\r\n", 400},
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST HOST "\r\n", 400},
        {"GET / HTTP/1.0\r\n\r\n", 0},
        {"GET / HTTP/2.0\r\n" HOST "\r\n", 505},
        {"GET / HTTX/1.1\r\n" HOST "\r\n", 400},
        {"GET /\r\n" HOST "\r\n", 400},
        {"GE T / HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET  / HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET x HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /a%2 HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /a%zz HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /a%00b HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /a%0d%0ab HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /%ff HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /\xff HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /#a HTTP/1.1\r\n" HOST "\r\n", 400},
        {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n", 0},
        {"GET * HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET http://h/p HTTP/1.1\r\n" HOST "\r\n", 0},
        {"POST / HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n\r\n", 0},
        {"POST / HTTP/1.1\r\n" HOST "Expect: tea\r\n\r\n", 417},
        {"\r\n\r\n", 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (status_of(cases[i].text) != cases[i].status)
            fail_msg("case %zu gives %d, not %d: %s", i, status_of(cases[i].text), cases[i].status,
                     cases[i].text);
}

static void a_head_is_read_whole(void **state)
{
    (void)state;
    char data[] = "POST /v1/models/a%2Fb?x=1&y HTTP/1.1\r\nHost: h\r\nContent-Length:  12 \r\nX-Y:\tz\t\r\n"
                  "connection: Keep-Alive, close\r\nexpect: 100-CONTINUE\r\n\r\n";
    rt_http_head head;
    assert_int_equal(read_head(&head, data), 0);
    assert_string_equal(head.method, "POST");
    assert_string_equal(head.path, "/v1/models/a/b");
    assert_string_equal(head.query, "x=1&y");
    assert_true(head.has_length && head.length == 12 && head.minor == 1);
    assert_false(head.keep_alive);
    assert_true(head.expect_continue);
    assert_string_equal(rt_http_field_get(&head, "x-y"), "z");
    assert_null(rt_http_field_get(&head, "x"));
}

static void limits_of_line_head_and_count_are_kept(void **state)
{
    (void)state;
    rt_text text = {0};
    rt_text_puts(&text, "GET /");
    for (size_t i = 0; i < 9000; i++)
        rt_text_puts(&text, "a");
    assert_int_equal(status_of(text.data), 414); /* before the line has ended */
    rt_text_clear(&text);
    rt_text_puts(&text, "GET / HTTP/1.1\r\nHost: x\r\nA: ");
    for (size_t i = 0; i < 40000; i++)
        rt_text_puts(&text, "a");
    assert_int_equal(status_of(text.data), 431);
    rt_text_clear(&text);
    rt_text_puts(&text, "GET / HTTP/1.1\r\nHost: x\r\n");
    for (size_t i = 0; i < 100; i++)
        rt_text_puts(&text, "A: b\r\n");
    rt_text_puts(&text, "\r\n");
    assert_int_equal(status_of(text.data), 431);
    rt_text_deinit(&text);
}

/* Feeds in pieces of `step` bytes; the status of the fault, 0 when done, -1 when more is needed. */
static int feed(const char *data, size_t step, size_t most, rt_text *body, size_t *used)
{
    rt_http_chunks chunks = {0};
    rt_http_fault fault = {0};
    bool done = false;
    size_t at = 0, size = strlen(data);
    while (at < size && !done && !fault.status) {
        const size_t n = size - at < step ? size - at : step;
        at += rt_http_chunks_feed(&chunks, data + at, n, most, body, &done, &fault);
    }
    *used = at;
    return fault.status ? fault.status : done ? 0 : -1;
}

static void chunked_bodies_are_read_in_any_pieces(void **state)
{
    (void)state;
    static const struct {
        const char *data, *body;
        int status;
    } cases[] = {
        {"5\r\nhello\r\n0\r\n\r\n", "hello", 0},
        {"5;a=b\r\nhello\r\n6 ;x\r\n world\r\n000\r\nTrailer: x\r\n\r\n", "hello world", 0},
        {"A\r\n0123456789\r\n0\r\n\r\nGET /", "0123456789", 0},
        {"0\r\n\r\n", "", 0},
        {"5\r\nhello\r\n0\r\n", "hello", -1},
        {"5\r\nhelloX\r\n", NULL, 400},
        {"5\nhello\r\n", NULL, 400},
        {"\r\n", NULL, 400},
        {"g\r\n", NULL, 400},
        {"-5\r\n", NULL, 400},
        {"0x5\r\nhello", NULL, 400},
        {"FFFFFFFFFFFFFFFF\r\n", NULL, 413},
        {"65\r\n", NULL, 413},
        {"5\r\nhello\n0\r\n\r\n", NULL, 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 1; step < 12; step++) {
            rt_text body = {0};
            size_t used;
            const int status = feed(cases[i].data, step, 100, &body, &used);
            if (status != cases[i].status)
                fail_msg("case %zu in steps of %zu gives %d", i, step, status);
            if (cases[i].body)
                assert_string_equal(body.data ? body.data : "", cases[i].body);
            if (i == 2)
                assert_string_equal(cases[i].data + used, "GET /");
            rt_text_deinit(&body);
        }
}

/* ---- who is behind a proxy ---- */

static void the_clients_address_is_believed_only_from_trusted_proxies(void **state)
{
    (void)state;
    rt_network trusted[3];
    assert_true(rt_network_parse(&trusted[0], "127.0.0.1"));
    assert_true(rt_network_parse(&trusted[1], "10.0.0.0/9"));
    assert_true(rt_network_parse(&trusted[2], "fd00::/8"));
    const struct {
        const char *peer, *fields, *wanted;
    } cases[] = {
        {"127.0.0.1", "", "127.0.0.1"},
        {"127.0.0.1", "X-Forwarded-For: 9.8.7.6", "9.8.7.6"},
        {"5.5.5.5", "X-Forwarded-For: 9.8.7.6", "5.5.5.5"},
        {"127.0.0.1", "X-Forwarded-For: 1.1.1.1, 9.8.7.6", "9.8.7.6"},
        {"127.0.0.1", "X-Forwarded-For: 1.1.1.1, 9.8.7.6 , 10.127.0.3", "9.8.7.6"},
        {"127.0.0.1", "X-Forwarded-For: 1.1.1.1, 9.8.7.6, 10.128.0.3", "10.128.0.3"},
        {"127.0.0.1", "X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 9.8.7.6,fd12::1", "9.8.7.6"},
        {"127.0.0.1", "X-Forwarded-For: 9.8.7.6, unknown", "127.0.0.1"},
        {"127.0.0.1", "X-Forwarded-For: 9.8.7.6, , 10.0.0.1", "10.0.0.1"},
        {"127.0.0.1", "X-Forwarded-For: 10.0.0.1", "10.0.0.1"},
        {"127.0.0.1", "X-Forwarded-For: [2001:db8::7]:443", "2001:db8::7"},
        {"127.0.0.1", "X-Forwarded-For: 2001:db8::7", "2001:db8::7"},
        {"127.0.0.1", "X-Forwarded-For: 9.8.7.6:1234", "9.8.7.6"},
        {"127.0.0.1", "X-Forwarded-For: ::ffff:9.8.7.6", "9.8.7.6"},
        {"fd99::1", "X-Forwarded-For: 9.8.7.6", "9.8.7.6"},
        {"127.0.0.1", "X-Forwarded-For: 9.8.7.6\"}\t{", "127.0.0.1"},
        {"127.0.0.1", "X-Forwarded-For:", "127.0.0.1"},
        {"127.0.0.1", "X-Forwarded-For: [::1", "127.0.0.1"},
    };
    const rt_http_limits limits = rt_http_limits_default();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[400], address[64];
        rt_http_head head;
        rt_http_fault fault = {0};
        const int size = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: x\r\n%s%s\r\n", cases[i].fields,
                                  *cases[i].fields ? "\r\n" : "");
        assert_true(rt_http_head_parse(&head, text, (size_t)size, &limits, &fault));
        (void)snprintf(address, sizeof address, "%s", cases[i].peer);
        rt_forwarded_address(address, &head, trusted, 3);
        if (strcmp(address, cases[i].wanted) != 0)
            fail_msg("case %zu gives %s", i, address);
        (void)snprintf(address, sizeof address, "%s", cases[i].peer);
        rt_forwarded_address(address, &head, NULL, 0);
        assert_string_equal(address, cases[i].peer);
    }
    static const char *const bad[] = {"",        "localhost",   "10.0.0.0/33", "10.0.0/8",  "10.0.0.0/",
                                      "::1/129", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0.1 ", "[::1]"};
    rt_network network;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(rt_network_parse(&network, bad[i]));
    assert_true(rt_network_parse(&network, "0.0.0.0/0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_ambiguous_or_malformed_is_refused_with_its_status),
        cmocka_unit_test(a_head_is_read_whole),
        cmocka_unit_test(limits_of_line_head_and_count_are_kept),
        cmocka_unit_test(chunked_bodies_are_read_in_any_pieces),
        cmocka_unit_test(the_clients_address_is_believed_only_from_trusted_proxies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
