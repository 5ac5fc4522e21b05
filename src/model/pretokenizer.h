/* model/pretokenizer.h - cuts a text into the words that the model encodes one by one.
 *
 * A list of steps; each cuts the pieces of the one before it further (or drops parts, or puts a blank
 * in front).  Built from the name in GGUF's tokenizer.ggml.pre or from tokenizer.json, then immutable.
 * The patterns of GPT-2, Llama 3 and Qwen2 are hand-written scanners, any other is a PCRE2 program with
 * a limit on its steps. */
#ifndef RT_MODEL_PRETOKENIZER_H
#define RT_MODEL_PRETOKENIZER_H

#include <jansson.h>

#include "base/text.h"

typedef enum rt_pre_kind {
    RT_PRE_GPT2,         /* 's|'t|... ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
    RT_PRE_LLAMA3,       /* its pattern with \p{N}{1,limit} */
    RT_PRE_DIGITS,       /* \p{N} each by itself (limit 1) or runs of them (limit 0) */
    RT_PRE_PUNCTUATION,  /* behaviour applies */
    RT_PRE_WORDS,        /* \w+|[^\w\s]+, blanks dropped */
    RT_PRE_BLANKS,       /* cut at whitespace, which is dropped */
    RT_PRE_REGEX,        /* behaviour and invert apply */
    RT_PRE_PREFIX_SPACE, /* puts a blank in front unless there is one */
    RT_PRE_METASPACE     /* blanks become U+2581, one is put in front, cut before each */
} rt_pre_kind;

typedef enum rt_split_behaviour { /* what happens to a match */
                                  RT_SPLIT_ISOLATED,
                                  RT_SPLIT_REMOVED,
                                  RT_SPLIT_MERGED_WITH_PREVIOUS,
                                  RT_SPLIT_MERGED_WITH_NEXT,
                                  RT_SPLIT_CONTIGUOUS
} rt_split_behaviour;

typedef enum rt_prepend { RT_PREPEND_ALWAYS, RT_PREPEND_FIRST, RT_PREPEND_NEVER } rt_prepend;

typedef struct rt_pre_step {
    rt_pre_kind kind;
    rt_split_behaviour behaviour;
    bool invert; /* matches and what lies between change places */
    size_t limit;
    rt_prepend prepend;     /* metaspace */
    bool split;             /* metaspace */
    struct rt_regex *regex; /* owned */
    char *pattern;          /* owned; as it was given */
} rt_pre_step;

typedef struct rt_pretokenizer {
    rt_pre_step *steps;
    size_t count;
} rt_pretokenizer;

void rt_pretokenizer_deinit(rt_pretokenizer *pre);
/* Appends a step and gives it, zeroed; NULL when out of memory. */
rt_pre_step *rt_pretokenizer_add(rt_pretokenizer *pre, rt_pre_kind kind);
/* Appends a regular expression; one that a scanner knows becomes that scanner unless `plain`. */
rt_status rt_pretokenizer_add_regex(rt_pretokenizer *pre, const char *pattern, rt_split_behaviour behaviour,
                                    bool invert, bool plain, rt_error *err);

/* What GGUF's tokenizer.ggml.pre means. */
typedef struct rt_pre_name {
    const char *name;
    const char *patterns[6]; /* applied one after another; NULL ends */
    bool ignore_merges;      /* a word that is a token is taken whole */
    bool nfc;                /* the reference tokenizer normalises first */
} rt_pre_name;
/* NULL: no such name (err says so, RT_UNSUPPORTED). */
const rt_pre_name *rt_pretokenizer_find(const char *name, size_t size, rt_error *err);
rt_status rt_pretokenizer_from_name(rt_pretokenizer *pre, const rt_pre_name *name, rt_error *err);
/* The patterns for tokenizer.json: an array of Split objects (the caller owns it). */
json_t *rt_pretokenizer_to_json(const rt_pretokenizer *pre);

/* A word of the text or of a buffer that lives during the call. */
typedef rt_status (*rt_pre_sink)(void *context, const char *word, size_t size, rt_error *err);
/* first: the text begins the whole input (metaspace cares).  Any bytes; an ill-formed sequence counts
 * as one symbol character. */
rt_status rt_pretokenizer_run(const rt_pretokenizer *pre, const char *text, size_t size, bool first,
                              rt_pre_sink sink, void *context, rt_error *err);

/* -- parts that the tests compare with each other -- */
/* End of the word that begins at `at` < size. */
size_t rt_scan_gpt2(const char *text, size_t at, size_t size);
size_t rt_scan_llama3(const char *text, size_t at, size_t size, size_t digits_max);

#endif
