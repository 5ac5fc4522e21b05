/* model/tokenizer.h - text to token ids and back.
 *
 * Byte-level BPE (with the pre-tokenizer that the model names), SentencePiece BPE and unigram with byte
 * fallback; read from GGUF metadata or tokenizer.json.  Immutable once open: safe from any thread.
 *
 * Where the reference tokenizer normalises (NFC for Qwen2/2.5/3 and others, see pretokenizer_table.c), so
 * does encode, from GGUF too: the ids are the reference's, not llama.cpp's, and decode gives the NFC text.
 * Added tokens that look like markup (<tool_call>, <|fim_prefix|>) are text unless parse_special; others,
 * such as runs of blanks, are always found.  Ill-formed UTF-8: a byte-level vocabulary with all 256 bytes
 * gives the bytes back; any other reads one U+FFFD for each maximal ill-formed sequence.  A byte of
 * well-formed text that a byte-level vocabulary lacks (SmolLM2: U+0004 and a few more) is dropped, as the
 * references drop it. */
#ifndef RT_MODEL_TOKENIZER_H
#define RT_MODEL_TOKENIZER_H

#include "base/text.h"
#include "model/weights.h"

typedef struct rt_tokenizer rt_tokenizer;

/* path: a GGUF file, a tokenizer.json, or a folder that holds one of them. */
rt_status rt_tokenizer_open(rt_tokenizer **out, const char *path, rt_error *err);
rt_status rt_tokenizer_from_weights(rt_tokenizer **out, const rt_weights *gguf, rt_error *err);
rt_status rt_tokenizer_from_json(rt_tokenizer **out, const char *json, size_t size, const char *where,
                                 rt_error *err);
void rt_tokenizer_close(rt_tokenizer *tokenizer);

typedef struct rt_token_list { /* grows; free with rt_token_list_deinit */
    int32_t *ids;
    size_t count, capacity;
} rt_token_list;
void rt_token_list_deinit(rt_token_list *list);

/* Appends the ids of `text` (any bytes).  parse_special: special tokens in the text become one id, else
 * they are plain text.  No BOS or EOS is added. */
rt_status rt_tokenizer_encode(const rt_tokenizer *tokenizer, const char *text, size_t size,
                              bool parse_special, rt_token_list *out, rt_error *err);
/* With special tokens, but none is found across one of breaks[0..n_breaks) (ascending offsets into text):
 * what a user wrote inside a rendered chat template stays text. */
rt_status rt_tokenizer_encode_guarded(const rt_tokenizer *tokenizer, const char *text, size_t size,
                                      const size_t *breaks, size_t n_breaks, rt_token_list *out,
                                      rt_error *err);
/* The leftmost (longest) spelling of a special or markup token in text[from..size); false: there is none. */
bool rt_tokenizer_find_special(const rt_tokenizer *tokenizer, const char *text, size_t size, size_t from,
                               size_t *begin, size_t *end, int32_t *id);
/* Appends the bytes of the ids; skip_special drops control tokens.  Ids out of range are an error. */
rt_status rt_tokenizer_decode(const rt_tokenizer *tokenizer, const int32_t *ids, size_t count,
                              bool skip_special, rt_text *out, rt_error *err);
/* The bytes that one token stands for (borrowed; for streaming and constrained decoding). */
const char *rt_tokenizer_token_bytes(const rt_tokenizer *tokenizer, int32_t id, size_t *size);

size_t rt_tokenizer_size(const rt_tokenizer *tokenizer); /* number of ids */
/* Without what follows the last token that is one: [PADn] rows of an output layer that is padded. */
size_t rt_tokenizer_real_size(const rt_tokenizer *tokenizer);
const char *rt_tokenizer_kind(const rt_tokenizer *tokenizer); /* "byte-level bpe, smollm", ... */
/* SHA-256 (hex) over ids and bytes of all tokens, types and merges: equal for equal tokenizers,
 * whichever file they were read from. */
const char *rt_tokenizer_hash(const rt_tokenizer *tokenizer);
bool rt_tokenizer_is_special(const rt_tokenizer *tokenizer, int32_t id);
int32_t rt_tokenizer_bos(const rt_tokenizer *tokenizer); /* -1: none */
/* Does the model want BOS in front of every text?  rt_tokenizer_encode never puts it there. */
bool rt_tokenizer_adds_bos(const rt_tokenizer *tokenizer);
int32_t rt_tokenizer_eos(const rt_tokenizer *tokenizer);
int32_t rt_tokenizer_pad(const rt_tokenizer *tokenizer);
/* True for every id that ends an answer (eos, and <|im_end|>, <|eot_id|>, <end_of_turn>, ...). */
bool rt_tokenizer_is_end(const rt_tokenizer *tokenizer, int32_t id);
/* The model's own chat template (Jinja source), NULL when the file has none. */
const char *rt_tokenizer_chat_template(const rt_tokenizer *tokenizer);
/* Writes tokenizer.json, tokenizer_config.json (with the chat template) and special_tokens_map.json into
 * a folder, such that transformers' AutoTokenizer gives the same ids. */
rt_status rt_tokenizer_write_hf(const rt_tokenizer *tokenizer, const char *dir, rt_error *err);

#endif
