/* model/tokenizer_vocab.h - the pieces of a vocabulary: text as the file spells it, bytes, type, score.
 *
 * Filled once in order of id (rt_vocab_set may leave holes, which read as unused), then sealed: the
 * index from spelling to id is made and nothing changes any more.  A spelling that several tokens
 * share belongs to the first normal one. */
#ifndef RT_MODEL_TOKENIZER_VOCAB_H
#define RT_MODEL_TOKENIZER_VOCAB_H

#include "base/text.h"

typedef enum rt_token_type { /* the numbers of GGUF's tokenizer.ggml.token_type */
                             RT_TOKEN_ABSENT = 0,
                             RT_TOKEN_NORMAL = 1,
                             RT_TOKEN_UNKNOWN = 2,
                             RT_TOKEN_CONTROL = 3,
                             RT_TOKEN_USER_DEFINED = 4,
                             RT_TOKEN_UNUSED = 5,
                             RT_TOKEN_BYTE = 6
} rt_token_type;

typedef enum rt_vocab_spelling {
    RT_SPELLING_BYTES, /* GPT-2's alphabet: each byte is one printable character */
    RT_SPELLING_SPACE  /* U+2581 for a space, <0xXX> for a byte */
} rt_vocab_spelling;

typedef struct rt_vocab_token {
    uint32_t text, text_size;   /* in `store` */
    uint32_t bytes, bytes_size; /* what it stands for */
    float score;
    unsigned char type; /* rt_token_type */
    bool outside;       /* found as an added token only, never by the model: not in the index */
} rt_vocab_token;

typedef struct rt_vocab {
    rt_vocab_spelling spelling;
    rt_vocab_token *tokens;
    size_t count;
    rt_text store;
    uint32_t *slots; /* id + 1; 0: free */
    size_t slot_mask;
    uint64_t seed;
} rt_vocab;

enum { RT_VOCAB_MAX = 1 << 22 }; /* ids; the largest vocabularies in use have 2^18 */

/* All `count` tokens absent. */
rt_status rt_vocab_init(rt_vocab *vocab, rt_vocab_spelling spelling, size_t count, rt_error *err);
void rt_vocab_deinit(rt_vocab *vocab);
/* Sets one id; an added token (control, user-defined) stands for its text as it is. */
void rt_vocab_set(rt_vocab *vocab, size_t id, const char *text, size_t size, rt_token_type type, float score);
rt_status rt_vocab_seal(rt_vocab *vocab, rt_error *err);
/* The id of a spelling - bytes for RT_SPELLING_BYTES, text for RT_SPELLING_SPACE -, or -1. */
int32_t rt_vocab_find(const rt_vocab *vocab, const char *key, size_t size);

static inline const char *rt_vocab_text(const rt_vocab *vocab, size_t id, size_t *size)
{
    *size = vocab->tokens[id].text_size;
    return vocab->store.data + vocab->tokens[id].text;
}
static inline const char *rt_vocab_bytes(const rt_vocab *vocab, size_t id, size_t *size)
{
    *size = vocab->tokens[id].bytes_size;
    return vocab->store.data + vocab->tokens[id].bytes;
}

/* GPT-2's alphabet.  The first appends the bytes that `text` spells and is false when a character is not
 * of the alphabet (then nothing is appended); the second spells bytes. */
bool rt_alphabet_to_bytes(const char *text, size_t size, rt_text *out);
void rt_alphabet_from_bytes(const char *bytes, size_t size, rt_text *out);

#endif
