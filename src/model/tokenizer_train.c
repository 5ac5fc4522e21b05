/* model/tokenizer_train.c - see tokenizer_train.h. */
#include "model/tokenizer_train.h"

#include <stdlib.h>
#include <string.h>

#include "model/bpe_train.h"
#include "model/tokenizer_internal.h"

struct rt_tokenizer_trainer {
    rt_tokenizer_train_options options;
    const char **special; /* owned list of owned texts */
    size_t n_special;
    int32_t bos, eos, pad;
    rt_tokenizer *made; /* its steps cut the text */
    char variant[64];
    rt_bpe_cutter cutter;
};

static rt_status no_memory(rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY, "no memory for the tokenizer");
}

static rt_status add_special(rt_tokenizer_trainer *t, const char *text, size_t size, rt_error *err)
{
    if (t->n_special == RT_TRAIN_SPECIAL_MAX)
        return rt_error_set(err, RT_INVALID, "more than %d special tokens", (int)RT_TRAIN_SPECIAL_MAX);
    if (size < 2 || memchr(text, '\0', size) || !rt_utf8_valid(text, size))
        return rt_error_set(err, RT_INVALID,
                            "the special token '%.40s': it must be UTF-8 of at least 2 bytes", text);
    for (size_t i = 0; i < t->n_special; i++)
        if (strlen(t->special[i]) == size && memcmp(t->special[i], text, size) == 0)
            return rt_error_set(err, RT_INVALID, "the special token '%.40s' is named twice", text);
    char *copy = strndup(text, size);
    if (!copy)
        return no_memory(err);
    t->special[t->n_special++] = copy;
    return RT_OK;
}

static rt_status take_like(rt_tokenizer_trainer *t, const rt_tokenizer *like, rt_error *err)
{
    for (size_t id = 0; id < rt_tokenizer_real_size(like); id++) {
        size_t size;
        if (like->vocab.tokens[id].type != RT_TOKEN_CONTROL)
            continue;
        const char *text = rt_vocab_text(&like->vocab, id, &size);
        int32_t *const roles[] = {&t->bos, &t->eos, &t->pad};
        const int32_t theirs[] = {like->bos, like->eos, like->pad};
        for (size_t r = 0; r < 3; r++)
            if (theirs[r] == (int32_t)id)
                *roles[r] = (int32_t)t->n_special;
        if (add_special(t, text, size, err) != RT_OK)
            return err->status;
    }
    t->made->add_bos = like->add_bos && t->bos >= 0;
    if (like->chat_template && !(t->made->chat_template = strdup(like->chat_template)))
        return no_memory(err);
    return RT_OK;
}

static rt_status take_pattern(rt_tokenizer_trainer *t, rt_error *err)
{
    const char *name = t->options.pattern;
    const rt_pre_name *pre = rt_pretokenizer_find(name, strlen(name), err);
    if (!pre)
        return err->status;
    (void)snprintf(t->variant, sizeof t->variant, "%s", pre->name);
    t->made->bpe.byte_level = true;
    t->made->bpe.ignore_merges = pre->ignore_merges;
    t->made->bpe.unknown_id = -1;
    if (pre->nfc && !rt_normalizer_add(&t->made->normalizer, RT_NORM_NFC))
        return no_memory(err);
    return rt_pretokenizer_from_name(&t->made->pre, pre, err);
}

rt_status rt_tokenizer_trainer_open(rt_tokenizer_trainer **out, const rt_tokenizer_train_options *options,
                                    rt_error *err)
{
    *out = NULL;
    rt_tokenizer_trainer *t = calloc(1, sizeof *t);
    if (!t)
        return no_memory(err);
    *t = (rt_tokenizer_trainer){.options = *options, .bos = -1, .eos = -1, .pad = -1};
    t->special = calloc(RT_TRAIN_SPECIAL_MAX, sizeof *t->special);
    t->made = calloc(1, sizeof *t->made);
    rt_status status = t->special && t->made ? take_pattern(t, err) : no_memory(err);
    if (status == RT_OK && !options->special && options->like)
        status = take_like(t, options->like, err);
    for (size_t i = 0; status == RT_OK && options->special && i < options->n_special; i++)
        status = add_special(t, options->special[i], strlen(options->special[i]), err);
    if (options->special) {
        t->bos = options->bos;
        t->eos = options->eos;
        t->pad = options->pad;
    }
    if (status == RT_OK && (options->vocab < t->n_special + 256 || options->vocab > RT_VOCAB_MAX))
        status = rt_error_set(err, RT_INVALID,
                              "a vocabulary of %zu tokens: %zu (256 bytes and %zu special tokens) to %d are "
                              "possible",
                              options->vocab, t->n_special + 256, t->n_special, (int)RT_VOCAB_MAX);
    if (status == RT_OK)
        status = rt_bpe_cutter_init(&t->cutter, &t->made->pre, &t->made->normalizer, options->bytes_max / 2,
                                    options->pool, err);
    if (status != RT_OK) {
        rt_tokenizer_trainer_close(t);
        return status;
    }
    *out = t;
    return RT_OK;
}

void rt_tokenizer_trainer_close(rt_tokenizer_trainer *t)
{
    if (!t)
        return;
    rt_bpe_cutter_deinit(&t->cutter);
    rt_tokenizer_close(t->made);
    for (size_t i = 0; i < t->n_special; i++)
        free((void *)(size_t)t->special[i]);
    free(t->special);
    free(t);
}

rt_status rt_tokenizer_trainer_add(rt_tokenizer_trainer *t, const char *text, size_t size, rt_error *err)
{
    return rt_bpe_cutter_add(&t->cutter, text, size, err);
}

static void spell(const char *bytes, size_t size, rt_text *out)
{
    rt_text_clear(out);
    rt_alphabet_from_bytes(bytes, size, out);
}

static rt_status fill_vocab(rt_tokenizer_trainer *t, const rt_bpe_learnt *learnt, rt_error *err)
{
    rt_tokenizer *made = t->made;
    rt_text text = {0};
    if (rt_vocab_init(&made->vocab, RT_SPELLING_BYTES, learnt->first_merged + learnt->n_merged, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < t->n_special; i++) {
        const rt_added_token token = {.id = (int32_t)i,
                                      .text = (char *)(size_t)t->special[i], /* copied there */
                                      .size = strlen(t->special[i]),
                                      .special = true,
                                      .markup = true};
        rt_vocab_set(&made->vocab, i, token.text, token.size, RT_TOKEN_CONTROL, 0);
        if (!rt_added_push(&made->added, &token))
            return no_memory(err);
    }
    for (size_t i = 0; i < 256; i++) {
        const char byte = (char)rt_bpe_byte_at(i);
        spell(&byte, 1, &text);
        rt_vocab_set(&made->vocab, learnt->first_byte + i, text.data, text.size, RT_TOKEN_NORMAL, 0);
    }
    for (size_t i = 0; i < learnt->n_merged; i++) {
        spell(learnt->bytes.data + learnt->begins[i], learnt->begins[i + 1] - learnt->begins[i], &text);
        rt_vocab_set(&made->vocab, learnt->first_merged + i, text.data, text.size, RT_TOKEN_NORMAL, 0);
    }
    const bool failed = text.failed;
    rt_text_deinit(&text);
    return failed ? no_memory(err) : rt_vocab_seal(&made->vocab, err);
}

static rt_status fill_merges(rt_tokenizer *made, const rt_bpe_learnt *learnt, rt_error *err)
{
    rt_text scratch = {0};
    rt_status status = rt_bpe_init(&made->bpe, &made->vocab, learnt->n_merges, err);
    for (size_t i = 0; status == RT_OK && i < learnt->n_merges; i++) {
        size_t left_size, right_size;
        const char *left = rt_vocab_text(&made->vocab, learnt->merges[i].left, &left_size),
                   *right = rt_vocab_text(&made->vocab, learnt->merges[i].right, &right_size);
        status = rt_bpe_add(&made->bpe, left, left_size, right, right_size, &scratch, err);
    }
    rt_text_deinit(&scratch);
    return status;
}

rt_status rt_tokenizer_trainer_finish(rt_tokenizer_trainer *t, rt_tokenizer **out,
                                      rt_tokenizer_trained *trained, rt_error *err)
{
    rt_bpe_words words;
    rt_bpe_learnt learnt = {0};
    *out = NULL;
    const rt_bpe_train_options options = {.vocab = t->options.vocab,
                                          .min_count = t->options.min_count,
                                          .special = t->special,
                                          .n_special = t->n_special,
                                          .bytes_max = t->options.bytes_max / 2};
    rt_status status = rt_bpe_cutter_finish(&t->cutter, &words, err);
    if (status == RT_OK && words.count == 0)
        status = rt_error_set(err, RT_INVALID, "there is no text to learn a vocabulary from");
    if (status == RT_OK)
        status = rt_bpe_train(&learnt, &words, &options, err);
    if (status == RT_OK)
        status = fill_vocab(t, &learnt, err);
    if (status == RT_OK)
        status = fill_merges(t->made, &learnt, err);
    t->made->bos = t->bos;
    t->made->eos = t->eos;
    t->made->pad = t->pad;
    if (status == RT_OK)
        status = rt_tokenizer_finish(t->made, t->variant, err);
    if (status == RT_OK) {
        *trained = (rt_tokenizer_trained){words.seen, words.count, learnt.n_merges, learnt.exhausted};
        *out = t->made;
        t->made = NULL;
    }
    rt_bpe_learnt_deinit(&learnt);
    rt_bpe_words_deinit(&words);
    return status;
}
