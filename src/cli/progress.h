/* cli/progress.h - how far long work is, on standard error.
 *
 * On a terminal one line is redrawn in place: title, bar, percentage, the caller's figures, time gone
 * and time left.  Elsewhere a plain line is written every few seconds, so that a log stays readable. */
#ifndef RT_CLI_PROGRESS_H
#define RT_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one line shows; times in seconds, left < 0: not known yet. */
typedef struct cli_progress_view {
    const char *title, *figures; /* figures: "loss 1.93  2,140 tokens/s"; may be empty */
    double fraction;             /* 0..1 */
    double elapsed, left;
    size_t columns; /* the line is at most this wide */
    bool utf8;
} cli_progress_view;

/* Writes the line (NUL-terminated, no newline) to out[size]; with columns 0 the plain form without a
 * bar.  Figures are cut before the bar is, the bar before the percentage. */
void cli_progress_line(char *out, size_t size, const cli_progress_view *view);

typedef struct cli_progress {
    const char *title;
    uint64_t first, total; /* `first` was done before this run: it does not count for the time left */
    double started, shown; /* seconds of the monotonic clock; shown: last line, negative: none yet */
    double plain_every;    /* seconds between plain lines */
    bool terminal, utf8;
    char figures[160];
    uint64_t done;
} cli_progress;

/* total > 0; plain_every_s 0 stands for 10 s.  The title is borrowed. */
void cli_progress_open(cli_progress *progress, const char *title, uint64_t first, uint64_t total,
                       double plain_every_s);
/* Cheap enough for every step: it draws at most ten times a second. */
void cli_progress_update(cli_progress *progress, uint64_t done, const char *figures);
/* Takes the bar away so that other words can be printed; the next update draws it again. */
void cli_progress_hide(cli_progress *progress);
/* Draws the last state and ends the line. */
void cli_progress_close(cli_progress *progress);

#endif
