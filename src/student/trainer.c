/* student/trainer.c - see trainer.h. */
#include "student/trainer.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/stream.h"

enum { UPDATE_RANGE = 1 << 17 };

typedef struct rt_update_range {
    size_t begin, end;
    bool decay;
} rt_update_range;

static void add_ranges(rt_trainer *t, size_t begin, size_t end, bool decay)
{
    for (size_t at = begin; at < end; at += UPDATE_RANGE)
        t->ranges[t->n_ranges++] = (rt_update_range){at, rt_size_min(end, at + UPDATE_RANGE), decay};
}

static void list_adapters(rt_trainer *t)
{
    const rt_adapters *a = t->options.adapters;
    for (size_t i = 0; i < rt_adapters_count(a); i++) {
        const rt_adapter *one = rt_adapters_at(a, i);
        add_ranges(t, one->a, one->m, true);
        add_ranges(t, one->m, one->m + (one->norms ? one->param->rows : 0), false);
    }
}

static void list_factors(rt_trainer *t)
{
    for (size_t i = 0; i < t->factors.count; i++) {
        const rt_factor *f = &t->factors.list[i];
        const rt_param *p = &t->layout.list[f->param];
        add_ranges(t, f->a, f->a + p->rows * t->factors.rank, true);
        add_ranges(t, f->b, f->b + p->cols * t->factors.rank, true);
    }
}

static rt_status list_ranges(rt_trainer *t, rt_error *err)
{
    const rt_adapters *a = t->options.adapters;
    size_t count = 0;
    for (size_t i = 0; i < t->layout.count; i++)
        count += rt_size_ceil_div(t->layout.list[i].count, UPDATE_RANGE);
    count += rt_size_ceil_div(t->total - t->trained, UPDATE_RANGE);
    count += a ? 2 * rt_adapters_count(a) + rt_size_ceil_div(t->trained, UPDATE_RANGE) : 0;
    count += 2 * RT_FACTORS_MAX; /* fewer values than the matrices that are counted above */
    t->ranges = calloc(count, sizeof *t->ranges);
    t->norm_chunks = calloc(rt_norm_chunks(t->total), sizeof *t->norm_chunks);
    if (!t->ranges || !t->norm_chunks)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the optimiser's table");
    for (size_t i = 0; !a && i < t->layout.count - t->factors.count; i++) { /* factored ones are the last */
        const rt_param *p = &t->layout.list[i];
        add_ranges(t, p->offset, p->offset + p->count, p->cols > 0);
    }
    list_factors(t);
    if (a)
        list_adapters(t);
    add_ranges(t, t->trained, t->total, true);
    return RT_OK;
}

static rt_status take_arrays(rt_trainer *t, rt_error *err)
{
    const size_t total = t->total, tokens = t->options.tokens_max, d = t->config.n_embd;
    const bool apart = t->options.adapters != NULL;
    const size_t room = t->factors.count ? t->layout.total : total; /* with the merged matrix */
    const size_t halves = apart ? t->layout.total : room;
    size_t bytes = 0, part;
    if (!rt_size_mul(room, 4 * sizeof(float), &part) || !rt_size_add(bytes, part, &bytes) ||
        !rt_size_mul(halves, (apart ? sizeof(float) : 0) + sizeof(rt_bf16), &part) ||
        !rt_size_add(bytes, part, &bytes) ||
        !rt_size_mul(tokens, d * sizeof(float) + sizeof(rt_loss_stats), &part) ||
        !rt_size_add(bytes, part + 4096, &bytes))
        return rt_error_set(err, RT_NO_MEMORY, "the student is too large");
    if (rt_arena_init(&t->arena, bytes, err) != RT_OK)
        return err->status;
    t->values = rt_arena_push_raw(&t->arena, room, sizeof(float));
    t->m = rt_arena_push_raw(&t->arena, total, sizeof(float));
    t->v = rt_arena_push_raw(&t->arena, total, sizeof(float));
    t->grads = rt_arena_push_raw(&t->arena, room, sizeof(float));
    t->base = apart ? rt_arena_push_raw(&t->arena, t->layout.total, sizeof(float)) : t->values;
    if (t->options.precision == RT_PRECISION_BF16)
        t->half = rt_arena_push_raw(&t->arena, halves, sizeof(rt_bf16));
    t->dhidden = rt_arena_push_raw(&t->arena, tokens * d, sizeof(float));
    t->stats = rt_arena_push_raw(&t->arena, tokens, sizeof *t->stats);
    assert(t->stats);
    return RT_OK;
}

/* Each rank's part begins where a range does. */
static rt_status share_out(rt_trainer *t, rt_error *err)
{
    const rt_ranks *ranks = t->options.ranks;
    if (!ranks)
        return RT_OK;
    t->parts = calloc(ranks->size + 1, sizeof *t->parts);
    if (!t->parts)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu ranks", ranks->size);
    size_t rank = 1;
    for (size_t i = 0; i < t->n_ranges; i++)
        while (rank < ranks->size && t->ranges[i].begin >= t->total / ranks->size * rank)
            t->parts[rank++] = t->ranges[i].begin;
    for (; rank <= ranks->size; rank++)
        t->parts[rank] = t->total;
    return RT_OK;
}

void rt_trainer_part(const rt_trainer *t, size_t *begin, size_t *end)
{
    *begin = t->parts ? t->parts[t->options.ranks->rank] : 0;
    *end = t->parts ? t->parts[t->options.ranks->rank + 1] : t->total;
}

static bool is_kept(const rt_trainer_options *options) { return options->kept.topk || options->kept.draws; }

/* The mixture at both ends of the run. */
static rt_status check_objective(const rt_trainer_options *options, const rt_model *teacher, rt_error *err)
{
    const uint64_t steps = options->schedule.total;
    for (uint64_t end = 0; end < 2; end++) {
        rt_loss_mix mix;
        rt_course_at(&mix, &options->mix, &options->course, end ? steps : 0, steps, options->course.taid.t);
        const rt_status status =
            is_kept(options)
                ? rt_kept_mix_check(&mix, options->kept.topk, options->kept.draws, options->kept.tau, err)
                : rt_loss_mix_check(&mix, err);
        if (status != RT_OK)
            return status;
    }
    if (!is_kept(options) && rt_loss_mix_needs_teacher(&options->mix) && !teacher)
        return rt_error_set(err, RT_INVALID, "the objective needs a teacher and there is none");
    if (rt_features_any(&options->features) && !teacher)
        return rt_error_set(err, RT_INVALID, "features need a teacher model and there is none");
    return RT_OK;
}

static rt_status count_values(rt_trainer *t, const rt_model *teacher, rt_error *err)
{
    const size_t more = rt_features_any(&t->options.features)
                            ? rt_features_parameters(&t->options.features, &t->config, &teacher->config)
                            : 0;
    t->trained = t->options.adapters ? rt_adapters_total(t->options.adapters) : t->layout.total;
    if (t->options.embd_rank) {
        if (rt_factors_place(&t->factors, &t->layout, t->options.embd_rank, more, err) != RT_OK)
            return err->status;
        t->trained = t->factors.trained;
    }
    if (!rt_size_add(t->trained, more, &t->total))
        return rt_error_set(err, RT_NO_MEMORY, "the student and its projections are too large");
    return RT_OK;
}

rt_status rt_trainer_open(rt_trainer **out, const rt_model_config *config, const rt_model *teacher,
                          const rt_trainer_options *options, rt_pool *pool, rt_error *err)
{
    *out = NULL;
    if (options->precision == RT_PRECISION_INT8)
        return rt_error_set(err, RT_INVALID, "a student trains in bf16 or f32; int8 is for teachers");
    if (options->embd_rank && options->adapters)
        return rt_error_set(err, RT_INVALID, "adapters leave the embedding as it is: it has no factors then");
    if (check_objective(options, teacher, err) != RT_OK)
        return err->status;
    const bool kept = is_kept(options), features = rt_features_any(&options->features);
    if (features && rt_features_check(&options->features, config, &teacher->config, err) != RT_OK)
        return err->status;
    rt_trainer *t = calloc(1, sizeof *t);
    if (!t)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a trainer");
    t->options = *options;
    t->config = *config;
    t->pool = pool;
    t->taid = options->course.taid;
    const bool across = options->across.way != RT_ACROSS_NONE;
    const size_t n_real = options->n_real ? options->n_real : config->n_vocab;
    const bool heads =
        across || (!kept && (options->teacher_always || rt_loss_mix_needs_teacher(&options->mix)));
    t->teacher = heads || features ? teacher : NULL;
    if (rt_layout_build(&t->layout, config, err) != RT_OK || count_values(t, teacher, err) != RT_OK ||
        take_arrays(t, err) != RT_OK || list_ranges(t, err) != RT_OK || share_out(t, err) != RT_OK ||
        rt_model_view(&t->student, config, &t->layout, t->base, t->half, options->precision, pool, err) !=
            RT_OK ||
        rt_pass_open(&t->pass, t->student, options->tokens_max, true, err) != RT_OK ||
        (t->teacher &&
         rt_pass_open(&t->teacher_pass, t->teacher, options->tokens_max, false, err) != RT_OK) ||
        rt_head_open(&t->head, t->student, heads ? teacher : NULL, true, err) != RT_OK ||
        (kept && rt_head_reserve_kept(t->head, options->kept.n_max, options->kept.n_vocab, err) != RT_OK) ||
        (across &&
         rt_head_reserve_across(t->head, &options->across, n_real, options->tokens_max, err) != RT_OK) ||
        (features && rt_features_open(&t->features, &options->features, t->student, teacher,
                                      options->tokens_max, err) != RT_OK)) {
        rt_trainer_close(t);
        return err->status;
    }
    if (options->adapters)
        rt_adapters_bind(options->adapters, t->student, t->values, t->grads, t->base, t->half);
    if (features)
        rt_features_init(t->values + t->trained, &options->features, config, &teacher->config, options->seed);
    *out = t;
    return RT_OK;
}

void rt_trainer_close(rt_trainer *t)
{
    if (!t)
        return;
    rt_head_close(t->head);
    rt_features_close(t->features);
    rt_pass_close(t->pass);
    rt_pass_close(t->teacher_pass);
    rt_model_close(t->student);
    rt_layout_free(&t->layout);
    rt_arena_deinit(&t->arena);
    free(t->parts);
    free(t->ranges);
    free(t->norm_chunks);
    free(t);
}

size_t rt_trainer_bytes_of(const rt_model *student, const rt_model *teacher, size_t parameters,
                           const rt_trainer_options *options)
{
    const size_t tokens = options->tokens_max;
    size_t bytes = parameters * 4 * sizeof(float) + rt_pass_bytes(student, tokens, true) +
                   rt_head_bytes(student, teacher, true);
    bytes += tokens * (student->config.n_embd * sizeof(float) + sizeof(rt_loss_stats));
    if (options->adapters)
        bytes += rt_adapters_bytes(options->adapters);
    else if (options->precision == RT_PRECISION_BF16)
        bytes += parameters * sizeof(rt_bf16);
    if (options->embd_rank) { /* the merged matrices and their gradients */
        const size_t one = student->config.n_vocab * student->config.n_embd;
        bytes += (student->config.tied ? 1 : 2) * one *
                 (2 * sizeof(float) + (options->precision == RT_PRECISION_BF16 ? sizeof(rt_bf16) : 0));
    }
    if (options->across.way != RT_ACROSS_NONE && teacher)
        bytes += rt_head_across_bytes(student, teacher, options->across.way, tokens);
    return bytes + (teacher ? rt_pass_bytes(teacher, tokens, false) : 0);
}

size_t rt_trainer_bytes(const rt_trainer *t)
{
    return rt_trainer_bytes_of(t->student, t->teacher, t->total, &t->options) +
           rt_features_bytes(t->features);
}

static void sync_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const rt_trainer *t = context;
    const rt_update_range *r = &t->ranges[index];
    t->student->ops->to_bf16(t->half + r->begin, t->values + r->begin, r->end - r->begin);
}

rt_status rt_trainer_start(rt_trainer *t, rt_error *err)
{
    const rt_status status = rt_factors_start(&t->factors, &t->layout, t->values, t->pool, err);
    if (status == RT_OK)
        rt_trainer_sync(t);
    return status;
}

void rt_trainer_sync(rt_trainer *t)
{
    rt_factors_merge(&t->factors, &t->layout, t->values, t->half, t->pool);
    if (t->options.adapters)
        rt_adapters_sync(t->options.adapters, false);
    else if (t->half)
        rt_pool_run(t->pool, t->n_ranges, sync_task, t);
}

static void add_stats(rt_trainer *t, const rt_head_rows *rows)
{
    for (size_t i = 0; i < rows->n; i++) {
        if (t->options.course.adaptive)
            t->sum.taid += rows->scales[i] * t->stats[i].terms[t->options.course.taid_term];
        if (!isnan(t->stats[i].kl_forward) || !isnan(t->stats[i].kl_reverse)) {
            t->sum.kl_forward += t->stats[i].kl_forward;
            t->sum.kl_reverse += t->stats[i].kl_reverse;
            t->sum.compared++;
        }
        if (rows->labels[i] >= 0) {
            t->sum.nll += t->stats[i].nll_student;
            t->sum.labelled++;
        }
    }
    t->sum.rows += rows->n;
}

/* ---- the backward pass, and the gradients' way to the other ranks ---- */

/* The elements of a layer's parameters, which lie together. */
static void layer_elements(const rt_layout *layout, size_t layer, size_t *begin, size_t *end)
{
    *begin = SIZE_MAX;
    *end = 0;
    for (size_t i = 0; i < layout->count; i++) {
        const rt_param *p = &layout->list[i];
        if (p->layer != layer)
            continue;
        *begin = rt_size_min(*begin, p->offset);
        *end = rt_size_max(*end, p->offset + p->count);
    }
}

static void send(rt_trainer *t, size_t begin, size_t end)
{
    const rt_ranks *ranks = t->options.ranks;
    if (t->reduce_status == RT_OK && begin < end)
        t->reduce_status = ranks->reduce_begin(ranks->self, t->grads + begin, end - begin, &t->reduce_err);
}

typedef struct sending {
    rt_trainer *t;
    rt_backward_hooks inner; /* of the features */
    bool out;                /* the gradients of layers go out as they come */
} sending;

/* Before layer - 1 is gone through, the gradients of `layer` are whole. */
static void enter_layer(void *context, size_t layer, float *dx)
{
    const sending *s = context;
    rt_trainer *t = s->t;
    size_t begin, end;
    if (s->inner.stream)
        s->inner.stream(s->inner.context, layer, dx);
    if (t->options.adapters && layer > 0)
        rt_adapters_layer(t->options.adapters, layer - 1);
    if (!s->out)
        return;
    if (layer < t->config.n_layers) {
        layer_elements(&t->layout, layer, &begin, &end);
        send(t, begin, end);
    }
    t->options.ranks->progress(t->options.ranks->self);
}

static void pass_heads(void *context, size_t layer)
{
    const sending *s = context;
    if (s->inner.heads)
        s->inner.heads(s->inner.context, layer);
}

static void pass_weight(void *context, size_t layer, const rt_weight_gradient *part)
{
    const sending *s = context;
    rt_adapters_gradient(s->t->options.adapters, layer, part);
}

static void back(rt_trainer *t, const rt_batch *batch)
{
    const rt_backward_hooks none = {0};
    const bool last = t->options.ranks && t->last_batch, adapters = t->options.adapters != NULL;
    sending s = {t, t->features ? rt_features_hooks(t->features) : none, last && !adapters};
    const rt_backward_hooks both = {&s, enter_layer, pass_heads, adapters ? pass_weight : NULL};
    rt_backward_hooked(t->student, t->pass, batch, &t->layout, t->dhidden, adapters ? NULL : t->grads,
                       last || adapters ? &both : &s.inner);
    t->sent = t->sent || last;
}

/* Everything that is not part of a layer goes out behind the last backward pass; then all is awaited. */
static rt_status join_gradients(rt_trainer *t, rt_error *err)
{
    const rt_ranks *ranks = t->options.ranks;
    if (!ranks)
        return RT_OK;
    assert(t->sent);
    size_t at = 0;
    for (size_t l = 0; !t->options.adapters && l < t->config.n_layers;
         l++) { /* what lies between the layers */
        size_t begin, end;
        layer_elements(&t->layout, l, &begin, &end);
        assert(begin >= at);
        send(t, at, begin);
        at = end;
    }
    send(t, at, t->total);
    t->sent = false;
    const rt_status status = ranks->reduce_end(ranks->self, err);
    if (t->reduce_status != RT_OK) {
        *err = t->reduce_err;
        return t->reduce_status;
    }
    double sums[] = {t->sum.loss,         t->sum.kl_forward,       t->sum.kl_reverse,
                     t->sum.nll,          t->sum.features,         t->sum.taid,
                     (double)t->sum.rows, (double)t->sum.labelled, (double)t->sum.compared};
    if (status != RT_OK || ranks->sum(ranks->self, sums, sizeof sums / sizeof sums[0], err) != RT_OK)
        return err->status;
    t->sum.loss = sums[0];
    t->sum.kl_forward = sums[1];
    t->sum.kl_reverse = sums[2];
    t->sum.nll = sums[3];
    t->sum.features = sums[4];
    t->sum.taid = sums[5];
    t->sum.rows = (size_t)sums[6];
    t->sum.labelled = (size_t)sums[7];
    t->sum.compared = (size_t)sums[8];
    return RT_OK;
}

static void make_layer(void *context, size_t layer, const float *x, size_t n_tokens)
{
    const rt_trainer *t = context;
    (void)x;
    (void)n_tokens;
    if (layer < t->config.n_layers)
        rt_adapters_layer(t->options.adapters, layer);
}

rt_status rt_trainer_accumulate(rt_trainer *t, const rt_batch *batch, const rt_head_rows *rows, rt_error *err)
{
    rt_loss_mix mix;
    if (rows->mix)
        mix = *rows->mix;
    else
        rt_course_at(&mix, &t->options.mix, &t->options.course, t->step, t->options.schedule.total,
                     t->taid.t);
    if (t->features)
        rt_features_begin(t->features, t->pass, t->teacher_pass, batch, rows, t->values + t->trained,
                          t->grads + t->trained);
    if (t->teacher)
        rt_forward(t->teacher, t->teacher_pass, rows->across ? &rows->across->batch : batch,
                   t->features ? rt_features_tap : NULL, t->features);
    if (t->teacher && rt_stream_check(t->teacher, err) != RT_OK)
        return err->status;
    rt_forward(t->student, t->pass, batch, t->options.adapters ? make_layer : NULL, t);
    const rt_param *head = rt_layout_global(&t->layout, RT_GLOBAL_HEAD);
    if (!head)
        head = rt_layout_global(&t->layout, RT_GLOBAL_EMBED);
    double loss;
    if (rt_head_run(t->head, t->pass, t->teacher_pass, &mix, rows, batch->n_tokens, t->dhidden,
                    t->options.adapters ? NULL : t->grads + head->offset, t->stats, NULL, NULL, &loss,
                    err) != RT_OK) {
        char where[64];
        (void)snprintf(where, sizeof where, "step %llu", (unsigned long long)t->step + 1);
        return rt_error_within(err, where);
    }
    t->sum.loss += loss;
    add_stats(t, rows);
    back(t, batch);
    if (t->features)
        t->sum.features += rt_features_loss(t->features);
    return RT_OK;
}

static void norm_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    rt_trainer *t = context;
    t->norm_chunks[index] = rt_norm_chunk(t->grads, t->total, index);
}

typedef struct update_job {
    rt_trainer *t;
    rt_adamw_step decayed, plain;
} update_job;

static void update_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const update_job *job = context;
    rt_trainer *t = job->t;
    const rt_update_range *r = &t->ranges[index];
    size_t begin, end;
    rt_trainer_part(t, &begin, &end);
    if (r->begin >= begin && r->begin < end)
        rt_adamw_update(r->decay ? &job->decayed : &job->plain, t->grads, t->values, t->m, t->v,
                        t->options.adapters ? NULL : t->half, r->begin, r->end);
    memset(t->grads + r->begin, 0, (r->end - r->begin) * sizeof *t->grads);
}

static rt_status name_bad_tensor(const rt_trainer *t, rt_error *err)
{
    for (size_t i = 0; !t->options.adapters && i < t->layout.count; i++) {
        const rt_param *p = &t->layout.list[i];
        for (size_t k = 0; k < p->count; k++) {
            if (isfinite(t->grads[p->offset + k]))
                continue;
            char name[128];
            rt_param_name(name, &t->config, p);
            return rt_error_set(err, RT_NOT_FINITE,
                                "step %llu: the gradient of %s is not finite; lower the learning rate",
                                (unsigned long long)t->step + 1, name);
        }
    }
    for (size_t i = 0; i < t->factors.count; i++) {
        const rt_factor *f = &t->factors.list[i];
        const rt_param *p = &t->layout.list[f->param];
        for (size_t k = f->a; k < f->b + p->cols * t->factors.rank; k++)
            if (!isfinite(t->grads[k]))
                return rt_error_set(err, RT_NOT_FINITE,
                                    "step %llu: the gradient of the embedding's factors is not finite; lower "
                                    "the learning rate",
                                    (unsigned long long)t->step + 1);
    }
    return rt_error_set(err, RT_NOT_FINITE,
                        "step %llu: the gradient's norm overflows; lower the learning rate",
                        (unsigned long long)t->step + 1);
}

rt_status rt_trainer_update(rt_trainer *t, rt_step_report *report, rt_error *err)
{
    const size_t chunks = rt_norm_chunks(t->total);
    const rt_ranks *ranks = t->options.ranks;
    rt_factors_gradient(&t->factors, &t->layout, t->values, t->grads, t->pool);
    if (join_gradients(t, err) != RT_OK)
        return err->status;
    rt_pool_run(t->pool, chunks, norm_task, t);
    const double norm = rt_norm_total(t->norm_chunks, chunks);
    if (!isfinite(norm))
        return name_bad_tensor(t, err);
    const double factor = rt_schedule_at(&t->options.schedule, t->step);
    rt_adamw_options plain = t->options.adamw;
    plain.weight_decay = 0;
    const double clip = rt_clip_factor(norm, t->options.clip);
    update_job job = {t, rt_adamw_step_make(&t->options.adamw, t->step + 1, factor, clip),
                      rt_adamw_step_make(&plain, t->step + 1, factor, clip)};
    rt_pool_run(t->pool, t->n_ranges, update_task, &job);
    if (ranks && ranks->gather(ranks->self, t->values, t->parts, err) != RT_OK)
        return err->status;
    if (ranks || t->options.adapters)
        rt_trainer_sync(t); /* the others' parts; the merged matrices */
    else
        rt_factors_merge(&t->factors, &t->layout, t->values, t->half, t->pool);
    t->step++;
    const bool adaptive = t->options.course.adaptive;
    const double compared = (double)t->sum.compared, taid = adaptive ? t->taid.t : (double)NAN;
    if (adaptive)
        rt_taid_observe(&t->taid, t->sum.taid);
    *report = (rt_step_report){.step = t->step,
                               .rows = t->sum.rows,
                               .loss = t->sum.loss + t->sum.features,
                               .features = t->features ? t->sum.features : (double)NAN,
                               .taid = taid,
                               .kl_forward = t->sum.kl_forward / compared,
                               .kl_reverse = t->sum.kl_reverse / compared,
                               .nll = t->sum.nll / (double)t->sum.labelled,
                               .grad_norm = norm,
                               .lr = t->options.adamw.lr * factor};
    memset(&t->sum, 0, sizeof t->sum);
    return RT_OK;
}
