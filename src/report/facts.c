/* report/facts.c - the section on the run itself: who, from what, where, how; see sections.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/html.h"
#include "report/page.h"
#include "report/sections.h"

enum { VALUE_BYTES_MAX = 400, ROWS_MAX = 100 };

typedef struct fact {
    const char *key, *name;
    rt_number kind; /* for numbers */
} fact;

static void open_row(rt_text *out, const char *name)
{
    rt_text_puts(out, "<dt>");
    for (size_t i = 0; name[i] && i < 60; i++) { /* keys read better without their underscores */
        const char c = name[i] == '_' ? ' ' : name[i];
        rt_html_text(out, &c, 1, 1);
    }
    rt_text_puts(out, "</dt><dd>");
}

static void put_value(rt_text *out, const json_t *value, rt_number kind)
{
    char number[RT_NUMBER_SIZE];
    char *dump;
    switch (json_typeof(value)) {
    case JSON_STRING:
        rt_html_text(out, json_string_value(value), json_string_length(value), VALUE_BYTES_MAX);
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        rt_number_format(number, json_number_value(value), kind);
        rt_text_puts(out, number);
        break;
    case JSON_TRUE:
        rt_text_puts(out, "yes");
        break;
    case JSON_FALSE:
        rt_text_puts(out, "no");
        break;
    case JSON_NULL:
        rt_text_puts(out, "\xE2\x80\x93");
        break;
    case JSON_OBJECT:
    case JSON_ARRAY:
        dump = json_dumps(value, JSON_REAL_PRECISION(6));
        if (dump)
            rt_html_text(out, dump, strlen(dump), VALUE_BYTES_MAX);
        free(dump);
        break;
    }
}

static bool put_rows(rt_text *out, const json_t *object, const fact *facts, size_t count)
{
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(object, facts[i].key);
        if (!value || json_is_null(value))
            continue;
        if (!any)
            rt_text_puts(out, "<dl>\n");
        any = true;
        open_row(out, facts[i].name);
        const bool is_hash = strcmp(facts[i].key, "hash") == 0;
        rt_text_puts(out, is_hash ? "<span class=\"hash\">" : "<span>");
        put_value(out, value, facts[i].kind);
        rt_text_puts(out, "</span></dd>\n");
    }
    if (any)
        rt_text_puts(out, "</dl>\n");
    return any;
}

/* Every key of an object of somebody else's choice, in its order. */
static bool put_all_rows(rt_text *out, json_t *object)
{
    const char *key;
    json_t *value;
    size_t rows = 0;
    json_object_foreach(object, key, value)
    {
        if (rows == ROWS_MAX)
            break;
        if (!rows++)
            rt_text_puts(out, "<dl>\n");
        open_row(out, key);
        put_value(out, value, RT_NUMBER_DIGITS);
        rt_text_puts(out, "</dd>\n");
    }
    if (rows)
        rt_text_puts(out, "</dl>\n");
    return rows > 0;
}

static const fact model_facts[] = {
    {"name", "name", RT_NUMBER_DIGITS},        {"parameters", "parameters", RT_NUMBER_INTEGER},
    {"layers", "layers", RT_NUMBER_INTEGER},   {"type", "type of weights", RT_NUMBER_DIGITS},
    {"bytes", "weight file", RT_NUMBER_BYTES}, {"init", "started from", RT_NUMBER_DIGITS},
    {"licence", "licence", RT_NUMBER_DIGITS},  {"hash", "SHA-256", RT_NUMBER_DIGITS},
};
static const fact training_facts[] = {
    {"started", "started", RT_NUMBER_DIGITS},
    {"steps", "steps", RT_NUMBER_INTEGER},
    {"tokens", "tokens", RT_NUMBER_INTEGER},
    {"seconds", "time", RT_NUMBER_SECONDS},
    {"tokens_per_s", "tokens a second", RT_NUMBER_PLAIN},
    {"peak_bytes", "peak memory", RT_NUMBER_BYTES},
    {"seed", "seed", RT_NUMBER_DIGITS},
};
static const fact machine_facts[] = {
    {"cpu", "processor", RT_NUMBER_DIGITS},
    {"isa", "kernels", RT_NUMBER_DIGITS},
    {"cores", "cores", RT_NUMBER_INTEGER},
    {"memory_bytes", "memory", RT_NUMBER_BYTES},
    {"os", "system", RT_NUMBER_DIGITS},
    {"gemm_bf16_flops", "bf16 products", RT_NUMBER_FLOPS},
    {"gemm_f32_flops", "f32 products", RT_NUMBER_FLOPS},
};

/* One block of the two-column grid; vanishes when it has no rows.  `count` 0: every key of the object. */
static bool put_block(rt_text *out, const char *heading, json_t *object, const fact *facts, size_t count)
{
    rt_text rows = {0};
    const bool any = count ? put_rows(&rows, object, facts, count) : put_all_rows(&rows, object);
    if (any) {
        rt_text_printf(out, "<div><h3>%s</h3>\n", heading);
        rt_text_append(out, rows.data, rows.size);
        rt_text_puts(out, "</div>\n");
    }
    out->failed = out->failed || rows.failed;
    rt_text_deinit(&rows);
    return any;
}

static void put_lineage(rt_text *out, const json_t *facts)
{
    const json_t *list = json_object_get(facts, "lineage"), *item;
    size_t i;
    if (!json_array_size(list))
        return;
    rt_text_puts(out, "<ol class=\"lineage\">\n");
    json_array_foreach(list, i, item)
    {
        if (!json_is_string(item) || i >= ROWS_MAX)
            continue;
        rt_text_puts(out, "<li>");
        rt_html_text(out, json_string_value(item), json_string_length(item), VALUE_BYTES_MAX);
        rt_text_puts(out, "</li>\n");
    }
    rt_text_puts(out, "</ol>\n");
}

static void put_licence(rt_text *out, const json_t *teacher)
{
    const char *licence = rt_string_get(teacher, "licence");
    rt_text_puts(out, "<p class=\"licence\">");
    if (licence && licence[0]) {
        rt_text_puts(out, "The teacher\xE2\x80\x99s licence is <b>");
        rt_html_text(out, licence, strlen(licence), VALUE_BYTES_MAX);
        rt_text_puts(out, "</b>. It goes with the student, which was made from the teacher\xE2\x80\x99s "
                          "weights and outputs.");
    } else {
        rt_text_puts(out, "The run does not name the teacher\xE2\x80\x99s licence. Find it out before you "
                          "pass the student on.");
    }
    rt_text_puts(out, "</p>\n");
}

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

void rt_section_facts(rt_text *out, const rt_run_record *run, rt_report_parts *parts)
{
    rt_page_section_open(out, "run", "The run");
    if (!run->facts) {
        rt_page_missing(out, "There is no run.json, so the page cannot say which models, which machine and "
                             "which recipe this was.");
        rt_page_section_close(out);
        return;
    }
    json_t *facts = run->facts;
    put_lineage(out, facts);
    put_licence(out, json_object_get(facts, "teacher"));
    rt_text_puts(out, "<div class=\"facts\">\n");
    put_block(out, "Teacher", json_object_get(facts, "teacher"), model_facts, COUNT(model_facts));
    put_block(out, "Student", json_object_get(facts, "student"), model_facts, COUNT(model_facts));
    put_block(out, "Training", facts, training_facts, COUNT(training_facts));
    put_block(out, "Machine", json_object_get(facts, "machine"), machine_facts, COUNT(machine_facts));
    put_block(out, "Recipe", json_object_get(facts, "recipe"), NULL, 0);
    put_block(out, "Versions", json_object_get(facts, "versions"), NULL, 0);
    rt_text_puts(out, "</div>\n");
    parts->facts = true;
    rt_page_section_close(out);
}
