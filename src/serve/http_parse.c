/* serve/http_parse.c - see http_parse.h. */
#include "serve/http_parse.h"

#include <string.h>
#include <strings.h>

rt_http_limits rt_http_limits_default(void)
{
    return (rt_http_limits){.line_bytes_max = 8 << 10,
                            .head_bytes_max = 32 << 10,
                            .headers_max = RT_HTTP_HEADERS_MAX,
                            .body_bytes_max = (size_t)16 << 20};
}

static bool fail(rt_http_fault *fault, int status, const char *code, const char *message)
{
    *fault = (rt_http_fault){status, code, message};
    return false;
}

static bool bad(rt_http_fault *fault, const char *message)
{
    return fail(fault, 400, "bad_request", message);
}

size_t rt_http_head_end(const char *data, size_t size, size_t *scanned, const rt_http_limits *limits,
                        rt_http_fault *fault)
{
    const char *first = memchr(data, '\n', size);
    if ((first ? (size_t)(first - data) : size) > limits->line_bytes_max) {
        (void)fail(fault, 414, "uri_too_long", "the request line is too long");
        return 0;
    }
    for (size_t i = *scanned; i < size; i++) {
        if (data[i] != '\n')
            continue;
        if (i == 0 || data[i - 1] != '\r') {
            (void)bad(fault, "a line of the request's head does not end with CR LF");
            return 0;
        }
        if (i >= 3 && data[i - 2] == '\n') {
            if (i + 1 > limits->head_bytes_max)
                break;
            return i + 1;
        }
    }
    *scanned = size;
    if (size > limits->head_bytes_max)
        (void)fail(fault, 431, "headers_too_large", "the request's head is too large");
    return 0;
}

/* ---- one line at a time ---- */

static bool is_token_char(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(const char *text)
{
    if (!*text)
        return false;
    for (; *text; text++)
        if (!is_token_char((unsigned char)*text))
            return false;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %XX in place; control characters are refused however they are written. */
static bool decode_path(char *path, rt_http_fault *fault)
{
    char *to = path;
    for (const char *at = path; *at; at++) {
        int c = (unsigned char)*at;
        if (c == '%') {
            const int high = hex_digit(at[1]), low = high < 0 ? -1 : hex_digit(at[2]);
            if (low < 0)
                return bad(fault, "the path holds a percent sign without two hex digits");
            c = 16 * high + low;
            at += 2;
        }
        if (c < 0x20 || c == 0x7F)
            return bad(fault, "the path holds a control character");
        *to++ = (char)c;
    }
    *to = '\0';
    if (!rt_utf8_valid(path, (size_t)(to - path)))
        return bad(fault, "the path is not UTF-8");
    return true;
}

static bool parse_target(rt_http_head *out, char *target, rt_http_fault *fault)
{
    for (const char *c = target; *c; c++)
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7F || *c == '#')
            return bad(fault, "the request target holds a character that must be percent-encoded");
    if (strncasecmp(target, "http://", 7) == 0) { /* absolute form, as sent to proxies */
        char *slash = strchr(target + 7, '/');
        if (!slash)
            return bad(fault, "the request target has no path");
        target = slash;
    }
    if (target[0] != '/' && !(strcmp(target, "*") == 0 && strcmp(out->method, "OPTIONS") == 0))
        return bad(fault, "the request target is not a path");
    char *query = strchr(target, '?');
    out->query = query ? query + 1 : "";
    if (query)
        *query = '\0';
    out->path = target;
    return decode_path(target, fault);
}

static bool parse_request_line(rt_http_head *out, char *line, rt_http_fault *fault)
{
    char *target = strchr(line, ' ');
    char *version = target ? strchr(target + 1, ' ') : NULL;
    if (!version)
        return bad(fault, "the request line is not 'METHOD target HTTP/1.1'");
    *target++ = *version++ = '\0';
    if (!is_token(line) || strlen(line) > 32)
        return bad(fault, "the method is not a word");
    out->method = line;
    if (strcmp(version, "HTTP/1.1") == 0)
        out->minor = 1;
    else if (strcmp(version, "HTTP/1.0") == 0)
        out->minor = 0;
    else if (strncmp(version, "HTTP/", 5) == 0)
        return fail(fault, 505, "version_not_supported", "only HTTP/1.1 and HTTP/1.0 are spoken here");
    else
        return bad(fault, "the request line is not 'METHOD target HTTP/1.1'");
    return parse_target(out, target, fault);
}

static bool parse_field(rt_http_head *out, char *line, rt_http_fault *fault)
{
    if (*line == ' ' || *line == '\t')
        return bad(fault, "a header line is folded");
    char *colon = strchr(line, ':');
    if (!colon)
        return bad(fault, "a header line has no colon");
    *colon = '\0';
    if (!is_token(line))
        return bad(fault, "a header's name holds a blank or another character that may not stand there");
    char *value = colon + 1 + strspn(colon + 1, " \t");
    size_t size = strlen(value);
    while (size && (value[size - 1] == ' ' || value[size - 1] == '\t'))
        size--;
    value[size] = '\0';
    for (const char *c = value; *c; c++)
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7F)
            return bad(fault, "a header's value holds a control character");
    out->fields[out->n_fields++] = (rt_http_field){line, value};
    return true;
}

/* ---- what the fields say about the body ---- */

static bool parse_length(uint64_t *out, const char *text)
{
    uint64_t value = 0;
    if (!*text || strlen(text) > 18)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *out = value;
    return true;
}

static bool has_word(const char *list, const char *word)
{
    const size_t size = strlen(word);
    while (*list) {
        list += strspn(list, " \t,");
        const size_t n = strcspn(list, ",");
        size_t trimmed = n;
        while (trimmed && (list[trimmed - 1] == ' ' || list[trimmed - 1] == '\t'))
            trimmed--;
        if (trimmed == size && strncasecmp(list, word, size) == 0)
            return true;
        list += n;
    }
    return false;
}

static bool take_length(rt_http_head *out, const char *value, rt_http_fault *fault)
{
    uint64_t length;
    if (!parse_length(&length, value))
        return bad(fault, "Content-Length is not a number");
    if (out->has_length && length != out->length)
        return bad(fault, "there are two different Content-Length headers");
    out->has_length = true;
    out->length = length;
    return true;
}

static bool take_encoding(rt_http_head *out, const char *value, rt_http_fault *fault)
{
    if (out->minor == 0)
        return bad(fault, "Transfer-Encoding does not belong to HTTP/1.0");
    if (out->chunked)
        return bad(fault, "there are two Transfer-Encoding headers");
    if (strcasecmp(value, "chunked") != 0)
        return fail(fault, 501, "not_implemented", "only the transfer coding 'chunked' is known");
    out->chunked = true;
    return true;
}

static bool read_framing(rt_http_head *out, rt_http_fault *fault)
{
    size_t hosts = 0;
    out->keep_alive = out->minor == 1;
    for (size_t i = 0; i < out->n_fields; i++) {
        const char *name = out->fields[i].name, *value = out->fields[i].value;
        if (strcasecmp(name, "content-length") == 0) {
            if (!take_length(out, value, fault))
                return false;
        } else if (strcasecmp(name, "transfer-encoding") == 0) {
            if (!take_encoding(out, value, fault))
                return false;
        } else if (strcasecmp(name, "host") == 0) {
            hosts++;
        } else if (strcasecmp(name, "connection") == 0) {
            if (has_word(value, "close"))
                out->keep_alive = false;
            else if (has_word(value, "keep-alive"))
                out->keep_alive = true;
        } else if (strcasecmp(name, "expect") == 0) {
            if (strcasecmp(value, "100-continue") != 0)
                return fail(fault, 417, "expectation_failed", "only 'Expect: 100-continue' is known");
            out->expect_continue = out->minor == 1;
        }
    }
    if (out->chunked && out->has_length)
        return bad(fault, "there is a Content-Length beside Transfer-Encoding");
    if (hosts > 1 || (hosts == 0 && out->minor == 1))
        return bad(fault, hosts ? "there are two Host headers" : "there is no Host header");
    return true;
}

bool rt_http_head_parse(rt_http_head *out, char *data, size_t size, const rt_http_limits *limits,
                        rt_http_fault *fault)
{
    memset(out, 0, sizeof *out);
    if (memchr(data, '\0', size))
        return bad(fault, "the request's head holds a NUL byte");
    char *line = data, *end = data + size - 2; /* the blank line */
    for (size_t number = 0; line < end; number++) {
        char *stop = memchr(line, '\r', (size_t)(end - line));
        if (!stop || stop[1] != '\n')
            return bad(fault, "a line of the request's head holds a bare CR");
        *stop = '\0';
        if (number > 0 && out->n_fields == limits->headers_max)
            return fail(fault, 431, "headers_too_large", "the request has too many headers");
        if (!(number == 0 ? parse_request_line(out, line, fault) : parse_field(out, line, fault)))
            return false;
        line = stop + 2;
    }
    if (!out->method)
        return bad(fault, "the request line is empty");
    return read_framing(out, fault);
}

const char *rt_http_field_get(const rt_http_head *head, const char *name)
{
    for (size_t i = 0; i < head->n_fields; i++)
        if (strcasecmp(head->fields[i].name, name) == 0)
            return head->fields[i].value;
    return NULL;
}

/* ---- chunked bodies ---- */

enum {
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LF,
    CHUNK_DONE
};
enum { CHUNK_LINE_MAX = 256, TRAILER_BYTES_MAX = 8 << 10 };

static bool size_byte(rt_http_chunks *c, char byte, rt_http_fault *fault)
{
    const int digit = hex_digit(byte);
    if (digit >= 0) {
        if (++c->digits > 15)
            return fail(fault, 413, "body_too_large", "a chunk is too large");
        c->left = c->left * 16 + (uint64_t)digit;
        return true;
    }
    if (c->digits == 0 || (byte != ';' && byte != '\r' && byte != ' ' && byte != '\t'))
        return bad(fault, "a chunk's size is not a hex number");
    c->state = byte == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
    return true;
}

/* Every byte but those of the data; false: fault. */
static bool line_byte(rt_http_chunks *c, char byte, rt_http_fault *fault)
{
    if (++c->line_size > (c->state >= CHUNK_TRAILER ? (size_t)TRAILER_BYTES_MAX : (size_t)CHUNK_LINE_MAX))
        return bad(fault, "a line of the chunked body is too long");
    switch (c->state) {
    case CHUNK_SIZE:
        return size_byte(c, byte, fault);
    case CHUNK_EXTENSION:
        if (byte == '\n')
            return bad(fault, "a chunk's line does not end with CR LF");
        if (byte == '\r')
            c->state = CHUNK_SIZE_LF;
        return true;
    case CHUNK_SIZE_LF:
    case CHUNK_DATA_LF:
    case CHUNK_TRAILER_LF:
        if (byte != '\n')
            return bad(fault, "a chunk's line does not end with CR LF");
        if (c->state == CHUNK_TRAILER_LF) {
            c->state = c->line_begins ? CHUNK_DONE : CHUNK_TRAILER;
            c->line_begins = true;
        } else if (c->state == CHUNK_SIZE_LF && c->left > 0) {
            c->state = CHUNK_DATA;
        } else {
            c->state = c->state == CHUNK_SIZE_LF ? CHUNK_TRAILER : CHUNK_SIZE;
            c->line_begins = true;
            c->left = 0;
        }
        if (c->state < CHUNK_TRAILER)
            c->digits = c->line_size = 0;
        return true;
    case CHUNK_DATA_CR:
        if (byte != '\r')
            return bad(fault, "a chunk is longer than its size");
        c->state = CHUNK_DATA_LF;
        return true;
    default: /* CHUNK_TRAILER: fields after the body are read past */
        if (byte == '\n')
            return bad(fault, "a trailer line does not end with CR LF");
        if (byte == '\r')
            c->state = CHUNK_TRAILER_LF;
        else
            c->line_begins = false;
        return true;
    }
}

size_t rt_http_chunks_feed(rt_http_chunks *c, const char *data, size_t size, size_t body_bytes_max,
                           rt_text *body, bool *done, rt_http_fault *fault)
{
    size_t at = 0;
    while (at < size && c->state != CHUNK_DONE) {
        if (c->state == CHUNK_DATA) {
            const size_t n = c->left < size - at ? (size_t)c->left : size - at;
            rt_text_append(body, data + at, n);
            at += n;
            c->left -= n;
            if (c->left == 0)
                c->state = CHUNK_DATA_CR;
            continue;
        }
        if (!line_byte(c, data[at++], fault))
            return at;
        if (c->state == CHUNK_DATA && c->left > body_bytes_max - body->size) {
            (void)fail(fault, 413, "body_too_large", "the body is too large");
            return at;
        }
    }
    *done = c->state == CHUNK_DONE;
    return at;
}
