/* student/head.c - see head.h.
 *
 * Jobs of a chunk: (1) logits, shared out by tiles of ids; (2) loss and gradient, by rows; (3) by groups of
 * ids: dweight rows of the group += Gᵀ h, and the group's part of dh = G W; (4) the parts of dh summed in
 * order. The number of groups is fixed, so sums do not depend on the number of threads.  The chunk's rows are
 * padded with zero rows to a multiple of ROW_STEP, so that few shapes of products occur. */
#include "student/head_parts.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/pass.h"
#include "tensor/row.h"

enum { GROUPS = 8 };

static bool take_all(rt_head *head, rt_arena *arena, size_t *bytes)
{
    const rt_model *s = head->student, *t = head->teacher;
    const size_t vocab = s->config.n_vocab, d = s->config.n_embd, threads = rt_pool_threads(s->pool);
    head->loss_bytes = rt_size_round_up(rt_loss_work_bytes(vocab), 64);
    head->work_bytes = head->loss_bytes + rt_size_round_up(vocab * sizeof(float), 64);
    const struct {
        void **to;
        size_t count, size;
    } wants[] = {
        {(void **)&head->hidden_s, RT_HEAD_CHUNK * d, 4},
        {&head->operand_s, rt_proj_operand_bytes(s, &s->head, RT_HEAD_CHUNK), 1},
        {(void **)&head->logits_s, RT_HEAD_CHUNK * vocab, 4},
        {(void **)&head->work, threads, head->work_bytes},
        {(void **)&head->hidden_t, t ? RT_HEAD_CHUNK * t->config.n_embd : 0, 4},
        {&head->operand_t, t ? rt_proj_operand_bytes(t, &t->head, RT_HEAD_CHUNK) : 0, 1},
        {(void **)&head->logits_t, t ? RT_HEAD_CHUNK * t->config.n_vocab : 0, 4},
        {(void **)&head->parts, head->with_gradient ? GROUPS * RT_HEAD_CHUNK * d : 0, 4},
    };
    *bytes = 0;
    for (size_t i = 0; i < sizeof wants / sizeof wants[0]; i++) {
        *bytes += rt_size_round_up(wants[i].count * wants[i].size, 64);
        if (arena && wants[i].count &&
            !(*wants[i].to = rt_arena_push_raw(arena, wants[i].count, wants[i].size)))
            return false;
    }
    return true;
}

size_t rt_head_bytes(const rt_model *student, const rt_model *teacher, bool with_gradient)
{
    rt_head head = {.student = student, .teacher = teacher, .with_gradient = with_gradient};
    size_t bytes;
    (void)take_all(&head, NULL, &bytes);
    return bytes;
}

rt_status rt_head_open(rt_head **out, const rt_model *student, const rt_model *teacher, bool with_gradient,
                       rt_error *err)
{
    *out = NULL;
    rt_head *head = calloc(1, sizeof *head);
    if (!head)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the output head");
    *head = (rt_head){.student = student, .teacher = teacher, .with_gradient = with_gradient};
    head->shared = student->config.n_vocab;
    if (teacher)
        head->shared = rt_size_min(head->shared, teacher->config.n_vocab);
    size_t bytes;
    (void)take_all(head, NULL, &bytes);
    if (rt_arena_init(&head->arena, bytes, err) != RT_OK || !take_all(head, &head->arena, &bytes)) {
        rt_head_close(head);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the logits of a chunk (%zu MiB)", bytes >> 20);
    }
    *out = head;
    return RT_OK;
}

rt_status rt_head_reserve_kept(rt_head *head, size_t n_max, size_t n_vocab, rt_error *err)
{
    assert(head->with_gradient && !head->teacher && !head->kept_work && n_max <= RT_KEPT_MAX);
    const size_t threads = rt_pool_threads(head->student->pool);
    head->shared = rt_size_min(head->student->config.n_vocab, n_vocab);
    head->kept_max = n_max;
    head->kept_bytes = rt_size_round_up(rt_kept_work_bytes(head->shared, n_max), 64);
    if (rt_arena_init(&head->kept_arena, threads * head->kept_bytes + 64, err) != RT_OK)
        return err->status;
    head->kept_work = rt_arena_push_raw(&head->kept_arena, threads, head->kept_bytes);
    assert(head->kept_work);
    return RT_OK;
}

void rt_head_close(rt_head *head)
{
    if (!head)
        return;
    rt_arena_deinit(&head->across_arena);
    rt_arena_deinit(&head->kept_arena);
    rt_arena_deinit(&head->arena);
    free(head);
}

typedef rt_head_chunk chunk;

const void *rt_head_pick(const rt_model *model, const rt_pass *pass, const uint32_t *rows, size_t n,
                         size_t n_padded, float *hidden, void *room, size_t *ld)
{
    const size_t d = model->config.n_embd;
    const float *from = rt_pass_hidden(pass);
    for (size_t i = 0; i < n; i++)
        memcpy(hidden + i * d, from + (size_t)rows[i] * d, d * sizeof *hidden);
    memset(hidden + n * d, 0, (n_padded - n) * d * sizeof *hidden);
    return rt_proj_operand(model, &model->head, hidden, d, n_padded, room, ld);
}

static size_t tiles_of(size_t vocab) { return rt_size_ceil_div(vocab, HEAD_TILE); }
size_t rt_head_tiles(const rt_model *model) { return tiles_of(model->config.n_vocab); }

void rt_head_logits_tile(const rt_model *model, const void *operand, size_t ld, size_t rows, size_t tile,
                         float *logits)
{
    const size_t vocab = model->config.n_vocab, begin = tile * HEAD_TILE,
                 end = rt_size_min(begin + HEAD_TILE, vocab);
    rt_proj_mul(model, &model->head, operand, ld, rows, begin, end, logits + begin, vocab, RT_F32, false);
    if (model->config.logit_softcap > 0)
        for (size_t i = 0; i < rows; i++)
            model->ops->softcap(logits + i * vocab + begin, (float)model->config.logit_softcap, end - begin);
}

static void logits_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const chunk *c = context;
    const rt_head *head = c->head;
    const size_t tiles_s = tiles_of(head->student->config.n_vocab);
    if (index < tiles_s)
        rt_head_logits_tile(head->student, c->operand_s, c->ld_s, c->padded, index, head->logits_s);
    else
        rt_head_logits_tile(head->teacher, c->operand_t, c->ld_t, c->padded_t, index - tiles_s,
                            head->logits_t);
}

/* The chain rule of z = cap tanh(x / cap): dx = dz (1 - (z / cap)²). */
static void uncap(float *dz, const float *z, float cap, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float t = z[i] / cap;
        dz[i] *= 1 - t * t;
    }
}

void rt_head_take_gradient(const rt_model *model, float *z, float *dz)
{
    const size_t vocab = model->config.n_vocab;
    if (model->config.logit_softcap > 0)
        uncap(dz, z, (float)model->config.logit_softcap, vocab);
    if (model->act == RT_BF16)
        model->ops->to_bf16((rt_bf16 *)(void *)z, dz, vocab);
    else
        memcpy(z, dz, vocab * sizeof *z);
}

/* A row whose teacher is a kept row: the gradient over the logits, in the activation type. */
static void kept_row(const chunk *c, size_t index, float *z, float *dz, unsigned thread)
{
    const rt_head *head = c->head;
    const rt_model *model = head->student;
    const size_t vocab = model->config.n_vocab, row = c->first + index;
    const int32_t label = c->rows->labels[row];
    const bool bf16 = model->act == RT_BF16, capped = model->config.logit_softcap > 0;
    const rt_kept_row *kept = &c->rows->kept[row];
    float *at = z;
    assert(kept->n <= head->kept_max);
    if (capped) /* the chain rule asks for the logits again */
        at = memcpy(dz, z, vocab * sizeof *dz);
    rt_kept_loss_row_in_place(c->mix, at, kept, label < 0 ? RT_LABEL_NONE : (size_t)label, head->shared,
                              c->rows->scales[row], bf16 && !capped, &c->stats[row],
                              head->kept_work + thread * head->kept_bytes);
    const size_t size = bf16 && !capped ? sizeof(rt_bf16) : sizeof(float);
    memset((unsigned char *)at + head->shared * size, 0, (vocab - head->shared) * size);
    if (capped)
        rt_head_take_gradient(model, z, dz);
}

/* A row of the student's own samples: the sampled token alone; the gradient over the logits, in the
 * activation type.  kl_reverse is the one-sample estimate log p_old - log q. */
static void policy_row(const chunk *c, size_t index, float *z, const float *zt, float *dz, void *work)
{
    const rt_head *head = c->head;
    const rt_model *model = head->student;
    const size_t vocab = model->config.n_vocab, row = c->first + index;
    const size_t label = (size_t)c->rows->labels[row];
    const double logq = (double)zt[label] - rt_log_sum_exp(zt, head->shared),
                 old = (double)c->rows->logp_old[row];
    rt_loss_stats *stats = &c->stats[row];
    (void)rt_policy_row(c->rows->policy, z, label, head->shared, old, logq - old, c->rows->scales[row], dz,
                        stats, work);
    memset(dz + head->shared, 0, (vocab - head->shared) * sizeof *dz);
    stats->nll_teacher = -logq;
    stats->kl_reverse = old - logq;
    rt_head_take_gradient(model, z, dz);
}

static void loss_task(void *context, size_t index, unsigned thread)
{
    const chunk *c = context;
    const rt_head *head = c->head;
    const size_t vocab = head->student->config.n_vocab;
    float *z = head->logits_s + index * vocab;
    if (index >= c->n) { /* padding: no gradient */
        memset(z, 0, vocab * sizeof *z);
        return;
    }
    float *zt = head->teacher ? head->logits_t + index * head->teacher->config.n_vocab : NULL;
    unsigned char *work = head->work + thread * head->work_bytes;
    float *dz = (float *)(void *)(work + head->loss_bytes);
    if (c->rows->kept) {
        kept_row(c, index, z, dz, thread);
        return;
    }
    if (c->rows->policy) {
        policy_row(c, index, z, zt, dz, work);
        return;
    }
    const size_t row = c->first + index;
    const int32_t label = c->rows->labels[row];
    const bool bf16 = head->student->act == RT_BF16, capped = head->student->config.logit_softcap > 0;
    if (head->with_gradient && !c->row_fn && !capped) { /* nobody looks at the logits afterwards */
        const size_t size = bf16 ? sizeof(rt_bf16) : sizeof(float);
        rt_loss_row_in_place(c->mix, z, zt, label < 0 ? RT_LABEL_NONE : (size_t)label, head->shared,
                             c->rows->scales[row], bf16, &c->stats[row], work);
        memset((unsigned char *)z + head->shared * size, 0, (vocab - head->shared) * size);
        return;
    }
    const bool narrow = bf16 && !capped;
    if (head->with_gradient && head->shared < vocab)
        memset(dz, 0, vocab * sizeof *dz);
    rt_loss_row(c->mix, z, zt, label < 0 ? RT_LABEL_NONE : (size_t)label, head->shared, c->rows->scales[row],
                head->with_gradient && !narrow ? dz : NULL,
                head->with_gradient && narrow ? (rt_bf16 *)(void *)dz : NULL, &c->stats[row], work);
    if (c->row_fn)
        c->row_fn(c->row_context, row, &c->stats[row], z, zt);
    if (!head->with_gradient)
        return;
    if (narrow) /* it is in the activation type already */
        memcpy(z, dz, vocab * sizeof(rt_bf16));
    else
        rt_head_take_gradient(head->student, z, dz);
}

static void gradient_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const chunk *c = context;
    const rt_head *head = c->head;
    const rt_model *model = head->student;
    const size_t vocab = model->config.n_vocab, d = model->config.n_embd, tiles = tiles_of(vocab);
    const size_t ld = model->act == RT_BF16 ? 2 * vocab : vocab; /* bf16 rows begin where float rows do */
    float *part = head->parts + index * RT_HEAD_CHUNK * d;
    bool any = false;
    for (size_t tile = index * tiles / GROUPS; tile < (index + 1) * tiles / GROUPS; tile++, any = true) {
        const size_t begin = tile * HEAD_TILE, count = rt_size_min(HEAD_TILE, vocab - begin);
        const void *g = rt_act_at(model, head->logits_s, begin);
        const rt_gemm_spec back = {.m = c->padded,
                                   .n = d,
                                   .k = count,
                                   .lda = ld,
                                   .ldb = d,
                                   .ldc = d,
                                   .ab = model->act,
                                   .c = RT_F32,
                                   .accumulate = any};
        rt_gemm(&back, g, rt_act_at(model, model->head.w, begin * d), part);
        if (!c->dweight)
            continue;
        const rt_gemm_spec weight = {.m = count,
                                     .n = d,
                                     .k = c->padded,
                                     .lda = ld,
                                     .ldb = c->ld_s,
                                     .ldc = d,
                                     .ab = model->act,
                                     .c = RT_F32,
                                     .a_transposed = true,
                                     .accumulate = true};
        rt_gemm(&weight, g, c->operand_s, c->dweight + begin * d);
    }
    if (!any)
        memset(part, 0, c->padded * d * sizeof *part);
}

static void join_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const chunk *c = context;
    const rt_model *model = c->head->student;
    const size_t d = model->config.n_embd;
    float *out = c->dhidden + (size_t)c->rows->rows[c->first + index] * d;
    for (size_t g = 0; g < GROUPS; g++)
        model->ops->add(out, c->head->parts + (g * RT_HEAD_CHUNK + index) * d, d);
}

static void run_chunk(chunk *c, const rt_pass *student, const rt_pass *teacher)
{
    rt_head *head = c->head;
    rt_pool *pool = head->student->pool;
    c->padded = rt_size_round_up(c->n, RT_HEAD_ROW_STEP);
    const uint32_t *picked = c->rows->rows + c->first;
    c->operand_s = rt_head_pick(head->student, student, picked, c->n, c->padded, head->hidden_s,
                                head->operand_s, &c->ld_s);
    size_t tiles = tiles_of(head->student->config.n_vocab);
    if (head->teacher && !c->rows->across) {
        c->padded_t = c->padded;
        c->operand_t = rt_head_pick(head->teacher, teacher, picked, c->n, c->padded, head->hidden_t,
                                    head->operand_t, &c->ld_t);
        tiles += tiles_of(head->teacher->config.n_vocab);
    }
    rt_pool_run(pool, tiles, logits_task, c);
    if (c->rows->across) {
        rt_head_across_run(c, teacher);
        memset(head->logits_s + c->n * head->student->config.n_vocab, 0,
               (c->padded - c->n) * head->student->config.n_vocab * sizeof *head->logits_s);
    } else {
        rt_pool_run(pool, c->padded, loss_task, c);
    }
    if (!head->with_gradient)
        return;
    rt_pool_run(pool, GROUPS, gradient_task, c);
    rt_pool_run(pool, c->n, join_task, c);
}

rt_status rt_head_run(rt_head *head, const rt_pass *student, const rt_pass *teacher, const rt_loss_mix *mix,
                      const rt_head_rows *rows, size_t n_tokens, float *dhidden, float *dweight,
                      rt_loss_stats *stats, rt_head_row_fn row_fn, void *row_context, double *loss,
                      rt_error *err)
{
    assert(!head->with_gradient || (dhidden && !rt_proj_is_packed(&head->student->head)));
    assert(!rows->kept || (head->kept_work && !row_fn));
    assert(!rows->across == (head->across.way == RT_ACROSS_NONE) && !(rows->across && row_fn));
    assert(!rows->policy || (head->teacher && head->with_gradient && rows->logp_old && !row_fn));
    if (head->with_gradient)
        memset(dhidden, 0, n_tokens * head->student->config.n_embd * sizeof *dhidden);
    chunk c = {.head = head,
               .mix = mix,
               .rows = rows,
               .dhidden = dhidden,
               .dweight = dweight,
               .stats = stats,
               .row_fn = row_fn,
               .row_context = row_context};
    if (rows->across)
        rt_head_across_begin(&c, teacher);
    for (c.first = 0; c.first < rows->n; c.first += c.n) {
        c.n = rows->across ? rt_head_across_count(&c) : rt_size_min(RT_HEAD_CHUNK, rows->n - c.first);
        run_chunk(&c, student, teacher);
    }
    *loss = 0;
    for (size_t i = 0; i < rows->n; i++) {
        if (!stats[i].finite)
            return rt_error_set(err, RT_NOT_FINITE,
                                "the loss of the token in row %u of the batch is not finite",
                                (unsigned)rows->rows[i]);
        *loss += rows->scales[i] * stats[i].loss;
    }
    return RT_OK;
}
