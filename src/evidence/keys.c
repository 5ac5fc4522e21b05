/* evidence/keys.c - see keys.h. */
#include "evidence/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/rng.h"

static const size_t key_file_max = 1 << 16;

bool rt_mark_key_id_valid(const char *id)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    const size_t n = strlen(id);
    return n > 0 && n <= RT_MARK_KEY_ID_MAX && strspn(id, allowed) == n && id[0] != '.' && id[0] != '-';
}

/* Fills the secret of a scheme from 8 x 66 random bytes. */
static void set_secret(rt_watermark *m, const uint8_t bytes[528])
{
    uint64_t word;
    memcpy(m->key, bytes, RT_PRF_KEY_BYTES);
    memcpy(&word, bytes, sizeof word);
    m->hashing_key = 1 + word % ((1ull << 62) - 1);
    for (size_t l = 0; l < m->n_keys; l++) {
        memcpy(&word, bytes + 8 * (l + 2), sizeof word);
        m->keys[l] = (int64_t)(1 + word % ((1ull << 31) - 1));
    }
}

rt_status rt_mark_key_new(rt_mark_key *out, const char *id, const rt_watermark *mark, int64_t now,
                          rt_error *err)
{
    if (sodium_init() < 0)
        return rt_error_set(err, RT_INTERNAL, "libsodium cannot be started");
    *out = (rt_mark_key){.mark = *mark, .created = now};
    if (id[0] && !rt_mark_key_id_valid(id))
        return rt_error_set(err, RT_INVALID,
                            "a key's name has at most %d letters, digits, '-', '_' and '.', not '%.60s'",
                            (int)RT_MARK_KEY_ID_MAX, id);
    uint8_t bytes[528];
    randombytes_buf(bytes, sizeof bytes);
    set_secret(&out->mark, bytes);
    sodium_memzero(bytes, sizeof bytes);
    randombytes_buf(out->nonce, sizeof out->nonce);
    if (id[0])
        (void)snprintf(out->id, sizeof out->id, "%s", id);
    else
        (void)snprintf(out->id, sizeof out->id, "wm-%08x%04x", randombytes_random(),
                       randombytes_random() & 0xFFFF);
    return rt_watermark_check(&out->mark, err);
}

/* What a scheme's secret is, as bytes. */
static size_t secret_bytes(const rt_watermark *m, uint8_t out[8 * RT_PRF_LAYERS_MAX])
{
    if (m->scheme == RT_SCHEME_HF_KGW) {
        for (size_t b = 0; b < 8; b++)
            out[b] = (uint8_t)(m->hashing_key >> (8 * b));
        return 8;
    }
    if (m->scheme == RT_SCHEME_HF_SYNTHID) {
        for (size_t l = 0; l < m->n_keys; l++)
            for (size_t b = 0; b < 8; b++)
                out[8 * l + b] = (uint8_t)((uint64_t)m->keys[l] >> (8 * b));
        return 8 * m->n_keys;
    }
    memcpy(out, m->key, RT_PRF_KEY_BYTES);
    return RT_PRF_KEY_BYTES;
}

void rt_mark_key_commitment(char out[65], const rt_mark_key *key)
{
    uint8_t secret[8 * RT_PRF_LAYERS_MAX], digest[32];
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, sizeof digest);
    (void)crypto_generichash_update(&state, secret, secret_bytes(&key->mark, secret));
    (void)crypto_generichash_update(&state, key->nonce, sizeof key->nonce);
    (void)crypto_generichash_final(&state, digest, sizeof digest);
    (void)sodium_bin2hex(out, 65, digest, sizeof digest);
    sodium_memzero(secret, sizeof secret);
}

static json_t *settings_json(const rt_mark_key *key)
{
    const rt_watermark *m = &key->mark;
    json_t *o = json_pack("{s:s,s:s,s:I}", "id", key->id, "scheme", rt_scheme_word(m->scheme), "created",
                          (json_int_t)key->created);
    if (m->scheme == RT_SCHEME_HF_KGW)
        (void)json_object_update_new(
            o, json_pack("{s:s,s:I,s:I,s:f,s:f}", "seeding_scheme", m->selfhash ? "selfhash" : "lefthash",
                         "context_width", (json_int_t)m->context_width, "vocab_size", (json_int_t)m->n_vocab,
                         "gamma", m->gamma, "delta", m->delta));
    else if (m->scheme == RT_SCHEME_HF_SYNTHID)
        (void)json_object_update_new(o, json_pack("{s:I,s:I,s:I,s:I}", "ngram_len", (json_int_t)m->ngram_len,
                                                  "sampling_table_size", (json_int_t)m->table_size,
                                                  "sampling_table_seed", (json_int_t)m->table_seed,
                                                  "context_history_size", (json_int_t)m->history));
    else
        (void)json_object_set_new(o, "h", json_integer((json_int_t)m->h));
    if (m->scheme == RT_SCHEME_KGW || m->scheme == RT_SCHEME_UNIGRAM)
        (void)json_object_update_new(o, json_pack("{s:f,s:f}", "gamma", m->gamma, "delta", m->delta));
    if (m->scheme == RT_SCHEME_TOURNAMENT)
        (void)json_object_set_new(o, "layers", json_integer((json_int_t)m->layers));
    if (key->tokenizer[0])
        (void)json_object_set_new(o, "tokenizer", json_string(key->tokenizer));
    return o;
}

json_t *rt_mark_key_public(const rt_mark_key *key)
{
    char commitment[65];
    rt_mark_key_commitment(commitment, key);
    json_t *o = settings_json(key);
    (void)json_object_set_new(o, "commitment", json_string(commitment));
    return o;
}

static json_t *secret_json(const rt_mark_key *key)
{
    const rt_watermark *m = &key->mark;
    char hex[33];
    json_t *o = settings_json(key);
    (void)json_object_set_new(o, "retort_watermark_key", json_integer(1));
    (void)json_object_set_new(o, "nonce", json_string(sodium_bin2hex(hex, sizeof hex, key->nonce, 16)));
    if (m->scheme == RT_SCHEME_HF_KGW) {
        (void)json_object_set_new(o, "hashing_key", json_integer((json_int_t)m->hashing_key));
    } else if (m->scheme == RT_SCHEME_HF_SYNTHID) {
        json_t *keys = json_array();
        for (size_t l = 0; l < m->n_keys; l++)
            (void)json_array_append_new(keys, json_integer((json_int_t)m->keys[l]));
        (void)json_object_set_new(o, "keys", keys);
    } else {
        (void)json_object_set_new(o, "key", json_string(sodium_bin2hex(hex, sizeof hex, m->key, 16)));
    }
    sodium_memzero(hex, sizeof hex);
    return o;
}

rt_status rt_mark_key_write(const rt_mark_key *key, const char *path, rt_error *err)
{
    /* made with its mode, so that it is at no moment readable by others */
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return rt_error_set(err, errno == EEXIST ? RT_BUSY : RT_IO,
                            errno == EEXIST ? "%.300s: a key is there already; keys are never overwritten"
                                            : "%.300s: the key file cannot be made",
                            path);
    json_t *json = secret_json(key);
    char *text = json_dumps(json, JSON_INDENT(2));
    const size_t size = text ? strlen(text) : 0;
    const bool written =
        text && write(fd, text, size) == (ssize_t)size && write(fd, "\n", 1) == 1 && fsync(fd) == 0;
    if (text)
        sodium_memzero(text, size);
    free(text);
    json_decref(json);
    if (close(fd) == 0 && written)
        return RT_OK;
    (void)unlink(path);
    return rt_error_set(err, RT_IO, "%.300s: the key file cannot be written", path);
}

static rt_status count_of(const json_t *o, const char *name, size_t *out, const char *where, rt_error *err)
{
    return json_object_get(o, name) ? rt_json_get_size(o, name, out, where, err) : RT_OK;
}

static rt_status real_of(const json_t *o, const char *name, double *out, const char *where, rt_error *err)
{
    return json_object_get(o, name) ? rt_json_get_real(o, name, out, where, err) : RT_OK;
}

static bool from_hex(uint8_t *out, size_t n, const char *hex)
{
    size_t size;
    return hex && strlen(hex) == 2 * n && sodium_hex2bin(out, n, hex, 2 * n, NULL, &size, NULL) == 0 &&
           size == n;
}

static rt_status parse_hf(rt_watermark *m, const json_t *o, const char *where, rt_error *err)
{
    size_t hashing_key = 0, table_seed = 0;
    const char *seeding = "lefthash";
    const json_t *keys = json_object_get(o, "keys");
    if (count_of(o, "context_width", &m->context_width, where, err) != RT_OK ||
        count_of(o, "vocab_size", &m->n_vocab, where, err) != RT_OK ||
        count_of(o, "ngram_len", &m->ngram_len, where, err) != RT_OK ||
        count_of(o, "sampling_table_size", &m->table_size, where, err) != RT_OK ||
        count_of(o, "sampling_table_seed", &table_seed, where, err) != RT_OK ||
        count_of(o, "context_history_size", &m->history, where, err) != RT_OK ||
        (json_object_get(o, "seeding_scheme") &&
         rt_json_get_string(o, "seeding_scheme", &seeding, where, err) != RT_OK))
        return err->status;
    m->table_seed = table_seed;
    m->selfhash = strcmp(seeding, "selfhash") == 0;
    if (!m->selfhash && strcmp(seeding, "lefthash") != 0)
        return rt_error_set(err, RT_CORRUPT, "%.300s: seeding_scheme is lefthash or selfhash", where);
    if (m->scheme == RT_SCHEME_HF_KGW) {
        if (rt_json_get_size(o, "hashing_key", &hashing_key, where, err) != RT_OK)
            return err->status;
        m->hashing_key = hashing_key;
        return RT_OK;
    }
    m->n_keys = json_array_size(keys);
    if (m->n_keys == 0 || m->n_keys > RT_PRF_LAYERS_MAX)
        return rt_error_set(err, RT_CORRUPT, "%.300s: keys is not a list of 1..64 numbers", where);
    for (size_t l = 0; l < m->n_keys; l++) {
        if (!json_is_integer(json_array_get(keys, l)))
            return rt_error_set(err, RT_CORRUPT, "%.300s: key %zu is not a number", where, l);
        m->keys[l] = (int64_t)json_integer_value(json_array_get(keys, l));
    }
    return RT_OK;
}

rt_status rt_mark_key_parse(rt_mark_key *out, const json_t *o, const char *where, rt_error *err)
{
    *out = (rt_mark_key){0};
    const char *word, *id, *hex;
    size_t version, created = 0;
    if (rt_json_get_size(o, "retort_watermark_key", &version, where, err) != RT_OK ||
        rt_json_get_string(o, "scheme", &word, where, err) != RT_OK ||
        rt_json_get_string(o, "id", &id, where, err) != RT_OK ||
        rt_json_get_string(o, "nonce", &hex, where, err) != RT_OK ||
        count_of(o, "created", &created, where, err) != RT_OK)
        return err->status;
    const int scheme = rt_scheme_from_word(word);
    if (version != 1 || scheme < 0 || !rt_mark_key_id_valid(id) || !from_hex(out->nonce, 16, hex))
        return rt_error_set(err, RT_CORRUPT,
                            "%.300s: version, scheme, id or nonce is not that of a watermark key", where);
    (void)snprintf(out->id, sizeof out->id, "%s", id);
    out->created = (int64_t)created;
    rt_watermark *m = &out->mark;
    *m = rt_watermark_default((rt_scheme)scheme);
    const char *tokenizer = json_string_value(json_object_get(o, "tokenizer"));
    if (tokenizer && strlen(tokenizer) < sizeof out->tokenizer)
        (void)snprintf(out->tokenizer, sizeof out->tokenizer, "%s", tokenizer);
    if (count_of(o, "h", &m->h, where, err) != RT_OK ||
        count_of(o, "layers", &m->layers, where, err) != RT_OK ||
        real_of(o, "gamma", &m->gamma, where, err) != RT_OK ||
        real_of(o, "delta", &m->delta, where, err) != RT_OK)
        return err->status;
    if (scheme == RT_SCHEME_HF_KGW || scheme == RT_SCHEME_HF_SYNTHID) {
        if (parse_hf(m, o, where, err) != RT_OK)
            return err->status;
        if (scheme == RT_SCHEME_HF_KGW && m->n_vocab == 0)
            return RT_OK; /* the model that is opened beside it says it */
    } else if (!from_hex(m->key, RT_PRF_KEY_BYTES, json_string_value(json_object_get(o, "key")))) {
        return rt_error_set(err, RT_CORRUPT, "%.300s: key is not 16 bytes in hex", where);
    }
    if (rt_watermark_check(m, err) != RT_OK)
        return rt_error_within(err, where);
    return RT_OK;
}

rt_status rt_mark_key_read(rt_mark_key *out, const char *path, rt_error *err)
{
    struct stat info;
    *out = (rt_mark_key){0};
    if (stat(path, &info) != 0)
        return rt_error_set(err, RT_NOT_FOUND, "%.300s: there is no such key file", path);
    if (info.st_mode & 077)
        return rt_error_set(
            err, RT_FORBIDDEN,
            "%.300s: others may read this key file (mode %03o): it is no secret any more; make "
            "a new key, or 'chmod 600' it if nobody did",
            path, (unsigned)info.st_mode & 0777);
    json_t *json = NULL;
    rt_status status = rt_json_read(&json, path, key_file_max, err);
    if (status == RT_OK)
        status = rt_mark_key_parse(out, json, path, err);
    json_decref(json);
    return status;
}

/* Bytes under the master's secret and a label, enough for any scheme. */
static void derive(uint8_t out[528], const rt_watermark *master, const char *label, const char *name)
{
    uint8_t secret[8 * RT_PRF_LAYERS_MAX], short_key[32];
    const size_t n = secret_bytes(master, secret);
    (void)crypto_generichash(short_key, sizeof short_key, secret, n, NULL, 0);
    for (size_t at = 0, block = 0; at < 528; at += 48, block++) {
        crypto_generichash_state state;
        const uint8_t counter = (uint8_t)block;
        (void)crypto_generichash_init(&state, short_key, sizeof short_key, 48);
        (void)crypto_generichash_update(&state, &counter, 1);
        (void)crypto_generichash_update(&state, (const uint8_t *)label, strlen(label));
        (void)crypto_generichash_update(&state, (const uint8_t *)name, strlen(name));
        (void)crypto_generichash_final(&state, out + at, 48);
    }
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(short_key, sizeof short_key);
}

rt_status rt_mark_key_for_account(rt_watermark *out, const rt_watermark *master, const char *account,
                                  rt_error *err)
{
    if (!account[0])
        return rt_error_set(err, RT_INVALID, "an account's name is empty");
    *out = *master;
    if (master->scheme == RT_SCHEME_HF_KGW || master->scheme == RT_SCHEME_HF_SYNTHID) {
        uint8_t bytes[528];
        derive(bytes, master, "acct", account);
        set_secret(out, bytes);
        return RT_OK;
    }
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, master->key, RT_PRF_KEY_BYTES, RT_PRF_KEY_BYTES);
    (void)crypto_generichash_update(&state, (const uint8_t *)"acct", 4);
    (void)crypto_generichash_update(&state, (const uint8_t *)account, strlen(account));
    (void)crypto_generichash_final(&state, out->key, RT_PRF_KEY_BYTES);
    return RT_OK;
}

rt_status rt_mark_key_for_scheme(rt_watermark *out, const rt_watermark *master, rt_scheme scheme,
                                 rt_error *err)
{
    *out = *master;
    if (scheme == master->scheme)
        return RT_OK;
    uint8_t bytes[528];
    const rt_watermark defaults = rt_watermark_default(scheme);
    derive(bytes, master, "scheme", rt_scheme_word(scheme));
    out->scheme = scheme;
    if (scheme == RT_SCHEME_UNIGRAM)
        out->h = 0;
    else if (out->h == 0)
        out->h = defaults.h;
    if (scheme == RT_SCHEME_HF_SYNTHID && out->n_keys == 0)
        out->n_keys = 30;
    set_secret(out, bytes);
    sodium_memzero(bytes, sizeof bytes);
    if (scheme == RT_SCHEME_HF_KGW && out->n_vocab == 0)
        return RT_OK;
    return rt_watermark_check(out, err);
}

bool rt_mark_key_is_public(const rt_watermark *m)
{
    /* the first keys of the published SynthID configuration */
    static const int64_t synthid[] = {654, 400, 836, 123, 340, 443, 597, 160};
    static const uint64_t kgw[] = {15485863, 2971215073, 99991, 424242, 0, 1, 42};
    if (m->scheme == RT_SCHEME_HF_KGW) {
        for (size_t i = 0; i < sizeof kgw / sizeof *kgw; i++)
            if (m->hashing_key == kgw[i])
                return true;
        return false;
    }
    if (m->scheme == RT_SCHEME_HF_SYNTHID) {
        size_t equal = 0, counting = 0;
        for (size_t l = 0; l < m->n_keys; l++) {
            equal += l < 8 && m->keys[l] == synthid[l];
            counting += m->keys[l] == (int64_t)l || m->keys[l] == (int64_t)l + 1;
        }
        return equal >= (m->n_keys < 3 ? m->n_keys : 3) || counting == m->n_keys;
    }
    size_t same = 0, steps = 0, doubled = 0;
    for (size_t i = 0; i < RT_PRF_KEY_BYTES; i++) {
        same += m->key[i] == m->key[0];
        steps += (uint8_t)(m->key[i] - m->key[0]) == i;
        doubled += m->key[i] == 0x11 * i;
    }
    return same == 16 || steps == 16 || doubled == 16;
}

void rt_mark_key_randomise(rt_watermark *m, uint64_t seed, uint64_t index)
{
    uint8_t bytes[528];
    rt_rng rng = rt_rng_make(seed, index);
    for (size_t i = 0; i < sizeof bytes; i += 8) {
        const uint64_t word = rt_rng_u64(&rng);
        memcpy(bytes + i, &word, sizeof word);
    }
    set_secret(m, bytes);
}
