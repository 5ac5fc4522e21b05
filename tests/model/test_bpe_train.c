/* tests/model/test_bpe_train.c - learnt merges against counting everything anew, ties, bounds, odd texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "model/bpe_train.h"
#include "model/tokenizer_train.h"
#include "model/tokenizer_vocab.h"

/* ---- the reference: count all pairs, merge the best one everywhere, again ---- */

enum { WORDS_MAX = 400, WORD_MAX = 40, RULES_MAX = 600 };

typedef struct slow {
    uint32_t words[WORDS_MAX][WORD_MAX];
    size_t sizes[WORDS_MAX];
    uint64_t counts[WORDS_MAX];
    size_t n_words;
    rt_bpe_rule rules[RULES_MAX];
    size_t n_rules;
    char spelled[RULES_MAX + 256][64];
    size_t spelled_size[RULES_MAX + 256];
    size_t n_tokens;
} slow;

static uint64_t count_of(const slow *s, uint32_t left, uint32_t right)
{
    uint64_t count = 0;
    for (size_t w = 0; w < s->n_words; w++)
        for (size_t i = 0; i + 1 < s->sizes[w]; i++)
            if (s->words[w][i] == left && s->words[w][i + 1] == right)
                count += s->counts[w];
    return count;
}

static bool best_pair(const slow *s, uint64_t least, uint32_t *left, uint32_t *right)
{
    uint64_t best = 0;
    for (size_t w = 0; w < s->n_words; w++)
        for (size_t i = 0; i + 1 < s->sizes[w]; i++) {
            const uint32_t l = s->words[w][i], r = s->words[w][i + 1];
            const uint64_t count = count_of(s, l, r);
            if (count > best || (count == best && best && (l < *left || (l == *left && r < *right)))) {
                best = count;
                *left = l;
                *right = r;
            }
        }
    return best >= least && best > 0;
}

static void merge_word(slow *s, size_t w, uint32_t left, uint32_t right, uint32_t id)
{
    size_t n = 0;
    for (size_t i = 0; i < s->sizes[w]; i++) {
        const bool here = i + 1 < s->sizes[w] && s->words[w][i] == left && s->words[w][i + 1] == right;
        s->words[w][n++] = here ? id : s->words[w][i];
        i += here;
    }
    s->sizes[w] = n;
}

static void learn_slowly(slow *s, size_t vocab, uint64_t least)
{
    for (s->n_tokens = 0; s->n_tokens < 256; s->n_tokens++) {
        s->spelled[s->n_tokens][0] = (char)rt_bpe_byte_at(s->n_tokens);
        s->spelled_size[s->n_tokens] = 1;
    }
    uint32_t l = 0, r = 0;
    while (s->n_tokens < vocab && best_pair(s, least, &l, &r)) {
        char text[128];
        const size_t size = s->spelled_size[l] + s->spelled_size[r];
        assert_true(size < 64);
        memcpy(text, s->spelled[l], s->spelled_size[l]);
        memcpy(text + s->spelled_size[l], s->spelled[r], s->spelled_size[r]);
        size_t id = 0;
        while (id < s->n_tokens && !(s->spelled_size[id] == size && !memcmp(s->spelled[id], text, size)))
            id++;
        if (id == s->n_tokens) {
            memcpy(s->spelled[id], text, size);
            s->spelled_size[id] = size;
            s->n_tokens++;
        }
        bool known = false;
        for (size_t i = 0; i < s->n_rules; i++)
            known = known || (s->rules[i].left == l && s->rules[i].right == r);
        if (!known)
            s->rules[s->n_rules++] = (rt_bpe_rule){l, r, (uint32_t)id};
        for (size_t w = 0; w < s->n_words; w++)
            merge_word(s, w, l, r, (uint32_t)id);
    }
}

static void same_as_slow(uint64_t seed, size_t alphabet, size_t n_words, size_t length, size_t vocab,
                         uint64_t least)
{
    static slow s;
    rt_rng rng = rt_rng_make(seed, 0);
    rt_error err = {0};
    rt_bpe_words words = {0};
    memset(&s, 0, sizeof s);
    for (size_t w = 0; w < n_words; w++) {
        char text[WORD_MAX];
        const size_t n = 1 + rt_rng_below(&rng, length);
        for (size_t i = 0; i < n; i++)
            text[i] = (char)(250 + (int)rt_rng_below(&rng, alphabet)); /* past 255: control bytes */
        assert_int_equal(rt_bpe_words_count(&words, text, n, 1 + rt_rng_below(&rng, 3), &err), RT_OK);
    }
    uint32_t place[256];
    for (uint32_t i = 0; i < 256; i++)
        place[rt_bpe_byte_at(i)] = i;
    s.n_words = words.count;
    for (size_t w = 0; w < words.count; w++) {
        s.sizes[w] = words.list[w].size;
        s.counts[w] = words.list[w].count;
        for (size_t i = 0; i < s.sizes[w]; i++)
            s.words[w][i] = place[(unsigned char)words.store.data[words.list[w].at + i]];
    }
    learn_slowly(&s, vocab, least);
    const rt_bpe_train_options options = {.vocab = vocab, .min_count = least};
    rt_bpe_learnt fast;
    assert_int_equal(rt_bpe_train(&fast, &words, &options, &err), RT_OK);
    assert_int_equal(fast.n_merges, s.n_rules);
    assert_int_equal(fast.n_merged + 256, s.n_tokens);
    assert_int_equal(fast.exhausted, s.n_tokens < vocab);
    for (size_t i = 0; i < s.n_rules; i++)
        if (memcmp(&fast.merges[i], &s.rules[i], sizeof s.rules[i]) != 0)
            fail_msg("seed %llu, merge %zu: %u %u -> %u, not %u %u -> %u", (unsigned long long)seed, i,
                     fast.merges[i].left, fast.merges[i].right, fast.merges[i].result, s.rules[i].left,
                     s.rules[i].right, s.rules[i].result);
    rt_bpe_learnt_deinit(&fast);
    rt_bpe_words_deinit(&words);
}

static void merges_are_those_of_counting_anew(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        same_as_slow(seed, 2 + seed % 9, 60, 20, 256 + 60, 1 + seed % 3);
        same_as_slow(seed, 12, 30, 6, 256 + 300, 1); /* until no pair is left */
    }
}

static void runs_of_one_byte_and_ties_follow_the_rule(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 130; seed++)
        same_as_slow(seed, 1 + seed % 2, 12, 30, 256 + 25, 1);
    for (uint64_t seed = 200; seed < 220; seed++) /* all counts small: ties everywhere */
        same_as_slow(seed, 20, 20, 3, 256 + 40, 1);
}

/* ---- from text ---- */

static rt_tokenizer *train(const rt_tokenizer_train_options *options, const char *const *texts, size_t n)
{
    rt_error err = {0};
    rt_tokenizer_trainer *trainer;
    rt_tokenizer *out;
    rt_tokenizer_trained trained;
    if (rt_tokenizer_trainer_open(&trainer, options, &err) != RT_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(rt_tokenizer_trainer_add(trainer, texts[i], strlen(texts[i]), &err), RT_OK);
    if (rt_tokenizer_trainer_finish(trainer, &out, &trained, &err) != RT_OK)
        fail_msg("%s", err.text);
    rt_tokenizer_trainer_close(trainer);
    return out;
}

/* Two megabytes of words, numbers, accents that compose, blank lines. */
static char *long_text(void)
{
    static const char *const parts[] = {"the ",   "answer", "s ",           "2024",
                                        "\n",     "\n\n  ", "caf\xC3\xA9 ", "e\xCC\x81",
                                        "don't ", "\r\n",   "\t",           "\xE4\xBD\xA0\xE5\xA5\xBD"};
    char *text = malloc(1 << 21), *at = text;
    rt_rng rng = rt_rng_make(5, 5);
    while (at - text < (1 << 21) - 32) {
        const char *part = parts[rt_rng_below(&rng, sizeof parts / sizeof parts[0])];
        memcpy(at, part, strlen(part));
        at += strlen(part);
        if (rt_rng_below(&rng, 4) == 0)
            *at++ = (char)('a' + (int)rt_rng_below(&rng, 26));
    }
    *at = '\0';
    return text;
}

static rt_status count_one(void *context, const char *word, size_t size, rt_error *err)
{
    return rt_bpe_words_count(context, word, size, 1, err);
}

/* The words of a text that is taken in one piece. */
static void count_whole(rt_bpe_words *out, const rt_pretokenizer *pre, const rt_normalizer *normalizer,
                        const char *text)
{
    rt_error err = {0};
    rt_text normal = {0};
    *out = (rt_bpe_words){0};
    assert_int_equal(rt_normalizer_run(normalizer, text, strlen(text), &normal, &err), RT_OK);
    assert_int_equal(rt_pretokenizer_run(pre, normal.data, normal.size, true, count_one, out, &err), RT_OK);
    rt_text_deinit(&normal);
}

static void pieces_of_a_long_text_have_the_words_of_the_whole(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt2", "smollm", "llama3", "qwen2"};
    char *text = long_text();
    rt_error err = {0};
    rt_pool *pool;
    assert_int_equal(rt_pool_open(&pool, 3, &err), RT_OK);
    for (size_t i = 0; i < 4; i++) {
        rt_pretokenizer pre = {0};
        rt_normalizer nfc = {0};
        rt_bpe_words whole, cut;
        rt_bpe_cutter cutter;
        const rt_pre_name *name = rt_pretokenizer_find(names[i], strlen(names[i]), &err);
        assert_int_equal(rt_pretokenizer_from_name(&pre, name, &err), RT_OK);
        if (name->nfc)
            assert_non_null(rt_normalizer_add(&nfc, RT_NORM_NFC));
        count_whole(&whole, &pre, &nfc, text);
        assert_int_equal(rt_bpe_cutter_init(&cutter, &pre, &nfc, 0, pool, &err), RT_OK);
        assert_int_equal(rt_bpe_cutter_add(&cutter, text, strlen(text), &err), RT_OK);
        assert_int_equal(rt_bpe_cutter_finish(&cutter, &cut, &err), RT_OK);
        assert_int_equal(whole.count, cut.count);
        for (size_t w = 0; w < whole.count; w++) /* takes each count off the other's */
            assert_int_equal(rt_bpe_words_count(&cut, whole.store.data + whole.list[w].at, whole.list[w].size,
                                                -whole.list[w].count, &err),
                             RT_OK);
        assert_int_equal(whole.count, cut.count);
        for (size_t w = 0; w < cut.count; w++)
            assert_int_equal(cut.list[w].count, 0);
        rt_bpe_words_deinit(&whole);
        rt_bpe_words_deinit(&cut);
        rt_bpe_cutter_deinit(&cutter);
        rt_pretokenizer_deinit(&pre);
        rt_normalizer_deinit(&nfc);
    }
    rt_pool_close(pool);
    free(text);
}

static void any_number_of_threads_gives_the_same_tokenizer(void **state)
{
    (void)state;
    static const char *const special[] = {"<|endoftext|>"};
    char *text = long_text(), hash[65] = "";
    for (unsigned threads = 1; threads <= 4; threads++) {
        rt_error err = {0};
        rt_tokenizer_train_options options = {.pattern = "qwen2",
                                              .vocab = 600,
                                              .min_count = 2,
                                              .special = special,
                                              .n_special = 1,
                                              .bos = -1,
                                              .pad = -1};
        assert_int_equal(rt_pool_open(&options.pool, threads, &err), RT_OK);
        rt_tokenizer *made = train(&options, (const char *const *)&text, 1);
        if (threads > 1)
            assert_string_equal(hash, rt_tokenizer_hash(made));
        memcpy(hash, rt_tokenizer_hash(made), sizeof hash);
        rt_tokenizer_close(made);
        rt_pool_close(options.pool);
    }
    free(text);
}

static void every_byte_comes_back_and_files_give_the_same_ids(void **state)
{
    (void)state;
    static const char *const special[] = {"<s>", "</s>"};
    static const char *const patterns[] = {"gpt2", "smollm", "llama3", "qwen2"};
    char folder[] = "/tmp/retort-bpe-XXXXXX", all[512], *text = long_text();
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 512; i++)
        all[i] = (char)(i / 2 * 37);
    for (size_t i = 0; i < 4; i++) {
        rt_error err = {0};
        rt_tokenizer *again;
        rt_token_list ids = {0}, other = {0};
        rt_text back = {0};
        const rt_tokenizer_train_options options = {.pattern = patterns[i],
                                                    .vocab = 700,
                                                    .special = special,
                                                    .n_special = 2,
                                                    .bos = 0,
                                                    .eos = 1,
                                                    .pad = -1};
        rt_tokenizer *made = train(&options, (const char *const *)&text, 1);
        assert_int_equal(rt_tokenizer_write_hf(made, folder, &err), RT_OK);
        assert_int_equal(rt_tokenizer_open(&again, folder, &err), RT_OK);
        assert_string_equal(rt_tokenizer_hash(made), rt_tokenizer_hash(again));
        assert_int_equal(rt_tokenizer_bos(again), 0);
        assert_int_equal(rt_tokenizer_eos(again), 1);
        assert_int_equal(rt_tokenizer_encode(made, text, 5000, false, &ids, &err), RT_OK);
        assert_int_equal(rt_tokenizer_encode(again, text, 5000, false, &other, &err), RT_OK);
        assert_int_equal(ids.count, other.count);
        assert_memory_equal(ids.ids, other.ids, ids.count * sizeof *ids.ids);
        assert_true(ids.count < 3500); /* it has learnt something */
        ids.count = 0;
        assert_int_equal(rt_tokenizer_encode(made, all, sizeof all, false, &ids, &err), RT_OK);
        assert_int_equal(rt_tokenizer_decode(made, ids.ids, ids.count, false, &back, &err), RT_OK);
        if (i < 3) { /* qwen2 composes what it reads */
            assert_int_equal(back.size, sizeof all);
            assert_memory_equal(back.data, all, sizeof all);
        }
        rt_text_deinit(&back);
        rt_token_list_deinit(&ids);
        rt_token_list_deinit(&other);
        rt_tokenizer_close(again);
        rt_tokenizer_close(made);
    }
    free(text);
    char command[64];
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0); // NOLINT(cert-env33-c): a folder of its own
}

static void special_tokens_are_never_learnt(void **state)
{
    (void)state;
    static const char *const special[] = {"abab"}, *const text[] = {"abab abab abab abab"};
    rt_error err = {0};
    rt_token_list ids = {0};
    const rt_tokenizer_train_options options = {
        .pattern = "gpt2", .vocab = 300, .special = special, .n_special = 1, .bos = -1, .pad = -1};
    rt_tokenizer *made = train(&options, text, 1);
    assert_int_equal(rt_tokenizer_encode(made, "abab", 4, false, &ids, &err), RT_OK);
    assert_true(ids.count > 1);
    ids.count = 0;
    assert_int_equal(rt_tokenizer_encode(made, "abab", 4, true, &ids, &err), RT_OK);
    assert_int_equal(ids.count, 1);
    assert_int_equal(ids.ids[0], 0);
    rt_token_list_deinit(&ids);
    rt_tokenizer_close(made);
}

/* ---- odd and hostile input ---- */

static void check_refused(const rt_tokenizer_train_options *options, const char *words)
{
    rt_error err = {0};
    rt_tokenizer_trainer *trainer;
    assert_int_equal(rt_tokenizer_trainer_open(&trainer, options, &err), RT_INVALID);
    assert_null(trainer);
    if (!strstr(err.text, words))
        fail_msg("'%s' is not in: %s", words, err.text);
}

static void settings_without_meaning_are_refused(void **state)
{
    (void)state;
    static const char *const twice[] = {"<a>", "<a>"}, *const brief[] = {"a"}, *const broken[] = {"\xFF\xFE"};
    rt_tokenizer_train_options options = {.pattern = "gpt2", .vocab = 257, .special = twice, .n_special = 2};
    check_refused(&options, "named twice");
    options.special = brief;
    options.n_special = 1;
    check_refused(&options, "at least 2 bytes");
    options.special = broken;
    check_refused(&options, "UTF-8");
    options.special = twice;
    options.vocab = 256;
    check_refused(&options, "256 bytes and 1 special tokens");
    options.vocab = (size_t)RT_VOCAB_MAX + 1;
    check_refused(&options, "are possible");
}

static void one_endless_word_and_no_text_end_well(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_tokenizer_trainer *trainer;
    rt_tokenizer *out;
    rt_tokenizer_trained trained;
    static const char *const special[] = {"<s>"};
    const rt_tokenizer_train_options options = {
        .pattern = "gpt2", .vocab = 400, .special = special, .n_special = 1, .bos = -1, .pad = -1};
    char *text = malloc(3 << 20);
    memset(text, 'a', 3 << 20);
    assert_int_equal(rt_tokenizer_trainer_open(&trainer, &options, &err), RT_OK);
    assert_int_equal(rt_tokenizer_trainer_add(trainer, text, 3 << 20, &err), RT_OK);
    assert_int_equal(rt_tokenizer_trainer_finish(trainer, &out, &trained, &err), RT_OK);
    assert_true(trained.exhausted);
    assert_int_equal(trained.words, 1);                     /* 768 parts, all alike */
    assert_int_equal(rt_tokenizer_size(out), 1 + 256 + 12); /* aa, aaaa, ... 4096 of them */
    rt_tokenizer_close(out);
    rt_tokenizer_trainer_close(trainer);
    free(text);
    assert_int_equal(rt_tokenizer_trainer_open(&trainer, &options, &err), RT_OK);
    assert_int_equal(rt_tokenizer_trainer_add(trainer, "", 0, &err), RT_OK);
    assert_int_equal(rt_tokenizer_trainer_finish(trainer, &out, &trained, &err), RT_INVALID);
    assert_null(out);
    rt_tokenizer_trainer_close(trainer);
}

static void memory_has_a_bound(void **state)
{
    (void)state;
    static const char *const special[] = {"<s>"};
    bool refused[2] = {false, false}; /* while counting, while merging */
    char *text = malloc(1 << 20);
    rt_rng rng = rt_rng_make(9, 9);
    for (size_t i = 0; i < 1 << 20; i++)
        text[i] = (char)(i % 8 == 7 ? ' ' : 'a' + (int)rt_rng_below(&rng, 26));
    for (size_t bytes = 1 << 12; bytes < (size_t)1 << 30; bytes *= 2) {
        rt_error err = {0};
        rt_tokenizer_trainer *trainer;
        rt_tokenizer *out = NULL;
        rt_tokenizer_trained trained;
        const rt_tokenizer_train_options options = {.pattern = "gpt2",
                                                    .vocab = 500,
                                                    .special = special,
                                                    .n_special = 1,
                                                    .bos = -1,
                                                    .pad = -1,
                                                    .bytes_max = bytes};
        assert_int_equal(rt_tokenizer_trainer_open(&trainer, &options, &err), RT_OK);
        rt_status status = rt_tokenizer_trainer_add(trainer, text, 1 << 20, &err);
        refused[0] = refused[0] || status == RT_NO_MEMORY;
        if (status == RT_OK) {
            status = rt_tokenizer_trainer_finish(trainer, &out, &trained, &err);
            refused[1] = refused[1] || status == RT_NO_MEMORY;
        }
        assert_true(status == RT_OK || (status == RT_NO_MEMORY && strstr(err.text, "raise the bound")));
        if (bytes == (size_t)1 << 29)
            assert_int_equal(status, RT_OK);
        rt_tokenizer_close(out);
        rt_tokenizer_trainer_close(trainer);
    }
    assert_true(refused[0] && refused[1]);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_those_of_counting_anew),
        cmocka_unit_test(runs_of_one_byte_and_ties_follow_the_rule),
        cmocka_unit_test(pieces_of_a_long_text_have_the_words_of_the_whole),
        cmocka_unit_test(any_number_of_threads_gives_the_same_tokenizer),
        cmocka_unit_test(every_byte_comes_back_and_files_give_the_same_ids),
        cmocka_unit_test(special_tokens_are_never_learnt),
        cmocka_unit_test(settings_without_meaning_are_refused),
        cmocka_unit_test(one_endless_word_and_no_text_end_well),
        cmocka_unit_test(memory_has_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
