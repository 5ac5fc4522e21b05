/* cli/plan_target.c - `retort plan --target SIZE`: students of about that size, cut out of a teacher, ranked
 * by student/propose.h, each with what training it takes and as a line that a recipe takes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/plan_inputs.h"
#include "student/propose.h"

enum { WORD_BYTES = 512, OWN_WORDS = 12 };

/* ---- the size ---- */

typedef struct wanted {
    double value;
    bool is_bytes;
} wanted;

static rt_status read_target(wanted *out, const char *text, rt_error *err)
{
    static const struct {
        const char *suffix;
        double factor;
        bool is_bytes;
    } suffixes[] = {{"", 1, false},        {"K", 1e3, false},     {"M", 1e6, false},    {"G", 1e9, false},
                    {"B", 1e9, false},     {"KB", 1e3, true},     {"MB", 1e6, true},    {"GB", 1e9, true},
                    {"KiB", 0x1p10, true}, {"MiB", 0x1p20, true}, {"GiB", 0x1p30, true}};
    char *end = NULL;
    const double value = strtod(text, &end);
    for (size_t i = 0; end != text && i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (strcmp(end, suffixes[i].suffix) == 0 && value > 0 && value < 1e15) {
            *out = (wanted){value * suffixes[i].factor, suffixes[i].is_bytes};
            return RT_OK;
        }
    return rt_error_set(err, RT_INVALID,
                        "--target: '%.60s' is no size; 40M or 1.5G are parameters, 100MB is a file", text);
}

/* Bits a weight of the first of output.types. */
static double bits_of_first(const rt_recipe *recipe, const char **name)
{
    rt_dtype dtype = RT_BF16;
    if (recipe->output.types.count)
        (void)rt_dtype_from_name(&dtype, recipe->output.types.items[0]);
    const rt_dtype_info *info = rt_dtype_get(dtype);
    *name = info->name;
    return 8 * (double)info->block_bytes / (double)info->block_elements;
}

/* ---- the words of a shape ---- */

typedef struct word_list {
    char **items;
    char (*own)[WORD_BYTES];
    size_t count, n_own;
} word_list;

static void add_word(word_list *l, const char *key, const char *value)
{
    char *own = l->own[l->n_own++];
    (void)snprintf(own, WORD_BYTES, "%s=%s", key, value);
    l->items[l->count++] = own;
}

static void add_count(word_list *l, const char *key, size_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%zu", value);
    add_word(l, key, text);
}

static rt_status words_open(word_list *l, const plan_target *t, bool recipe, char **words, size_t n_words,
                            rt_error *err)
{
    *l = (word_list){.items = calloc(n_words + OWN_WORDS, sizeof *l->items),
                     .own = calloc(OWN_WORDS, WORD_BYTES)};
    if (!l->items || !l->own)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a shape's settings");
    const char *from = t->from ? t->from : recipe ? NULL : "smollm2-135m-instruct";
    if (from && strlen(from) > WORD_BYTES - 32)
        return rt_error_set(err, RT_INVALID, "--from: the path is longer than %d bytes", WORD_BYTES - 32);
    if (!recipe)
        add_word(l, "data.train", "[text.jsonl]");
    for (size_t i = 0; i < n_words; i++)
        l->items[l->count++] = words[i];
    if (from)
        add_word(l, "teacher.model", from);
    add_word(l, "student.init", "layers");
    add_word(l, "student.layers", "[]");
    add_word(l, "student.model", "''");
    add_word(l, "adapters.rank", "0");
    return RT_OK;
}

static void words_close(word_list *l)
{
    free(l->items);
    free(l->own);
}

/* ---- shapes ---- */

static void line_of(char out[160], const rt_proposal *p)
{
    int n = snprintf(out, 160, "student: {n_layers: %zu", p->n_layers);
    const struct {
        const char *key;
        size_t value;
    } keys[] = {{"n_ff", p->sizes.n_ff},
                {"n_heads", p->sizes.n_heads},
                {"n_heads_kv", p->sizes.n_heads_kv},
                {"n_embd", p->sizes.n_embd}};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (keys[i].value)
            n += snprintf(out + n, 160 - (size_t)n, ", %s: %zu", keys[i].key, keys[i].value);
    (void)snprintf(out + n, 160 - (size_t)n, "}");
}

static rt_status shape_json(json_t *list, const rt_proposal *p, double bits, word_list *words,
                            const char *recipe_path, const plan_options *options, rt_error *err)
{
    const size_t kept_count = words->count, kept_own = words->n_own;
    plan_inputs in = {0};
    rt_estimate e;
    char line[160];
    add_count(words, "student.n_layers", p->n_layers);
    add_count(words, "student.n_ff", p->sizes.n_ff);
    add_count(words, "student.n_heads", p->sizes.n_heads);
    add_count(words, "student.n_heads_kv", p->sizes.n_heads_kv);
    add_count(words, "student.n_embd", p->sizes.n_embd);
    const rt_status status = plan_inputs_read(&in, recipe_path, words->items, words->count, options, err);
    words->count = kept_count;
    words->n_own = kept_own;
    if (status == RT_OK) {
        rt_estimate_make(&e, &in.in);
        line_of(line, p);
        (void)json_array_append_new(
            list,
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:b}", "recipe", line,
                      "n_layers", (json_int_t)p->n_layers, "n_ff", (json_int_t)p->sizes.n_ff, "n_heads",
                      (json_int_t)p->sizes.n_heads, "n_heads_kv", (json_int_t)p->sizes.n_heads_kv, "n_embd",
                      (json_int_t)p->sizes.n_embd, "parameters", p->parameters, "file_bytes",
                      p->parameters * bits / 8, "harm", p->harm, "tokens_per_s", e.time.tokens_per_s,
                      "total_s", e.time.total_s, "peak_bytes", e.memory.peak, "fits", e.memory.fits));
    }
    plan_inputs_close(&in);
    return status;
}

rt_status plan_target_json(json_t **out, const plan_target *target, const char *recipe_path, char **words,
                           size_t n_words, const plan_options *options, rt_error *err)
{
    wanted size = {0};
    word_list list = {0};
    plan_inputs recipe = {0};
    rt_model_config teacher;
    rt_proposal shapes[RT_PROPOSALS_MAX];
    size_t n = 0;
    const char *type = "";
    double bits = 16;
    if (target->n_max == 0 || target->n_max > RT_PROPOSALS_MAX)
        return rt_error_set(err, RT_INVALID, "--shapes %zu is not in 1..%d", target->n_max,
                            (int)RT_PROPOSALS_MAX);
    rt_status status = read_target(&size, target->target, err);
    if (status == RT_OK)
        status = words_open(&list, target, recipe_path != NULL, words, n_words, err);
    if (status == RT_OK)
        status = plan_teacher_config(&teacher, &recipe, recipe_path, list.items, list.count, err);
    if (status == RT_OK) {
        bits = bits_of_first(&recipe.recipe, &type);
        status = rt_propose_cuts(shapes, &n, target->n_max, &teacher,
                                 size.is_bytes ? size.value * 8 / bits : size.value, err);
    }
    json_t *rows = json_array();
    plan_options untold = *options;
    untold.no_text = options->no_text || !recipe_path;
    for (size_t i = 0; status == RT_OK && i < n; i++)
        status = shape_json(rows, &shapes[i], bits, &list, recipe_path, &untold, err);
    if (status == RT_OK)
        *out = json_pack("{s:f, s:b, s:s, s:s, s:f, s:O}", "target", size.value, "target_is_bytes",
                         size.is_bytes, "type", type, "teacher", recipe.recipe.teacher.model,
                         "teacher_parameters", (double)rt_model_config_parameters(&teacher), "shapes", rows);
    json_decref(rows);
    plan_inputs_close(&recipe);
    words_close(&list);
    return status;
}

static double number(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

void plan_target_print(const json_t *json)
{
    char a[24], b[24], c[24], d[24];
    const json_t *shapes = json_object_get(json, "shapes");
    const double whole = number(json, "teacher_parameters");
    double most = 0;
    size_t i;
    json_t *row;
    (void)printf("# out of %s, %s parameters; the likeliest to do well first\n",
                 json_string_value(json_object_get(json, "teacher")), plan_short_number(a, whole));
    (void)printf("# %10s %10s %10s %10s\n", "parameters", json_string_value(json_object_get(json, "type")),
                 "tokens/s", "memory");
    json_array_foreach(shapes, i, row)
    {
        most = fmax(most, number(row, "parameters"));
        (void)printf(
            "  %10s %10s %10s %10s   %s%s\n", plan_short_number(a, number(row, "parameters")),
            plan_bytes(b, number(row, "file_bytes")), plan_short_number(c, number(row, "tokens_per_s")),
            plan_bytes(d, number(row, "peak_bytes")), json_string_value(json_object_get(row, "recipe")),
            json_is_false(json_object_get(row, "fits")) ? "  # MORE THAN THE MACHINE HAS" : "");
    }
    if (most < whole / 2)
        (void)printf(
            "# less than half of the teacher at once: better by steps, each trained before the next is cut, "
            "as by --target %s first\n",
            plan_short_number(a, sqrt(whole * most)));
}
