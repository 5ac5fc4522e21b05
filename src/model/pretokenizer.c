/* model/pretokenizer.c - see pretokenizer.h.
 *
 * The steps run depth first: each hands its pieces to the next one, the last to the sink, so that no
 * list of pieces of the whole text is ever made.  Patterns need well-formed text: a text that is not
 * is copied with each ill-formed sequence as U+FFFD, cut, and the cuts are carried back. */
#include "model/pretokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/pretokenizer_class.h"
#include "model/pretokenizer_regex.h"

typedef struct run {
    const rt_pretokenizer *pre;
    rt_regex_run **regexes; /* [count], NULL where the step has none */
    bool first;
    rt_pre_sink sink;
    void *context;
    rt_error *err;
} run;

typedef struct span {
    size_t begin, end;
    bool match;
} span;

typedef struct span_list {
    span *items;
    size_t count, capacity;
} span_list;

void rt_pretokenizer_deinit(rt_pretokenizer *pre)
{
    for (size_t i = 0; i < pre->count; i++) {
        rt_regex_close(pre->steps[i].regex);
        free(pre->steps[i].pattern);
    }
    free(pre->steps);
    *pre = (rt_pretokenizer){0};
}

rt_pre_step *rt_pretokenizer_add(rt_pretokenizer *pre, rt_pre_kind kind)
{
    rt_pre_step *steps = realloc(pre->steps, (pre->count + 1) * sizeof *steps);
    if (!steps)
        return NULL;
    pre->steps = steps;
    steps[pre->count] = (rt_pre_step){.kind = kind};
    return &steps[pre->count++];
}

#define GPT2_TAIL " ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define LLAMA3_HEAD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
#define LLAMA3_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const struct known {
    const char *pattern;
    rt_pre_kind kind;
    size_t limit;
} known_patterns[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d|" GPT2_TAIL, RT_PRE_GPT2, 0},
    {"'s|'t|'re|'ve|'m|'ll|'d|" GPT2_TAIL "|\\s+", RT_PRE_GPT2, 0},
    {"'(?:[sdmt]|ll|ve|re)|" GPT2_TAIL "|\\s+", RT_PRE_GPT2, 0},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|" LLAMA3_HEAD "{1,3}" LLAMA3_TAIL, RT_PRE_LLAMA3, 3},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|" LLAMA3_HEAD LLAMA3_TAIL, RT_PRE_LLAMA3, 1},
    {"\\p{N}", RT_PRE_DIGITS, 1},
    {"\\p{N}+", RT_PRE_DIGITS, 0},
};

rt_status rt_pretokenizer_add_regex(rt_pretokenizer *pre, const char *pattern, rt_split_behaviour behaviour,
                                    bool invert, bool plain, rt_error *err)
{
    const struct known *known = NULL;
    for (size_t i = 0; i < sizeof known_patterns / sizeof *known_patterns && !plain; i++)
        if (strcmp(known_patterns[i].pattern, pattern) == 0 && behaviour == RT_SPLIT_ISOLATED)
            known = &known_patterns[i];
    rt_pre_step *step = rt_pretokenizer_add(pre, known ? known->kind : RT_PRE_REGEX);
    if (!step || !(step->pattern = strdup(pattern)))
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a pre-tokenizer step");
    step->behaviour = behaviour;
    step->invert = invert;
    step->limit = known ? known->limit : 0;
    return known ? RT_OK : rt_regex_open(&step->regex, pattern, err);
}

static bool span_push(span_list *list, size_t begin, size_t end, bool match)
{
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity * 2 + 64;
        span *items = realloc(list->items, capacity * sizeof *items);
        if (!items)
            return false;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = (span){begin, end, match};
    return true;
}

static rt_status no_memory(rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY, "no memory to cut the text");
}

/* -- each fills spans that cover text[0..size) in order -- */

static rt_status cut_by_regex(run *r, size_t index, const char *text, size_t size, span_list *out)
{
    size_t at = 0, from = 0;
    while (from <= size) {
        bool found;
        size_t begin, end;
        if (rt_regex_next(r->regexes[index], text, size, from, &found, &begin, &end, r->err) != RT_OK)
            return r->err->status;
        if (!found)
            break;
        if ((begin > at && !span_push(out, at, begin, false)) ||
            (end > begin && !span_push(out, begin, end, true)))
            return no_memory(r->err);
        at = end;
        from = end;
        if (end == begin) { /* an empty match cuts; go on behind the next character */
            size_t n = 1;
            if (from < size)
                (void)rt_utf8_decode(text + from, size - from, &n);
            from += n;
        }
    }
    return at == size || span_push(out, at, size, false) ? RT_OK : no_memory(r->err);
}

static bool word_at(const char *text, size_t at, size_t size)
{
    size_t n;
    return rt_char_is_word(rt_utf8_decode(text + at, size - at, &n));
}

/* Cuts by class of character; a match is a character (or a run) of the class that the step names. */
static rt_status cut_by_class(const run *r, const rt_pre_step *step, const char *text, size_t size,
                              span_list *out)
{
    for (size_t i = 0, n; i < size; i += n) {
        const unsigned class = rt_char_at(text, i, size, &n);
        bool match = false, alone = false;
        if (step->kind == RT_PRE_DIGITS) {
            match = (class & RT_CHAR_NUMBER) != 0;
            alone = match && step->limit == 1;
        } else if (step->kind == RT_PRE_PUNCTUATION) {
            match =
                (class & RT_CHAR_PUNCTUATION) || ((unsigned char)text[i] < 128 && (class & RT_CHAR_SYMBOL));
            alone = match;
        } else {
            match = (class & RT_CHAR_SPACE) != 0;
        }
        span *last = out->count ? &out->items[out->count - 1] : NULL;
        bool joins = last && last->match == match && !alone;
        if (joins && !match && step->kind == RT_PRE_WORDS)
            joins = word_at(text, last->begin, size) == word_at(text, i, size);
        if (joins)
            last->end = i + n;
        else if (!span_push(out, i, i + n, match))
            return no_memory(r->err);
    }
    return RT_OK;
}

/* Applies the behaviour to the spans, in place. */
static void apply_behaviour(span_list *list, rt_split_behaviour behaviour, bool invert)
{
    size_t count = 0;
    bool was_match = false;
    if (invert)
        for (size_t i = 0; i < list->count; i++)
            list->items[i].match = !list->items[i].match;
    if (behaviour == RT_SPLIT_MERGED_WITH_NEXT) { /* the mirror image: from the right */
        size_t to = list->count;
        for (size_t i = list->count; i-- > 0;) {
            const span s = list->items[i];
            if (s.match && to < list->count && !was_match)
                list->items[to].begin = s.begin;
            else
                list->items[--to] = s;
            was_match = s.match;
        }
        count = list->count - to;
        memmove(list->items, list->items + to, count * sizeof *list->items);
        list->count = count;
        return;
    }
    for (size_t i = 0; i < list->count; i++) {
        const span s = list->items[i];
        const bool joins = count && ((behaviour == RT_SPLIT_CONTIGUOUS && s.match == was_match) ||
                                     (behaviour == RT_SPLIT_MERGED_WITH_PREVIOUS && s.match && !was_match));
        if (joins)
            list->items[count - 1].end = s.end;
        else if (!(behaviour == RT_SPLIT_REMOVED && s.match))
            list->items[count++] = s;
        was_match = s.match;
    }
    list->count = count;
}

static rt_status run_from(run *r, size_t index, const char *text, size_t size);

static rt_status run_spans(run *r, size_t index, const char *text, size_t size)
{
    const rt_pre_step *step = &r->pre->steps[index];
    span_list list = {0};
    rt_status status = step->kind == RT_PRE_REGEX ? cut_by_regex(r, index, text, size, &list)
                                                  : cut_by_class(r, step, text, size, &list);
    if (status == RT_OK)
        apply_behaviour(&list, step->behaviour, step->invert);
    for (size_t i = 0; i < list.count && status == RT_OK; i++)
        status = run_from(r, index + 1, text + list.items[i].begin, list.items[i].end - list.items[i].begin);
    free(list.items);
    return status;
}

static rt_status run_prefix_space(run *r, size_t index, const char *text, size_t size)
{
    if (text[0] == ' ')
        return run_from(r, index + 1, text, size);
    rt_text copy = {0};
    rt_text_append(&copy, " ", 1);
    rt_text_append(&copy, text, size);
    const rt_status status = copy.failed ? no_memory(r->err) : run_from(r, index + 1, copy.data, copy.size);
    rt_text_deinit(&copy);
    return status;
}

static const char meta[3] = {'\xE2', '\x96', '\x81'};

static bool is_meta(const char *text, size_t size) { return size >= 3 && memcmp(text, meta, 3) == 0; }

static rt_status run_metaspace(run *r, size_t index, const char *text, size_t size)
{
    const rt_pre_step *step = &r->pre->steps[index];
    rt_text copy = {0};
    const bool wanted = step->prepend == RT_PREPEND_ALWAYS || (step->prepend == RT_PREPEND_FIRST && r->first);
    r->first = false;
    if (wanted && text[0] != ' ' && !is_meta(text, size))
        rt_text_append(&copy, meta, 3);
    for (size_t i = 0; i < size; i++)
        rt_text_append(&copy, text[i] == ' ' ? meta : text + i, text[i] == ' ' ? 3 : 1);
    rt_status status = copy.failed ? no_memory(r->err) : RT_OK;
    for (size_t begin = 0, end; begin < copy.size && status == RT_OK; begin = end) {
        end = begin + 1;
        while (end < copy.size && !(step->split && is_meta(copy.data + end, copy.size - end)))
            end++;
        status = run_from(r, index + 1, copy.data + begin, end - begin);
    }
    rt_text_deinit(&copy);
    return status;
}

static rt_status run_scanner(run *r, size_t index, const char *text, size_t size)
{
    const rt_pre_step *step = &r->pre->steps[index];
    const bool last = index + 1 == r->pre->count;
    for (size_t at = 0, end; at < size; at = end) {
        end = step->kind == RT_PRE_GPT2 ? rt_scan_gpt2(text, at, size)
                                        : rt_scan_llama3(text, at, size, step->limit);
        assert(end > at && end <= size);
        const rt_status status = last ? r->sink(r->context, text + at, end - at, r->err)
                                      : run_from(r, index + 1, text + at, end - at);
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}

/* Single digits between other text, without a list: the first step of many models. */
static rt_status run_digits(run *r, size_t index, const char *text, size_t size)
{
    size_t begin = 0;
    for (size_t i = 0, n; i < size; i += n) {
        if (!(rt_char_at(text, i, size, &n) & RT_CHAR_NUMBER))
            continue;
        if (i > begin && run_from(r, index + 1, text + begin, i - begin) != RT_OK)
            return r->err->status;
        if (run_from(r, index + 1, text + i, n) != RT_OK)
            return r->err->status;
        begin = i + n;
    }
    return begin == size ? RT_OK : run_from(r, index + 1, text + begin, size - begin);
}

static rt_status run_from(run *r, size_t index, const char *text, size_t size)
{
    if (size == 0)
        return RT_OK;
    if (index == r->pre->count)
        return r->sink(r->context, text, size, r->err);
    const rt_pre_step *step = &r->pre->steps[index];
    switch (step->kind) {
    case RT_PRE_GPT2:
    case RT_PRE_LLAMA3:
        return run_scanner(r, index, text, size);
    case RT_PRE_PREFIX_SPACE:
        return run_prefix_space(r, index, text, size);
    case RT_PRE_METASPACE:
        return run_metaspace(r, index, text, size);
    case RT_PRE_DIGITS:
        return step->limit == 1 ? run_digits(r, index, text, size) : run_spans(r, index, text, size);
    default:
        return run_spans(r, index, text, size);
    }
}

/* -- ill-formed text in front of patterns -- */

typedef struct carried {
    const char *original, *clean; /* where the next word begins in both */
    const char *original_end;
    rt_pre_sink sink;
    void *context;
} carried;

static rt_status carry_back(void *context, const char *word, size_t size, rt_error *err)
{
    carried *c = context;
    /* A step that drops text leaves a gap; both sides advance character by character through it. */
    const char *from = NULL;
    for (const char *end = word + size; c->clean < end;) {
        size_t n, m;
        if (c->clean == word)
            from = c->original;
        (void)rt_utf8_decode(c->clean, 4, &n);
        (void)rt_utf8_decode(c->original, (size_t)(c->original_end - c->original), &m);
        c->clean += n;
        c->original += m;
    }
    assert(from);
    return c->sink(c->context, from, (size_t)(c->original - from), err);
}

static bool rewrites_text(const rt_pretokenizer *pre)
{
    for (size_t i = 0; i < pre->count; i++)
        if (pre->steps[i].kind == RT_PRE_METASPACE || pre->steps[i].kind == RT_PRE_PREFIX_SPACE)
            return true;
    return false;
}

static bool has_regex(const rt_pretokenizer *pre)
{
    for (size_t i = 0; i < pre->count; i++)
        if (pre->steps[i].regex)
            return true;
    return false;
}

static rt_status run_cleaned(run *r, const char *text, size_t size)
{
    rt_text clean = {0};
    for (size_t i = 0, n; i < size; i += n) {
        char utf8[4];
        rt_text_append(&clean, utf8, rt_utf8_encode(rt_utf8_decode(text + i, size - i, &n), utf8));
    }
    rt_text_append(&clean, "\0\0\0", 3); /* carry_back may look at four bytes */
    if (clean.failed) {
        rt_text_deinit(&clean);
        return no_memory(r->err);
    }
    carried back = {text, clean.data, text + size, r->sink, r->context};
    if (!rewrites_text(r->pre)) {
        r->sink = carry_back;
        r->context = &back;
    } /* else the words are not pieces of the text: U+FFFD it is */
    const rt_status status = run_from(r, 0, clean.data, clean.size - 3);
    rt_text_deinit(&clean);
    return status;
}

rt_status rt_pretokenizer_run(const rt_pretokenizer *pre, const char *text, size_t size, bool first,
                              rt_pre_sink sink, void *context, rt_error *err)
{
    run r = {.pre = pre, .first = first, .sink = sink, .context = context, .err = err};
    if (!has_regex(pre))
        return run_from(&r, 0, text, size);
    rt_status status = RT_OK;
    r.regexes = calloc(pre->count, sizeof *r.regexes);
    if (!r.regexes)
        return no_memory(err);
    for (size_t i = 0; i < pre->count && status == RT_OK; i++)
        if (pre->steps[i].regex)
            status = rt_regex_run_open(&r.regexes[i], pre->steps[i].regex, err);
    if (status == RT_OK)
        status = rt_utf8_valid(text, size) ? run_from(&r, 0, text, size) : run_cleaned(&r, text, size);
    for (size_t i = 0; i < pre->count; i++)
        rt_regex_run_close(r.regexes[i]);
    free(r.regexes);
    return status;
}
