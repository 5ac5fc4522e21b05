/* judge/verify_tokenizer.h - a tokenizer and its chat template against files of reference ids. */
#ifndef RT_JUDGE_VERIFY_TOKENIZER_H
#define RT_JUDGE_VERIFY_TOKENIZER_H

#include "judge/verify.h"
#include "model/tokenizer.h"

/* path: JSON lines (.jsonl or .jsonl.zst), told apart by their fields, or an .inp file with its .out beside
 * it. {text, parse_special, ids[, llama_cpp_ids]}  the ids of either reference, and the text back from them
 * (its NFC form where the tokenizer normalises) {messages, add_generation_prompt, text, ids} the chat
 * template's text, and its ids with specials parsed {hex, replaced_text, replaced_ids}           malformed
 * UTF-8: the same bytes back, or replaced_ids .inp/.out                                    texts between
 * lines "__ggml_vocab_test__"; a line of ids each Every row is one comparison; result->worst names the first
 * that fails. */
rt_status rt_verify_tokenizer(rt_verify *result, const char *path, const rt_tokenizer *tokenizer,
                              rt_error *err);

#endif
