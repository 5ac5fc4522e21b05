/* model/tokenizer.c - see tokenizer.h: encoding and decoding; the readers are tokenizer_gguf.c and
 * tokenizer_json.c.
 *
 * Encoding goes through four stages: added tokens are found, the text between them is normalised, cut
 * into words, and each word is encoded.  Byte-level vocabularies that have a token for each of the 256
 * bytes take ill-formed UTF-8 as it is, so that decoding gives the bytes back; all others read U+FFFD
 * in place of each maximal ill-formed sequence. */
#include "model/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/size.h"

typedef struct encoder {
    const rt_tokenizer *tokenizer;
    rt_bpe_scratch scratch;
    rt_token_list *out;
    bool parse_special, first;
    const size_t *breaks; /* offsets into the text that no special token may lie across */
    size_t n_breaks;
} encoder;

void rt_tokenizer_close(rt_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    rt_bpe_deinit(&tokenizer->bpe);
    rt_unigram_deinit(&tokenizer->unigram);
    rt_pretokenizer_deinit(&tokenizer->pre);
    rt_normalizer_deinit(&tokenizer->normalizer);
    rt_added_deinit(&tokenizer->added);
    rt_vocab_deinit(&tokenizer->vocab);
    free(tokenizer->chat_template);
    free(tokenizer->source);
    free(tokenizer);
}

void rt_token_list_deinit(rt_token_list *list)
{
    free(list->ids);
    *list = (rt_token_list){0};
}

/* -- what the tokenizer is -- */

bool rt_tokenizer_is_padding(const rt_tokenizer *tokenizer, size_t id)
{
    size_t size;
    const char *text = rt_vocab_text(&tokenizer->vocab, id, &size);
    char expected[32];
    const int n = snprintf(expected, sizeof expected, "[PAD%zu]", id);
    return (size_t)n == size && memcmp(text, expected, size) == 0;
}

static rt_status hash_tokenizer(rt_tokenizer *tokenizer, rt_error *err)
{
    const rt_bpe *bpe = &tokenizer->bpe;
    rt_text all = {0};
    for (size_t id = 0; id < tokenizer->vocab.count; id++) {
        const unsigned char type = tokenizer->vocab.tokens[id].type;
        if (type == RT_TOKEN_ABSENT || rt_tokenizer_is_padding(tokenizer, id))
            continue;
        size_t size;
        const char *bytes = rt_vocab_bytes(&tokenizer->vocab, id, &size);
        const uint32_t head[2] = {(uint32_t)id, (uint32_t)size};
        const char special = type == RT_TOKEN_CONTROL || type == RT_TOKEN_UNKNOWN;
        rt_text_append(&all, head, sizeof head);
        rt_text_append(&all, &special, 1);
        rt_text_append(&all, bytes, size);
    }
    size_t count = 0;
    rt_bpe_merge *merges = bpe->byte_level ? rt_bpe_merges_in_order(bpe, &count) : NULL;
    for (size_t i = 0; merges && i < count; i++)
        rt_text_append(&all, &merges[i], 2 * sizeof(uint32_t)); /* left and right */
    const bool ok = !all.failed && (merges || !bpe->byte_level);
    if (ok)
        rt_sha256_hex(tokenizer->hash, all.data ? all.data : "", all.size);
    free(merges);
    rt_text_deinit(&all);
    return ok ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory to hash the tokenizer");
}

rt_status rt_tokenizer_finish(rt_tokenizer *tokenizer, const char *variant, rt_error *err)
{
    if (rt_added_seal(&tokenizer->added, err) != RT_OK)
        return err->status;
    const bool bytes = tokenizer->model == RT_MODEL_BPE && tokenizer->bpe.byte_level;
    tokenizer->clean_malformed = !(bytes && tokenizer->bpe.all_bytes);
    const char *model = bytes                                  ? "byte-level bpe"
                        : tokenizer->model == RT_MODEL_UNIGRAM ? "unigram"
                        : tokenizer->bpe.score_ranks           ? "sentencepiece bpe"
                                                               : "character bpe";
    (void)snprintf(tokenizer->kind, sizeof tokenizer->kind, "%s%s%.60s", model, *variant ? ", " : "",
                   variant);
    int32_t *ids[] = {&tokenizer->bos, &tokenizer->eos, &tokenizer->pad};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (*ids[i] < 0 || (size_t)*ids[i] >= tokenizer->vocab.count)
            *ids[i] = -1;
    return hash_tokenizer(tokenizer, err);
}

/* -- encoding -- */

static rt_status encode_word(void *context, const char *word, size_t size, rt_error *err)
{
    encoder *e = context;
    if (e->tokenizer->model == RT_MODEL_UNIGRAM)
        return rt_unigram_encode(&e->tokenizer->unigram, word, size, e->out, err);
    return rt_bpe_encode(&e->tokenizer->bpe, &e->scratch, word, size, e->out, err);
}

static rt_status encode_plain(encoder *e, const char *text, size_t size, rt_error *err)
{
    if (size == 0)
        return RT_OK;
    const bool first = e->first;
    e->first = false;
    return rt_pretokenizer_run(&e->tokenizer->pre, text, size, first, encode_word, e, err);
}

typedef rt_status (*segment_function)(encoder *e, const char *text, size_t size, rt_error *err);

static bool is_broken(const encoder *e, const rt_added_match *match)
{
    size_t low = 0, high = e->n_breaks; /* the first break past the begin */
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (e->breaks[middle] > match->begin)
            high = middle;
        else
            low = middle + 1;
    }
    return low < e->n_breaks && e->breaks[low] < match->end;
}

/* The next added token that counts.  Offsets of breaks are those of the raw text; where a text has breaks,
 * markup that is looked for after normalising is text. */
static bool next_added(const encoder *e, bool normalized, const char *text, size_t size, size_t at,
                       rt_added_match *match)
{
    const bool special = e->parse_special && !(normalized && e->n_breaks);
    while (rt_added_find(&e->tokenizer->added, normalized, text, size, at, special, match)) {
        if (normalized || !is_broken(e, match))
            return true;
        at = match->begin + 1;
    }
    return false;
}

/* Added tokens become their ids, what lies between them goes to `rest`. */
static rt_status split_added(encoder *e, bool normalized, const char *text, size_t size,
                             segment_function rest, rt_error *err)
{
    rt_added_match match;
    size_t at = 0;
    while (next_added(e, normalized, text, size, at, &match)) {
        if (rest(e, text + at, match.begin - at, err) != RT_OK)
            return err->status;
        if (!rt_token_list_push(e->out, match.id))
            return rt_error_set(err, RT_NO_MEMORY, "no memory to tokenize the text");
        e->first = false;
        at = match.end;
    }
    return rest(e, text + at, size - at, err);
}

static rt_status encode_segment(encoder *e, const char *text, size_t size, rt_error *err)
{
    const rt_tokenizer *tokenizer = e->tokenizer;
    if (size == 0)
        return RT_OK;
    if (tokenizer->normalizer.count == 0)
        return split_added(e, true, text, size, encode_plain, err);
    rt_text normal = {0};
    rt_status status = rt_normalizer_run(&tokenizer->normalizer, text, size, &normal, err);
    if (status == RT_OK)
        status = split_added(e, true, normal.data ? normal.data : "", normal.size, encode_plain, err);
    rt_text_deinit(&normal);
    return status;
}

static void clean(rt_text *out, const char *text, size_t size)
{
    for (size_t i = 0, n; i < size; i += n) {
        char utf8[4];
        rt_text_append(out, utf8, rt_utf8_encode(rt_utf8_decode(text + i, size - i, &n), utf8));
    }
}

enum { CACHE_TEXT_MIN = 4096 }; /* bytes: for less the cache costs more than it gives */

static rt_status encode(const encoder *how, const char *text, size_t size, rt_error *err)
{
    const rt_tokenizer *tokenizer = how->tokenizer;
    rt_token_list *out = how->out;
    encoder e = *how;
    e.first = true;
    e.scratch.use_cache = size >= CACHE_TEXT_MIN;
    const size_t before = out->count;
    rt_text cleaned = {.size_max = SIZE_MAX / 2};
    if (tokenizer->clean_malformed && !rt_utf8_valid(text, size)) {
        clean(&cleaned, text, size);
        text = cleaned.data;
        size = cleaned.size;
    }
    rt_status status = cleaned.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory to tokenize the text")
                                      : split_added(&e, false, text, size, encode_segment, err);
    if (status != RT_OK)
        out->count = before;
    rt_bpe_scratch_deinit(&e.scratch);
    rt_text_deinit(&cleaned);
    return status;
}

rt_status rt_tokenizer_encode(const rt_tokenizer *tokenizer, const char *text, size_t size,
                              bool parse_special, rt_token_list *out, rt_error *err)
{
    const encoder how = {.tokenizer = tokenizer, .out = out, .parse_special = parse_special};
    return encode(&how, text, size, err);
}

rt_status rt_tokenizer_encode_guarded(const rt_tokenizer *tokenizer, const char *text, size_t size,
                                      const size_t *breaks, size_t n_breaks, rt_token_list *out,
                                      rt_error *err)
{
    const encoder how = {
        .tokenizer = tokenizer, .out = out, .parse_special = true, .breaks = breaks, .n_breaks = n_breaks};
    return encode(&how, text, size, err);
}

bool rt_tokenizer_find_special(const rt_tokenizer *tokenizer, const char *text, size_t size, size_t from,
                               size_t *begin, size_t *end, int32_t *id)
{
    rt_added_match raw, normal;
    const bool in_raw = rt_added_find(&tokenizer->added, false, text, size, from, true, &raw);
    const bool in_normal = rt_added_find(&tokenizer->added, true, text, size, from, true, &normal);
    if (!in_raw && !in_normal)
        return false;
    const rt_added_match *found = in_raw && (!in_normal || raw.begin <= normal.begin) ? &raw : &normal;
    *begin = found->begin;
    *end = found->end;
    *id = found->id;
    return true;
}

/* -- decoding -- */

static bool skipped(const rt_tokenizer *tokenizer, int32_t id)
{
    return rt_tokenizer_is_special(tokenizer, id);
}

rt_status rt_tokenizer_decode(const rt_tokenizer *tokenizer, const int32_t *ids, size_t count,
                              bool skip_special, rt_text *out, rt_error *err)
{
    bool first = true;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= tokenizer->vocab.count)
            return rt_error_set(err, RT_INVALID,
                                "token id %d at position %zu is not below %zu, the vocabulary's size", ids[i],
                                i, tokenizer->vocab.count);
        if (skip_special && skipped(tokenizer, ids[i]))
            continue;
        size_t size;
        const char *bytes = rt_vocab_bytes(&tokenizer->vocab, (size_t)ids[i], &size);
        const bool drop = first && tokenizer->strip_first_space && size && bytes[0] == ' ';
        if (!skipped(tokenizer, ids[i]))
            first = false;
        rt_text_append(out, bytes + drop, size - drop);
    }
    return out->failed ? rt_error_set(err, RT_NO_MEMORY, "no memory to decode %zu ids", count) : RT_OK;
}

const char *rt_tokenizer_token_bytes(const rt_tokenizer *tokenizer, int32_t id, size_t *size)
{
    if (id < 0 || (size_t)id >= tokenizer->vocab.count) {
        *size = 0;
        return "";
    }
    return rt_vocab_bytes(&tokenizer->vocab, (size_t)id, size);
}

/* -- getters -- */

size_t rt_tokenizer_size(const rt_tokenizer *tokenizer) { return tokenizer->vocab.count; }
size_t rt_tokenizer_real_size(const rt_tokenizer *tokenizer)
{
    size_t n = tokenizer->vocab.count;
    while (n > 0 && (tokenizer->vocab.tokens[n - 1].type == RT_TOKEN_ABSENT ||
                     rt_tokenizer_is_padding(tokenizer, n - 1)))
        n--;
    return n;
}
const char *rt_tokenizer_kind(const rt_tokenizer *tokenizer) { return tokenizer->kind; }
const char *rt_tokenizer_hash(const rt_tokenizer *tokenizer) { return tokenizer->hash; }
int32_t rt_tokenizer_bos(const rt_tokenizer *tokenizer) { return tokenizer->bos; }
bool rt_tokenizer_adds_bos(const rt_tokenizer *tokenizer) { return tokenizer->add_bos; }
int32_t rt_tokenizer_eos(const rt_tokenizer *tokenizer) { return tokenizer->eos; }
int32_t rt_tokenizer_pad(const rt_tokenizer *tokenizer) { return tokenizer->pad; }
const char *rt_tokenizer_chat_template(const rt_tokenizer *tokenizer) { return tokenizer->chat_template; }

bool rt_tokenizer_is_special(const rt_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || (size_t)id >= tokenizer->vocab.count)
        return false;
    const unsigned char type = tokenizer->vocab.tokens[id].type;
    return type == RT_TOKEN_CONTROL || type == RT_TOKEN_UNKNOWN;
}

bool rt_tokenizer_is_end(const rt_tokenizer *tokenizer, int32_t id)
{
    static const char *const ends[] = {
        "</s>",       "<|endoftext|>",   "<|im_end|>",      "<|eot_id|>",
        "<|eom_id|>", "<|end_of_text|>", "<|end|>",         "<end_of_turn>",
        "<|eot|>",    "<|EOT|>",         "<eos>",           "<|END_OF_TURN_TOKEN|>",
        "<|return|>", "<|endofturn|>",   "<|end_of_turn|>", "<｜end▁of▁sentence｜>"};
    if (id < 0 || (size_t)id >= tokenizer->vocab.count)
        return false;
    if (id == tokenizer->eos)
        return true;
    const unsigned char type = tokenizer->vocab.tokens[id].type;
    if (type != RT_TOKEN_CONTROL && type != RT_TOKEN_USER_DEFINED)
        return false;
    size_t size;
    const char *text = rt_vocab_text(&tokenizer->vocab, (size_t)id, &size);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (strlen(ends[i]) == size && memcmp(ends[i], text, size) == 0)
            return true;
    return false;
}
