/* guard/elicit.c - see elicit.h. */
#include "guard/elicit.h"

#include <math.h>
#include <string.h>

#define NAME(name) #name,
const char *const rt_guard_type_names[RT_GUARD_TYPES] = {RT_GUARD_TYPE_MAP(NAME)};
const char *const rt_guard_want_names[RT_GUARD_WANTS] = {RT_GUARD_WANT_MAP(NAME)};
#undef NAME

/* The file is taken in whole by the assembler: 256 KiB would be a million characters as C. */
__asm__(".section .rodata\n"
        ".balign 64\n"
        "rt_elicit_file:\n"
        ".incbin \"" RT_GUARD_DATA_DIR "/elicit.weights\"\n"
        ".previous\n");
extern const rt_elicit_table rt_elicit_file __attribute__((visibility("hidden")));

const rt_elicit_table *rt_elicit_builtin(void) { return &rt_elicit_file; }

/* Adds the rows of words [range) and of the pairs that begin there and end before `stop`. */
static void add_rows(int32_t sums[RT_ELICIT_LABELS], const rt_elicit_table *table,
                     const rt_guard_digest *digest, rt_guard_range range, uint32_t stop)
{
    for (uint32_t i = range.begin; i < range.end; i++) {
        const int8_t *row = table->rows[digest->words[i] & (RT_ELICIT_ROWS - 1)];
        for (size_t k = 0; k < RT_ELICIT_LABELS; k++)
            sums[k] += row[k];
        if (i + 1 >= stop || i == digest->gap)
            continue;
        row =
            table->rows[rt_guard_digest_pair(digest->words[i], digest->words[i + 1]) & (RT_ELICIT_ROWS - 1)];
        for (size_t k = 0; k < RT_ELICIT_LABELS; k++)
            sums[k] += row[k];
    }
}

void rt_elicit(rt_guard_elicited *out, const rt_elicit_table *table, const rt_guard_digest *digest,
               rt_guard_range task)
{
    int32_t sums[RT_ELICIT_LABELS] = {0}, frame[RT_ELICIT_LABELS] = {0};
    const uint32_t n = digest->n_words;
    add_rows(sums, table, digest, task, task.end);
    add_rows(frame, table, digest, (rt_guard_range){0, task.begin}, n);
    add_rows(frame, table, digest, (rt_guard_range){task.end, n}, n);
    for (size_t k = RT_GUARD_TYPES; k < RT_ELICIT_LABELS; k++)
        sums[k] += frame[k];
    float logit[RT_ELICIT_LABELS], max = -INFINITY, total = 0;
    for (size_t k = 0; k < RT_ELICIT_LABELS; k++)
        logit[k] = (float)sums[k] * table->scale[k] + table->bias[k];
    for (size_t k = 0; k < RT_GUARD_TYPES; k++)
        if (logit[k] > max) {
            max = logit[k];
            out->best = (rt_guard_type)k;
        }
    for (size_t k = 0; k < RT_GUARD_TYPES; k++)
        total += out->type[k] = expf(logit[k] - max);
    for (size_t k = 0; k < RT_GUARD_TYPES; k++)
        out->type[k] /= total;
    for (size_t k = 0; k < RT_GUARD_WANTS; k++)
        out->want[k] = 1 / (1 + expf(-logit[RT_GUARD_TYPES + k]));
}
