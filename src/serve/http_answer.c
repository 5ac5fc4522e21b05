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

size_t rt_http_backlog(const rt_http_exchange *x)
{
    return x->conn ? evbuffer_get_length(bufferevent_get_output(x->conn->bev)) : 0;
}

void rt_http_header(rt_http_exchange *x, const char *name, const char *value)
{
    assert(!x->begun && !strpbrk(value, "\r\n"));
    rt_text_printf(&x->headers, "%s: %s\r\n", name, value);
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
    if (x->conn && size)
        (void)bufferevent_write(x->conn->bev, data, size);
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
    struct evbuffer *out = bufferevent_get_output(x->conn->bev);
    (void)evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\nx-request-id: %s\r\n", status, reason(status),
                              x->request.id);
    if (type)
        (void)evbuffer_add_printf(out, "Content-Type: %s\r\n", type);
    if (x->chunked)
        (void)evbuffer_add_printf(out, "Transfer-Encoding: chunked\r\n");
    else if (length != SIZE_MAX && status != 204)
        (void)evbuffer_add_printf(out, "Content-Length: %zu\r\n", length);
    if (!x->keep_alive)
        (void)evbuffer_add_printf(out, "Connection: close\r\n");
    else if (x->head.minor == 0)
        (void)evbuffer_add_printf(out, "Connection: keep-alive\r\n");
    if (x->headers.size)
        (void)evbuffer_add(out, x->headers.data, x->headers.size);
    (void)evbuffer_add(out, "\r\n", 2);
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
    struct evbuffer *out = bufferevent_get_output(x->conn->bev);
    if (x->chunked)
        (void)evbuffer_add_printf(out, "%zx\r\n", size);
    (void)evbuffer_add(out, data, size);
    if (x->chunked)
        (void)evbuffer_add(out, "\r\n", 2);
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
