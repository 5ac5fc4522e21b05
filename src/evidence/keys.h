/* evidence/keys.h - watermark keys: secret files, commitments, keys for accounts.
 *
 * A key file is JSON with mode 0600 that belongs to who runs the program; it is never overwritten.  The key
 * itself appears nowhere else: records and listings have the id and the commitment BLAKE2b-256(key || nonce),
 * which is published when serving begins, so that a third party who is later given the key can check it. */
#ifndef RT_EVIDENCE_KEYS_H
#define RT_EVIDENCE_KEYS_H

#include <jansson.h>

#include "evidence/score.h"

enum { RT_MARK_KEY_ID_MAX = 40 };

typedef struct rt_mark_key {
    char id[RT_MARK_KEY_ID_MAX + 1]; /* letters, digits, '-', '_', '.' */
    rt_watermark mark;
    uint8_t nonce[16];
    char tokenizer[65]; /* rt_tokenizer_hash of the tokenizer that it marks with; empty: not bound */
    int64_t created;    /* unix seconds */
} rt_mark_key;

bool rt_mark_key_id_valid(const char *id);
/* Random key and nonce from libsodium for the scheme of `mark`, whose other settings stay.  id "": a random
 * one. */
rt_status rt_mark_key_new(rt_mark_key *out, const char *id, const rt_watermark *mark, int64_t now,
                          rt_error *err);
/* 64 hex digits. */
void rt_mark_key_commitment(char out[65], const rt_mark_key *key);
/* A file that exists is RT_BUSY, and stays. */
rt_status rt_mark_key_write(const rt_mark_key *key, const char *path, rt_error *err);
/* RT_FORBIDDEN when group or others may read it. */
rt_status rt_mark_key_read(rt_mark_key *out, const char *path, rt_error *err);
rt_status rt_mark_key_parse(rt_mark_key *out, const json_t *json, const char *where, rt_error *err);
/* What may be shown: id, scheme, settings, tokenizer, commitment, created. */
json_t *rt_mark_key_public(const rt_mark_key *key);

/* BLAKE2b-128(key, "acct" || account): the evidence then names whose answers were used. */
rt_status rt_mark_key_for_account(rt_watermark *out, const rt_watermark *master, const char *account,
                                  rt_error *err);
/* The same settings under another scheme, with a key derived for it: one key never serves two schemes. */
rt_status rt_mark_key_for_scheme(rt_watermark *out, const rt_watermark *master, rt_scheme scheme,
                                 rt_error *err);
/* Keys that are in public code or in this project's vectors: no evidence can rest on them. */
bool rt_mark_key_is_public(const rt_watermark *mark);
/* Replaces the secret of `mark` by one drawn from (seed, index): for the random-key check. */
void rt_mark_key_randomise(rt_watermark *mark, uint64_t seed, uint64_t index);

#endif
