/* outputs/rls.c - the header of a .rls file, as bytes and as JSON. */
#include "outputs/rls.h"

#include <ctype.h>
#include <math.h>
#include <sodium.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "outputs/rls_bytes.h"
#include "outputs/rls_file.h"

static const unsigned char magic[8] = {'R', 'T', 'R', 'L', 'S', '\r', '\n', 0x1a};

void rls_header_write(unsigned char out[RT_RLS_HEADER_BYTES], const rt_rls_header *h)
{
    memset(out, 0, RT_RLS_HEADER_BYTES);
    memcpy(out, magic, sizeof magic);
    rls_put_u32(out + 8, RT_RLS_VERSION);
    rls_put_u32(out + 12, RT_RLS_HEADER_BYTES);
    rls_put_u32(out + 16, h->n_vocab);
    rls_put_u32(out + 20, h->n_logits);
    rls_put_u32(out + 24, h->topk);
    rls_put_u32(out + 28, h->draws);
    rls_put_u32(out + 32, h->code_bits);
    rls_put_u32(out + 36, (uint32_t)h->end_id);
    rls_put_f64(out + 40, h->proposal);
    rls_put_f64(out + 48, h->temperature);
    rls_put_u64(out + 56, h->seed);
    memcpy(out + 64, h->tokenizer_hash, 32);
    memcpy(out + 96, h->template_hash, 32);
    memcpy(out + 128, h->teacher_hash, 32);
    rls_put_u64(out + 248, rt_hash64(out, 248, 0));
}

rt_status rls_header_read(rt_rls_header *out, const unsigned char *data, size_t size, rt_error *err)
{
    if (size < RT_RLS_HEADER_BYTES || memcmp(data, magic, sizeof magic) != 0)
        return rt_error_set(err, RT_CORRUPT,
                            "is not a file of log-probabilities (.rls), or its header is lost");
    if (rls_get_u64(data + 248) != rt_hash64(data, 248, 0))
        return rt_error_set(err, RT_CORRUPT,
                            "its header's checksum is wrong; 'retort outputs repair' makes it again");
    const uint32_t version = rls_get_u32(data + 8);
    if (version != RT_RLS_VERSION)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "is version %u of the format; this program reads version %d, so take the program "
                            "that wrote it, or a newer one",
                            (unsigned)version, RT_RLS_VERSION);
    *out = (rt_rls_header){.version = version,
                           .n_vocab = rls_get_u32(data + 16),
                           .n_logits = rls_get_u32(data + 20),
                           .topk = rls_get_u32(data + 24),
                           .draws = rls_get_u32(data + 28),
                           .code_bits = rls_get_u32(data + 32),
                           .end_id = (int32_t)rls_get_u32(data + 36),
                           .proposal = rls_get_f64(data + 40),
                           .temperature = rls_get_f64(data + 48),
                           .seed = rls_get_u64(data + 56)};
    memcpy(out->tokenizer_hash, data + 64, 32);
    memcpy(out->template_hash, data + 96, 32);
    memcpy(out->teacher_hash, data + 128, 32);
    if (rls_get_u32(data + 12) != RT_RLS_HEADER_BYTES)
        return rt_error_set(err, RT_CORRUPT, "its header says that it has another size");
    return rt_rls_header_check(out, err) == RT_OK ? RT_OK : rt_error_set(err, RT_CORRUPT, "%s", err->text);
}

rt_status rt_rls_header_check(const rt_rls_header *h, rt_error *err)
{
    const rt_sparse_settings settings = {
        .n_vocab = h->n_vocab, .topk = h->topk, .draws = h->draws, .proposal = h->proposal};
    if (rt_sparse_settings_check(&settings, err) != RT_OK)
        return err->status;
    if (h->n_vocab > RLS_VOCAB_MAX || h->n_logits < h->n_vocab)
        return rt_error_set(err, RT_INVALID, "a vocabulary of %u ids, %u logits, cannot be recorded",
                            (unsigned)h->n_vocab, (unsigned)h->n_logits);
    if (h->code_bits != 8 && h->code_bits != 16)
        return rt_error_set(err, RT_INVALID, "log-probabilities are kept in 8 or 16 bits, not %u",
                            (unsigned)h->code_bits);
    if (!(h->temperature > 0 && h->temperature <= 100))
        return rt_error_set(err, RT_INVALID, "the temperature %g is not in 0..100", h->temperature);
    if (h->end_id < -1 || (h->end_id >= 0 && (uint32_t)h->end_id >= h->n_logits))
        return rt_error_set(err, RT_INVALID, "the end token %d is not in the vocabulary", (int)h->end_id);
    return RT_OK;
}

/* ---- as JSON ---- */

static void hash_to_hex(char out[65], const unsigned char hash[32])
{
    (void)sodium_bin2hex(out, 65, hash, 32);
    if (sodium_is_zero(hash, 32))
        out[0] = '\0';
}

bool rls_hash_from_hex(unsigned char out[32], const char *hex)
{
    size_t n = 0;
    memset(out, 0, 32);
    return !*hex || (strlen(hex) == 64 && sodium_hex2bin(out, 32, hex, 64, NULL, &n, NULL) == 0 && n == 32);
}

void rt_rls_header_identify(rt_rls_header *header, const rt_tokenizer *tokenizer, bool with_template,
                            const char *teacher_hash)
{
    const char *source = with_template ? rt_tokenizer_chat_template(tokenizer) : NULL;
    char hex[65] = "";
    if (source)
        rt_sha256_hex(hex, source, strlen(source));
    header->end_id = rt_tokenizer_eos(tokenizer);
    (void)rls_hash_from_hex(header->tokenizer_hash, rt_tokenizer_hash(tokenizer));
    (void)rls_hash_from_hex(header->template_hash, hex);
    (void)rls_hash_from_hex(header->teacher_hash, teacher_hash ? teacher_hash : "");
}

json_t *rt_rls_facts(const rt_rls_header *h)
{
    char tokenizer[65], chat_template[65], teacher[65], seed[24];
    hash_to_hex(tokenizer, h->tokenizer_hash);
    hash_to_hex(chat_template, h->template_hash);
    hash_to_hex(teacher, h->teacher_hash);
    (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)h->seed); /* JSON's integers are signed */
    return json_pack("{s:i,s:I,s:I,s:i,s:i,s:i,s:i,s:f,s:f,s:s,s:s,s:s,s:s}", "version", RT_RLS_VERSION,
                     "vocabulary", (json_int_t)h->n_vocab, "logits", (json_int_t)h->n_logits, "topk",
                     (int)h->topk, "draws", (int)h->draws, "code_bits", (int)h->code_bits, "end_id",
                     (int)h->end_id, "proposal", h->proposal, "temperature", h->temperature, "seed", seed,
                     "tokenizer_hash", tokenizer, "template_hash", chat_template, "teacher_hash", teacher);
}

rt_status rt_rls_header_from_facts(rt_rls_header *out, const json_t *facts, const char *where, rt_error *err)
{
    json_error_t why;
    json_int_t vocab = 0, logits = 0;
    int version = 0, topk = 0, draws = 0, code_bits = 0, end_id = -1;
    double proposal = 1, temperature = 1;
    const char *seed = "0", *tokenizer = "", *chat_template = "", *teacher = "";
    if (json_unpack_ex((json_t *)(size_t)facts, &why, 0,
                       "{s:i,s:I,s:I,s:i,s:i,s:i,s:i,s:F,s:F,s:s,s:s,s:s,s:s}", "version", &version,
                       "vocabulary", &vocab, "logits", &logits, "topk", &topk, "draws", &draws, "code_bits",
                       &code_bits, "end_id", &end_id, "proposal", &proposal, "temperature", &temperature,
                       "seed", &seed, "tokenizer_hash", &tokenizer, "template_hash", &chat_template,
                       "teacher_hash", &teacher) != 0)
        return rt_error_set(err, RT_CORRUPT, "%.200s: logits: %.200s", where, why.text);
    if (version != RT_RLS_VERSION)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "%.200s: logits are version %d of the format; this program reads version %d",
                            where, version, RT_RLS_VERSION);
    size_t seed_number = 0;
    if (vocab < 1 || vocab > UINT32_MAX || logits < 1 || logits > UINT32_MAX || topk < 0 || draws < 0 ||
        code_bits < 0 || !isdigit((unsigned char)seed[0]) || !rt_parse_count(&seed_number, seed))
        return rt_error_set(err, RT_CORRUPT, "%.200s: logits: a number is out of range", where);
    *out = (rt_rls_header){.version = RT_RLS_VERSION,
                           .n_vocab = (uint32_t)vocab,
                           .n_logits = (uint32_t)logits,
                           .topk = (uint32_t)topk,
                           .draws = (uint32_t)draws,
                           .code_bits = (uint32_t)code_bits,
                           .end_id = end_id,
                           .proposal = proposal,
                           .temperature = temperature,
                           .seed = seed_number};
    if (!rls_hash_from_hex(out->tokenizer_hash, tokenizer) ||
        !rls_hash_from_hex(out->template_hash, chat_template) ||
        !rls_hash_from_hex(out->teacher_hash, teacher))
        return rt_error_set(err, RT_CORRUPT, "%.200s: logits: a hash is not 64 hexadecimal digits", where);
    if (rt_rls_header_check(out, err) != RT_OK) {
        err->status = RT_CORRUPT;
        return rt_error_within(err, where);
    }
    return RT_OK;
}
