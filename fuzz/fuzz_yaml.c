/* fuzz/fuzz_yaml.c - recipes: any bytes end in settings or a sentence, and settings survive printing. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct recipe {
    const char *text;
    size_t count;
    double real;
    bool flag;
    int choice;
    rt_strings strings;
    rt_counts counts;
} recipe;

static const rt_field fields[] = {
    {"text", RT_FIELD_STRING, offsetof(recipe, text), "''", "a text", NULL, 0, 0},
    {"a.count", RT_FIELD_COUNT, offsetof(recipe, count), "1", "a count", NULL, 0, 1e9},
    {"a.b.real", RT_FIELD_REAL, offsetof(recipe, real), "1", "a real", NULL, -1e3, 1e3},
    {"a.flag", RT_FIELD_BOOL, offsetof(recipe, flag), "no", "a flag", NULL, 0, 0},
    {"choice", RT_FIELD_CHOICE, offsetof(recipe, choice), "x", "a choice", "x|yy|z", 0, 0},
    {"strings", RT_FIELD_STRINGS, offsetof(recipe, strings), "[]", "texts", NULL, 0, 0},
    {"counts", RT_FIELD_COUNTS, offsetof(recipe, counts), "[]", "counts", NULL, 0, 0},
};
enum { N_FIELDS = sizeof fields / sizeof fields[0] };

static void check(bool holds)
{
    if (!holds)
        __builtin_trap();
}

static void check_same(const recipe *a, const recipe *b)
{
    check(strcmp(a->text, b->text) == 0 && a->count == b->count && a->real == b->real && a->flag == b->flag &&
          a->choice == b->choice && a->strings.count == b->strings.count &&
          a->counts.count == b->counts.count);
    for (size_t i = 0; i < a->strings.count; i++)
        check(strcmp(a->strings.items[i], b->strings.items[i]) == 0);
    for (size_t i = 0; i < a->counts.count; i++)
        check(a->counts.items[i] == b->counts.items[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rt_settings *first = NULL, *second = NULL;
    rt_error err = {0};
    recipe a = {0}, b = {0};
    rt_text text = {0};
    check(rt_settings_open(&first, fields, N_FIELDS, &err) == RT_OK);
    check(rt_settings_open(&second, fields, N_FIELDS, &err) == RT_OK);
    if (rt_settings_read_text(first, (const char *)data, size, "fuzz", &err) != RT_OK ||
        rt_settings_fill(first, &a, &err) != RT_OK) {
        check(err.text[0] != '\0');
    } else {
        rt_settings_print(first, &text);
        check(rt_settings_read_text(second, text.data, text.size, "printed", &err) == RT_OK);
        check(rt_settings_fill(second, &b, &err) == RT_OK);
        check_same(&a, &b);
    }
    rt_text_deinit(&text);
    rt_settings_close(first);
    rt_settings_close(second);
    return 0;
}
