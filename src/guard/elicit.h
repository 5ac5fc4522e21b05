/* guard/elicit.h - what a prompt is and what it wants, by one small linear classifier.
 *
 * Two groups of labels.  A *type* is what the task is (a question, a piece of mathematics, a multiple choice,
 * ...), one for each prompt by the largest probability.  A *want* is what a collector wraps round tasks
 * (the whole reasoning, a grade, a harder task, ...), each on its own.  Features are hashed words and pairs
 * of neighbouring words; the table of weights is data/guard/elicit.weights, made by `retort guard
 * train-elicit`. */
#ifndef RT_GUARD_ELICIT_H
#define RT_GUARD_ELICIT_H

#include "guard/digest.h"

/* A type is judged by the words of the task alone, without what the account wraps round all of its prompts
 * (frame.h); a want by all words. */
typedef struct rt_guard_range {
    uint32_t begin, end; /* words of a digest */
} rt_guard_range;

#define RT_GUARD_TYPE_MAP(X)                                                                                 \
    X(question) X(follow_up) X(mathematics) X(choice) X(puzzle) X(code) X(document) X(translation) X(message)
#define RT_GUARD_WANT_MAP(X) X(trace) X(grade) X(compare) X(evolve) X(wrapper) X(generate) X(agent)

typedef enum rt_guard_type {
#define RT_GUARD_TYPE_ENUM(name) RT_GUARD_TYPE_##name,
    RT_GUARD_TYPE_MAP(RT_GUARD_TYPE_ENUM)
#undef RT_GUARD_TYPE_ENUM
        RT_GUARD_TYPES
} rt_guard_type;

typedef enum rt_guard_want {
#define RT_GUARD_WANT_ENUM(name) RT_GUARD_WANT_##name,
    RT_GUARD_WANT_MAP(RT_GUARD_WANT_ENUM)
#undef RT_GUARD_WANT_ENUM
        RT_GUARD_WANTS
} rt_guard_want;

enum { RT_ELICIT_LABELS = 16, RT_ELICIT_ROWS = 1 << 14 };
_Static_assert((int)RT_GUARD_TYPES + (int)RT_GUARD_WANTS == RT_ELICIT_LABELS, "a row holds all labels");

extern const char *const rt_guard_type_names[RT_GUARD_TYPES];
extern const char *const rt_guard_want_names[RT_GUARD_WANTS];

/* The weights: rows of 16 bytes, times one scale for each label, plus a bias. */
typedef struct rt_elicit_table {
    char magic[8]; /* "rtelic1\n" */
    float scale[RT_ELICIT_LABELS], bias[RT_ELICIT_LABELS];
    int8_t rows[RT_ELICIT_ROWS][RT_ELICIT_LABELS];
} rt_elicit_table;

/* The table that is part of the program. */
const rt_elicit_table *rt_elicit_builtin(void);

typedef struct rt_guard_elicited {
    float type[RT_GUARD_TYPES]; /* probabilities, sum 1 */
    float want[RT_GUARD_WANTS]; /* probabilities, each on its own */
    rt_guard_type best;
} rt_guard_elicited;
void rt_elicit(rt_guard_elicited *out, const rt_elicit_table *table, const rt_guard_digest *digest,
               rt_guard_range task);

#endif
