/* student/head_across.c - the rows of a head whose teacher has another tokenizer; see across.h.
 *
 * The teacher's logits are made for those rows alone that have a partner, and one chunk's at a time.  For
 * chunks of text the probability of the whole decides every row's gradient, which is cross-entropy's times a
 * number: so the teacher's log-probabilities come first, for the batch, and a chunk of rows never ends inside
 * a chunk of text. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/pass.h"
#include "student/head_parts.h"
#include "tensor/row.h"

/* What an id of the student weighs that no token of the teacher begins with. */
static const float floor_mass = 1e-9F;

/* Of a thread: [n_vocab] float for a mapped row, or gradient and scratch of a sorted one. */
static size_t work_bytes_of(rt_across_way way, size_t vocab, size_t teacher_vocab)
{
    if (way == RT_ACROSS_ULD)
        return rt_size_round_up(vocab * sizeof(double), 64) +
               rt_size_round_up(rt_uld_work_bytes(vocab, teacher_vocab), 64);
    return rt_size_round_up(vocab * sizeof(float), 64);
}

size_t rt_head_across_bytes(const rt_model *student, const rt_model *teacher, rt_across_way way,
                            size_t tokens_max)
{
    return rt_pool_threads(student->pool) *
               work_bytes_of(way, student->config.n_vocab, teacher->config.n_vocab) +
           tokens_max * sizeof(double);
}

rt_status rt_head_reserve_across(rt_head *head, const rt_across_options *options, size_t n_shared,
                                 size_t tokens_max, rt_error *err)
{
    assert(head->with_gradient && head->teacher && options->way != RT_ACROSS_NONE);
    const size_t threads = rt_pool_threads(head->student->pool);
    head->across = *options;
    head->shared = rt_size_min(head->student->config.n_vocab, n_shared);
    head->across_bytes =
        work_bytes_of(options->way, head->student->config.n_vocab, head->teacher->config.n_vocab);
    if (rt_arena_init(&head->across_arena,
                      rt_head_across_bytes(head->student, head->teacher, options->way, tokens_max) + 256,
                      err) != RT_OK)
        return err->status;
    head->across_work = rt_arena_push_raw(&head->across_arena, threads, head->across_bytes);
    head->teacher_logp = rt_arena_push_raw(&head->across_arena, tokens_max, sizeof *head->teacher_logp);
    assert(head->teacher_logp);
    return RT_OK;
}

/* ---- the teacher's log-probabilities of the text ---- */

static void teacher_tile(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const rt_head_chunk *c = context;
    rt_head_logits_tile(c->head->teacher, c->operand_t, c->ld_t, c->padded_t, index, c->head->logits_t);
}

static void logp_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const rt_head_chunk *c = context;
    const size_t vocab = c->head->teacher->config.n_vocab;
    const float *z = c->head->logits_t + index * vocab;
    const int32_t label = c->rows->across->teacher_labels[c->first + index];
    c->head->teacher_logp[c->first + index] = fmin((double)z[label] - rt_log_sum_exp(z, vocab), 0);
}

/* Logits of the teacher for n rows of its pass. */
static void teacher_logits(rt_head_chunk *c, const rt_pass *teacher, const uint32_t *rows, size_t n)
{
    const rt_head *head = c->head;
    c->padded_t = rt_size_round_up(n, RT_HEAD_ROW_STEP);
    c->operand_t =
        rt_head_pick(head->teacher, teacher, rows, n, c->padded_t, head->hidden_t, head->operand_t, &c->ld_t);
    rt_pool_run(head->student->pool, rt_head_tiles(head->teacher), teacher_tile, c);
}

void rt_head_across_begin(rt_head_chunk *c, const rt_pass *teacher)
{
    const rt_across_rows *across = c->rows->across;
    if (c->head->across.way != RT_ACROSS_CHUNKS)
        return;
    for (c->first = 0; c->first < across->n_teacher; c->first += c->n) {
        c->n = rt_size_min(RT_HEAD_CHUNK, across->n_teacher - c->first);
        teacher_logits(c, teacher, across->teacher_rows + c->first, c->n);
        rt_pool_run(c->head->student->pool, c->n, logp_task, c);
    }
    c->first = 0;
}

/* The first group that ends behind row `at`. */
static size_t group_behind(const rt_across_rows *across, size_t at)
{
    size_t low = 0, high = across->n_groups;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (across->groups[middle].student_to <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t rt_head_across_count(const rt_head_chunk *c)
{
    const rt_across_rows *across = c->rows->across;
    const size_t end = rt_size_min(c->first + RT_HEAD_CHUNK, c->rows->n);
    const size_t g = group_behind(across, end);
    const bool split = end < c->rows->n && g < across->n_groups && across->groups[g].student_from < end;
    return (split ? across->groups[g].student_from : end) - c->first;
}

/* ---- rows ---- */

static const rt_loss_mix text_alone = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_CE, .tau = 1}}}};

/* Loss and gradient of one row, which replaces its logits, in the activation type. */
static void finish_row(const rt_head_chunk *c, size_t index, const rt_loss_mix *mix, float *zt, double scale,
                       unsigned thread)
{
    const rt_head *head = c->head;
    const rt_model *model = head->student;
    const size_t vocab = model->config.n_vocab, row = c->first + index;
    const int32_t label = c->rows->labels[row];
    const bool bf16 = model->act == RT_BF16, capped = model->config.logit_softcap > 0;
    unsigned char *work = head->work + thread * head->work_bytes;
    float *z = head->logits_s + index * vocab, *dz = (float *)(void *)(work + head->loss_bytes), *at = z;
    if (capped)
        at = memcpy(dz, z, vocab * sizeof *dz);
    rt_loss_row_in_place(mix, at, zt, label < 0 ? RT_LABEL_NONE : (size_t)label, head->shared, scale,
                         bf16 && !capped, &c->stats[row], work);
    const size_t size = bf16 && !capped ? sizeof(rt_bf16) : sizeof(float);
    memset((unsigned char *)at + head->shared * size, 0, (vocab - head->shared) * size);
    if (capped)
        rt_head_take_gradient(model, z, dz);
}

/* ce times cross-entropy. */
static void learn_text(const rt_head_chunk *c, size_t index, unsigned thread)
{
    const double ce = c->head->across.ce;
    rt_loss_stats *stats = &c->stats[c->first + index];
    finish_row(c, index, &text_alone, NULL, ce * c->rows->scales[c->first + index], thread);
    stats->loss *= ce;
}

/* The teacher's mass on the student's ids, as logits. */
static void carry_over(const rt_head *head, float *out, const float *zt)
{
    const size_t theirs = head->teacher->config.n_vocab;
    const float lse = (float)rt_log_sum_exp(zt, theirs);
    for (size_t i = 0; i < head->shared; i++)
        out[i] = floor_mass;
    for (size_t i = 0; i < theirs; i++)
        if (head->across.map[i] >= 0)
            out[head->across.map[i]] += expf(zt[i] - lse);
    for (size_t i = 0; i < head->shared; i++)
        out[i] = logf(out[i]);
}

static void map_task(void *context, size_t index, unsigned thread)
{
    const rt_head_chunk *c = context;
    const rt_head *head = c->head;
    if (c->slots[index] < 0) {
        learn_text(c, index, thread);
        return;
    }
    float *carried = (float *)(void *)(head->across_work + thread * head->across_bytes);
    carry_over(head, carried, head->logits_t + (size_t)c->slots[index] * head->teacher->config.n_vocab);
    finish_row(c, index, c->mix, carried, c->rows->scales[c->first + index], thread);
}

static void uld_task(void *context, size_t index, unsigned thread)
{
    const rt_head_chunk *c = context;
    const rt_head *head = c->head;
    const rt_model *model = head->student;
    const size_t vocab = model->config.n_vocab, row = c->first + index,
                 theirs = head->teacher->config.n_vocab;
    const double scale = c->rows->scales[row], ce = head->across.ce;
    const rt_loss_mix text = {.n_terms = 1, .terms = {{ce, {.kind = RT_LOSS_CE, .tau = 1}}}};
    unsigned char *work = head->work + thread * head->work_bytes,
                  *sorting = head->across_work + thread * head->across_bytes;
    float *z = head->logits_s + index * vocab, *dz = (float *)(void *)(work + head->loss_bytes);
    double *grad = (double *)(void *)sorting;
    rt_loss_stats *stats = &c->stats[row];
    memset(dz + head->shared, 0, (vocab - head->shared) * sizeof *dz);
    rt_loss_row(&text, z, NULL, (size_t)c->rows->labels[row], head->shared, scale, dz, NULL, stats, work);
    if (c->slots[index] >= 0) {
        const double loss = rt_uld_row(z, head->shared, head->logits_t + (size_t)c->slots[index] * theirs,
                                       theirs, grad, sorting + rt_size_round_up(vocab * sizeof *grad, 64));
        stats->loss += head->across.weight * loss;
        for (size_t i = 0; i < head->shared; i++)
            dz[i] += (float)(scale * head->across.weight * grad[i]);
    }
    rt_head_take_gradient(model, z, dz);
}

static void nll_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    rt_head_chunk *c = context;
    const float *z = c->head->logits_s + index * c->head->student->config.n_vocab;
    c->nll[index] =
        fmax(rt_log_sum_exp(z, c->head->shared) - (double)z[c->rows->labels[c->first + index]], 0);
}

/* Each row's share in the losses of its chunk, from the probabilities of both sides. */
static void weigh_chunks(rt_head_chunk *c)
{
    const rt_across_rows *across = c->rows->across;
    const rt_across_options *o = &c->head->across;
    const size_t end = c->first + c->n;
    for (size_t i = 0; i < c->n; i++) {
        c->factors[i] = o->ce;
        c->losses[i] = 0;
    }
    for (size_t g = group_behind(across, c->first);
         g < across->n_groups && across->groups[g].student_from < end; g++) {
        const rt_aligned *group = &across->groups[g];
        double student = 0, teacher = 0, slope;
        for (size_t i = group->student_from; i < group->student_to; i++)
            student -= c->nll[i - c->first];
        for (size_t i = group->teacher_from; i < group->teacher_to; i++)
            teacher += c->head->teacher_logp[i];
        student = fmin(student, -1e-12); /* certain to the last bit: the slope still has a meaning */
        const double times = isinf(o->tau) ? o->weight : o->weight * o->tau;
        c->losses[group->student_from - c->first] =
            times * rt_chunk_binary_kl(student, teacher, o->tau, &slope);
        for (size_t i = group->student_from; i < group->student_to; i++)
            c->factors[i - c->first] -= times * slope;
    }
}

static void chunks_task(void *context, size_t index, unsigned thread)
{
    const rt_head_chunk *c = context;
    rt_loss_stats *stats = &c->stats[c->first + index];
    finish_row(c, index, &text_alone, NULL, c->factors[index] * c->rows->scales[c->first + index], thread);
    stats->loss = c->head->across.ce * c->nll[index] + c->losses[index];
    stats->finite = stats->finite && isfinite(stats->loss) && isfinite(c->factors[index]);
}

void rt_head_across_run(rt_head_chunk *c, const rt_pass *teacher)
{
    rt_head *head = c->head;
    rt_pool *pool = head->student->pool;
    if (head->across.way == RT_ACROSS_CHUNKS) {
        rt_pool_run(pool, c->n, nll_task, c);
        weigh_chunks(c);
        rt_pool_run(pool, c->n, chunks_task, c);
        return;
    }
    uint32_t picked[RT_HEAD_CHUNK];
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        const uint32_t pair = c->rows->across->pairs[c->first + i];
        c->slots[i] = pair == RT_ACROSS_ALONE ? -1 : (int32_t)n;
        if (pair != RT_ACROSS_ALONE)
            picked[n++] = pair;
    }
    if (n)
        teacher_logits(c, teacher, picked, n);
    rt_pool_run(pool, c->n, head->across.way == RT_ACROSS_MAP ? map_task : uld_task, c);
}
