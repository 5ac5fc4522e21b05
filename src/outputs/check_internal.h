/* outputs/check_internal.h - one file of a store looked at, shared by verifying and repairing.  Internal. */
#ifndef RT_OUTPUTS_CHECK_INTERNAL_H
#define RT_OUTPUTS_CHECK_INTERNAL_H

#include "base/file.h"
#include "outputs/check.h"
#include "outputs/folder.h"
#include "outputs/text_rows.h"

typedef struct check {
    rt_store_place_fn place_fn;
    void *context;
    rt_store_totals *totals;
    char name[32];       /* of the file under way */
    size_t file_damaged; /* its places, torn ends too */
    bool file_short;     /* it was longer when it was closed: a torn end is damage */
    bool file_unfinished;
} check;

typedef rt_status (*check_record_fn)(void *context, const rls_record *record, rt_error *err);

void check_say(check *c, const rls_damage *damage);
/* Notes whether the file has the size that the manifest gives it, where it gives one. */
void check_size(check *c, const rt_file *file, const json_t *manifest);
/* Every record that is whole and decodes goes to record_fn (may be NULL).  fallback: the manifest's settings,
 * for a file whose header is damaged; NULL: there are none. */
rt_status check_logits(check *c, const rt_file *file, const rt_rls_header *fallback, rt_rls_header *header,
                       check_record_fn record_fn, void *context, rt_error *err);
rt_status check_texts(check *c, const rt_file *file, text_line_fn line_fn, void *context, rt_error *err);
/* *manifest NULL (and a place told) when it is missing or malformed. */
rt_status check_manifest(check *c, const char *dir, json_t **manifest, rt_rls_header *header,
                         bool *has_header, rt_error *err);

#endif
