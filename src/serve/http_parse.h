/* serve/http_parse.h - HTTP/1.1 request heads and chunked bodies, read strictly.
 *
 * What is ambiguous between a proxy and this server is refused, never guessed: Content-Length beside
 * Transfer-Encoding, two different lengths, folded lines, blanks before a colon, bare line feeds (RFC 9112).
 * Pure functions on memory: no sockets, no time. */
#ifndef RT_SERVE_HTTP_PARSE_H
#define RT_SERVE_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

enum { RT_HTTP_HEADERS_MAX = 100 };

typedef struct rt_http_limits {
    size_t line_bytes_max; /* request line: 414 */
    size_t head_bytes_max; /* whole head: 431 */
    size_t headers_max;    /* <= RT_HTTP_HEADERS_MAX: 431 */
    size_t body_bytes_max; /* 413 */
} rt_http_limits;
rt_http_limits rt_http_limits_default(void); /* 8 KiB, 32 KiB, 100, 16 MiB */

typedef struct rt_http_fault { /* why a request cannot be read; texts are constants */
    int status;
    const char *code, *message;
} rt_http_fault;

typedef struct rt_http_field {
    const char *name, *value; /* NUL-terminated, the value without blanks around it */
} rt_http_field;

typedef struct rt_http_head { /* pointers are into the bytes that were parsed */
    const char *method;
    const char *path;  /* decoded: "/v1/models/a/b" */
    const char *query; /* after the '?', as sent; "" when there is none */
    int minor;         /* 0 or 1: HTTP/1.x */
    rt_http_field fields[RT_HTTP_HEADERS_MAX];
    size_t n_fields;
    bool keep_alive, expect_continue, chunked, has_length;
    uint64_t length; /* of the body, when has_length */
} rt_http_head;

/* Where the head ends: bytes up to and with the blank line, 0 while it is not complete.  `scanned` is where
 * an earlier call stopped (start with 0).  fault->status is set when a limit is passed or a line feed is
 * bare. */
size_t rt_http_head_end(const char *data, size_t size, size_t *scanned, const rt_http_limits *limits,
                        rt_http_fault *fault);
/* Reads a complete head in place (data[0..size) ends with the blank line and is changed).  false: fault. */
bool rt_http_head_parse(rt_http_head *out, char *data, size_t size, const rt_http_limits *limits,
                        rt_http_fault *fault);
/* The value of the first field of this name (any case), or NULL. */
const char *rt_http_field_get(const rt_http_head *head, const char *name);

/* A chunked body, fed as it comes. */
typedef struct rt_http_chunks {
    int state;
    uint64_t left;    /* of the present chunk */
    size_t digits;    /* of the size line */
    size_t line_size; /* bytes of the present size line or of all trailers */
    bool line_begins; /* of a trailer */
} rt_http_chunks;
/* Consumes from data[0..size), appends to the body; returns the bytes consumed.  *done: the last chunk and
 * the trailers are read.  fault->status is set when it is malformed (400) or too large (413). */
size_t rt_http_chunks_feed(rt_http_chunks *chunks, const char *data, size_t size, size_t body_bytes_max,
                           rt_text *body, bool *done, rt_http_fault *fault);

#endif
