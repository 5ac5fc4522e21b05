/* student/survey.c - see survey.h.
 *
 * Layers are looked at in parallel, each by one task that goes through the rows in their order, so the sums
 * do not depend on the number of threads. */
#include "student/survey.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/families.h"
#include "model/pass.h"

/* ---- shapes ---- */

bool rt_cut_is_narrow(const rt_cut_sizes *sizes)
{
    return sizes->n_embd || sizes->n_ff || sizes->n_heads || sizes->n_heads_kv;
}

static rt_status cut_one(size_t *value, size_t wanted, const char *key, rt_error *err)
{
    if (wanted > *value)
        return rt_error_set(err, RT_INVALID, "student.%s: %zu is more than the teacher's %zu", key, wanted,
                            *value);
    *value = wanted ? wanted : *value;
    return RT_OK;
}

static rt_status cut_heads(rt_model_config *config, const rt_cut_sizes *sizes, rt_error *err)
{
    const size_t heads = config->n_heads, groups = config->n_heads_kv, each = heads / groups;
    size_t n_kv = sizes->n_heads_kv, n = sizes->n_heads;
    if (n_kv == 0)
        n_kv = each == 1 && n ? n : groups;
    if (n == 0)
        n = n_kv * each;
    if (cut_one(&config->n_heads, n, "n_heads", err) != RT_OK ||
        cut_one(&config->n_heads_kv, n_kv, "n_heads_kv", err) != RT_OK)
        return err->status;
    if (n % n_kv != 0 || n / n_kv > each)
        return rt_error_set(
            err, RT_INVALID,
            "student.n_heads: %zu heads on %zu kv heads; the teacher has %zu heads a kv head, "
            "and each kept kv head keeps the same number of them, %zu at most",
            n, n_kv, each, each);
    return RT_OK;
}

rt_status rt_cut_config(rt_model_config *config, const rt_cut_sizes *sizes, rt_error *err)
{
    if (!rt_cut_is_narrow(sizes))
        return RT_OK;
    if (config->experts.count || config->latent.kv_rank)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "a %s cannot be cut in width: experts and latents have no slices; take some of its "
            "layers instead",
            config->family);
    const size_t d = config->n_embd;
    if (cut_one(&config->n_embd, sizes->n_embd, "n_embd", err) != RT_OK ||
        cut_one(&config->n_ff, sizes->n_ff, "n_ff", err) != RT_OK || cut_heads(config, sizes, err) != RT_OK)
        return err->status;
    if (config->learned_positions && config->n_heads * config->head_dim != config->n_embd)
        return rt_error_set(
            err, RT_INVALID,
            "student.n_embd: files of the family %s cannot say head_dim, so n_embd must be n_heads x "
            "%zu = %zu",
            config->family, config->head_dim, config->n_heads * config->head_dim);
    if (config->embed_scale != 1) /* the family scales by the root of the width */
        config->embed_scale *= sqrt((double)config->n_embd / (double)d);
    return rt_model_config_check(config, "student", err);
}

/* ---- looking ---- */

typedef struct looking {
    rt_survey *survey;
    const rt_model *model;
    const rt_pass *pass;
    const rt_batch *batch;
    float *room;        /* [threads][room_floats] */
    size_t room_floats; /* gate, up and their product; a normed row; the heads' outputs and lengths */
} looking;

static void look_at_row(const looking *job, size_t layer, size_t row, float *room)
{
    const rt_model *m = job->model;
    const rt_kept *kept = &job->pass->kept[layer];
    const rt_layer *w = &m->layers[layer];
    const size_t d = m->config.n_embd, hd = m->config.head_dim, heads = m->config.n_heads;
    const size_t wide = w->gate_up.rows, ff = w->down.cols;
    rt_survey *s = job->survey;
    float *act = room + wide;
    float *lengths = room + heads * hd;
    rt_act_load(m, room, rt_act_at(m, kept->gate_up, row * wide), wide);
    rt_activate_row(m, act, room, ff);
    rt_importance_add(&s->units[layer], act, ff, 1);
    rt_norm_rows(m, room, kept->x1 + row * d, w->norm1, w->norm1_bias, 1, NULL, NULL);
    rt_importance_add(&s->channels[2 * layer], room, d, 1);
    rt_norm_rows(m, room, kept->x2 + row * d, w->norm2, w->norm2_bias, 1, NULL, NULL);
    rt_importance_add(&s->channels[2 * layer + 1], room, d, 1);
    rt_act_load(m, room, rt_act_at(m, kept->att, row * heads * hd), heads * hd);
    for (size_t h = 0; h < heads; h++) {
        double square = 0;
        for (size_t i = 0; i < hd; i++)
            square += (double)room[h * hd + i] * (double)room[h * hd + i];
        lengths[h] = (float)sqrt(square);
    }
    rt_importance_add(&s->heads[layer], lengths, heads, 1);
}

static void look_task(void *context, size_t index, unsigned thread)
{
    const looking *job = context;
    rt_survey *s = job->survey;
    const size_t n_layers = s->config.n_layers, d = s->config.n_embd;
    float *room = job->room + thread * job->room_floats;
    for (size_t i = 0; i < job->batch->n_segments; i++) {
        const rt_segment *segment = &job->batch->segments[i];
        if (index == n_layers) { /* the last norm */
            rt_importance_add(&s->channels[2 * n_layers], rt_pass_hidden(job->pass) + segment->begin * d, d,
                              segment->count);
            rt_importance_end_sequence(&s->channels[2 * n_layers]);
            continue;
        }
        for (size_t row = segment->begin; row < segment->begin + segment->count; row++)
            look_at_row(job, index, row, room);
        rt_importance_end_sequence(&s->units[index]);
        rt_importance_end_sequence(&s->heads[index]);
        rt_importance_end_sequence(&s->channels[2 * index]);
        rt_importance_end_sequence(&s->channels[2 * index + 1]);
    }
}

static rt_status take_counters(rt_survey *s, rt_error *err)
{
    const size_t n = s->config.n_layers;
    s->units = calloc(n, sizeof *s->units);
    s->heads = calloc(n, sizeof *s->heads);
    s->channels = calloc(2 * n + 1, sizeof *s->channels);
    if (!s->units || !s->heads || !s->channels)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the importance of %zu layers", n);
    rt_status status = RT_OK;
    for (size_t i = 0; i < n && status == RT_OK; i++) {
        status = rt_importance_init(&s->units[i], s->config.n_ff, err);
        if (status == RT_OK)
            status = rt_importance_init(&s->heads[i], s->config.n_heads, err);
    }
    for (size_t i = 0; i < 2 * n + 1 && status == RT_OK; i++)
        status = rt_importance_init(&s->channels[i], s->config.n_embd, err);
    return status;
}

/* The batch without its padding, and without documents that come a second time. */
static void trim(const rt_dealer *dealer, rt_deal *deal)
{
    const uint64_t again = dealer->cursor > dealer->docs->n_docs ? dealer->cursor - dealer->docs->n_docs : 0;
    deal->n_documents -= (size_t)again;
    deal->batch.n_segments = deal->n_documents;
    const rt_segment *last = &deal->segments[deal->n_documents - 1];
    deal->batch.n_tokens = last->begin + last->count;
}

static void look(rt_survey *s, looking *job, rt_pass *pass, rt_dealer *dealer, rt_deal *deal, size_t tokens)
{
    while (s->tokens < tokens && s->documents < dealer->docs->n_docs) {
        rt_dealer_next(dealer, deal);
        trim(dealer, deal);
        rt_forward(job->model, pass, &deal->batch, rt_influence_tap, &s->influence);
        job->batch = &deal->batch;
        if (s->units)
            rt_pool_run(job->model->pool, s->config.n_layers + 1, look_task, job);
        s->tokens += deal->batch.n_tokens;
        s->documents += deal->n_documents;
    }
}

rt_status rt_survey_run(rt_survey *out, const rt_model *teacher, const rt_documents *docs, uint64_t seed,
                        size_t tokens, size_t tokens_max, bool widths, rt_error *err)
{
    const rt_model_config *c = &teacher->config;
    rt_pass *pass = NULL;
    rt_dealer dealer = {0};
    rt_deal deal = {0};
    looking job = {.survey = out, .model = teacher};
    *out = (rt_survey){.config = *c};
    if (widths && teacher->precision == RT_PRECISION_INT8)
        return rt_error_set(err, RT_INVALID, "a packed model cannot be looked into; open it as bf16");
    job.room_floats = rt_size_max(rt_size_max(3 * c->n_ff, c->n_embd), c->n_heads * (c->head_dim + 1));
    job.room = calloc(rt_pool_threads(teacher->pool) * job.room_floats, sizeof *job.room);
    rt_status status =
        job.room ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory to look at %zu layers", c->n_layers);
    if (status == RT_OK)
        status = rt_influence_init(&out->influence, c->n_layers, c->n_embd, tokens_max, err);
    if (status == RT_OK && widths)
        status = take_counters(out, err);
    if (status == RT_OK)
        status = rt_dealer_init(&dealer, docs, seed, tokens_max, err);
    if (status == RT_OK)
        status = rt_deal_init(&deal, tokens_max, err);
    if (status == RT_OK)
        status = rt_pass_open(&pass, teacher, tokens_max, widths, err);
    job.pass = pass;
    if (status == RT_OK)
        look(out, &job, pass, &dealer, &deal, tokens);
    rt_pass_close(pass);
    rt_deal_deinit(&deal);
    rt_dealer_deinit(&dealer);
    free(job.room);
    return status;
}

void rt_survey_deinit(rt_survey *s)
{
    for (size_t i = 0; s->units && i < s->config.n_layers; i++)
        rt_importance_deinit(&s->units[i]);
    for (size_t i = 0; s->heads && i < s->config.n_layers; i++)
        rt_importance_deinit(&s->heads[i]);
    for (size_t i = 0; s->channels && i < 2 * s->config.n_layers + 1; i++)
        rt_importance_deinit(&s->channels[i]);
    free(s->units);
    free(s->heads);
    free(s->channels);
    rt_influence_deinit(&s->influence);
    *s = (rt_survey){0};
}

/* ---- the cut ---- */

static rt_status cut_channels(uint32_t *kept, const rt_survey *s, size_t keep, double *room, rt_error *err)
{
    const size_t d = s->config.n_embd;
    double *sums = room, *one = room + d;
    memset(sums, 0, d * sizeof *sums);
    for (size_t i = 0; i < 2 * s->config.n_layers + 1; i++) {
        rt_importance_scores(&s->channels[i], RT_IMPORTANCE_SEQMEAN_BATCHL2, one);
        for (size_t c = 0; c < d; c++)
            sums[c] += one[c];
    }
    return rt_importance_keep(kept, keep, sums, d, err);
}

/* The best kv heads by the sum of squares of their queries', then the best queries of each. */
static rt_status cut_layer_heads(uint32_t *heads, uint32_t *groups, const rt_survey *s, size_t layer,
                                 const rt_model_config *student, double *room, rt_error *err)
{
    const size_t n_groups = s->config.n_heads_kv, size = s->config.n_heads / n_groups;
    const size_t each = student->n_heads / student->n_heads_kv;
    double *scores = room, *sums = room + s->config.n_heads;
    rt_importance_scores(&s->heads[layer], RT_IMPORTANCE_SEQMEAN_BATCHL2, scores);
    for (size_t g = 0; g < n_groups; g++) {
        sums[g] = 0;
        for (size_t i = 0; i < size; i++)
            sums[g] += scores[g * size + i] * scores[g * size + i];
    }
    if (rt_importance_keep(groups, student->n_heads_kv, sums, n_groups, err) != RT_OK)
        return err->status;
    for (size_t g = 0; g < student->n_heads_kv; g++) {
        uint32_t *out = heads + g * each;
        if (rt_importance_keep(out, each, scores + groups[g] * size, size, err) != RT_OK)
            return err->status;
        for (size_t i = 0; i < each; i++)
            out[i] += groups[g] * (uint32_t)size;
    }
    return RT_OK;
}

rt_status rt_survey_cut(rt_cut *out, const rt_survey *s, const rt_model_config *student, const size_t *layers,
                        rt_error *err)
{
    const rt_model_config *c = &s->config;
    const size_t n = student->n_layers, ff = student->n_ff;
    *out = (rt_cut){.channels = calloc(student->n_embd, sizeof(uint32_t)),
                    .units = calloc(n * ff, sizeof(uint32_t)),
                    .heads = calloc(n * student->n_heads, sizeof(uint32_t)),
                    .groups = calloc(n * student->n_heads_kv, sizeof(uint32_t))};
    double *room = calloc(2 * rt_size_max(rt_size_max(c->n_embd, c->n_ff), c->n_heads), sizeof *room);
    rt_status status = out->channels && out->units && out->heads && out->groups && room
                           ? RT_OK
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for a cut of %zu layers", n);
    if (status == RT_OK)
        status = cut_channels(out->channels, s, student->n_embd, room, err);
    for (size_t l = 0; l < n && status == RT_OK; l++) {
        rt_importance_scores(&s->units[layers[l]], RT_IMPORTANCE_SEQMEAN_BATCHL2, room);
        status = rt_importance_keep(out->units + l * ff, ff, room, c->n_ff, err);
        if (status == RT_OK)
            status = cut_layer_heads(out->heads + l * student->n_heads, out->groups + l * student->n_heads_kv,
                                     s, layers[l], student, room, err);
    }
    free(room);
    out->map = (rt_width_map){out->channels, out->units, out->heads, out->groups, layers};
    if (status != RT_OK)
        rt_cut_deinit(out);
    return status;
}

void rt_cut_deinit(rt_cut *cut)
{
    free(cut->channels);
    free(cut->units);
    free(cut->heads);
    free(cut->groups);
    *cut = (rt_cut){0};
}
