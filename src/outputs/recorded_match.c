/* outputs/recorded_match.c - does what was recorded fit a student?  See recorded.h. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "outputs/recorded.h"

static bool is_known(const unsigned char hash[32])
{
    unsigned char any = 0;
    for (size_t i = 0; i < 32; i++)
        any |= hash[i];
    return any != 0;
}

static void to_hex(char out[65], const unsigned char hash[32])
{
    for (size_t i = 0; i < 32; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

/* Adds a sentence to the note. */
static void add_note(char *note, const char *text)
{
    const size_t used = strlen(note);
    (void)snprintf(note + used, RT_RECORDED_NOTE - used, "%s%s", used ? "; " : "", text);
}

static rt_status match_tokenizer(const rt_rls_header *h, const rt_recorded_student *s, char *note,
                                 rt_error *err)
{
    const size_t real = rt_tokenizer_real_size(s->tokenizer),
                 n_logits = s->n_logits ? s->n_logits : rt_tokenizer_size(s->tokenizer);
    char recorded[65], text[160];
    to_hex(recorded, h->tokenizer_hash);
    if (is_known(h->tokenizer_hash) && strcmp(recorded, rt_tokenizer_hash(s->tokenizer)) != 0)
        return rt_error_set(
            err, RT_MISMATCH,
            "the store's tokenizer (%u ids, %.12s) is not the student's (%s, %zu ids, %.12s): their "
            "ids mean different text; record again with a teacher that has the student's tokenizer, "
            "or train on the store's text",
            (unsigned)h->n_vocab, recorded, rt_tokenizer_kind(s->tokenizer), real,
            rt_tokenizer_hash(s->tokenizer));
    if (h->n_vocab > n_logits)
        return rt_error_set(
            err, RT_MISMATCH,
            "the store's distributions are over %u ids and the student has %zu: it was recorded with "
            "another tokenizer, or with its padding",
            (unsigned)h->n_vocab, n_logits);
    if (!is_known(h->tokenizer_hash))
        add_note(note,
                 "the store does not say which tokenizer its ids are of; it is taken to be the student's");
    if (h->n_logits != n_logits) {
        (void)snprintf(
            text, sizeof text,
            "the teacher's %u and the student's %zu logits are padded; their %u real ids agree and only "
            "these are compared",
            (unsigned)h->n_logits, n_logits, (unsigned)h->n_vocab);
        add_note(note, text);
    }
    return RT_OK;
}

static rt_status match_template(const rt_rls_header *h, const rt_recorded_student *s, char *note,
                                rt_error *err)
{
    char own[65] = "", recorded[65];
    const char *source = rt_tokenizer_chat_template(s->tokenizer);
    to_hex(recorded, h->template_hash);
    if (source)
        rt_sha256_hex(own, source, strlen(source));
    if (!is_known(h->template_hash) || strcmp(own, recorded) == 0)
        return RT_OK;
    if (!s->any_template)
        return rt_error_set(
            err, RT_MISMATCH,
            "the store was recorded with another chat template (%.12s) than the student's (%.12s): it "
            "would learn to answer in another format; teacher.accept: [template] trains all the same",
            recorded, source ? own : "none");
    add_note(note, "the store's chat template is not the student's, which was accepted");
    return RT_OK;
}

static rt_status match_end(const rt_rls_header *h, const rt_recorded_student *s, char *note, rt_error *err)
{
    const int32_t end = rt_tokenizer_eos(s->tokenizer);
    if (h->end_id < 0 || end < 0 || h->end_id == end)
        return RT_OK;
    if (!s->any_end)
        return rt_error_set(
            err, RT_MISMATCH,
            "the store's answers end with id %d and the student's with %d: it would not learn to "
            "stop; teacher.accept: [end_token] trains all the same",
            (int)h->end_id, (int)end);
    add_note(note, "the store's end token is not the student's, which was accepted");
    return RT_OK;
}

rt_status rt_recorded_match(const rt_rls_header *header, const rt_recorded_student *student, char *note,
                            rt_error *err)
{
    note[0] = '\0';
    if (match_tokenizer(header, student, note, err) != RT_OK ||
        match_template(header, student, note, err) != RT_OK)
        return err->status;
    return match_end(header, student, note, err);
}
