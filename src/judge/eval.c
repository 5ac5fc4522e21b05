/* judge/eval.c - the models' logits over packed documents, a chunk of rows at a time; see eval.h.
 *
 * A batch goes through every model once.  Then its targets are taken EVAL_CHUNK at a time: the teacher's
 * logits, and for each model its own; a task makes the figures of one row while both are at hand.  They are
 * added up afterwards in order, so that sums do not depend on who made them. */
#include "judge/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "judge/eval_internal.h"
#include "model/pass.h"

enum { EVAL_CHUNK = 128, ROW_STEP = 32, BATCH_TOKENS = 2048, RESAMPLES = 1000 };

typedef struct target {
    uint32_t row; /* of the batch */
    int32_t label;
    uint32_t doc, position; /* of the token that is predicted; position in its piece */
    uint8_t kind;
} target;

typedef struct evaluation {
    const rt_eval_model *models;
    const rt_eval_text *text;
    const rt_documents *docs; /* the text's */
    const rt_eval_options *options;
    rt_eval_result *result;
    rt_pool *pool;
    size_t batch_tokens;
    rt_pass *passes[RT_EVAL_MODELS_MAX];
    eval_record *records; /* [n_models][n_docs of the result] */
    /* the batch */
    int32_t *ids;
    rt_segment *segments;
    target *targets;
    rt_batch batch;
    size_t n_targets;
    /* the chunk */
    rt_arena arena;
    float *picked, *logits_t, *logits_s; /* [CHUNK, widest], [CHUNK, n_vocab of the model] */
    void *operand;
    rt_token_metrics *metrics; /* [CHUNK] */
    unsigned char *work;       /* [threads][work_bytes] */
    size_t work_bytes;
} evaluation;

/* ---- which documents, and do they fit ---- */

static size_t source_of(const rt_eval_text *text, size_t piece)
{
    return text->sources ? text->sources[piece] : piece;
}

static void choose_pieces(rt_eval_result *r, const rt_eval_text *text, size_t tokens)
{
    const rt_documents *docs = &text->docs;
    for (size_t d = 0; d < docs->n_docs; d++) {
        const size_t begin = docs->begins[d],
                     n = rt_eval_count_targets(docs->mask + begin, docs->begins[d + 1] - begin);
        if (tokens && r->n_pieces && r->n_targets + n > tokens)
            break;
        r->n_pieces++;
        r->n_docs = source_of(text, d) + 1;
        r->n_targets += n;
        r->n_tokens += docs->begins[d + 1] - docs->begins[d];
        r->longest = rt_size_max(r->longest, docs->begins[d + 1] - docs->begins[d]);
    }
}

static rt_status check_documents(const evaluation *e, rt_error *err)
{
    const rt_eval_result *r = e->result;
    if (!r->n_targets)
        return rt_error_set(err, RT_INVALID,
                            "there is no text to judge the models on: the data is empty, or "
                            "no token of it is to be predicted");
    const rt_eval_model *least = e->models;
    for (size_t m = 1; m < r->n_models; m++)
        if (e->models[m].model->config.n_context < least->model->config.n_context)
            least = &e->models[m];
    const size_t context = least->model->config.n_context;
    if (r->longest > context)
        return rt_error_set(err, RT_INVALID,
                            "a document of %zu tokens is longer than the context of %zu tokens that the "
                            "model %.100s has; cut documents with --tokens-max %zu",
                            r->longest, context, least->name, context);
    for (size_t i = 0; i < r->n_tokens; i++)
        if (e->docs->ids[i] < 0 || (size_t)e->docs->ids[i] >= r->n_vocab)
            return rt_error_set(err, RT_MISMATCH,
                                "the text has the token id %d, but the models share only %zu ids; do they "
                                "have the tokenizer that the text was read with?",
                                (int)e->docs->ids[i], r->n_vocab);
    return RT_OK;
}

/* ---- memory ---- */

static bool take_arrays(evaluation *e, rt_arena *arena, size_t *bytes)
{
    size_t widest = 0, vocab_s = 0, operand = 0;
    for (size_t m = 0; m < e->result->n_models; m++) {
        const rt_model *model = e->models[m].model;
        widest = rt_size_max(widest, model->config.n_embd);
        vocab_s = m ? rt_size_max(vocab_s, model->config.n_vocab) : 0;
        operand = rt_size_max(operand, rt_proj_operand_bytes(model, &model->head, EVAL_CHUNK));
    }
    e->work_bytes = rt_size_round_up(rt_loss_work_bytes(e->result->n_vocab), 64);
    const struct {
        void **to;
        size_t count, size;
    } wants[] = {
        {(void **)&e->ids, e->batch_tokens, sizeof *e->ids},
        {(void **)&e->segments, e->batch_tokens, sizeof *e->segments},
        {(void **)&e->targets, e->batch_tokens, sizeof *e->targets},
        {(void **)&e->picked, EVAL_CHUNK * widest, sizeof *e->picked},
        {(void **)&e->logits_t, EVAL_CHUNK * e->models[0].model->config.n_vocab, sizeof *e->logits_t},
        {(void **)&e->logits_s, EVAL_CHUNK * vocab_s, sizeof *e->logits_s},
        {&e->operand, operand, 1},
        {(void **)&e->metrics, EVAL_CHUNK, sizeof *e->metrics},
        {(void **)&e->work, rt_pool_threads(e->pool), e->work_bytes},
    };
    *bytes = 0;
    for (size_t i = 0; i < sizeof wants / sizeof wants[0]; i++) {
        *bytes += rt_size_round_up(wants[i].count * wants[i].size, 64);
        if (arena &&
            !(*wants[i].to = rt_arena_push_raw(arena, rt_size_max(wants[i].count, 1), wants[i].size)))
            return false;
    }
    *bytes += 4096;
    return true;
}

static rt_status take_memory(evaluation *e, rt_error *err)
{
    const rt_eval_result *r = e->result;
    size_t bytes;
    (void)take_arrays(e, NULL, &bytes);
    e->records = calloc(r->n_docs * r->n_models, sizeof *e->records);
    if (!e->records || rt_arena_init(&e->arena, bytes, err) != RT_OK || !take_arrays(e, &e->arena, &bytes))
        return rt_error_set(err, RT_NO_MEMORY, "no memory to judge %zu documents (%zu MiB)", r->n_docs,
                            (bytes + r->n_docs * r->n_models * sizeof *e->records) >> 20);
    for (size_t m = 0; m < r->n_models; m++)
        if (rt_pass_open(&e->passes[m], e->models[m].model, e->batch_tokens, false, err) != RT_OK)
            return err->status;
    return RT_OK;
}

/* ---- a batch ---- */

static size_t position_bin(size_t position)
{
    size_t bin = 0;
    while (bin + 1 < RT_EVAL_POSITIONS && position >= (size_t)16 << bin)
        bin++;
    return bin;
}

void rt_eval_position_bin(size_t bin, size_t longest, size_t *from, size_t *to)
{
    *from = bin ? (size_t)16 << (bin - 1) : 0;
    *to = bin + 1 < RT_EVAL_POSITIONS ? ((size_t)16 << bin) - 1 : SIZE_MAX;
    if (longest)
        *to = rt_size_max(*from, rt_size_min(*to, longest - 1));
}

static void put_document(evaluation *e, size_t doc)
{
    const rt_documents *docs = e->docs;
    const size_t from = docs->begins[doc], n = docs->begins[doc + 1] - from, at = e->batch.n_tokens;
    memcpy(e->ids + at, docs->ids + from, n * sizeof *e->ids);
    e->segments[e->batch.n_segments++] = (rt_segment){.begin = at, .count = n};
    for (size_t i = 1; i < n; i++)
        if (docs->mask[from + i])
            e->targets[e->n_targets++] =
                (target){.row = (uint32_t)(at + i - 1),
                         .label = docs->ids[from + i],
                         .doc = (uint32_t)source_of(e->text, doc),
                         .position = (uint32_t)i,
                         .kind = e->text->kinds ? e->text->kinds[from + i] : RT_KIND_OTHER};
    e->batch.n_tokens += n;
}

/* Documents from `first` on, as many as fit, padded as in training; the next document. */
static size_t fill_batch(evaluation *e, size_t first)
{
    size_t doc = first;
    e->batch = (rt_batch){.ids = e->ids, .segments = e->segments};
    e->n_targets = 0;
    for (; doc < e->result->n_pieces; doc++) {
        if (e->docs->begins[doc + 1] - e->docs->begins[doc] > e->batch_tokens - e->batch.n_tokens)
            break;
        put_document(e, doc);
    }
    const size_t spare = rt_size_round_up(e->batch.n_tokens, ROW_STEP) - e->batch.n_tokens;
    if (spare) {
        memset(e->ids + e->batch.n_tokens, 0, spare * sizeof *e->ids);
        e->segments[e->batch.n_segments++] = (rt_segment){.begin = e->batch.n_tokens, .count = spare};
        e->batch.n_tokens += spare;
    }
    return doc;
}

/* ---- a chunk ---- */

typedef struct chunk {
    evaluation *e;
    const rt_model *model;
    size_t first, n, padded, ld;
    const void *operand;
    const rt_shortlist *shortlist;
    const float *student; /* whose figures are made; the teacher's own logits for model 0 */
    size_t student_vocab;
    float *out;
} chunk;

static void logits_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const chunk *c = context;
    const rt_model *model = c->model;
    const size_t vocab = model->config.n_vocab, begin = index * HEAD_TILE,
                 end = rt_size_min(begin + HEAD_TILE, vocab);
    rt_proj_mul(model, &model->head, c->operand, c->ld, c->padded, begin, end, c->out + begin, vocab, RT_F32,
                false);
    if (model->config.logit_softcap > 0)
        for (size_t i = 0; i < c->n; i++)
            model->ops->softcap(c->out + i * vocab + begin, (float)model->config.logit_softcap, end - begin);
}

static void make_logits(chunk *c, size_t m, float *out)
{
    evaluation *e = c->e;
    c->model = e->models[m].model;
    c->out = out;
    const size_t d = c->model->config.n_embd;
    const float *hidden = rt_pass_hidden(e->passes[m]);
    for (size_t i = 0; i < c->n; i++)
        memcpy(e->picked + i * d, hidden + e->targets[c->first + i].row * d, d * sizeof *e->picked);
    memset(e->picked + c->n * d, 0, (c->padded - c->n) * d * sizeof *e->picked);
    c->operand = rt_proj_operand(c->model, &c->model->head, e->picked, d, c->padded, e->operand, &c->ld);
    rt_pool_run(e->pool, rt_size_ceil_div(c->model->config.n_vocab, HEAD_TILE), logits_task, c);
}

static void metrics_task(void *context, size_t index, unsigned thread)
{
    const chunk *c = context;
    const evaluation *e = c->e;
    rt_metrics_row(&e->metrics[index], c->student + index * c->student_vocab,
                   e->logits_t + index * e->models[0].model->config.n_vocab,
                   (size_t)e->targets[c->first + index].label, e->result->n_vocab,
                   e->work + thread * e->work_bytes);
    if (c->shortlist)
        e->metrics[index].tvd = rt_metrics_short_tvd(c->student + index * c->student_vocab,
                                                     e->logits_t + index * e->models[0].model->config.n_vocab,
                                                     e->result->n_vocab, c->shortlist->ids, c->shortlist->n);
}

static void add_to_group(eval_group_sum *group, const rt_token_metrics *t)
{
    group->tokens += 1;
    group->kl += t->kl_forward;
    group->tvd += t->tvd;
    group->top1 += t->top1_agree;
}

static rt_status add_chunk(evaluation *e, const chunk *c, size_t m, rt_error *err)
{
    for (size_t i = 0; i < c->n; i++) {
        const rt_token_metrics *t = &e->metrics[i];
        const target *at = &e->targets[c->first + i];
        const bool teacher_ok = isfinite(t->nll_teacher);
        if (!teacher_ok || !isfinite(t->nll_student + t->kl_forward + t->kl_reverse + t->tvd + t->confidence))
            return rt_error_set(err, RT_NOT_FINITE,
                                "%.100s: its logits for token %u of document %u are not finite numbers; the "
                                "weights are damaged, or the training that made them diverged",
                                e->models[teacher_ok ? m : 0].name, (unsigned)at->position + 1,
                                (unsigned)at->doc + 1);
        eval_record *record = &e->records[m * e->result->n_docs + at->doc];
        rt_metrics_add_token(&record->sum, t);
        add_to_group(&record->groups[position_bin(at->position)], t);
        add_to_group(&record->groups[RT_EVAL_POSITIONS + at->kind], t);
    }
    return RT_OK;
}

static rt_status run_chunk(evaluation *e, size_t first, rt_error *err)
{
    chunk c = {.e = e, .first = first, .n = rt_size_min(EVAL_CHUNK, e->n_targets - first)};
    c.padded = rt_size_round_up(c.n, ROW_STEP);
    for (size_t m = 0; m < e->result->n_models; m++) {
        float *logits = m ? e->logits_s : e->logits_t;
        make_logits(&c, m, logits);
        c.student = logits;
        c.student_vocab = c.model->config.n_vocab;
        c.shortlist = m ? e->models[m].shortlist : NULL;
        rt_pool_run(e->pool, c.n, metrics_task, &c);
        if (add_chunk(e, &c, m, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status run_batches(evaluation *e, rt_error *err)
{
    const rt_eval_options *o = e->options;
    const rt_eval_result *r = e->result;
    for (size_t doc = 0; doc < r->n_pieces;) {
        if (o->progress && !o->progress(o->context, e->docs->begins[doc], r->n_tokens))
            return rt_error_set(err, RT_STOPPED,
                                "stopped before all of the text was judged; there are no "
                                "figures, start it again for them");
        doc = fill_batch(e, doc);
        for (size_t m = 0; m < r->n_models; m++)
            rt_forward(e->models[m].model, e->passes[m], &e->batch, NULL, NULL);
        for (size_t first = 0; first < e->n_targets; first += EVAL_CHUNK)
            if (run_chunk(e, first, err) != RT_OK)
                return err->status;
    }
    if (o->progress)
        (void)o->progress(o->context, r->n_tokens, r->n_tokens);
    return RT_OK;
}

/* ---- the whole ---- */

static rt_status time_models(const rt_eval_result *r, const rt_documents *docs,
                             const rt_eval_options *options, rt_error *err)
{
    for (size_t m = 0; m < r->n_models; m++) {
        rt_eval_figures *f = &r->figures[m];
        f->memory_bytes = rt_model_weight_bytes(r->models[m].model);
        f->decode_tokens_per_s = (double)NAN;
        if (options->speed_seconds > 0 &&
            rt_eval_speed(&f->decode_tokens_per_s, r->models[m].model, docs->ids, docs->begins[1],
                          options->speed_seconds, err) != RT_OK)
            return rt_error_within(err, r->models[m].name);
    }
    return RT_OK;
}

static void close_evaluation(evaluation *e)
{
    for (size_t m = 0; m < RT_EVAL_MODELS_MAX; m++) {
        rt_pass_close(e->passes[m]);
        e->passes[m] = NULL;
    }
    rt_arena_deinit(&e->arena);
}

static size_t shared_ids(const rt_eval_model *models, size_t n_models, size_t n_vocab)
{
    size_t shared = n_vocab ? n_vocab : SIZE_MAX;
    for (size_t m = 0; m < n_models; m++)
        shared = rt_size_min(shared, models[m].model->config.n_vocab);
    return shared;
}

rt_status rt_eval_gather(rt_eval_result *r, eval_record **records, const rt_eval_model *models,
                         size_t n_models, const rt_eval_text *text, const rt_eval_options *options,
                         rt_error *err)
{
    *r = (rt_eval_result){.models = models,
                          .n_models = n_models,
                          .n_vocab = shared_ids(models, n_models, options->n_vocab),
                          .resamples = options->resamples ? options->resamples : RESAMPLES,
                          .seed = options->seed,
                          .has_kinds = text->kinds != NULL};
    *records = NULL;
    if (n_models < 2 || n_models > RT_EVAL_MODELS_MAX)
        return rt_error_set(err, RT_INVALID, "%zu models to judge: it takes a teacher and 1 to %d students",
                            n_models, RT_EVAL_MODELS_MAX - 1);
    choose_pieces(r, text, options->tokens);
    evaluation e = {.models = models,
                    .text = text,
                    .docs = &text->docs,
                    .options = options,
                    .result = r,
                    .pool = models[0].model->pool,
                    .batch_tokens = options->batch_tokens ? options->batch_tokens : BATCH_TOKENS};
    e.batch_tokens = rt_size_round_up(rt_size_max(e.batch_tokens, r->longest), ROW_STEP);
    rt_status status = check_documents(&e, err);
    if (status == RT_OK)
        status = take_memory(&e, err);
    if (status == RT_OK)
        status = run_batches(&e, err);
    close_evaluation(&e);
    if (status == RT_OK)
        *records = e.records;
    else
        free(e.records);
    return status;
}

rt_status rt_eval(rt_eval_result *out, const rt_eval_model *models, size_t n_models, const rt_eval_text *text,
                  const rt_eval_options *options, rt_error *err)
{
    rt_eval_result r;
    eval_record *records;
    *out = (rt_eval_result){0};
    rt_status status = rt_eval_gather(&r, &records, models, n_models, text, options, err);
    if (status == RT_OK && !(r.figures = calloc(n_models, sizeof *r.figures)))
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for the figures of %zu models", n_models);
    if (status == RT_OK)
        status = rt_eval_summarise(&r, records, models[0].model->pool, err);
    if (status == RT_OK)
        status = time_models(&r, &text->docs, options, err);
    free(records);
    if (status != RT_OK) {
        rt_eval_result_deinit(&r);
        return status;
    }
    *out = r;
    return RT_OK;
}

void rt_eval_result_deinit(rt_eval_result *result)
{
    free(result->figures);
    *result = (rt_eval_result){0};
}
