/* judge/vectors_plan.c - cases of starting a student (importance, low rank) and of planning (operations,
 * scaling law, cost). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "judge/vectors_case.h"
#include "student/cost.h"
#include "student/init.h"

enum { UNITS_MAX = 1 << 20, SIDE_MAX = 2048 };

static rt_status check_svd(vec_run *run, rt_error *err)
{
    vec_array w, product, singular;
    double fro_error, *left, *right, *values;
    const double rank_wanted = vec_param(run, "rank", 0);
    if (vec_tensor(run, "in", "W", &w, err) != RT_OK)
        return err->status;
    if (w.n_dims != 2 || w.shape[0] > SIDE_MAX || w.shape[1] > SIDE_MAX || w.n == 0 || !(rank_wanted >= 1) ||
        rank_wanted > SIDE_MAX)
        return vec_bad(run, err, "in.W is no matrix of 1 to %d a side, or rank is out of range",
                       (int)SIDE_MAX);
    const size_t rows = w.shape[0], cols = w.shape[1], rank = (size_t)rank_wanted;
    const size_t side = rows < cols ? rows : cols;
    if (vec_tensor_sized(run, "out", "product", w.n, &product, err) != RT_OK ||
        vec_tensor_sized(run, "out", "singular", side, &singular, err) != RT_OK ||
        vec_number(run, "out", "fro_error", &fro_error, err) != RT_OK ||
        vec_room(run, &left, rows * rank, sizeof *left, err) != RT_OK ||
        vec_room(run, &right, cols * rank, sizeof *right, err) != RT_OK ||
        vec_room(run, &values, side, sizeof *values, err) != RT_OK ||
        rt_svd_factor(left, right, values, w.x, rows, cols, rank, err) != RT_OK)
        return err->status;
    double rest = 0;
    for (size_t i = 0; i < side; i++) {
        vec_check(run, values[i], singular.x[i], vec_tol_double);
        rest += i >= rank ? values[i] * values[i] : 0;
    }
    vec_check(run, sqrt(rest), fro_error, vec_tol_double);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) {
            double sum = 0;
            for (size_t k = 0; k < rank; k++)
                sum += left[r * rank + k] * right[k * cols + c];
            vec_check(run, sum, product.x[r * cols + c], vec_tol_double);
        }
    }
    return RT_OK;
}

static rt_status check_scores(vec_run *run, const rt_importance *importance, rt_error *err)
{
    static const struct {
        const char *role;
        rt_importance_kind kind;
    } kinds[] = {{"mean_abs", RT_IMPORTANCE_MEAN_ABS},
                 {"rms", RT_IMPORTANCE_RMS},
                 {"seqmean_batchl2", RT_IMPORTANCE_SEQMEAN_BATCHL2}};
    double *scores;
    uint32_t *order;
    vec_array ref;
    if (vec_room(run, &scores, importance->units, sizeof *scores, err) != RT_OK ||
        vec_room(run, &order, importance->units, sizeof *order, err) != RT_OK)
        return err->status;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        if (vec_tensor_sized(run, "out", kinds[k].role, importance->units, &ref, err) != RT_OK)
            return err->status;
        rt_importance_scores(importance, kinds[k].kind, scores);
        for (size_t u = 0; u < importance->units; u++)
            vec_check(run, scores[u], ref.x[u], vec_tol_double);
    }
    /* scores now holds the last kind's */
    if (vec_tensor_sized(run, "out", "order_seqmean_batchl2", importance->units, &ref, err) != RT_OK ||
        rt_importance_order(order, scores, importance->units, err) != RT_OK)
        return err->status;
    for (size_t u = 0; u < importance->units; u++)
        vec_check_true(run, (double)order[u] == ref.x[u]);
    return RT_OK;
}

static rt_status check_importance(vec_run *run, rt_error *err)
{
    vec_array act;
    if (vec_tensor(run, "in", "act", &act, err) != RT_OK)
        return err->status;
    if (act.n_dims != 3 || act.n == 0 || act.shape[2] > UNITS_MAX)
        return vec_bad(run, err, "in.act is not [batch, sequence, unit]");
    const size_t length = act.shape[1], units = act.shape[2];
    rt_importance importance;
    if (rt_importance_init(&importance, units, err) != RT_OK)
        return err->status;
    for (size_t b = 0; b < act.shape[0]; b++) {
        rt_importance_add_double(&importance, act.x + b * length * units, units, length);
        rt_importance_end_sequence(&importance);
    }
    const rt_status status = check_scores(run, &importance, err);
    rt_importance_deinit(&importance);
    return status;
}

/* Numbers of an object, each under its name. */
typedef struct named {
    const char *name;
    double *to;
} named;

static rt_status read_named(const vec_run *run, const json_t *object, const named *list, size_t n,
                            rt_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_object_get(object, list[i].name);
        if (!json_is_number(value))
            return vec_bad(run, err, "%s is not a number", list[i].name);
        *list[i].to = json_number_value(value);
    }
    return RT_OK;
}
#define READ_NAMED(run, object, list, err)                                                                   \
    read_named(run, object, list, sizeof(list) / sizeof((list)[0]), err)

static rt_status check_scaling(vec_run *run, rt_error *err)
{
    rt_scaling_supervised s;
    rt_scaling_distilled d;
    const named alone[] = {{"E", &s.e},         {"A", &s.a},       {"B", &s.b},
                           {"alpha", &s.alpha}, {"beta", &s.beta}, {"gamma", &s.gamma}};
    const named taught[] = {{"A", &d.a},       {"B", &d.b},         {"alpha", &d.alpha},
                            {"beta", &d.beta}, {"gamma", &d.gamma}, {"c0", &d.c0},
                            {"c1", &d.c1},     {"f1", &d.f1},       {"d1", &d.d1}};
    const json_t *params = json_object_get(run->entry, "params");
    if (READ_NAMED(run, json_object_get(params, "supervised"), alone, err) != RT_OK ||
        READ_NAMED(run, json_object_get(params, "distillation"), taught, err) != RT_OK)
        return err->status;
    size_t i;
    json_t *example;
    json_array_foreach(json_object_get(run->entry, "examples"), i, example)
    {
        double n, tokens, teacher, supervised, distilled;
        const named wanted[] = {{"N", &n},
                                {"D", &tokens},
                                {"L_T", &teacher},
                                {"supervised", &supervised},
                                {"distilled", &distilled}};
        if (READ_NAMED(run, example, wanted, err) != RT_OK)
            return err->status;
        vec_check(run, rt_scaling_loss_supervised(&s, n, tokens), supervised, vec_tol_double);
        vec_check(run, rt_scaling_loss_distilled(&d, &s, n, tokens, teacher), distilled, vec_tol_double);
    }
    return RT_OK;
}

static rt_status check_flops(vec_run *run, rt_error *err)
{
    size_t i;
    json_t *example;
    json_array_foreach(json_object_get(run->entry, "examples"), i, example)
    {
        double layers, d, heads, kv, hd, ffn, vocab, length, matmul, forward, train;
        const named shape[] = {{"L", &layers}, {"d", &d},     {"H", &heads},  {"KVh", &kv},
                               {"hdim", &hd},  {"ffn", &ffn}, {"Vv", &vocab}, {"S", &length}};
        const named out[] = {{"matmul_params", &matmul}, {"forward", &forward}, {"train", &train}};
        if (READ_NAMED(run, example, shape, err) != RT_OK ||
            READ_NAMED(run, json_object_get(example, "out"), out, err) != RT_OK)
            return err->status;
        for (size_t k = 0; k < sizeof shape / sizeof shape[0]; k++)
            if (!(*shape[k].to >= 1 && *shape[k].to <= 1 << 24) || layers > RT_LAYERS_MAX)
                return vec_bad(run, err, "%s is out of range", shape[k].name);
        const rt_model_config config = {.n_layers = (size_t)layers,
                                        .n_embd = (size_t)d,
                                        .n_heads = (size_t)heads,
                                        .n_heads_kv = (size_t)kv,
                                        .head_dim = (size_t)hd,
                                        .n_ff = (size_t)ffn,
                                        .n_vocab = (size_t)vocab,
                                        .gated_mlp = true};
        rt_cost_shape cost;
        rt_cost_shape_of(&cost, &config);
        vec_check(run, cost.matmul, matmul, vec_tol_double);
        vec_check(run, rt_cost_forward(&cost, length), forward, vec_tol_double);
        vec_check(run, rt_cost_train(&cost, length, false), train, vec_tol_double);
    }
    return RT_OK;
}

static rt_status check_cost(vec_run *run, rt_error *err)
{
    double active, tokens, hours, price, pretrain, peak, flops, usd, rate, share;
    const named params[] = {{"active", &active},   {"tokens", &tokens},
                            {"gpu_hours", &hours}, {"usd_per_hour", &price},
                            {"peak_bf16", &peak},  {"pretrain_gpu_hours", &pretrain}};
    const named out[] = {
        {"flops_6nd", &flops}, {"usd", &usd}, {"flop_per_s_per_gpu", &rate}, {"share_of_bf16_peak", &share}};
    if (READ_NAMED(run, json_object_get(run->entry, "params"), params, err) != RT_OK ||
        READ_NAMED(run, json_object_get(run->entry, "out"), out, err) != RT_OK)
        return err->status;
    const double all = rt_cost_training_rule(active, tokens);
    vec_check(run, all, flops, vec_tol_double);
    vec_check(run, hours * price, usd, vec_tol_double);
    vec_check(run, all / (pretrain * 3600), rate, vec_tol_double);
    vec_check(run, all / (pretrain * 3600) / peak, share, vec_tol_double);
    return RT_OK;
}

rt_status vec_plan(vec_run *run, bool *covered, rt_error *err)
{
    *covered = true;
    if (strcmp(run->loss, "svd") == 0)
        return check_svd(run, err);
    if (strcmp(run->loss, "activation_importance") == 0)
        return check_importance(run, err);
    if (strcmp(run->loss, "scaling") == 0)
        return check_scaling(run, err);
    return strcmp(run->loss, "flops") == 0 ? check_flops(run, err) : check_cost(run, err);
}
