/* tests/model/test_tokenizer.c - ids against reference vectors, each step against its rule, damaged files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/rng.h"
#include "judge/verify_tokenizer.h"
#include "model/pretokenizer.h"
#include "model/tokenizer_vocab.h"
#include "tokenizer_help.h"

static char folder[] = "/tmp/retort-tokenizer-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int run(const char *program, const char *a, const char *b, const char *c, const char *d)
{
    const pid_t pid = fork();
    if (pid == 0) {
        execlp(program, program, a, b, c, d, (char *)NULL);
        _exit(127);
    }
    int status;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    return run("rm", "-rf", folder, NULL, NULL);
}

static rt_tokenizer *open_ok(const char *path)
{
    rt_error err = {0};
    rt_tokenizer *tokenizer = NULL;
    if (rt_tokenizer_open(&tokenizer, path, &err) != RT_OK)
        fail_msg("%s", err.text);
    return tokenizer;
}

static rt_tokenizer *from_json(const char *json)
{
    rt_error err = {0};
    rt_tokenizer *tokenizer = NULL;
    if (rt_tokenizer_from_json(&tokenizer, json, strlen(json), "test", &err) != RT_OK)
        fail_msg("%s", err.text);
    return tokenizer;
}

/* -- reference vectors -- */

static void check_golden(const rt_tokenizer *tokenizer, const char *name, size_t rows)
{
    char path[1024];
    rt_error err = {0};
    rt_verify result;
    if (!shared_file(path, name))
        skip();
    if (rt_verify_tokenizer(&result, path, tokenizer, &err) != RT_OK)
        fail_msg("%s", err.text);
    if (result.failed)
        fail_msg("%s: %zu rows differ, the first: %s", name, result.failed, result.worst);
    assert_int_equal(result.passed, rows);
}

static void smollm2_is_exact_on_every_row(void **state)
{
    (void)state;
    char path[1024], other[1024];
    if (!model_file(path) || !shared_file(other, "golden/tokenizer"))
        skip();
    rt_tokenizer *tokenizer = open_ok(path);
    assert_string_equal(rt_tokenizer_kind(tokenizer), "byte-level bpe, smollm");
    check_golden(tokenizer, "golden/tokenizer/smollm2_strings.jsonl.zst", 3264);
    check_golden(tokenizer, "golden/tokenizer/smollm2_chat.jsonl.zst", 198);
    check_golden(tokenizer, "golden/tokenizer/smollm2_malformed_utf8.jsonl.zst", 90);
    rt_tokenizer_close(tokenizer);
}

static bool unpack_vocabularies(void)
{
    char path[1024];
    static int state = -1;
    if (state < 0 && shared_file(path, "golden/tokenizer/vocab/vocab.tar.xz"))
        state = run("tar", "-xJf", path, "-C", folder) == 0;
    return state > 0;
}

static void five_vocabularies_are_exact_and_survive_writing(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt-2", "qwen2", "llama-bpe", "llama-spm", "deepseek-r1-qwen"};
    if (!unpack_vocabularies())
        skip();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[1024], vectors[1024], copy[1024];
        (void)snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf", folder, names[i]);
        (void)snprintf(vectors, sizeof vectors, "golden/tokenizer/vocab/ggml-vocab-%s.gguf.inp", names[i]);
        (void)snprintf(copy, sizeof copy, "%s/%s", folder, names[i]);
        rt_error err = {0};
        rt_tokenizer *tokenizer = open_ok(path);
        check_golden(tokenizer, vectors, 46);
        assert_int_equal(rt_tokenizer_write_hf(tokenizer, copy, &err), RT_OK);
        rt_tokenizer *again = open_ok(copy);
        check_golden(again, vectors, 46);
        assert_string_equal(rt_tokenizer_hash(tokenizer), rt_tokenizer_hash(again));
        assert_int_equal(rt_tokenizer_bos(tokenizer), rt_tokenizer_bos(again));
        assert_int_equal(rt_tokenizer_eos(tokenizer), rt_tokenizer_eos(again));
        rt_tokenizer_close(tokenizer);
        rt_tokenizer_close(again);
    }
}

/* The vocabulary of Qwen2 with the names that Qwen2.5 gives to its next 19 ids. */
static json_t *name_qwen25(const char *path)
{
    static const char *const names[] = {
        "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",  "<|box_end|>",    "<|quad_start|>",
        "<|quad_end|>",         "<|vision_start|>",   "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
        "<|video_pad|>",        "<tool_call>",        "</tool_call>",   "<|fim_prefix|>", "<|fim_middle|>",
        "<|fim_suffix|>",       "<|fim_pad|>",        "<|repo_name|>",  "<|file_sep|>"};
    json_t *root = json_load_file(path, 0, NULL);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    for (int i = 0; i < 19; i++) {
        char padding[32];
        (void)snprintf(padding, sizeof padding, "[PAD%d]", 151646 + i);
        (void)json_object_del(vocab, padding);
        (void)json_object_set_new(vocab, names[i], json_integer(151646 + i));
        (void)json_array_append_new(
            json_object_get(root, "added_tokens"),
            json_pack("{s:i, s:s, s:b}", "id", 151646 + i, "content", names[i], "special", i < 11));
    }
    return root;
}

static void qwen25_gives_the_reference_ids(void **state)
{
    (void)state;
    if (!unpack_vocabularies())
        skip();
    char path[1024];
    rt_error err = {0};
    (void)snprintf(path, sizeof path, "%s/ggml-vocab-qwen2.gguf", folder);
    rt_tokenizer *tokenizer = open_ok(path);
    (void)snprintf(path, sizeof path, "%s/qwen25", folder);
    assert_int_equal(rt_tokenizer_write_hf(tokenizer, path, &err), RT_OK);
    rt_tokenizer_close(tokenizer);
    (void)snprintf(path, sizeof path, "%s/qwen25/tokenizer.json", folder);
    json_t *root = name_qwen25(path);
    char *json = json_dumps(root, 0);
    tokenizer = from_json(json);
    check_golden(tokenizer, "golden/tokenizer/qwen2.5_strings.jsonl.zst", 943);
    rt_tokenizer_close(tokenizer);
    free(json);
    json_decref(root);
}

/* -- pre-tokenizers -- */

static rt_status join(void *context, const char *word, size_t size, rt_error *err)
{
    (void)err;
    rt_text *out = context;
    rt_text_append(out, word, size);
    rt_text_append(out, "|", 1);
    return RT_OK;
}

static void cut(rt_text *out, const rt_pretokenizer *pre, const char *text, size_t size)
{
    rt_error err = {0};
    rt_text_clear(out);
    rt_text_append(out, "", 0);
    if (rt_pretokenizer_run(pre, text, size, true, join, out, &err) != RT_OK)
        fail_msg("%s", err.text);
}

/* Letters, digits, marks, blanks and signs of every width, and ill-formed bytes. */
static size_t random_text(rt_rng *rng, char *out, size_t parts)
{
    static const char *const alphabet[] = {"a",
                                           "B",
                                           "s",
                                           "'",
                                           "'s",
                                           "'LL",
                                           "'re",
                                           "'\xC5\xBF",
                                           " ",
                                           " ",
                                           "\n",
                                           "\r",
                                           "\t",
                                           "1",
                                           "2",
                                           "34567",
                                           ".",
                                           "-",
                                           "_",
                                           "$",
                                           "\xC3\xA9",
                                           "\xD0\x96",
                                           "\xE6\x97\xA5",
                                           "\xE0\xA4\x95\xE0\xA4\xBE",
                                           "\xC2\xA0",
                                           "\xE2\x80\x83",
                                           "\xE2\x80\xA8",
                                           "\xC2\xB2",
                                           "\xE2\x85\xA7",
                                           "\xF0\x9F\x98\x80",
                                           "\xE2\x80\x8D",
                                           "\xCC\x81",
                                           "\xFF",
                                           "\x80",
                                           "\xE2\x82",
                                           "\xF0\x9F",
                                           "\xE1\xA0\x8E",
                                           "\xC2\x85",
                                           "\x01",
                                           "\xEF\xBF\xBD"};
    size_t size = 0;
    for (size_t i = 0; i < parts; i++) {
        const char *part = alphabet[rt_rng_below(rng, sizeof alphabet / sizeof *alphabet)];
        memcpy(out + size, part, strlen(part));
        size += strlen(part);
    }
    return size;
}

static void scanners_agree_with_the_patterns(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
    rt_rng rng = rt_rng_make(7, 0);
    rt_text fast = {0}, slow = {0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        rt_error err = {0};
        rt_pretokenizer scanner = {0}, pattern = {0};
        const rt_pre_name *name = rt_pretokenizer_find(names[i], strlen(names[i]), &err);
        assert_non_null(name);
        assert_int_equal(rt_pretokenizer_from_name(&scanner, name, &err), RT_OK);
        for (size_t k = 0; k < 6 && name->patterns[k]; k++)
            assert_int_equal(
                rt_pretokenizer_add_regex(&pattern, name->patterns[k], RT_SPLIT_ISOLATED, false, true, &err),
                RT_OK);
        for (size_t k = 0; k < scanner.count; k++)
            assert_null(scanner.steps[k].regex);
        for (int round = 0; round < 4000; round++) {
            char text[256];
            const size_t size = random_text(&rng, text, 1 + rt_rng_below(&rng, 24));
            cut(&fast, &scanner, text, size);
            cut(&slow, &pattern, text, size);
            assert_string_equal(fast.data, slow.data);
        }
        rt_pretokenizer_deinit(&scanner);
        rt_pretokenizer_deinit(&pattern);
    }
    rt_text_deinit(&fast);
    rt_text_deinit(&slow);
}

static void split_behaviours_keep_drop_and_join(void **state)
{
    (void)state;
    static const struct {
        rt_split_behaviour behaviour;
        bool invert;
        const char *want;
    } cases[] = {{RT_SPLIT_ISOLATED, false, "the|-|final|-|-|countdown|"},
                 {RT_SPLIT_REMOVED, false, "the|final|countdown|"},
                 {RT_SPLIT_MERGED_WITH_PREVIOUS, false, "the-|final-|-|countdown|"},
                 {RT_SPLIT_MERGED_WITH_NEXT, false, "the|-final|-|-countdown|"},
                 {RT_SPLIT_CONTIGUOUS, false, "the|-|final|--|countdown|"},
                 {RT_SPLIT_REMOVED, true, "-|-|-|"}};
    rt_text got = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rt_error err = {0};
        rt_pretokenizer pre = {0};
        assert_int_equal(
            rt_pretokenizer_add_regex(&pre, "-", cases[i].behaviour, cases[i].invert, true, &err), RT_OK);
        cut(&got, &pre, "the-final--countdown", 20);
        assert_string_equal(got.data, cases[i].want);
        rt_pretokenizer_deinit(&pre);
    }
    rt_text_deinit(&got);
}

static void every_named_pretokenizer_is_understood(void **state)
{
    (void)state;
    static const char *const names[] = {
        "default", "falcon",    "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken", "gpt-4o",
        "llama4",  "kimi-k2",   "bailingmoe",   "seed-coder",     "poro-chat",   "viking", "superbpe",
        "qwen35",  "stablelm2", "command-r",    "starcoder",      "refact",      "dbrx",   "chatglm-bpe",
        "olmo",    "mpt",       "jais",         "exaone"};
    rt_text got = {0};
    rt_rng rng = rt_rng_make(3, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        rt_error err = {0};
        rt_pretokenizer pre = {0};
        const rt_pre_name *name = rt_pretokenizer_find(names[i], strlen(names[i]), &err);
        if (!name || rt_pretokenizer_from_name(&pre, name, &err) != RT_OK)
            fail_msg("%s: %s", names[i], err.text);
        for (int round = 0; round < 200; round++) { /* nothing is lost: without the bars it is the text */
            char text[256], back[256];
            const size_t size = random_text(&rng, text, 1 + rt_rng_below(&rng, 24));
            size_t n = 0;
            cut(&got, &pre, text, size);
            for (size_t k = 0; k < got.size; k++)
                if (got.data[k] != '|')
                    back[n++] = got.data[k];
            assert_int_equal(n, size);
            assert_memory_equal(back, text, size);
        }
        rt_pretokenizer_deinit(&pre);
    }
    rt_error err = {0};
    assert_null(rt_pretokenizer_find("smolllm", 7, &err));
    assert_int_equal(err.status, RT_UNSUPPORTED);
    assert_non_null(strstr(err.text, "\"smolllm\""));
    assert_non_null(strstr(err.text, "\"smollm\""));
    rt_text_deinit(&got);
}

static void a_hostile_pattern_ends(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_pretokenizer pre = {0};
    rt_text got = {0};
    char text[64];
    memset(text, 'a', sizeof text);
    text[62] = 'b';
    assert_int_equal(rt_pretokenizer_add_regex(&pre, "(a+)+(?:bc|bd)", RT_SPLIT_ISOLATED, false, false, &err),
                     RT_OK);
    assert_int_equal(rt_pretokenizer_run(&pre, text, sizeof text, true, join, &got, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "too many steps"));
    rt_pretokenizer_deinit(&pre);
    rt_text_deinit(&got);
}

/* -- small tokenizers, each made for one rule -- */

#define BPE(vocab, merges, rest)                                                                             \
    "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\",\"vocab\":{" vocab "},\"merges\":[" merges "]" rest "}"
#define META "\xE2\x96\x81"

static void check_ids(const char *json, const char *text, bool special, const char *want)
{
    rt_error err = {0};
    rt_tokenizer *tokenizer = from_json(json);
    rt_token_list ids = {0};
    rt_text got = {0};
    rt_text_append(&got, "", 0);
    if (rt_tokenizer_encode(tokenizer, text, strlen(text), special, &ids, &err) != RT_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < ids.count; i++)
        rt_text_printf(&got, "%s%d", i ? " " : "", ids.ids[i]);
    assert_string_equal(got.data, want);
    rt_text_deinit(&got);
    rt_token_list_deinit(&ids);
    rt_tokenizer_close(tokenizer);
}

static void metaspace_puts_its_mark_where_the_scheme_says(void **state)
{
    (void)state;
#define METASPACE(scheme)                                                                                    \
    BPE("\"?\":0,\"" META "\":1,\"a\":2,\"b\":3,\"" META "a\":4", "\"" META " a\"", "")                      \
    ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"" META "\",\"prepend_scheme\":\"" scheme   \
    "\"},"                                                                                                   \
    "\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"special\":true}]}"
    check_ids(METASPACE("always"), "a b<s>a", true, "4 1 3 5 4");
    check_ids(METASPACE("first"), "a b<s>a", true, "4 1 3 5 2");
    check_ids(METASPACE("never"), "a b<s> a", true, "2 1 3 5 4");
}

static void unknown_characters_become_bytes_or_one_token(void **state)
{
    (void)state;
#define LETTERS "\"?\":0,\"a\":1,\"<0xC3>\":2,\"<0xA9>\":3"
    check_ids(BPE(LETTERS, "", ",\"byte_fallback\":true}"),
              "a\xC3\xA9"
              "a",
              false, "1 2 3 1");
    check_ids(BPE(LETTERS, "", ",\"byte_fallback\":true}"), "x", false, "0");
    check_ids(BPE(LETTERS, "", "}"), "axxa", false, "1 0 0 1");
    check_ids(BPE(LETTERS, "", ",\"fuse_unk\":true}"), "axxa", false, "1 0 1");
    check_ids(BPE(LETTERS, "", "}"),
              "a\xFF\x80"
              "a",
              false, "1 0 0 1");
}

static void merges_run_by_rank_and_ignore_merges_takes_words(void **state)
{
    (void)state;
#define ABC "\"?\":0,\"a\":1,\"b\":2,\"c\":3,\"ab\":4,\"bc\":5,\"abc\":6"
    check_ids(BPE(ABC, "[\"b\",\"c\"],[\"a\",\"b\"]", "}"), "abc", false, "1 5");
    check_ids(BPE(ABC, "\"a b\",\"b c\"", "}"), "abc", false, "4 3");
    check_ids(BPE(ABC, "\"a b\"", ",\"ignore_merges\":true}"), "abc", false, "6");
}

static void unigram_takes_the_most_probable_cut(void **state)
{
    (void)state;
#define UNIGRAM(rest)                                                                                        \
    "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",-2],[\"b\",-2],[\"ab\",-3],"  \
    "[\"aba\",-3.5],[\"ba\",-6]]}" rest "}"
    check_ids(UNIGRAM(""), "abab", false, "4 2");
    check_ids(UNIGRAM(""), "ababa", false, "3 4");
    check_ids(UNIGRAM(""), "axyb", false, "1 0 2");
    check_ids(UNIGRAM(",\"normalizer\":{\"type\":\"Lowercase\"}"), "ABAB", false, "4 2");
}

static void added_tokens_obey_their_flags(void **state)
{
    (void)state;
#define ADDED(flags)                                                                                         \
    BPE("\"?\":0,\"a\":1,\"b\":2,\" \":3,\"X\":4", "", "")                                                   \
    ",\"normalizer\":{\"type\":\"Lowercase\"},\"added_tokens\":[{\"id\":9,\"content\":\"X\"" flags "}]}"
    check_ids(ADDED(""), "a X b", false, "1 3 9 3 2");
    check_ids(ADDED(",\"special\":true"), "a X b", false, "1 3 0 3 2");
    check_ids(ADDED(",\"special\":true"), "a X b", true, "1 3 9 3 2");
    check_ids(ADDED(",\"lstrip\":true"), "a  X b", false, "1 9 3 2");
    check_ids(ADDED(",\"rstrip\":true"), "a X  b", false, "1 3 9 2");
    check_ids(ADDED(",\"single_word\":true"), "aX X", false, "1 0 3 9");
    check_ids(ADDED(",\"normalized\":true"), "a x X", false, "1 3 9 3 9");
    check_ids(
        BPE("\"?\":0,\"<\":1,\"t\":2,\">\":3", "", "") ",\"added_tokens\":[{\"id\":4,\"content\":\"<t>\"}]}",
        "<t>", false, "1 2 3"); /* markup is text unless it is asked for */
}

/* -- merging against its definition -- */

enum { MERGES = 40, BYTES_MAX = 400 };

typedef struct made_up { /* 256 bytes, then MERGES tokens over 'a' and 'b' */
    char text[256 + MERGES][32];
    int left[MERGES], right[MERGES];
    int count;
} made_up;

static int find_text(const made_up *m, const char *text)
{
    for (int i = 'a'; i < m->count; i++)
        if ((i <= 'b' || i >= 256) && strcmp(m->text[i], text) == 0)
            return i;
    return -1;
}

static void make_merges(made_up *m, rt_rng *rng)
{
    m->count = 256;
    for (int i = 0; i < 256; i++)
        m->text[i][0] = (char)i, m->text[i][1] = '\0';
    while (m->count < 256 + MERGES) {
        const uint64_t choices = 2 + (uint64_t)(m->count - 256);
        const int l = (int)rt_rng_below(rng, choices), r = (int)rt_rng_below(rng, choices);
        const int left = l < 2 ? 'a' + l : 254 + l, right = r < 2 ? 'a' + r : 254 + r;
        char both[64];
        (void)snprintf(both, sizeof both, "%s%s", m->text[left], m->text[right]);
        if (strlen(both) > 12 || find_text(m, both) >= 0)
            continue;
        memcpy(m->text[m->count], both, 32);
        m->left[m->count - 256] = left;
        m->right[m->count - 256] = right;
        m->count++;
    }
}

static rt_tokenizer *open_made_up(const made_up *m)
{
    json_t *vocab = json_object(), *merges = json_array();
    rt_text spelled = {0};
    for (int i = 0; i < m->count; i++) {
        rt_text_clear(&spelled);
        rt_alphabet_from_bytes(m->text[i], i < 256 ? 1 : strlen(m->text[i]), &spelled);
        (void)json_object_set_new(vocab, spelled.data, json_integer(i));
    }
    for (int i = 0; i < MERGES; i++)
        (void)json_array_append_new(merges, json_pack("[s, s]", m->text[m->left[i]], m->text[m->right[i]]));
    json_t *root = json_pack("{s:{s:s}, s:{s:s, s:o, s:o}}", "decoder", "type", "ByteLevel", "model", "type",
                             "BPE", "vocab", vocab, "merges", merges);
    char *text = json_dumps(root, 0);
    rt_tokenizer *tokenizer = from_json(text);
    free(text);
    json_decref(root);
    rt_text_deinit(&spelled);
    return tokenizer;
}

static size_t merge_by_definition(const made_up *m, int *ids, size_t count)
{
    for (int rank = 0; rank < MERGES; rank++)
        for (size_t i = 0; i + 1 < count; i++)
            if (ids[i] == m->left[rank] && ids[i + 1] == m->right[rank]) {
                ids[i] = 256 + rank;
                memmove(ids + i + 1, ids + i + 2, (count - i - 2) * sizeof *ids);
                return merge_by_definition(m, ids, count - 1);
            }
    return count;
}

static void short_and_long_words_merge_as_the_definition_says(void **state)
{
    (void)state;
    rt_rng rng = rt_rng_make(11, 0);
    static made_up m;
    for (int round = 0; round < 60; round++) {
        make_merges(&m, &rng);
        rt_tokenizer *tokenizer = open_made_up(&m);
        for (int k = 0; k < 12; k++) {
            char text[BYTES_MAX];
            int want[BYTES_MAX];
            rt_error err = {0};
            const size_t size = 1 + rt_rng_below(&rng, k < 8 ? 48 : BYTES_MAX);
            for (size_t i = 0; i < size; i++)
                want[i] = text[i] = (char)('a' + rt_rng_below(&rng, 2));
            const size_t count = merge_by_definition(&m, want, size);
            rt_token_list got = {0};
            assert_int_equal(rt_tokenizer_encode(tokenizer, text, size, false, &got, &err), RT_OK);
            assert_int_equal(got.count, count);
            for (size_t i = 0; i < count; i++)
                assert_int_equal(got.ids[i], want[i]);
            rt_token_list_deinit(&got);
        }
        rt_tokenizer_close(tokenizer);
    }
}

static void any_bytes_come_back_from_a_full_byte_vocabulary(void **state)
{
    (void)state;
    rt_rng rng = rt_rng_make(5, 0);
    static made_up m;
    make_merges(&m, &rng);
    rt_tokenizer *tokenizer = open_made_up(&m);
    for (int round = 0; round < 500; round++) {
        char text[256];
        rt_error err = {0};
        rt_token_list ids = {0};
        rt_text back = {0};
        const size_t size = rt_rng_below(&rng, sizeof text);
        for (size_t i = 0; i < size; i++)
            text[i] = (char)rt_rng_below(&rng, 256);
        assert_int_equal(rt_tokenizer_encode(tokenizer, text, size, true, &ids, &err), RT_OK);
        assert_int_equal(rt_tokenizer_decode(tokenizer, ids.ids, ids.count, false, &back, &err), RT_OK);
        assert_int_equal(back.size, size);
        if (size)
            assert_memory_equal(back.data, text, size);
        rt_token_list_deinit(&ids);
        rt_text_deinit(&back);
    }
    rt_error err = {0};
    rt_text back = {0};
    const int32_t wrong[] = {1, 296};
    assert_int_equal(rt_tokenizer_decode(tokenizer, wrong, 2, false, &back, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "296"));
    rt_text_deinit(&back);
    rt_tokenizer_close(tokenizer);
}

/* -- bad files -- */

static void a_wrong_tokenizer_json_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"", "test"},
        {"[]", "model"},
        {"{}", "model"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "WordPiece"},
        {BPE("", "", "}"), "0 tokens"},
        {BPE("\"?\":0,\"a\":0", "", "}"), "id 0 belongs to two tokens"},
        {BPE("\"?\":0,\"a\":1,\"a\":2", "", "}"), "duplicate"},
        {BPE("\"?\":0,\"a\":-1", "", "}"), "\"a\""},
        {BPE("\"?\":0,\"a\":1.5", "", "}"), "\"a\""},
        {BPE("\"?\":0,\"a\":4000000", "", "}"), "too many are missing"},
        {BPE("\"?\":0,\"a\":99999999999", "", "}"), "\"a\""},
        {BPE("\"a\":0", "", "}"), "unk_token"},
        {BPE("\"?\":0,\"a\":1", "\"a b\"", "}"), "merge 0: its right part"},
        {BPE("\"?\":0,\"a\":1,\"b\":2", "\"a b\"", "}"), "merge 0: its result"},
        {BPE("\"?\":0,\"a\":1", "\"ab\"", "}"), "merge 0 is not two parts"},
        {BPE("\"?\":0,\"a\":1", "[\"a\"]", "}"), "merge 0 is not two parts"},
        {BPE("\"?\":0,\"a\":1", "[\"a\",\"\"]", "}"), "empty"},
        {BPE("\"?\":0", "", ",\"end_of_word_suffix\":\"</w>\"}"), "end_of_word_suffix"},
        {BPE("\"?\":0", "", "}") ",\"normalizer\":{\"type\":\"Nonsense\"}", "test"},
        {BPE("\"?\":0", "", "") ",\"normalizer\":{\"type\":\"Nonsense\"}}", "Nonsense"},
        {BPE("\"?\":0", "", "") ",\"pre_tokenizer\":{\"type\":\"Nonsense\"}}", "Nonsense"},
        {BPE("\"?\":0", "", "") ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"}}}",
         "pattern"},
        {BPE("\"?\":0", "",
             "") ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}}",
         "character map"},
        {BPE("\"?\":0", "", "") ",\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]}",
         "id 0 belongs to two tokens"},
        {BPE("\"?\":0", "", "") ",\"added_tokens\":[{\"content\":\"x\"}]}", "\"x\""},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "piece 0"},
        {"{\"model\":{\"type\":\"Unigram\",\"unk_id\":7,\"vocab\":[[\"a\",0]]}}", "unk_id"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rt_error err = {0};
        rt_tokenizer *tokenizer = (rt_tokenizer *)&err;
        assert_int_not_equal(
            rt_tokenizer_from_json(&tokenizer, cases[i].json, strlen(cases[i].json), "test", &err), RT_OK);
        assert_null(tokenizer);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.text, cases[i].says);
    }
}

/* Opens bytes that may be anything; what opens must work, what does not must say why. */
static void try_json(const char *json, size_t size)
{
    rt_error err = {0};
    rt_tokenizer *tokenizer;
    rt_token_list ids = {0};
    if (rt_tokenizer_from_json(&tokenizer, json, size, "test", &err) != RT_OK) {
        assert_true(err.text[0] != '\0');
        return;
    }
    if (rt_tokenizer_encode(tokenizer, "a bX <s>\xFF", 9, true, &ids, &err) != RT_OK)
        assert_true(err.text[0] != '\0');
    rt_token_list_deinit(&ids);
    rt_tokenizer_close(tokenizer);
}

static void damaged_json_does_no_harm(void **state)
{
    (void)state;
    static const char json[] = BPE(
        "\"?\":0,\" \":1,\"a\":2,\"b\":3,\"ab\":4", "\"a b\"",
        ",\"byte_fallback\":true,\"fuse_unk\":true") ","
                                                     "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":["
                                                     "{\"type\":\"NFC\"},{\"type\":\"Replace\","
                                                     "\"pattern\":{\"Regex\":\"b+\"},\"content\":\"b\"}]},"
                                                     "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":"
                                                     "{\"Regex\":\"\\\\s\"},\"behavior\":\"MergedWithNext\","
                                                     "\"invert\":false},\"added_tokens\":[{\"id\":5,"
                                                     "\"content\":\"<s>\",\"special\":true,\"lstrip\":true}]"
                                                     "}";
    char *copy = malloc(sizeof json);
    assert_non_null(copy);
    for (size_t size = 0; size < sizeof json; size++)
        try_json(json, size);
    for (size_t bit = 0; bit < (sizeof json - 1) * 8; bit++) {
        memcpy(copy, json, sizeof json);
        copy[bit / 8] = (char)(copy[bit / 8] ^ 1 << bit % 8);
        try_json(copy, sizeof json - 1);
    }
    free(copy);
}

static void make_gguf(rt_text *t, const char *model, const char *pre)
{
    static const char *const tokens[] = {"<unk>", "a", "b", "ab", "<s>", META, META "a", "<0x0A>"};
    static const char *const merges[] = {"a b"};
    static const int32_t types[] = {2, 1, 1, 1, 3, 1, 1, 6};
    static const float scores[] = {0, -1, -2, -3, 0, -1, -2, 0};
    put_gguf_head(t, 6);
    put_meta_string(t, "tokenizer.ggml.model", model);
    put_meta_string(t, "tokenizer.ggml.pre", pre);
    put_meta_strings(t, "tokenizer.ggml.tokens", tokens, 8);
    put_meta_strings(t, "tokenizer.ggml.merges", merges, 1);
    put_meta_words(t, "tokenizer.ggml.token_type", 5, types, 8);
    put_meta_words(t, "tokenizer.ggml.scores", 6, scores, 8);
}

static void try_gguf(const char *data, size_t size)
{
    rt_error err = {0};
    rt_weights *weights = NULL;
    rt_tokenizer *tokenizer;
    rt_token_list ids = {0};
    if (rt_weights_open_memory(&weights, data, size, "test", &err) == RT_OK &&
        rt_tokenizer_from_weights(&tokenizer, weights, &err) == RT_OK) {
        (void)rt_tokenizer_encode(tokenizer, "a ab\n<s>\xFF", 9, true, &ids, &err);
        rt_token_list_deinit(&ids);
        rt_tokenizer_close(tokenizer);
    } else {
        assert_true(err.text[0] != '\0');
    }
    rt_weights_close(weights);
}

static void damaged_gguf_metadata_does_no_harm(void **state)
{
    (void)state;
    static const char *const models[] = {"gpt2", "llama", "t5"};
    for (size_t i = 0; i < 3; i++) {
        rt_text good = {0};
        make_gguf(&good, models[i], "smollm");
        for (size_t size = 0; size < good.size; size++)
            try_gguf(good.data, size);
        for (size_t bit = 0; bit < good.size * 8; bit++) {
            good.data[bit / 8] = (char)(good.data[bit / 8] ^ 1 << bit % 8);
            try_gguf(good.data, good.size);
            good.data[bit / 8] = (char)(good.data[bit / 8] ^ 1 << bit % 8);
        }
        rt_text_deinit(&good);
    }
}

static void unknown_gguf_names_are_errors(void **state)
{
    (void)state;
    static const struct {
        const char *model, *pre, *says;
    } cases[] = {{"gpt2", "qwen9", "\"qwen9\""}, {"bert", "default", "\"bert\""}};
    for (size_t i = 0; i < 2; i++) {
        rt_text file = {0};
        rt_error err = {0};
        rt_weights *weights = NULL;
        rt_tokenizer *tokenizer;
        make_gguf(&file, cases[i].model, cases[i].pre);
        assert_int_equal(rt_weights_open_memory(&weights, file.data, file.size, "test", &err), RT_OK);
        assert_int_equal(rt_tokenizer_from_weights(&tokenizer, weights, &err), RT_UNSUPPORTED);
        assert_non_null(strstr(err.text, cases[i].says));
        rt_weights_close(weights);
        rt_text_deinit(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smollm2_is_exact_on_every_row),
        cmocka_unit_test(five_vocabularies_are_exact_and_survive_writing),
        cmocka_unit_test(qwen25_gives_the_reference_ids),
        cmocka_unit_test(scanners_agree_with_the_patterns),
        cmocka_unit_test(split_behaviours_keep_drop_and_join),
        cmocka_unit_test(every_named_pretokenizer_is_understood),
        cmocka_unit_test(a_hostile_pattern_ends),
        cmocka_unit_test(metaspace_puts_its_mark_where_the_scheme_says),
        cmocka_unit_test(unknown_characters_become_bytes_or_one_token),
        cmocka_unit_test(merges_run_by_rank_and_ignore_merges_takes_words),
        cmocka_unit_test(unigram_takes_the_most_probable_cut),
        cmocka_unit_test(added_tokens_obey_their_flags),
        cmocka_unit_test(short_and_long_words_merge_as_the_definition_says),
        cmocka_unit_test(any_bytes_come_back_from_a_full_byte_vocabulary),
        cmocka_unit_test(a_wrong_tokenizer_json_is_named),
        cmocka_unit_test(damaged_json_does_no_harm),
        cmocka_unit_test(damaged_gguf_metadata_does_no_harm),
        cmocka_unit_test(unknown_gguf_names_are_errors),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
