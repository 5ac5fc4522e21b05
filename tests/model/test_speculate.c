/* tests/model/test_speculate.c - speculative decoding says what the model alone would say: the same tokens
 * when greedy or marked, the same distribution when drawn, whatever the draft. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "base/size.h"
#include "evidence/marker.h"
#include "model/generate.h"
#include "model/lookup.h"
#include "model/session.h"
#include "model/shortlist.h"
#include "model/weights.h"

#define GOLDEN RT_TEST_SOURCE_DIR "/tests/golden/engine/"

enum { PROMPT = 6, ANSWER = 40, PROMPTS = 12 };

static rt_pool *pool;
static rt_model *model, *other, *third; /* of one vocabulary; different families and weights */
static rt_model *shortened;             /* other, with a head of some ids */
enum { SHORT_EVERY = 3 };               /* every third id */

static rt_model *open_family(const char *family, rt_precision precision)
{
    rt_error err = {0};
    rt_weights *weights;
    rt_model *out;
    char path[512];
    (void)snprintf(path, sizeof path, GOLDEN "%s", family);
    if (rt_weights_open(&weights, path, &err) != RT_OK ||
        rt_model_open(&out, weights, precision, pool, &err) != RT_OK)
        fail_msg("%s", err.text);
    rt_weights_close(weights);
    return out;
}

/* The list, as it goes through a file. */
static void shorten(rt_model *out, const char *family)
{
    rt_error err = {0};
    const size_t vocab = out->config.n_vocab;
    int32_t said[512];
    size_t n = 0;
    for (size_t v = 0; v < vocab; v += SHORT_EVERY)
        said[n++] = (int32_t)v;
    rt_shortlist list, read;
    rt_weights *weights;
    char path[512], name[] = "/tmp/retort-shortlist-XXXXXX";
    (void)snprintf(path, sizeof path, GOLDEN "%s", family);
    const int fd = mkstemp(name);
    if (fd < 0 || rt_shortlist_count(&list, said, NULL, n, vocab, n, &err) != RT_OK ||
        rt_shortlist_write(&list, name, &err) != RT_OK || rt_shortlist_read(&read, name, &err) != RT_OK ||
        rt_weights_open(&weights, path, &err) != RT_OK)
        fail_msg("%s", err.text);
    (void)close(fd);
    (void)remove(name);
    assert_int_equal(read.n, n);
    assert_memory_equal(read.ids, list.ids, n * sizeof *read.ids);
    if (rt_model_shorten_head(out, weights, &read, &err) != RT_OK)
        fail_msg("%s", err.text);
    rt_weights_close(weights);
    rt_shortlist_deinit(&list);
    rt_shortlist_deinit(&read);
}

static int open_models(void **state)
{
    (void)state;
    rt_error err = {0};
    if (rt_pool_open(&pool, 2, &err) != RT_OK)
        return 1;
    model = open_family("llama", RT_PRECISION_F32);
    other = open_family("qwen3", RT_PRECISION_F32);
    third = open_family("llama", RT_PRECISION_BF16);
    shortened = open_family("qwen3", RT_PRECISION_F32);
    shorten(shortened, "qwen3");
    return 0;
}

static int close_models(void **state)
{
    (void)state;
    rt_model_close(model);
    rt_model_close(other);
    rt_model_close(third);
    rt_model_close(shortened);
    rt_pool_close(pool);
    return 0;
}

static int32_t prompt_ids[PROMPTS][PROMPT];

static void make_prompts(rt_prompt *prompts, size_t n, size_t tokens_max)
{
    rt_rng rng = rt_rng_make(3, 1);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < PROMPT; j++)
            prompt_ids[i][j] = (int32_t)rt_rng_below(&rng, model->config.n_vocab);
        prompts[i] = (rt_prompt){prompt_ids[i], PROMPT, tokens_max, i};
    }
}

typedef struct answers {
    int32_t ids[PROMPTS][128];
    size_t n[PROMPTS], told[PROMPTS];
} answers;

static bool hear(void *context, size_t index, int32_t id)
{
    answers *a = context;
    a->ids[index][a->told[index]++] = id;
    return true;
}

static bool keep(void *context, const rt_answer *answer)
{
    answers *a = context;
    a->n[answer->index] = answer->n;
    assert_int_equal(a->told[answer->index], answer->n);
    assert_memory_equal(a->ids[answer->index], answer->ids, answer->n * sizeof *answer->ids);
    return true;
}

/* What runs ahead.  By their sizes none of these drafts would pay, so their cost is given. */
typedef struct ahead {
    const rt_model *draft;
    size_t most;
    bool lookup, fixed;
    double cost;
} ahead;

static rt_generate_options options_of(const ahead *how, const rt_sampling *sampling)
{
    return (rt_generate_options){.sampling = *sampling,
                                 .n_slots = 1,
                                 .draft = how->draft,
                                 .draft_lookup = how->lookup,
                                 .draft_fixed = how->fixed,
                                 .draft_max = how->most,
                                 .draft_cost = how->cost};
}

static rt_generate_stats answer_how(answers *out, const rt_prompt *prompts, size_t n, const ahead *how,
                                    const rt_sampling *sampling)
{
    memset(out, 0, sizeof *out);
    rt_error err = {0};
    rt_generate_stats stats;
    rt_generate_options options = options_of(how, sampling);
    options.token = hear;
    options.answer = keep;
    options.context = out;
    if (rt_generate(model, NULL, prompts, n, &options, &stats, &err) != RT_OK)
        fail_msg("%s", err.text);
    return stats;
}

static rt_generate_stats answer_all(answers *out, const rt_prompt *prompts, size_t n, const rt_model *draft,
                                    size_t most, const rt_sampling *sampling)
{
    const ahead how = {.draft = draft, .most = most, .fixed = true};
    return answer_how(out, prompts, n, &how, sampling);
}

static void check_same(const answers *got, const answers *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(got->n[i], want->n[i]);
        assert_memory_equal(got->ids[i], want->ids[i], want->n[i] * sizeof(int32_t));
    }
}

static void greedy_answers_are_the_models_own(void **state)
{
    (void)state;
    rt_prompt prompts[PROMPTS];
    make_prompts(prompts, PROMPTS, ANSWER);
    const rt_sampling greedy = rt_sampling_default();
    static answers want, got;
    (void)answer_all(&want, prompts, PROMPTS, NULL, 0, &greedy);
    const rt_model *drafts[] = {other, third, model, shortened};
    for (size_t d = 0; d < 4; d++)
        for (size_t most = 1; most <= RT_DRAFT_MAX; most = most * 2 + (most == 1)) {
            const rt_generate_stats stats = answer_all(&got, prompts, PROMPTS, drafts[d], most, &greedy);
            check_same(&got, &want, PROMPTS);
            assert_true(stats.draft.accepted <= stats.draft.tested);
            assert_true(stats.draft.tested <= stats.draft.proposed);
            assert_int_equal(stats.answer_tokens, PROMPTS * ANSWER);
            if (drafts[d] == model) /* its own draft: nothing is refused */
                assert_int_equal(stats.draft.accepted, stats.draft.tested);
        }
}

static void penalties_count_what_was_accepted(void **state)
{
    (void)state;
    rt_prompt prompts[PROMPTS];
    make_prompts(prompts, PROMPTS, ANSWER);
    rt_sampling greedy = rt_sampling_default();
    greedy.repetition_penalty = 1.3;
    greedy.frequency_penalty = 0.4;
    static answers want, got;
    (void)answer_all(&want, prompts, PROMPTS, NULL, 0, &greedy);
    (void)answer_all(&got, prompts, PROMPTS, other, 3, &greedy);
    check_same(&got, &want, PROMPTS);
}

static void marked_answers_are_the_models_own(void **state)
{
    (void)state;
    rt_prompt prompts[PROMPTS];
    make_prompts(prompts, PROMPTS, ANSWER);
    rt_error err = {0};
    rt_watermark first = rt_watermark_default(RT_SCHEME_TOURNAMENT);
    first.key[0] = 7;
    rt_mark *mark;
    if (rt_mark_open(&mark, &first, NULL, 0, false, &err) != RT_OK)
        fail_msg("%s", err.text);
    rt_sampling how = rt_sampling_default();
    how.temperature = 1;
    how.seed = 5;
    how.marker = rt_mark_marker(mark);
    static answers want, got;
    (void)answer_all(&want, prompts, PROMPTS, NULL, 0, &how);
    const rt_generate_stats stats = answer_all(&got, prompts, PROMPTS, third, 4, &how);
    check_same(&got, &want, PROMPTS);
    /* the draft marks as well, so that nearly the same model nearly always agrees */
    assert_true(stats.draft.accepted * 10 > stats.draft.tested * 8);
    rt_mark_close(mark);
}

/* The chance of three tokens one after the other by the model alone: cells [top, top, top] over the ids that
 * top_k leaves at each place. */
enum { TOP = 3, CELLS = TOP * TOP * TOP, TIMES = 12000 };

typedef struct tree {
    int32_t ids[CELLS][3];
    double p[CELLS];
} tree;

static size_t choices(rt_session *session, rt_sampler *sampler, const rt_sampling *how, const int32_t *ids,
                      size_t n, int32_t *out, float *p_out)
{
    rt_error err = {0};
    float logits[128], p[128];
    rt_session_truncate(session, 0, 0);
    assert_int_equal(rt_session_prefill(session, 0, ids, n, logits, &err), RT_OK);
    rt_sampler_distribution(sampler, how, logits, ids, n, p);
    size_t count = 0;
    for (size_t v = 0; v < model->config.n_vocab; v++)
        if (p[v] > 0) {
            assert_true(count < TOP);
            out[count] = (int32_t)v;
            p_out[count++] = p[v];
        }
    return count;
}

static void grow_tree(tree *out, const rt_prompt *prompt, const rt_sampling *how)
{
    rt_error err = {0};
    rt_session *session;
    rt_sampler *sampler;
    assert_int_equal(rt_session_open(&session, model, 1, 0, &err), RT_OK);
    assert_int_equal(rt_sampler_open(&sampler, model->config.n_vocab, &err), RT_OK);
    int32_t ids[PROMPT + 3], a[TOP], b[TOP], c[TOP];
    float pa[TOP], pb[TOP], pc[TOP];
    memcpy(ids, prompt->ids, PROMPT * sizeof *ids);
    size_t cell = 0;
    assert_int_equal(choices(session, sampler, how, ids, PROMPT, a, pa), TOP);
    for (size_t i = 0; i < TOP; i++) {
        ids[PROMPT] = a[i];
        assert_int_equal(choices(session, sampler, how, ids, PROMPT + 1, b, pb), TOP);
        for (size_t j = 0; j < TOP; j++) {
            ids[PROMPT + 1] = b[j];
            assert_int_equal(choices(session, sampler, how, ids, PROMPT + 2, c, pc), TOP);
            for (size_t k = 0; k < TOP; k++, cell++) {
                memcpy(out->ids[cell], (int32_t[]){a[i], b[j], c[k]}, sizeof out->ids[cell]);
                out->p[cell] = (double)pa[i] * (double)pb[j] * (double)pc[k];
            }
        }
    }
    rt_session_close(session);
    rt_sampler_close(sampler);
}

/* chi-square of TIMES answers of three tokens against the tree; *stats: of all of them together */
static double chi_square(const tree *want, const rt_prompt *prompt, const ahead *runs_ahead,
                         const rt_sampling *how, rt_generate_stats *stats)
{
    static rt_prompt prompts[TIMES];
    for (size_t i = 0; i < TIMES; i++)
        prompts[i] = (rt_prompt){prompt->ids, PROMPT, 3, i};
    size_t counts[CELLS] = {0};
    *stats = (rt_generate_stats){0};
    static answers one;
    rt_generate_options options = options_of(runs_ahead, how);
    options.token = hear;
    options.context = &one;
    rt_error err = {0};
    for (size_t i = 0; i < TIMES; i += PROMPTS) { /* so many answers have room in `one` */
        memset(&one, 0, sizeof one);
        rt_generate_stats part;
        if (rt_generate(model, NULL, prompts + i, PROMPTS, &options, &part, &err) != RT_OK)
            fail_msg("%s", err.text);
        stats->draft.tested += part.draft.tested;
        stats->draft.accepted += part.draft.accepted;
        stats->draft.expected += part.draft.expected;
        stats->draft.rounds += part.draft.rounds;
        stats->draft.looked_up_tested += part.draft.looked_up_tested;
        for (size_t j = 0; j < PROMPTS; j++) {
            size_t cell = 0;
            while (cell < CELLS && memcmp(want->ids[cell], one.ids[j], sizeof want->ids[cell]) != 0)
                cell++;
            if (cell == CELLS)
                fail_msg("an answer that the model alone cannot give");
            counts[cell]++;
        }
    }
    double sum = 0;
    for (size_t i = 0; i < CELLS; i++) {
        const double expected = want->p[i] * TIMES;
        sum += ((double)counts[i] - expected) * ((double)counts[i] - expected) / expected;
    }
    return sum;
}

static bool among(int32_t id, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* A prompt x t u .. x after which t is one of the likely ids, and u after that: when t was drawn, u is looked
 * up, and it is kept now and then. */
static void find_echo(rt_prompt *prompt, const rt_sampling *how)
{
    static int32_t ids[PROMPT + 1];
    rt_error err = {0};
    rt_session *session;
    rt_sampler *sampler;
    assert_int_equal(rt_session_open(&session, model, 1, 0, &err), RT_OK);
    assert_int_equal(rt_sampler_open(&sampler, model->config.n_vocab, &err), RT_OK);
    rt_rng rng = rt_rng_make(8, 1);
    int32_t likely[TOP];
    float p[TOP];
    bool found = false;
    for (size_t tries = 0; tries < 100000 && !found; tries++) {
        for (size_t i = 0; i < PROMPT - 1; i++)
            ids[i] = (int32_t)rt_rng_below(&rng, model->config.n_vocab);
        ids[PROMPT - 1] = ids[0];
        ids[PROMPT] = ids[1];
        found = among(ids[1], likely, choices(session, sampler, how, ids, PROMPT, likely, p)) &&
                among(ids[2], likely, choices(session, sampler, how, ids, PROMPT + 1, likely, p));
    }
    assert_true(found);
    rt_session_close(session);
    rt_sampler_close(sampler);
    prompt->ids = ids;
}

static void draws_have_the_models_distribution(void **state)
{
    (void)state;
    rt_prompt prompt[1];
    make_prompts(prompt, 1, 3);
    rt_sampling how = rt_sampling_default();
    how.temperature = 1.2;
    how.top_k = TOP;
    how.seed = 11;
    find_echo(prompt, &how);
    tree want;
    grow_tree(&want, prompt, &how);
    double least = 1;
    for (size_t i = 0; i < CELLS; i++)
        least = fmin(least, want.p[i]);
    assert_true(least * TIMES >= 5); /* what chi-square asks for */
    /* 26 degrees of freedom: the 99.99% quantile is 60.1; seeds are fixed */
    const ahead ways[] = {{.draft = other, .most = 1, .fixed = true},
                          {.draft = other, .most = 2, .fixed = true},
                          {.draft = other, .most = 3, .fixed = true},
                          {.draft = third, .most = 3, .fixed = true},
                          {.draft = shortened, .most = 3, .fixed = true},
                          {.draft = third, .most = 3, .cost = 0.01},
                          {.draft = shortened, .most = 3, .cost = 0.01},
                          {.lookup = true, .most = 3, .fixed = true},
                          {.draft = third, .most = 3, .lookup = true, .fixed = true},
                          {.draft = other, .most = 3, .lookup = true, .cost = 0.01}};
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        rt_generate_stats stats;
        const double sum = chi_square(&want, prompt, &ways[w], &how, &stats);
        if (!(sum < 60.1))
            fail_msg("way %zu: chi-square %g", w, sum);
        if (stats.draft.tested < TIMES / 20) /* something has to be proposed */
            fail_msg("way %zu: %zu of %d tested", w, stats.draft.tested, TIMES);
        if (ways[w].lookup && ways[w].fixed)
            assert_true(stats.draft.looked_up_tested > TIMES / 20);
        /* accepted - expected is a martingale whose steps have a variance of 1/4 at most */
        const double off = (double)stats.draft.accepted - stats.draft.expected;
        if (!(fabs(off) < 4 * 0.5 * sqrt((double)stats.draft.tested)))
            fail_msg("way %zu: %zu accepted, expected %g", w, stats.draft.accepted, stats.draft.expected);
        if (ways[w].draft == other)
            assert_true(stats.draft.accepted < stats.draft.tested);
    }
}

static void what_does_not_pay_is_not_proposed(void **state)
{
    (void)state;
    rt_prompt prompts[PROMPTS];
    make_prompts(prompts, PROMPTS, ANSWER);
    const rt_sampling greedy = rt_sampling_default();
    static answers want, got;
    (void)answer_all(&want, prompts, PROMPTS, NULL, 0, &greedy);
    /* a draft that is as large as the model: it is asked now and then, and not listened to */
    const ahead dear = {.draft = model}, cheap = {.draft = model, .cost = 0.05},
                wrong = {.draft = other, .cost = 0.05};
    const rt_generate_stats a = answer_how(&got, prompts, PROMPTS, &dear, &greedy);
    check_same(&got, &want, PROMPTS);
    const rt_generate_stats b = answer_how(&got, prompts, PROMPTS, &cheap, &greedy);
    check_same(&got, &want, PROMPTS);
    const rt_generate_stats c = answer_how(&got, prompts, PROMPTS, &wrong, &greedy);
    check_same(&got, &want, PROMPTS);
    assert_true(a.draft.proposed * 5 < b.draft.proposed);
    assert_true(c.draft.proposed * 2 < b.draft.proposed); /* nothing that it says is kept */
    assert_true(b.draft.rounds * 2 < a.draft.rounds);
}

static void what_was_said_before_is_looked_up(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_lookup *lookup;
    assert_int_equal(rt_lookup_open(&lookup, 64, &err), RT_OK);
    /*                    0  1  2  3  4  5  6  7  8  9 10 */
    const int32_t ids[] = {5, 6, 7, 8, 9, 6, 7, 1, 5, 6, 7};
    int32_t next = -1;
    for (size_t learnt = 0; learnt <= 11; learnt++) { /* in pieces, and the same piece again */
        rt_lookup_learn(lookup, ids, learnt);
        rt_lookup_learn(lookup, ids, learnt);
    }
    assert_int_equal(rt_lookup_find(lookup, ids, 11, &next), 3); /* 5 6 7 before 6 7, though that was later */
    assert_int_equal(next, 8);
    const int32_t more[] = {5, 6, 7, 8, 9, 6, 7, 1, 5, 6, 7, 8, 9};
    assert_int_equal(rt_lookup_find(lookup, more, 13, &next), 5); /* proposals after what was learnt count */
    assert_int_equal(next, 6);
    const int32_t other_end[] = {5, 6, 7, 8, 9, 6, 7, 1, 5, 2, 6, 7};
    assert_int_equal(rt_lookup_find(lookup, other_end, 12, &next), 2); /* of equal ones the latest */
    assert_int_equal(next, 1);
    assert_int_equal(rt_lookup_find(lookup, ids, 1, &next), 0);
    const int32_t unknown[] = {7, 6};
    assert_int_equal(rt_lookup_find(lookup, unknown, 2, &next), 0);
    rt_lookup_reset(lookup);
    assert_int_equal(rt_lookup_find(lookup, ids, 11, &next), 0);
    rt_lookup_close(lookup);
}

static void looked_up_answers_are_the_models_own(void **state)
{
    (void)state;
    rt_prompt prompts[PROMPTS];
    make_prompts(prompts, PROMPTS, 100); /* long enough that greedy answers of a small model go round */
    const rt_sampling greedy = rt_sampling_default();
    static answers want, got;
    (void)answer_all(&want, prompts, PROMPTS, NULL, 0, &greedy);
    const ahead ways[] = {{.lookup = true},
                          {.lookup = true, .fixed = true, .most = 15},
                          {.lookup = true, .draft = shortened, .cost = 0.05},
                          {.lookup = true, .draft = third, .fixed = true}};
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        const rt_generate_stats stats = answer_how(&got, prompts, PROMPTS, &ways[w], &greedy);
        check_same(&got, &want, PROMPTS);
        assert_true(stats.draft.looked_up_tested > 0);
        assert_true(stats.draft.looked_up_accepted <= stats.draft.looked_up_tested);
        assert_true(stats.draft.looked_up_tested <= stats.draft.looked_up);
    }
}

static void a_short_head_says_what_the_whole_one_does(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_session *a, *b;
    const size_t vocab = other->config.n_vocab;
    float *whole = malloc(4 * vocab * sizeof *whole), *part = malloc(4 * vocab * sizeof *part);
    const int32_t ids[] = {1, 2, 3, 4};
    assert_int_equal(rt_session_open(&a, other, 1, 0, &err), RT_OK);
    assert_int_equal(rt_session_open(&b, shortened, 1, 0, &err), RT_OK);
    assert_int_equal(rt_session_score(a, 0, ids, 4, whole, &err), RT_OK);
    assert_int_equal(rt_session_score(b, 0, ids, 4, part, &err), RT_OK);
    for (size_t i = 0; i < 4 * vocab; i++) {
        if (i % vocab % SHORT_EVERY == 0)
            assert_true(fabsf(part[i] - whole[i]) <= 1e-5f * (1 + fabsf(whole[i])));
        else
            assert_true(part[i] == -INFINITY);
    }
    rt_session_close(a);
    rt_session_close(b);
    free(whole);
    free(part);
}

static void a_shortlist_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_shortlist list;
    const int32_t said[] = {3, 1, 3, 7, 1, 3};
    const uint8_t mask[] = {1, 1, 1, 0, 1, 1};
    assert_int_equal(rt_shortlist_count(&list, said, mask, 6, 8, 3, &err), RT_OK);
    const uint32_t want[] = {0, 1, 3}; /* 7 was not counted; the lowest of those that never occur */
    assert_memory_equal(list.ids, want, sizeof want);
    assert_int_equal(rt_model_shorten_head(third, NULL, &list, &err), RT_MISMATCH);
    rt_shortlist_deinit(&list);
    assert_int_equal(rt_shortlist_count(&list, said, NULL, 6, 7, 3, &err), RT_INVALID);
    assert_int_equal(rt_shortlist_count(&list, said, NULL, 6, 8, 9, &err), RT_INVALID);
    assert_int_equal(rt_shortlist_count(&list, said, NULL, 6, 8, 0, &err), RT_INVALID);
    static const char *const bad[] = {
        "[]",
        "{}",
        "{\"format\": \"retort-shortlist\", \"version\": 2, \"vocabulary\": 8, \"ids\": [1]}",
        "{\"format\": \"retort-shortlist\", \"version\": 1, \"vocabulary\": 8, \"ids\": []}",
        "{\"format\": \"retort-shortlist\", \"version\": 1, \"vocabulary\": 8, \"ids\": [2, 1]}",
        "{\"format\": \"retort-shortlist\", \"version\": 1, \"vocabulary\": 8, \"ids\": [1, 1]}",
        "{\"format\": \"retort-shortlist\", \"version\": 1, \"vocabulary\": 8, \"ids\": [8]}",
        "{\"format\": \"retort-shortlist\", \"version\": 1, \"vocabulary\": 8, \"ids\": [-1]}",
        "{\"format\": \"retort-shortlist\", \"version\": 1, \"vocabulary\": 8, \"ids\": [1.5]}",
        "{\"format\": \"retort-shortlist\", \"version\": 1, \"vocabulary\": -8, \"ids\": [1]}",
        "{\"format\": \"retort-shortlist\", \"version\": 1, \"vocabulary\": 99999999999, \"ids\": [1]}"};
    char name[] = "/tmp/retort-shortlist-XXXXXX";
    const int fd = mkstemp(name);
    assert_true(fd >= 0);
    (void)close(fd);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(rt_file_write(name, bad[i], strlen(bad[i]), &err), RT_OK);
        if (rt_shortlist_read(&list, name, &err) != RT_CORRUPT)
            fail_msg("taken: %s", bad[i]);
        assert_non_null(strstr(err.text, name));
    }
    (void)remove(name);
    assert_int_equal(rt_shortlist_read(&list, name, &err), RT_NOT_FOUND);
}

static void the_same_seed_gives_the_same_answers(void **state)
{
    (void)state;
    rt_prompt prompts[PROMPTS];
    make_prompts(prompts, PROMPTS, ANSWER);
    rt_sampling how = rt_sampling_default();
    how.temperature = 1;
    how.seed = 2;
    static answers a, b;
    (void)answer_all(&a, prompts, PROMPTS, other, 3, &how);
    (void)answer_all(&b, prompts, PROMPTS, other, 3, &how);
    check_same(&a, &b, PROMPTS);
    /* and does not depend on the neighbours */
    (void)answer_all(&b, prompts + 7, 1, other, 3, &how);
    assert_int_equal(a.n[7], b.n[0]);
    assert_memory_equal(a.ids[7], b.ids[0], a.n[7] * sizeof(int32_t));
}

static void an_answer_ends_where_it_must(void **state)
{
    (void)state;
    rt_prompt prompts[PROMPTS];
    make_prompts(prompts, 4, 0);
    const rt_sampling greedy = rt_sampling_default();
    static answers want, got;
    prompts[1].tokens_max = 1;
    prompts[2].tokens_max = 2;
    prompts[3].tokens_max = 100000; /* to the end of the context */
    (void)answer_all(&want, prompts, 4, NULL, 0, &greedy);
    (void)answer_all(&got, prompts, 4, third, 4, &greedy);
    check_same(&got, &want, 4);
    assert_int_equal(got.n[3], model->config.n_context - PROMPT);
}

static bool stop_at_seven(void *context, size_t index, int32_t id)
{
    size_t *left = context;
    (void)index;
    (void)id;
    return --*left > 0;
}

static void it_stops_when_asked(void **state)
{
    (void)state;
    rt_prompt prompts[1];
    make_prompts(prompts, 1, ANSWER);
    size_t left = 7;
    rt_error err = {0};
    rt_generate_stats stats;
    const rt_generate_options options = {
        .sampling = rt_sampling_default(), .draft = third, .token = stop_at_seven, .context = &left};
    assert_int_equal(rt_generate(model, NULL, prompts, 1, &options, &stats, &err), RT_STOPPED);
    assert_int_equal(stats.answer_tokens, 7);
}

static void a_context_that_the_draft_lacks_is_named(void **state)
{
    (void)state;
    rt_prompt prompts[1];
    make_prompts(prompts, 1, 4);
    rt_model *narrow = open_family("gpt2", RT_PRECISION_F32);
    rt_error err = {0};
    rt_generate_stats stats;
    rt_generate_options options = {.sampling = rt_sampling_default(), .draft = narrow};
    assert_int_equal(rt_generate(model, NULL, prompts, 1, &options, &stats, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "context of 64"));
    options.n_positions = 64;
    assert_int_equal(rt_generate(model, NULL, prompts, 1, &options, &stats, &err), RT_OK);
    rt_model_close(narrow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_answers_are_the_models_own),
        cmocka_unit_test(penalties_count_what_was_accepted),
        cmocka_unit_test(marked_answers_are_the_models_own),
        cmocka_unit_test(draws_have_the_models_distribution),
        cmocka_unit_test(what_does_not_pay_is_not_proposed),
        cmocka_unit_test(what_was_said_before_is_looked_up),
        cmocka_unit_test(looked_up_answers_are_the_models_own),
        cmocka_unit_test(a_short_head_says_what_the_whole_one_does),
        cmocka_unit_test(a_shortlist_that_does_not_fit_is_refused),
        cmocka_unit_test(the_same_seed_gives_the_same_answers),
        cmocka_unit_test(an_answer_ends_where_it_must),
        cmocka_unit_test(it_stops_when_asked),
        cmocka_unit_test(a_context_that_the_draft_lacks_is_named),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
