/* student/feature_train.c - see feature_train.h.
 *
 * The teacher's tap keeps its states of the rows that carry a loss, and its queries, keys and values.  The
 * student's states are in its pass; losses are made when the backward pass comes by their layer and their
 * gradient is added there.  Work is shared out by blocks of rows, and each sum is made in a fixed order, so
 * the result does not depend on the number of threads. */
#include "student/feature_train.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"
#include "model/pass.h"

enum { ROWS = 64, KINDS = 3, PROJECTION_ROWS = 64 };

struct rt_features {
    rt_feature_options options;
    const rt_model *student, *teacher;
    size_t d_s, d_t, tokens_max, heads;
    rt_arena arena;
    float *targets;          /* [n_pairs, tokens_max, d_t] the teacher's states of the rows */
    float *states, *dstates; /* [tokens_max, d_s] */
    float *room;             /* [tokens_max, d_t] */
    float *inverse_rms;      /* [tokens_max] */
    float *taught[KINDS];    /* [tokens_max, width] the teacher's queries, keys, values */
    float *own[KINDS];       /* the student's */
    float *dkv;              /* [tokens_max, width of the student's keys] */
    float *squares;          /* [threads][2 * sequence_max^2] */
    double *weights;         /* [tokens_max] of a relation's row */
    double *losses;          /* of tasks */
    const rt_pass *pass_s, *pass_t;
    const rt_batch *batch;
    const rt_head_rows *rows;
    const float *values;
    float *grads;
    double loss;
    size_t pair; /* at work */
    float *dx;
};

static size_t width_of(const rt_model_config *c, size_t kind)
{
    return (kind == 0 ? c->n_heads : c->n_heads_kv) * c->head_dim;
}

static size_t heads_of(const rt_feature_options *o, const rt_model_config *student)
{
    return o->relation_heads ? o->relation_heads : student->n_heads_kv;
}

rt_status rt_features_check(const rt_feature_options *o, const rt_model_config *student,
                            const rt_model_config *teacher, rt_error *err)
{
    if (o->hidden_weight != 0 && !o->projection && student->n_embd != teacher->n_embd)
        return rt_error_set(
            err, RT_INVALID,
            "features.projection none needs equal widths; the student's is %zu, the teacher's "
            "%zu: use learned",
            student->n_embd, teacher->n_embd);
    if (o->n_pairs > RT_FEATURE_PAIRS_MAX)
        return rt_error_set(err, RT_INVALID, "features: %zu pairs of layers; at most %d are possible",
                            o->n_pairs, (int)RT_FEATURE_PAIRS_MAX);
    for (size_t i = 0; o->hidden_weight != 0 && i < o->n_pairs; i++)
        if (o->pairs[i].student >= student->n_layers || o->pairs[i].teacher >= teacher->n_layers)
            return rt_error_set(
                err, RT_INVALID,
                "features: layers %zu and %zu are no pair: the student has %zu layers, the teacher %zu",
                o->pairs[i].student, o->pairs[i].teacher, student->n_layers, teacher->n_layers);
    if (o->relation_weight == 0)
        return RT_OK;
    const size_t heads = heads_of(o, student);
    if (o->relation_student >= student->n_layers || o->relation_teacher >= teacher->n_layers)
        return rt_error_set(err, RT_INVALID,
                            "features.relation_layers: the student has %zu layers, the teacher %zu",
                            student->n_layers, teacher->n_layers);
    if (o->sequence_max > RT_RELATION_TOKENS_MAX)
        return rt_error_set(err, RT_INVALID,
                            "features.relations compare all tokens of a document with each other: "
                            "data.tokens_max %zu is more than %d",
                            o->sequence_max, (int)RT_RELATION_TOKENS_MAX);
    for (size_t k = 0; k < KINDS; k++)
        if ((o->relations >> k & 1) &&
            (width_of(student, k) % heads != 0 || width_of(teacher, k) % heads != 0))
            return rt_error_set(err, RT_INVALID,
                                "features.relation_heads: %zu heads divide neither %zu (student) and %zu "
                                "(teacher) evenly",
                                heads, width_of(student, k), width_of(teacher, k));
    return RT_OK;
}

size_t rt_features_parameters(const rt_feature_options *o, const rt_model_config *student,
                              const rt_model_config *teacher)
{
    return o->hidden_weight != 0 && o->projection ? o->n_pairs * student->n_embd * teacher->n_embd : 0;
}

void rt_features_init(float *values, const rt_feature_options *o, const rt_model_config *student,
                      const rt_model_config *teacher, uint64_t seed)
{
    const size_t d_s = student->n_embd, d_t = teacher->n_embd,
                 n = rt_features_parameters(o, student, teacher);
    rt_rng rng = rt_rng_make(seed, 0x66656174); /* "feat" */
    const double sd = 1 / sqrt((double)d_s);
    for (size_t i = 0; i < n; i++) {
        const size_t at = i % (d_s * d_t);
        values[i] = d_s == d_t ? (float)(at / d_s == at % d_s) : (float)(sd * rt_rng_normal(&rng));
    }
}

static bool take_all(rt_features *f, rt_arena *arena, size_t *bytes)
{
    const rt_feature_options *o = &f->options;
    const rt_model_config *s = &f->student->config, *t = &f->teacher->config;
    const size_t n = f->tokens_max, pairs = o->hidden_weight != 0 ? o->n_pairs : 0, hidden = pairs ? n : 0,
                 related = o->relation_weight != 0 ? n : 0;
    const size_t square = related ? o->sequence_max * o->sequence_max * 2 : 0;
    const size_t tasks = rt_size_max(n / ROWS + 1, related ? n * KINDS * f->heads : 0);
    struct {
        void **to;
        size_t count, size;
    } wants[] = {
        {(void **)&f->targets, pairs * n * f->d_t, 4},
        {(void **)&f->states, hidden * f->d_s, 4},
        {(void **)&f->dstates, hidden * f->d_s, 4},
        {(void **)&f->room, hidden * f->d_t, 4},
        {(void **)&f->inverse_rms, hidden, 4},
        {(void **)&f->taught[0], related * width_of(t, 0), 4},
        {(void **)&f->taught[1], related * width_of(t, 1), 4},
        {(void **)&f->taught[2], related * width_of(t, 2), 4},
        {(void **)&f->own[0], related * width_of(s, 0), 4},
        {(void **)&f->own[1], related * width_of(s, 1), 4},
        {(void **)&f->own[2], related * width_of(s, 2), 4},
        {(void **)&f->dkv, related * width_of(s, 1), 4},
        {(void **)&f->squares, rt_pool_threads(f->student->pool) * square, 4},
        {(void **)&f->weights, related, sizeof(double)},
        {(void **)&f->losses, tasks, sizeof(double)},
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

rt_status rt_features_open(rt_features **out, const rt_feature_options *options, const rt_model *student,
                           const rt_model *teacher, size_t tokens_max, rt_error *err)
{
    *out = NULL;
    if (rt_features_check(options, &student->config, &teacher->config, err) != RT_OK)
        return err->status;
    rt_features *f = calloc(1, sizeof *f);
    if (!f)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the features");
    *f = (rt_features){.options = *options,
                       .student = student,
                       .teacher = teacher,
                       .d_s = student->config.n_embd,
                       .d_t = teacher->config.n_embd,
                       .tokens_max = tokens_max,
                       .heads = heads_of(options, &student->config)};
    size_t bytes;
    (void)take_all(f, NULL, &bytes);
    if (rt_arena_init(&f->arena, bytes, err) != RT_OK || !take_all(f, &f->arena, &bytes)) {
        rt_features_close(f);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the features (%zu MiB)", bytes >> 20);
    }
    *out = f;
    return RT_OK;
}

void rt_features_close(rt_features *f)
{
    if (!f)
        return;
    rt_arena_deinit(&f->arena);
    free(f);
}

size_t rt_features_bytes(const rt_features *f) { return f ? f->arena.used : 0; }
double rt_features_loss(const rt_features *f) { return f->loss; }

void rt_features_begin(rt_features *f, const rt_pass *student, const rt_pass *teacher, const rt_batch *batch,
                       const rt_head_rows *rows, const float *values, float *grads)
{
    f->pass_s = student;
    f->pass_t = teacher;
    f->batch = batch;
    f->rows = rows;
    f->values = values;
    f->grads = grads;
    f->loss = 0;
    if (f->options.relation_weight == 0)
        return;
    memset(f->weights, 0, f->tokens_max * sizeof *f->weights);
    size_t kinds = 0;
    for (size_t k = 0; k < KINDS; k++)
        kinds += f->options.relations >> k & 1;
    const double share = f->options.relation_weight / (double)(kinds * f->heads);
    for (size_t i = 0; i < rows->n; i++)
        f->weights[rows->rows[i]] = share * rows->scales[i];
}

/* ---- the teacher's side ---- */

static float normalise(float *out, const float *x, size_t d) /* x / rms; returns 1 / rms */
{
    double square = 0;
    for (size_t i = 0; i < d; i++)
        square += (double)x[i] * (double)x[i];
    const float r = (float)(1 / sqrt(square / (double)d + 1e-6));
    for (size_t i = 0; i < d; i++)
        out[i] = x[i] * r;
    return r;
}

/* Queries, keys and values of a layer, as rows of float32 by row of the batch. */
static void copy_heads(float *out[KINDS], const rt_features *f, const rt_model *model, const rt_pass *pass,
                       size_t layer)
{
    for (size_t k = 0; k < KINDS; k++) {
        const size_t width = width_of(&model->config, k);
        if (!(f->options.relations >> k & 1))
            continue;
        for (size_t s = 0; s < f->batch->n_segments; s++) {
            const rt_segment *segment = &f->batch->segments[s];
            const void *from =
                k == 0 ? rt_act_at(model, pass->kept[layer].q, segment->begin * width)
                       : rt_act_at(model, rt_segment_keys(model, pass, f->batch, layer, s, k == 2),
                                   segment->position * width);
            rt_act_load(model, out[k] + segment->begin * width, from, segment->count * width);
        }
    }
}

void rt_features_tap(void *features, size_t layer, const float *x, size_t n_tokens)
{
    rt_features *f = features;
    (void)n_tokens;
    for (size_t p = 0; f->options.hidden_weight != 0 && p < f->options.n_pairs; p++) {
        if (f->options.pairs[p].teacher + 1 != layer)
            continue;
        for (size_t i = 0; i < f->rows->n; i++)
            (void)normalise(f->targets + (p * f->tokens_max + i) * f->d_t,
                            x + (size_t)f->rows->rows[i] * f->d_t, f->d_t);
    }
    if (f->options.relation_weight != 0 && f->options.relation_teacher + 1 == layer)
        copy_heads(f->taught, f, f->teacher, f->pass_t, layer - 1);
}

/* ---- hidden states ---- */

/* One block of rows: their states, loss and gradient; each row belongs to one block, so dx is added to here.
 */
static void hidden_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const rt_features *f = context;
    const size_t begin = index * ROWS, n = rt_size_min(ROWS, f->rows->n - begin), d = f->d_s;
    const size_t layer = f->options.pairs[f->pair].student + 1;
    const float *stream = layer < f->student->config.n_layers ? f->pass_s->kept[layer].x1 : f->pass_s->x;
    const float *w = f->options.projection ? f->values + f->pair * f->d_t * d : NULL;
    double scales[ROWS];
    for (size_t i = begin; i < begin + n; i++) {
        f->inverse_rms[i] = normalise(f->states + i * d, stream + (size_t)f->rows->rows[i] * d, d);
        scales[i - begin] = f->options.hidden_weight / (double)f->options.n_pairs * f->rows->scales[i];
    }
    f->losses[index] = rt_hidden_block(f->options.hidden, f->states + begin * d,
                                       f->targets + (f->pair * f->tokens_max + begin) * f->d_t, w, scales, n,
                                       d, f->d_t, f->dstates + begin * d, f->room + begin * f->d_t);
    for (size_t i = begin; i < begin + n; i++) { /* through the division by the rms */
        const float *h = f->states + i * d, *g = f->dstates + i * d;
        double mean = 0;
        for (size_t k = 0; k < d; k++)
            mean += (double)g[k] * (double)h[k];
        const float m = (float)(mean / (double)d), r = f->inverse_rms[i];
        float *dx = f->dx + (size_t)f->rows->rows[i] * d;
        for (size_t k = 0; k < d; k++)
            dx[k] += r * (g[k] - h[k] * m);
    }
}

static void projection_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const rt_features *f = context;
    const size_t begin = index * PROJECTION_ROWS, end = rt_size_min(begin + PROJECTION_ROWS, f->d_t);
    rt_hidden_projection(f->grads + f->pair * f->d_t * f->d_s, f->room, f->states, f->rows->n, f->d_s, f->d_t,
                         begin, end);
}

static void stream(void *context, size_t layer, float *dx)
{
    rt_features *f = context;
    const size_t blocks = rt_size_ceil_div(f->rows->n, ROWS);
    for (size_t p = 0; f->options.hidden_weight != 0 && p < f->options.n_pairs && f->rows->n; p++) {
        if (f->options.pairs[p].student + 1 != layer)
            continue;
        f->pair = p;
        f->dx = dx;
        rt_pool_run(f->student->pool, blocks, hidden_task, f);
        for (size_t i = 0; i < blocks; i++)
            f->loss += f->losses[i];
        if (f->options.projection)
            rt_pool_run(f->student->pool, rt_size_ceil_div(f->d_t, PROJECTION_ROWS), projection_task, f);
    }
}

/* ---- relations ---- */

static void relation_task(void *context, size_t index, unsigned thread)
{
    const rt_features *f = context;
    const size_t head = index % f->heads, kind = index / f->heads % KINDS, s = index / f->heads / KINDS;
    const rt_segment *segment = &f->batch->segments[s];
    bool any = false;
    f->losses[index] = 0;
    for (size_t i = 0; i < segment->count; i++)
        any = any || f->weights[segment->begin + i] != 0;
    if (!any || !(f->options.relations >> kind & 1))
        return;
    assert(segment->count <= f->options.sequence_max);
    const size_t ws = width_of(&f->student->config, kind), wt = width_of(&f->teacher->config, kind);
    const size_t ds = ws / f->heads, dt = wt / f->heads;
    const rt_relation_states student = {f->own[kind] + segment->begin * ws + head * ds, ws, ds};
    const rt_relation_states teacher = {f->taught[kind] + segment->begin * wt + head * dt, wt, dt};
    /* the gradient goes over the student's own copy's place for queries; keys and values wait for their sum
     */
    float *out = (kind == 0 ? f->pass_s->back.dq : f->dkv) + segment->begin * ws + head * ds;
    f->losses[index] = rt_relation_block(
        &student, &teacher, f->weights + segment->begin, segment->count, out, ws,
        f->squares + (size_t)thread * 2 * f->options.sequence_max * f->options.sequence_max);
}

/* dk and dv of the pass are kept for each query head; a kv head's sum may be added to any of its group. */
static void add_to_heads(const rt_features *f, float *out)
{
    const rt_model_config *c = &f->student->config;
    const size_t hd = c->head_dim, group = c->n_heads / c->n_heads_kv, width = width_of(c, 1);
    for (size_t h = 0; h < c->n_heads_kv; h++)
        for (size_t row = 0; row < f->batch->n_tokens; row++)
            f->student->ops->add(out + (h * group * f->pass_s->tokens_max + row) * hd,
                                 f->dkv + row * width + h * hd, hd);
}

typedef struct kind_job {
    rt_features *f;
    size_t kind;
} kind_job;

static void kind_task(void *context, size_t index, unsigned thread)
{
    const kind_job *job = context;
    const size_t s = index / job->f->heads, head = index % job->f->heads;
    relation_task(job->f, (s * KINDS + job->kind) * job->f->heads + head, thread);
}

static void heads(void *context, size_t layer)
{
    rt_features *f = context;
    if (f->options.relation_weight == 0 || f->options.relation_student != layer || !f->rows->n)
        return;
    copy_heads(f->own, f, f->student, f->pass_s, layer);
    const size_t tasks = f->batch->n_segments * f->heads;
    for (size_t k = 0; k < KINDS; k++) {
        kind_job job = {f, k};
        if (!(f->options.relations >> k & 1))
            continue;
        if (k > 0)
            memset(f->dkv, 0, f->batch->n_tokens * width_of(&f->student->config, 1) * sizeof *f->dkv);
        rt_pool_run(f->student->pool, tasks, kind_task, &job);
        if (k > 0)
            add_to_heads(f, k == 1 ? f->pass_s->back.dk : f->pass_s->back.dv);
        for (size_t s = 0; s < f->batch->n_segments; s++)
            for (size_t h = 0; h < f->heads; h++)
                f->loss += f->losses[(s * KINDS + k) * f->heads + h];
    }
}

rt_backward_hooks rt_features_hooks(rt_features *f)
{
    return (rt_backward_hooks){.context = f, .stream = stream, .heads = heads};
}
