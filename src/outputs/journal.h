/* outputs/journal.h - what a collection has done, in a file that only grows: one record a line, each with a
 * checksum, so that after a kill at any byte all whole records are there and the torn one is cut off.
 *
 *   xxxxxxxx payload\n        xxxxxxxx: the low 32 bits of XXH3 of the payload, in hex
 *
 * A payload is one line of text without a line end.  A record in the middle whose checksum does not fit ends
 * the reading there: what follows it is not believed and is cut off (the rows themselves are in the output,
 * which is looked through again). */
#ifndef RT_OUTPUTS_JOURNAL_H
#define RT_OUTPUTS_JOURNAL_H

#include "base/text.h"

typedef struct rt_journal {
    int fd;
    char *path;
    rt_text pending;  /* records not written yet */
    size_t cut_bytes; /* that opening cut off */
} rt_journal;

typedef rt_status (*rt_journal_record)(void *context, const char *payload, size_t size, rt_error *err);

/* Opens or makes the file, locks it (RT_BUSY when another process has it), hands every whole record to
 * `record`, cuts the rest off. */
rt_status rt_journal_open(rt_journal *journal, const char *path, rt_journal_record record, void *context,
                          rt_error *err);
/* Adds a record to what waits to be written. */
void rt_journal_add(rt_journal *journal, const char *payload, size_t size);
/* Writes what waits; sync: it is on the disk when this returns. */
rt_status rt_journal_write(rt_journal *journal, bool sync, rt_error *err);
/* Drops everything: the run starts anew. */
rt_status rt_journal_clear(rt_journal *journal, rt_error *err);
void rt_journal_close(rt_journal *journal); /* safe on a zeroed one */

/* Writes all of data to fd; RT_IO names `path`. */
rt_status rt_fd_write(int fd, const void *data, size_t size, const char *path, rt_error *err);

#endif
