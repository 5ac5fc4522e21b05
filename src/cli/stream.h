/* cli/stream.h - an answer on its way to standard output, token by token.
 *
 * A token may end inside a character: such bytes are held back until the rest has come.  On a terminal
 * control characters are shown as U+FFFD, so that no model can send commands to it. */
#ifndef RT_CLI_STREAM_H
#define RT_CLI_STREAM_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cli_stream {
    char held[4];
    size_t n_held;
    bool terminal; /* standard output is one: set before the first byte */
} cli_stream;

/* How many of the last bytes of data[0..size) are the beginning of a character that is not whole: 0..3. */
size_t cli_incomplete_utf8(const char *data, size_t size);
void cli_stream_write(cli_stream *stream, const char *data, size_t size);
/* What is still held can no longer become a character: U+FFFD stands for it. */
void cli_stream_end(cli_stream *stream);

#endif
