/* report/report.c - see report.h.  Here: the head of the page (title, summary in one sentence, four figures)
 * and the order of the sections. */
#include "report/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "report/html.h"
#include "report/page.h"
#include "report/sections.h"
#include "retort/version.h"

enum { TITLE_SIZE = 160 };

/* At most TITLE_SIZE - 4 bytes of `text`, whole characters, after what is in `out` already. */
static void append_cut(char out[TITLE_SIZE], const char *text)
{
    const size_t size = strlen(text);
    size_t used = strlen(out), n = 0;
    for (size_t i = 0; i < size; i += n) {
        (void)rt_utf8_decode(text + i, size - i, &n);
        if (used + n > TITLE_SIZE - 4) {
            memcpy(out + used, "\xE2\x80\xA6", 4);
            return;
        }
        memcpy(out + used, text + i, n);
        used += n;
        out[used] = '\0';
    }
}

static void make_title(char out[TITLE_SIZE], const rt_run_record *run)
{
    const char *title = rt_string_get(run->facts, "title");
    const char *teacher = rt_string_get(json_object_get(run->facts, "teacher"), "name");
    out[0] = '\0';
    if (title && title[0]) {
        append_cut(out, title);
    } else if (teacher) {
        append_cut(out, teacher);
        const size_t size = strlen(out), suffix = strlen(".gguf");
        if (size > suffix && strcmp(out + size - suffix, ".gguf") == 0)
            out[size - suffix] = '\0';
        append_cut(out, ", distilled");
    } else {
        append_cut(out, "A distillation run");
    }
}

/* "A student of 63.7 M parameters, 47% of its teacher's 134.5 M, after 204,800 tokens and 10 min 40 s of
 * training." */
static void make_deck(rt_text *deck, const rt_run_record *run)
{
    const double student = rt_number_get(json_object_get(run->facts, "student"), "parameters");
    const double teacher = rt_number_get(json_object_get(run->facts, "teacher"), "parameters");
    const double tokens = rt_number_get(run->facts, "tokens"), seconds = rt_number_get(run->facts, "seconds");
    const double cores = rt_number_get(json_object_get(run->facts, "machine"), "cores");
    char a[RT_NUMBER_SIZE], b[RT_NUMBER_SIZE];
    if (isfinite(student)) {
        rt_number_format(a, student, RT_NUMBER_COUNT);
        rt_text_printf(deck, "A student of %s parameters", a);
        if (isfinite(teacher) && teacher > 0) {
            rt_number_format(b, teacher, RT_NUMBER_COUNT);
            rt_text_printf(deck, ", %.0f%% of its teacher\xE2\x80\x99s %s", 100 * student / teacher, b);
        }
    } else if (isfinite(tokens)) {
        rt_text_puts(deck, "A student");
    }
    if (isfinite(tokens)) {
        rt_number_format(a, tokens, RT_NUMBER_INTEGER);
        rt_text_printf(deck, ", after %s tokens", a);
        if (isfinite(seconds)) {
            rt_number_format(b, seconds, RT_NUMBER_SECONDS);
            rt_text_printf(deck, " and %s of training", b);
        }
        if (cores >= 1 && cores < 1e6)
            rt_text_printf(deck, " on %.0f core%s", cores, cores < 1.5 ? "" : "s");
    }
    if (deck->size)
        rt_text_puts(deck, ".");
}

typedef struct hero {
    const char *key, *name, *unit;
    rt_number kind;
} hero;

/* The trained student's figure, large, over what it was before (or the teacher's, for speed). */
static void put_hero(rt_text *out, const rt_run_record *run, const hero *h)
{
    const double value = rt_figure_get(rt_run_figures(run, RT_RUN_STUDENT), h->key).value;
    const bool is_speed = strcmp(h->key, "decode_tokens_per_s") == 0;
    const double other =
        rt_figure_get(rt_run_figures(run, is_speed ? RT_RUN_TEACHER : RT_RUN_UNTRAINED), h->key).value;
    char text[RT_NUMBER_SIZE];
    if (!isfinite(value))
        return;
    rt_number_format(text, value, h->kind);
    rt_text_printf(out, "<div><b>%s%s</b><span>%s</span>", text, h->unit, h->name);
    if (isfinite(other)) {
        rt_number_format(text, other, h->kind);
        rt_text_printf(out, is_speed ? "<i>teacher: %s</i>" : "<i>untrained: %s</i>", text);
    }
    rt_text_puts(out, "</div>\n");
}

static void put_heroes(rt_text *out, const rt_run_record *run)
{
    static const hero heroes[] = {
        {"kl_teacher_student", "KL to the teacher", "<small> nats</small>", RT_NUMBER_PLAIN},
        {"top1", "same first choice as the teacher", "", RT_NUMBER_SHARE},
        {"acceptance", "expected acceptance as a draft", "", RT_NUMBER_SHARE},
        {"decode_tokens_per_s", "tokens a second, decoding", "", RT_NUMBER_PLAIN},
    };
    const size_t before = out->size;
    rt_text_puts(out, "<div class=\"heroes\">\n");
    const size_t opened = out->size;
    for (size_t i = 0; i < sizeof heroes / sizeof heroes[0]; i++)
        put_hero(out, run, &heroes[i]);
    if (out->size == opened && !out->failed) { /* no figures: no empty box either */
        out->size = before;
        out->data[before] = '\0';
        return;
    }
    rt_text_puts(out, "</div>\n");
}

void rt_report_page(rt_text *out, const rt_run_record *run, rt_report_parts *parts)
{
    const size_t before = out->size;
    char title[TITLE_SIZE];
    const char *started = rt_string_get(run->facts, "started");
    rt_text deck = {0}, kicker = {0};
    *parts = (rt_report_parts){0};
    make_title(title, run);
    make_deck(&deck, run);
    rt_text_puts(&kicker, "Distillation report");
    if (started && strlen(started) >= 10)
        rt_text_printf(&kicker, " \xC2\xB7 %.10s", started);
    rt_page_open(out, title, kicker.data ? kicker.data : "", deck.data ? deck.data : "");
    put_heroes(out, run);
    rt_text_puts(out, "</header>\n<main>\n");
    rt_section_loss(out, run, parts);
    rt_section_judge(out, run, parts);
    rt_section_where(out, run, parts);
    rt_section_cost(out, run, parts);
    rt_text_puts(out, "</main>\n");
    rt_section_samples(out, run, parts);
    rt_text_puts(out, "<main>\n");
    rt_section_facts(out, run, parts);
    rt_text_puts(out, "</main>\n");
    rt_page_close(out, "Made by retort " RT_VERSION
                       " from the files in the run\xE2\x80\x99s directory. Figures that were "
                       "not measured are left out.");
    out->failed = out->failed || deck.failed || kicker.failed;
    parts->bytes = out->size - before;
    rt_text_deinit(&deck);
    rt_text_deinit(&kicker);
}

rt_status rt_report_write(const char *run_dir, const char *path, rt_report_parts *parts, rt_error *err)
{
    rt_run_record run;
    if (rt_run_read(&run, run_dir, err) != RT_OK)
        return err->status;
    rt_text page = {0};
    rt_report_page(&page, &run, parts);
    const rt_status status = page.failed
                                 ? rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for the page", path)
                                 : rt_file_write(path, page.data, page.size, err);
    rt_text_deinit(&page);
    rt_run_deinit(&run);
    return status;
}
