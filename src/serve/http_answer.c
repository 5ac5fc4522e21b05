/* serve/http_answer.c - the answers of an exchange: whole, or in pieces by the chunked coding. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "serve/http_internal.h"

static const char *reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        {200, "OK"},
        {201, "Created"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Status";
}

const rt_http_request *rt_http_request_of(const rt_http_exchange *x) { return &x->request; }

const char *rt_http_request_field(const rt_http_exchange *x, const char *name)
{
    return rt_http_field_get(&x->head, name);
}

void rt_http_set_user(rt_http_exchange *x, void *user) { x->user = user; }
void *rt_http_user(const rt_http_exchange *x) { return x->user; }
bool rt_http_is_gone(const rt_http_exchange *x) { return x->conn == NULL; }
int rt_http_status(const rt_http_exchange *x) { return x->conn ? x->status : 499; }
size_t rt_http_bytes_sent(const rt_http_exchange *x) { return x->bytes_sent; }
void rt_http_record(rt_http_exchange *x, rt_text *copy) { x->record = copy; }

size_t rt_http_backlog(const rt_http_exchange *x) { return x->conn ? evbuffer_get_length(x->conn->out) : 0; }

void rt_http_header(rt_http_exchange *x, const char *name, const char *value)
{
    assert(!x->begun && !strpbrk(value, "\r\n"));
    rt_text_puts(&x->headers, name);
    rt_text_append(&x->headers, ": ", 2);
    rt_text_puts(&x->headers, value);
    rt_text_append(&x->headers, "\r\n", 2);
}

void rt_http_exchange_finish(rt_http_exchange *x)
{
    rt_http_conn *conn = x->conn;
    const bool keep_alive = x->keep_alive;
    x->handler->finished(x->handler->context, x);
    x->server->n_exchanges--;
    if (conn)
        conn->exchange = NULL;
    rt_text_deinit(&x->body);
    rt_text_deinit(&x->headers);
    free(x->head_data);
    free(x);
    if (conn)
        rt_http_conn_answered(conn, keep_alive);
}

static void send_bytes(rt_http_exchange *x, const void *data, size_t size)
{
    if (x->conn)
        rt_http_conn_write(x->conn, data, size);
}

static void put_number(rt_text *out, uint64_t number, unsigned base)
{
    char digits[24];
    size_t at = sizeof digits;
    do
        digits[--at] = "0123456789abcdef"[number % base];
    while ((number /= base) > 0);
    rt_text_append(out, digits + at, sizeof digits - at);
}

/* The status line and headers; length SIZE_MAX: the body comes in pieces. */
static void send_head(rt_http_exchange *x, int status, const char *type, size_t length)
{
    assert(!x->begun);
    x->begun = true;
    x->status = status;
    /* what was not read of a body must not be taken for a request */
    if (x->reading || x->server->stopping || !x->head_read)
        x->keep_alive = false;
    x->no_body = status == 204 || (x->head_read && strcmp(x->head.method, "HEAD") == 0);
    x->chunked = length == SIZE_MAX && x->head_read && x->head.minor == 1;
    if (length == SIZE_MAX && !x->chunked)
        x->keep_alive = false;
    if (!x->conn)
        return;
    rt_text *line = &x->server->line;
    rt_text_clear(line);
    rt_text_puts(line, "HTTP/1.1 ");
    put_number(line, (uint64_t)status, 10);
    rt_text_puts(line, " ");
    rt_text_puts(line, reason(status));
    rt_text_puts(line, "\r\nx-request-id: ");
    rt_text_puts(line, x->request.id);
    if (type) {
        rt_text_puts(line, "\r\nContent-Type: ");
        rt_text_puts(line, type);
    }
    if (x->chunked) {
        rt_text_puts(line, "\r\nTransfer-Encoding: chunked");
    } else if (length != SIZE_MAX && status != 204) {
        rt_text_puts(line, "\r\nContent-Length: ");
        put_number(line, length, 10);
    }
    if (!x->keep_alive)
        rt_text_puts(line, "\r\nConnection: close");
    else if (x->head.minor == 0)
        rt_text_puts(line, "\r\nConnection: keep-alive");
    rt_text_puts(line, "\r\n");
    if (x->headers.size)
        rt_text_append(line, x->headers.data, x->headers.size);
    rt_text_puts(line, "\r\n");
    send_bytes(x, line->data, line->failed ? 0 : line->size);
}

void rt_http_reply(rt_http_exchange *x, int status, const char *type, const void *data, size_t size)
{
    send_head(x, status, type, size);
    if (x->record)
        rt_text_append(x->record, data, size);
    if (!x->no_body) {
        send_bytes(x, data, size);
        x->bytes_sent += size;
    }
    rt_http_exchange_finish(x);
}

void rt_http_begin(rt_http_exchange *x, int status, const char *type)
{
    send_head(x, status, type, SIZE_MAX);
}

void rt_http_write(rt_http_exchange *x, const void *data, size_t size)
{
    if (size == 0)
        return;
    if (x->record)
        rt_text_append(x->record, data, size);
    if (x->no_body || !x->conn)
        return;
    rt_text *line = &x->server->line;
    rt_text_clear(line);
    if (x->chunked) {
        put_number(line, size, 16);
        rt_text_puts(line, "\r\n");
        send_bytes(x, line->data, line->size);
    }
    send_bytes(x, data, size);
    if (x->chunked)
        send_bytes(x, "\r\n", 2);
    x->bytes_sent += size;
}

void rt_http_end(rt_http_exchange *x)
{
    if (x->chunked && !x->no_body)
        send_bytes(x, "0\r\n\r\n", 5);
    rt_http_exchange_finish(x);
}

void rt_http_abort(rt_http_exchange *x)
{
    x->keep_alive = false;
    rt_http_exchange_finish(x);
}
