/* cli/cmd_bench.c - `retort bench WHAT`: speed beside the machine's limits, measured in the same run. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/open_model.h"

enum { RUNS_MAX = 1000 };

static const struct {
    const char *what;
    rt_status (*run)(bench *b, rt_error *err);
} benches[] = {{"gemm", bench_gemm},   {"prefill", bench_prefill}, {"decode", bench_decode},
               {"train", bench_train}, {"store", bench_store},     {"outputs", bench_outputs},
               {"start", bench_start}, {"stream", bench_stream},   {"speculate", bench_speculate},
               {"moe", bench_moe},     {"guard", bench_guard},     {"mark", bench_mark}};

void bench_add(bench *b, const bench_row *row)
{
    assert(b->count < BENCH_ROWS_MAX);
    b->rows[b->count++] = *row;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static json_t *row_json(const bench_row *row)
{
    json_t *out = json_pack("{s:s,s:f,s:s}", "name", row->name, "value", row->value, "unit", row->unit);
    if (row->limit > 0) {
        (void)json_object_set_new(out, "limit", json_real(row->limit));
        (void)json_object_set_new(out, "share", json_real(row->value / row->limit));
    }
    static const char *const words[] = {NULL, "share at least", "at least", "at most"};
    if (row->bar != BENCH_NO_BAR) {
        (void)json_object_set_new(out, "bar", json_string(words[row->bar]));
        (void)json_object_set_new(out, "must", json_real(row->must));
        (void)json_object_set_new(out, "aim", json_real(row->aim));
    }
    return out;
}

static json_t *results_json(const bench *b)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < b->count; i++)
        (void)json_array_append_new(rows, row_json(&b->rows[i]));
    return json_pack("{s:i,s:I,s:{s:f,s:f,s:f,s:f},s:o}", "threads", (int)rt_pool_threads(b->pool), "runs",
                     (json_int_t)b->options.runs, "limits", "f32_gflops", b->limits.f32 * 1e-9, "bf16_gflops",
                     b->limits.bf16 * 1e-9, "int8_gops", b->limits.int8 * 1e-9, "read_gb_per_s",
                     b->limits.read * 1e-9, "results", rows);
}

static void print_number(double x) { (void)printf(" %10.*f", x >= 100 ? 0 : x >= 10 ? 1 : 3, x); }

static void print_row(const bench_row *row)
{
    (void)printf("%-36s", row->name);
    print_number(row->value);
    (void)printf(" %-9s", row->unit);
    if (row->limit > 0) {
        print_number(row->limit);
        (void)printf(" %7.2f", row->value / row->limit);
    } else {
        (void)printf(" %10s %7s", "", "");
    }
    static const char *const words[] = {"", "share >=", ">=", "<="};
    if (row->bar != BENCH_NO_BAR)
        (void)printf("  %s %g (%g)", words[row->bar], row->must, row->aim);
    (void)printf("\n");
}

static rt_status run(bench *b, const char *what, rt_error *err)
{
    b->all = strcmp(what, "all") == 0;
    if (b->options.runs == 0 || b->options.runs > RUNS_MAX)
        return rt_error_set(err, RT_INVALID, "bench: --runs %zu is not in 1..%d", b->options.runs, RUNS_MAX);
    if (rt_pool_open(&b->pool, (unsigned)rt_size_min(b->options.threads, 1 << 16), err) != RT_OK ||
        bench_limits_measure(&b->limits, b->pool, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++)
        if ((b->all || strcmp(what, benches[i].what) == 0) && benches[i].run(b, err) != RT_OK)
            return err->status;
    return RT_OK;
}

int cmd_bench(int argc, char **argv)
{
    const char *what = "all";
    bool json = false;
    bench b = {.options = {.model = "smollm2-135m-instruct",
                           .precision = "int8",
                           .teacher_precision = "int8",
                           .runs = 5,
                           .tokens = 2048,
                           .layers = 10,
                           .answer = 128,
                           .sampling = rt_sampling_default()}};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "gemm     matrix products and reading memory: the limits themselves\n"
         "prefill  --tokens at once, against the rate of products\n"
         "decode   at short context, after --tokens, and 16 sequences at once, against reading the weights\n"
         "train    a step of 4 x 512 tokens, forward KL, student of --layers layers\n"
         "store    a step from kept rows beside one of plain cross-entropy\n"
         "outputs  reading sparse log-probabilities, one core, from the page cache\n"
         "start    from starting 'retort generate' to its first token\n"
         "moe      256 experts, 8 a token, random weights (1.5 GB), against its active products\n"
         "stream   a model three times the memory that it may take, from disk (450 MB in $TMPDIR)\n"
         "speculate answers with --draft running ahead, against the model alone\n"
         "guard    the guard's cost of a request, memory of an account, and a sweep over 100,000 accounts\n"
         "mark     8 sequences at once as the server draws them, plainly and watermarked\n"
         "all      each of these (default)\n\n"
         "Figures are medians of --runs, limits the best of short runs: a busy machine lowers the shares.\n\n"
         "Examples:\n  retort bench\n  retort bench train --teacher-precision bf16 --json\n"
         "  retort bench train --lora 16"},
        {CLI_STRING, "[all|gemm|prefill|decode|train|store|outputs|start|stream|speculate|moe|guard|mark]",
         &what, "what to measure"},
        {CLI_STRING, "--model MODEL", &b.options.model, "default smollm2-135m-instruct"},
        CLI_DRAFT_ROWS(b.options.draft),
        {CLI_STRING, "--prompts FILE", &b.options.prompts,
         "speculate: JSONL (default: eight everyday questions)"},
        {CLI_COUNT, "--answer N", &b.options.answer, "speculate: tokens of an answer at most (default 128)"},
        {CLI_REAL, "--temperature X", &b.options.sampling.temperature, "speculate (default 0: greedy)"},
        {CLI_STRING, "--precision " CLI_PRECISIONS, &b.options.precision,
         "prefill, decode, start, speculate, mark (default int8)"},
        {CLI_STRING, "--teacher-precision " CLI_PRECISIONS, &b.options.teacher_precision,
         "train (default int8)"},
        {CLI_COUNT, "--layers N", &b.options.layers, "train: of the student (default 10)"},
        {CLI_COUNT, "--lora R", &b.options.lora,
         "train: besides, the step that trains adapters of rank R on the same student"},
        {CLI_COUNT, "--tokens N", &b.options.tokens, "prefill, decode (default 2048)"},
        {CLI_COUNT, "--runs N", &b.options.runs, "medians of this many (default 5)"},
        {CLI_COUNT, "--threads N", &b.options.threads, "default: one a processor"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    int status = 0;
    if (run(&b, what, &err) != RT_OK) {
        status = cli_fail(&err);
    } else if (json) {
        status = cli_print_json(results_json(&b));
    } else {
        (void)printf("%-36s %10s %-9s %10s %7s  must be (aim)\n", "what", "retort", "", "limit", "share");
        for (size_t i = 0; i < b.count; i++)
            print_row(&b.rows[i]);
    }
    rt_pool_close(b.pool);
    return status;
}
