/* cli/stream.c - see stream.h. */
#include "cli/stream.h"

#include <stdio.h>
#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD";

size_t cli_incomplete_utf8(const char *data, size_t size)
{
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        const unsigned char byte = (unsigned char)data[size - back];
        if ((byte & 0xC0) == 0x80)
            continue;
        const size_t whole = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
        return whole > back ? back : 0;
    }
    return 0;
}

static void put(const cli_stream *stream, const char *data, size_t size)
{
    if (!stream->terminal) {
        (void)fwrite(data, 1, size, stdout);
        return;
    }
    for (size_t i = 0; i < size; i++) {
        const unsigned char byte = (unsigned char)data[i];
        if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F)
            (void)fputs(replacement, stdout);
        else
            (void)putchar(byte);
    }
}

void cli_stream_write(cli_stream *stream, const char *data, size_t size)
{
    while (stream->n_held > 0 && size > 0) { /* byte by byte until the character is whole, or was none */
        stream->held[stream->n_held++] = *data++;
        size--;
        const size_t left = cli_incomplete_utf8(stream->held, stream->n_held);
        put(stream, stream->held, stream->n_held - left);
        memmove(stream->held, stream->held + stream->n_held - left, left);
        stream->n_held = left;
    }
    if (size == 0) {
        (void)fflush(stdout);
        return;
    }
    const size_t incomplete = cli_incomplete_utf8(data, size);
    put(stream, data, size - incomplete);
    if (incomplete > 0) {
        memcpy(stream->held, data + size - incomplete, incomplete);
        stream->n_held = incomplete;
    }
    (void)fflush(stdout);
}

void cli_stream_end(cli_stream *stream)
{
    if (stream->n_held > 0)
        (void)fputs(replacement, stdout);
    stream->n_held = 0;
    (void)fflush(stdout);
}
