/* fuzz/fuzz_http.c - any bytes as what comes on a connection: heads, and the bodies that they announce, as
 * serve/http.c reads them; chunked bodies give the same whether they come whole or byte by byte. */
#include <stdlib.h>
#include <string.h>

#include "serve/forwarded.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        __builtin_trap();
}

/* The text of a parsed head is inside of its bytes and free of what was refused. */
static void check_head(const rt_http_head *head)
{
    check(head->method[0] && (head->path[0] == '/' || strcmp(head->path, "*") == 0));
    check(!(head->chunked && head->has_length));
    check(rt_utf8_valid(head->path, strlen(head->path)));
    for (size_t i = 0; i < head->n_fields; i++)
        check(head->fields[i].name[0] && !strpbrk(head->fields[i].name, " \t:\r\n") &&
              !strpbrk(head->fields[i].value, "\r\n"));
}

/* Whatever stands in X-Forwarded-For, what comes out is an address. */
static void check_forwarded(const rt_http_head *head)
{
    rt_network all = {.bits = 0};
    char address[64] = "127.0.0.1", again[64];
    rt_forwarded_address(address, head, &all, 1);
    check(rt_address_text(again, address, strlen(address)) && strcmp(address, again) == 0);
}

static size_t feed(const char *data, size_t size, size_t step, rt_text *body, rt_http_fault *fault)
{
    rt_http_chunks chunks = {0};
    bool done = false;
    size_t at = 0;
    while (at < size && !done && !fault->status) {
        const size_t n = size - at < step ? size - at : step;
        const size_t used = rt_http_chunks_feed(&chunks, data + at, n, 4096, body, &done, fault);
        check(used <= n && (used == n || done || fault->status));
        at += used;
    }
    check(body->size <= 4096);
    return at;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    rt_http_limits limits = rt_http_limits_default();
    rt_http_fault fault = {0};
    size_t at = 0;
    while (at < size) {
        size_t scanned = 0;
        const size_t end = rt_http_head_end((const char *)data + at, size - at, &scanned, &limits, &fault);
        if (end == 0)
            break;
        char *copy = malloc(end + 1);
        rt_http_head head;
        if (!copy)
            return 0;
        memcpy(copy, data + at, end);
        copy[end] = '\0';
        const bool ok = rt_http_head_parse(&head, copy, end, &limits, &fault);
        check(ok || (fault.status >= 400 && fault.code && fault.message));
        if (ok)
            check_head(&head);
        if (ok)
            check_forwarded(&head);
        const bool chunked = ok && head.chunked;
        const size_t length = ok && head.has_length ? (size_t)head.length : 0;
        free(copy);
        at += end;
        if (!ok)
            break;
        if (chunked) {
            rt_text whole = {0}, pieces = {0};
            rt_http_fault first = {0}, second = {0};
            const size_t used = feed((const char *)data + at, size - at, size, &whole, &first);
            const size_t again = feed((const char *)data + at, size - at, 1, &pieces, &second);
            check(first.status == second.status && used == again && whole.size == pieces.size);
            rt_text_deinit(&whole);
            rt_text_deinit(&pieces);
            at += used;
        } else {
            at += length < size - at ? length : size - at;
        }
    }
    return 0;
}
