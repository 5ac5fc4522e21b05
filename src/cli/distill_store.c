/* cli/distill_store.c - training from a store of kept outputs: its documents with their rows, its texts with
 * an API's log-probabilities, or its texts alone. */
#include <stdio.h>
#include <string.h>

#include "cli/distill_run.h"

static bool accepts(const rt_recipe *recipe, const char *word)
{
    bool found = false;
    for (size_t i = 0; i < recipe->teacher.accept.count; i++)
        found = found || strcmp(recipe->teacher.accept.items[i], word) == 0;
    return found;
}

static bool has_ce(const rt_loss_mix *mix)
{
    bool found = false;
    for (size_t i = 0; i < mix->n_terms; i++)
        found = found || mix->terms[i].spec.kind == RT_LOSS_CE;
    return found;
}

rt_status distill_store_open(distill_run *d, rt_error *err)
{
    const rt_recipe *r = &d->recipe;
    const rt_kept_match match = {.tokenizer = d->tokenizer,
                                 .n_logits = d->has_teacher ? d->teacher_config.n_vocab
                                                            : rt_tokenizer_size(d->tokenizer),
                                 .any_template = accepts(r, "template"),
                                 .any_end = accepts(r, "end_token")};
    const rt_document_options options = {r->data.tokens_max, r->data.loss_on == RT_LOSS_ON_ALL};
    if (rt_kept_source_open(&d->source, r->teacher.store, &match, err) != RT_OK)
        return err->status;
    rt_status status;
    if (rt_kept_source_has_rows(&d->source))
        status = rt_kept_source_documents(&d->source, &d->docs, r->data.tokens_max, err);
    else if (d->kept)
        status = rt_kept_source_logprobs(&d->source, &d->docs, d->tokenizer, d->chat_template, &options,
                                         !has_ce(&d->objective.mix), err);
    else
        status = rt_kept_source_texts(&d->source, &d->docs, d->tokenizer, d->chat_template, &options, err);
    return status == RT_OK ? RT_OK : rt_error_within(err, r->teacher.store);
}

void distill_store_say(const distill_run *d, FILE *out)
{
    const rt_kept_source *s = &d->source;
    if (!s->reader)
        return;
    const json_t *teacher = json_object_get(rt_reader_manifest(s->reader), "teacher");
    const char *name = json_string_value(json_object_get(teacher, "name"));
    (void)fprintf(out, "\nstore    %s, said by %s", d->recipe.teacher.store,
                  name ? name : "a teacher without a name");
    if (s->note[0])
        (void)fprintf(out, "; %s", s->note);
    if (s->counts.texts)
        (void)fprintf(out, "; %zu answers, %zu left out", s->counts.texts, s->counts.without);
    if (!s->from_text)
        return;
    (void)fprintf(
        out,
        "\n         %zu of %zu tokens have the teacher's distribution; at %zu it cuts tokens elsewhere; "
        "%zu of %zu alternatives are no token of the student",
        s->counts.taught, s->counts.positions, s->counts.apart, s->counts.unmapped, s->counts.candidates);
}
