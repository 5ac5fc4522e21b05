/* bench/bench_store.c - how fast a store's documents are decoded, on one core, from the page cache.
 *
 *   bench_store DIR [SECONDS]
 *
 * Prints the bytes of .rls files read a second, and what that is in tokens and entries. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "outputs/check.h"

int main(int argc, char **argv)
{
    if (argc < 2) {
        (void)fprintf(stderr, "bench_store DIR [SECONDS]\n");
        return 2;
    }
    rt_error err = {0};
    rt_reader *reader;
    json_t *stat;
    if (rt_store_stat(&stat, argv[1], 1, &err) != RT_OK || rt_reader_open(&reader, argv[1], &err) != RT_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const double bytes = json_number_value(json_object_get(json_object_get(stat, "logits"), "bytes")),
                 seconds = argc > 2 ? strtod(argv[2], NULL) : 3;
    rt_store_document doc = {0};
    double passes = 0, entries = 0;
    const double from = rt_clock_seconds();
    do {
        for (size_t i = 0; i < rt_reader_documents(reader); i++) {
            if (rt_reader_document(reader, i, &doc, &err) != RT_OK) {
                (void)fprintf(stderr, "%s\n", err.text);
                return 1;
            }
            if (doc.rows.n_rows)
                entries += (double)doc.rows.begins[doc.rows.n_rows];
        }
        passes++;
    } while (rt_clock_seconds() - from < seconds);
    const double took = rt_clock_seconds() - from;
    (void)printf("%.0f MB/s  %.2f M tokens/s  %.1f M entries/s\n", bytes * passes / took * 1e-6,
                 (double)rt_reader_tokens(reader) * passes / took * 1e-6, entries / took * 1e-6);
    rt_store_document_deinit(&doc);
    rt_reader_close(reader);
    json_decref(stat);
    return 0;
}
