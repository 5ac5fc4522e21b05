/* model/tokenizer_vocab.c - see tokenizer_vocab.h.
 *
 * The index is open addressing over XXH3 with a seed that differs from run to run, so that a crafted
 * vocabulary cannot pile its tokens into one chain. */
#include "model/tokenizer_vocab.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

rt_status rt_vocab_init(rt_vocab *vocab, rt_vocab_spelling spelling, size_t count, rt_error *err)
{
    *vocab = (rt_vocab){.spelling = spelling, .seed = (uint64_t)(size_t)vocab};
    if (count == 0 || count > RT_VOCAB_MAX)
        return rt_error_set(err, RT_CORRUPT, "the vocabulary has %zu tokens; between 1 and %d are supported",
                            count, RT_VOCAB_MAX);
    vocab->tokens = calloc(count, sizeof *vocab->tokens);
    if (!vocab->tokens)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a vocabulary of %zu tokens", count);
    vocab->count = count;
    rt_text_append(&vocab->store, "", 0); /* so that empty texts have an address */
    return RT_OK;
}

void rt_vocab_deinit(rt_vocab *vocab)
{
    free(vocab->tokens);
    free(vocab->slots);
    rt_text_deinit(&vocab->store);
    *vocab = (rt_vocab){0};
}

/* The byte that a character of GPT-2's alphabet stands for, or -1: printable Latin-1 stands for itself,
 * the other 68 bytes follow from U+0100 on in order. */
static int alphabet_byte(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF))
        return (int)c;
    if (c >= 0x100 && c <= 0x120)
        return (int)(c - 0x100); /* 00..20 */
    if (c >= 0x121 && c <= 0x142)
        return (int)(c - 0x121 + 0x7F); /* 7F..A0 */
    return c == 0x143 ? 0xAD : -1;
}

static uint32_t alphabet_char(unsigned char b)
{
    if (b <= 0x20)
        return 0x100u + b;
    if (b >= 0x7F && b <= 0xA0)
        return 0x121u + b - 0x7F;
    return b == 0xAD ? 0x143 : b;
}

bool rt_alphabet_to_bytes(const char *text, size_t size, rt_text *out)
{
    const size_t start = out->size;
    for (size_t i = 0, n; i < size; i += n) {
        const int byte = alphabet_byte(rt_utf8_decode(text + i, size - i, &n));
        if (byte < 0) {
            out->size = start;
            return false;
        }
        const char b = (char)byte;
        rt_text_append(out, &b, 1);
    }
    return true;
}

void rt_alphabet_from_bytes(const char *bytes, size_t size, rt_text *out)
{
    char utf8[4];
    for (size_t i = 0; i < size; i++)
        rt_text_append(out, utf8, rt_utf8_encode(alphabet_char((unsigned char)bytes[i]), utf8));
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* "<0x0A>" -> 10; -1 when the text is not of this form. */
static int spelled_byte(const char *text, size_t size)
{
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    const int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static void append_spaced(rt_text *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size;) {
        if (size - i >= 3 && memcmp(text + i, "\xE2\x96\x81", 3) == 0) {
            rt_text_append(out, " ", 1);
            i += 3;
        } else {
            rt_text_append(out, text + i++, 1);
        }
    }
}

static bool is_added(rt_token_type type)
{
    return type == RT_TOKEN_CONTROL || type == RT_TOKEN_USER_DEFINED || type == RT_TOKEN_UNKNOWN;
}

void rt_vocab_set(rt_vocab *vocab, size_t id, const char *text, size_t size, rt_token_type type, float score)
{
    assert(id < vocab->count && !vocab->slots);
    rt_vocab_token *token = &vocab->tokens[id];
    rt_text *store = &vocab->store;
    const int byte = vocab->spelling == RT_SPELLING_SPACE ? spelled_byte(text, size) : -1;
    if (byte >= 0 && (type == RT_TOKEN_NORMAL || type == RT_TOKEN_BYTE))
        type = RT_TOKEN_BYTE;
    else if (type == RT_TOKEN_BYTE)
        type = RT_TOKEN_NORMAL;
    *token = (rt_vocab_token){.score = score, .type = (unsigned char)type};
    token->text = (uint32_t)store->size;
    token->text_size = (uint32_t)size;
    rt_text_append(store, text, size);
    token->bytes = (uint32_t)store->size;
    if (type == RT_TOKEN_BYTE) {
        const char b = (char)byte;
        rt_text_append(store, &b, 1);
    } else if (vocab->spelling == RT_SPELLING_SPACE) {
        append_spaced(store, text, size);
    } else if (is_added(type) || !rt_alphabet_to_bytes(text, size, store)) {
        rt_text_append(store, text, size);
    }
    token->bytes_size = (uint32_t)(store->size - token->bytes);
}

static const char *key_of(const rt_vocab *vocab, size_t id, size_t *size)
{
    return vocab->spelling == RT_SPELLING_BYTES ? rt_vocab_bytes(vocab, id, size)
                                                : rt_vocab_text(vocab, id, size);
}

static void index_token(rt_vocab *vocab, size_t id)
{
    size_t size, other_size;
    const char *key = key_of(vocab, id, &size);
    size_t slot = rt_hash64(key, size, vocab->seed) & vocab->slot_mask;
    for (; vocab->slots[slot]; slot = (slot + 1) & vocab->slot_mask) {
        const char *other = key_of(vocab, vocab->slots[slot] - 1, &other_size);
        if (other_size == size && memcmp(other, key, size) == 0)
            return;
    }
    vocab->slots[slot] = (uint32_t)id + 1;
}

rt_status rt_vocab_seal(rt_vocab *vocab, rt_error *err)
{
    size_t slots = 16;
    while (slots < vocab->count * 2)
        slots *= 2;
    vocab->slots = calloc(slots, sizeof *vocab->slots);
    if (!vocab->slots || vocab->store.failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the index of %zu tokens", vocab->count);
    vocab->slot_mask = slots - 1;
    for (size_t id = 0; id < vocab->count; id++)
        if (vocab->tokens[id].type == RT_TOKEN_NORMAL)
            index_token(vocab, id);
    for (size_t id = 0; id < vocab->count; id++)
        if (vocab->tokens[id].type != RT_TOKEN_NORMAL && vocab->tokens[id].type != RT_TOKEN_ABSENT &&
            !vocab->tokens[id].outside)
            index_token(vocab, id);
    return RT_OK;
}

int32_t rt_vocab_find(const rt_vocab *vocab, const char *key, size_t size)
{
    size_t slot = rt_hash64(key, size, vocab->seed) & vocab->slot_mask, other_size;
    for (; vocab->slots[slot]; slot = (slot + 1) & vocab->slot_mask) {
        const char *other = key_of(vocab, vocab->slots[slot] - 1, &other_size);
        if (other_size == size && memcmp(other, key, size) == 0)
            return (int32_t)(vocab->slots[slot] - 1);
    }
    return -1;
}
