/* cli/outputs_check.c - `retort outputs verify`, `repair` and `merge`. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/outputs.h"
#include "outputs/check.h"

typedef struct places { /* told of damage */
    json_t *list;       /* NULL: printed at once */
} places;

static void on_place(void *context, const rt_store_place *p)
{
    const places *to = context;
    if (to->list)
        (void)json_array_append_new(to->list,
                                    json_pack("{s:s,s:I,s:I,s:I,s:b,s:s}", "file", p->file, "offset",
                                              (json_int_t)p->offset, "end", (json_int_t)p->end, "saved",
                                              (json_int_t)p->saved, "torn", p->torn, "what", p->what));
    else if (p->end)
        (void)printf("%s: bytes %llu to %llu: %s; %zu whole rows are in there\n", p->file,
                     (unsigned long long)p->offset, (unsigned long long)p->end, p->what, p->saved);
    else
        (void)printf("%s: %s\n", p->file, p->what);
}

static json_t *totals_json(const char *dir, const rt_store_totals *t, json_t *list)
{
    return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "store", dir, "files",
                     (json_int_t)t->files, "damaged", (json_int_t)t->damaged, "torn", (json_int_t)t->torn,
                     "unfinished", (json_int_t)t->unfinished, "bytes", (json_int_t)t->bytes, "texts",
                     (json_int_t)t->texts, "documents", (json_int_t)t->documents, "tokens",
                     (json_int_t)t->tokens, "rows", (json_int_t)t->rows, "places", list);
}

static void print_totals(const rt_store_totals *t)
{
    (void)printf("%zu files, %llu bytes: %llu text rows, %llu documents with %llu tokens and %llu rows of "
                 "log-probabilities; %zu damaged places",
                 t->files, (unsigned long long)t->bytes, (unsigned long long)t->texts,
                 (unsigned long long)t->documents, (unsigned long long)t->tokens, (unsigned long long)t->rows,
                 t->damaged);
    if (t->unfinished)
        (void)printf("; %zu without an index (their writer was stopped)", t->unfinished);
    if (t->torn)
        (void)printf("; %zu torn ends of killed writers, of which nothing was said to be written", t->torn);
    (void)printf("\n");
}

typedef rt_status (*look_fn)(const char *dir, rt_store_place_fn place_fn, void *context,
                             rt_store_totals *totals, rt_error *err);

/* Parses, looks through a store with `look`, prints what was found; the number of damaged places goes to
 * *damaged. */
static int look_through(int argc, char **argv, const char *about, look_fn look, uint64_t *damaged)
{
    const char *dir = NULL;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL, about},
        {CLI_STRING | CLI_REQUIRED, "DIR", &dir, "the store"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_store_totals totals;
    places p = {0};
    rt_status status = cli_parse(spec, argc, argv, &err);
    p.list = json ? json_array() : NULL;
    if (status == RT_OK)
        status = look(dir, on_place, &p, &totals, &err);
    if (status != RT_OK) {
        json_decref(p.list);
        return cli_fail(&err);
    }
    *damaged = totals.damaged;
    if (json)
        return cli_print_json(totals_json(dir, &totals, p.list));
    print_totals(&totals);
    return 0;
}

int cli_outputs_verify(int argc, char **argv)
{
    uint64_t damaged = 0;
    const int failed = look_through(
        argc, argv,
        "Reads every file of a store: checksums of blocks and rows, every row decoded, every text row "
        "parsed.\n"
        "Ends with status 3 when something is damaged; 'retort outputs repair' keeps the rest.\n\n"
        "Examples:\n  retort outputs verify store\n  retort outputs verify store --json",
        rt_store_verify, &damaged);
    return failed || !damaged ? failed : rt_status_exit_code(RT_CHECK_FAILED);
}

int cli_outputs_repair(int argc, char **argv)
{
    uint64_t damaged = 0;
    return look_through(
        argc, argv,
        "Writes damaged and unfinished files of a store again with all that is whole in them.  A file that "
        "had\n"
        "damage is kept in DIR/damaged/.  Nothing may write to the store meanwhile.\n\n"
        "Example:\n  retort outputs repair store",
        rt_store_repair, &damaged);
}

int cli_outputs_merge(int argc, char **argv)
{
    const char *out = NULL;
    cli_rest in = {0};
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Adds the rows of stores to OUT, which is made when it is not there.  Rows that are there already "
         "are not\n"
         "added again.  The stores must be of one teacher, with one choice of ids.\n\n"
         "Example:\n  retort outputs merge all monday tuesday"},
        {CLI_STRING | CLI_REQUIRED, "OUT", &out, "the store that gets the rows"},
        {CLI_REST, "DIR...", &in, "the stores that they come from"},
        {CLI_FLAG, "--json", &json, "print what was done as one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_store_merged m = {0};
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK && in.count == 0)
        status =
            rt_error_set(&err, RT_INVALID, "outputs merge: which stores? 'retort outputs merge OUT DIR...'");
    if (status == RT_OK)
        status = rt_store_merge(out, (const char *const *)in.items, in.count, &m, &err);
    if (status != RT_OK)
        return cli_fail(&err);
    if (json)
        return cli_print_json(json_pack("{s:s,s:I,s:I,s:I,s:I}", "store", out, "texts", (json_int_t)m.texts,
                                        "texts_known", (json_int_t)m.texts_known, "documents",
                                        (json_int_t)m.documents, "documents_known",
                                        (json_int_t)m.documents_known));
    (void)printf("%s: %llu text rows and %llu documents added; %llu and %llu were there\n", out,
                 (unsigned long long)m.texts, (unsigned long long)m.documents,
                 (unsigned long long)m.texts_known, (unsigned long long)m.documents_known);
    return 0;
}
