/* model/export_pre.c - the name that GGUF has for the pre-tokenizer of a tokenizer.json.
 *
 * GGUF names a pre-tokenizer where tokenizer.json spells out its steps.  A name is right when it stands for
 * the same steps; a guess would cut words in other places without a word, so none is made. */
#include <string.h>

#include "model/export_parts.h"
#include "model/tokenizer_steps.h"

/* Of names that mean the same, the first one is written. */
static const char *const names[] = {
    "gpt-2",    "smollm",     "llama-bpe",    "dbrx",           "qwen2",       "qwen35", "tekken", "gpt-4o",
    "mpt",      "command-r",  "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon", "viking", "bloom",
    "superbpe", "seed-coder", "bailingmoe",   "kimi-k2",        "hunyuan",     "default"};
enum { N_NAMES = sizeof names / sizeof *names };

static bool same_steps(const rt_pretokenizer *a, const rt_pretokenizer *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const rt_pre_step *x = &a->steps[i], *y = &b->steps[i];
        if (x->kind != y->kind || x->limit != y->limit || x->behaviour != y->behaviour ||
            x->invert != y->invert)
            return false;
        if (x->kind == RT_PRE_REGEX && (!x->pattern || !y->pattern || strcmp(x->pattern, y->pattern) != 0))
            return false;
    }
    return true;
}

/* How well a name fits: 0 not at all, 1 but for the normaliser (which GGUF does not have), 2 wholly. */
static int fit(const char *name, const rt_pretokenizer *wanted, bool ignore_merges, bool nfc)
{
    rt_pretokenizer pre = {0};
    int score = 0;
    rt_error unused = {0};
    const rt_pre_name *entry = rt_pretokenizer_find(name, strlen(name), &unused);
    if (entry && entry->ignore_merges == ignore_merges &&
        rt_pretokenizer_from_name(&pre, entry, &unused) == RT_OK && same_steps(&pre, wanted))
        score = entry->nfc == nfc ? 2 : 1;
    rt_pretokenizer_deinit(&pre);
    return score;
}

rt_status rt_export_pre_name(const char **out, const json_t *tokenizer, rt_error *err)
{
    rt_normalizer normalizer = {0};
    rt_pretokenizer wanted = {0};
    rt_steps_found found = {0};
    const bool ignore_merges =
        json_is_true(json_object_get(json_object_get(tokenizer, "model"), "ignore_merges"));
    int best = 0;
    *out = NULL;
    const rt_status status = rt_steps_read(&normalizer, &wanted, tokenizer, &found, err);
    bool nfc = false;
    for (size_t i = 0; i < normalizer.count; i++)
        nfc |= normalizer.steps[i].kind == RT_NORM_NFC;
    for (size_t i = 0; i < N_NAMES && status == RT_OK; i++) {
        const int score = fit(names[i], &wanted, ignore_merges, nfc);
        if (score > best) {
            best = score;
            *out = names[i];
        }
    }
    rt_normalizer_deinit(&normalizer);
    rt_pretokenizer_deinit(&wanted);
    if (status == RT_OK && !*out)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "tokenizer.json: GGUF has no name for its pre_tokenizer, so that llama.cpp would cut words "
            "in other places; export to a folder instead");
    return status;
}
