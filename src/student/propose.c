/* student/propose.c - see propose.h. */
#include "student/propose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

enum { CANDIDATES_MAX = 1 << 16, WIDTHS_MAX = 8, HEADS_MAX = 64 };

typedef struct list {
    rt_proposal *items;
    size_t count;
    const rt_model_config *teacher;
    double wanted, smallest;
} list;

static size_t or_all(size_t value, size_t all) { return value ? value : all; }

static double squared_log(double share) { return log(share) * log(share); }

static double harm_of(const rt_model_config *t, const rt_proposal *p)
{
    const double layers = (double)p->n_layers / (double)t->n_layers;
    const double units = (double)or_all(p->sizes.n_ff, t->n_ff) / (double)t->n_ff;
    const double heads = (double)or_all(p->sizes.n_heads, t->n_heads) / (double)t->n_heads;
    const double width = (double)or_all(p->sizes.n_embd, t->n_embd) / (double)t->n_embd;
    return squared_log(units) + 2 * squared_log(layers) + 2 * squared_log(heads) + 4 * squared_log(width);
}

/* Parameters of a shape; 0 where it cannot be made. */
static double count(const rt_model_config *teacher, size_t n_layers, const rt_cut_sizes *sizes)
{
    size_t map[RT_LAYERS_MAX];
    rt_model_config config;
    rt_error unused;
    for (size_t i = 0; i < n_layers; i++) /* as an even choice takes them: layers may differ */
        map[i] = n_layers == 1 ? 0 : i * (teacher->n_layers - 1) / (n_layers - 1);
    rt_model_config_take_layers(&config, teacher, map, n_layers);
    return rt_cut_config(&config, sizes, &unused) == RT_OK ? (double)rt_model_config_parameters(&config) : 0;
}

static void keep(list *l, size_t n_layers, const rt_cut_sizes *sizes, double tolerance)
{
    const double parameters = count(l->teacher, n_layers, sizes);
    if (parameters > 0 && (l->smallest == 0 || parameters < l->smallest))
        l->smallest = parameters;
    if (parameters == 0 || l->count == CANDIDATES_MAX || fabs(parameters - l->wanted) > tolerance)
        return;
    rt_proposal p = {.n_layers = n_layers, .sizes = *sizes, .parameters = parameters};
    p.harm = harm_of(l->teacher, &p);
    l->items[l->count++] = p;
}

/* The number of MLP units that brings a shape to the size: parameters grow evenly with them. */
static void fit_units(list *l, size_t n_layers, rt_cut_sizes sizes)
{
    const size_t all = l->teacher->n_ff, step = all >= 2048 ? 128 : all >= 256 ? 32 : 4;
    const double whole = count(l->teacher, n_layers, &sizes);
    if (whole == 0 || all < 2 * step)
        return;
    keep(l, n_layers, &sizes, 0.04 * l->wanted);
    sizes.n_ff = all - step;
    const double a_step = whole - count(l->teacher, n_layers, &sizes);
    const double steps = round((whole - l->wanted) / a_step);
    sizes.n_ff = all / 4 / step * step + step;
    keep(l, n_layers, &sizes, 0); /* for the smallest */
    if (steps < 1 || (double)all - steps * (double)step < (double)all / 4)
        return;
    sizes.n_ff = all - (size_t)steps * step;
    keep(l, n_layers, &sizes, 0.04 * l->wanted);
}

/* Numbers of heads: fewer queries for each kv head, then fewer kv heads with all their queries. */
static size_t list_heads(rt_cut_sizes *out, const rt_model_config *t)
{
    const size_t each = t->n_heads / t->n_heads_kv;
    size_t n = 0;
    out[n++] = (rt_cut_sizes){0};
    for (size_t q = each - 1; q >= 1 && q * 3 >= each && n < HEADS_MAX / 2; q--)
        out[n++] = (rt_cut_sizes){.n_heads = q * t->n_heads_kv};
    for (size_t kv = t->n_heads_kv - 1; kv >= 1 && kv * 3 >= t->n_heads_kv && n < HEADS_MAX; kv--)
        out[n++] = (rt_cut_sizes){.n_heads = kv * each, .n_heads_kv = kv};
    return n;
}

static size_t list_widths(size_t *out, const rt_model_config *t)
{
    const size_t d = t->n_embd, step = d >= 512 ? 64 : d >= 128 ? 32 : 8;
    size_t n = 0;
    out[n++] = 0;
    for (size_t eighths = 7; eighths >= 4; eighths--) {
        const size_t width = d * eighths / 8 / step * step;
        if (width && width < d && width != out[n - 1])
            out[n++] = width;
    }
    return n;
}

static void list_cuts(list *l)
{
    const rt_model_config *t = l->teacher;
    const bool narrow = !t->experts.count && !t->latent.kv_rank;
    rt_cut_sizes heads[HEADS_MAX];
    size_t widths[WIDTHS_MAX];
    const size_t n_heads = narrow && !t->learned_positions ? list_heads(heads, t) : 1;
    const size_t n_widths = narrow && !t->learned_positions ? list_widths(widths, t) : 1;
    heads[0] = (rt_cut_sizes){0};
    widths[0] = 0;
    const double a_layer = (count(t, t->n_layers, heads) - count(t, rt_size_max(t->n_layers / 2, 1), heads)) /
                           (double)(t->n_layers - rt_size_max(t->n_layers / 2, 1) + (t->n_layers == 1));
    for (size_t n = t->n_layers; n >= 1 && 3 * n >= t->n_layers; n--) {
        keep(l, n, &heads[0], narrow ? 0.04 * l->wanted : fmax(0.5 * a_layer, 0.04 * l->wanted));
        for (size_t h = 0; narrow && h < n_heads; h++)
            for (size_t w = 0; w < n_widths; w++) {
                rt_cut_sizes sizes = heads[h];
                sizes.n_embd = widths[w];
                fit_units(l, n, sizes);
            }
    }
}

static int by_harm(const void *a, const void *b)
{
    const rt_proposal *x = a, *y = b;
    if (x->harm != y->harm)
        return x->harm < y->harm ? -1 : 1;
    return x->n_layers > y->n_layers ? -1 : x->n_layers < y->n_layers;
}

/* Do two shapes cut the same axes, and none of them by much more? */
static bool alike(const rt_model_config *t, const rt_proposal *a, const rt_proposal *b)
{
    const double layers = log((double)a->n_layers / (double)b->n_layers);
    const double units = log((double)or_all(a->sizes.n_ff, t->n_ff) / (double)or_all(b->sizes.n_ff, t->n_ff));
    const bool same_axes = (a->n_layers == t->n_layers) == (b->n_layers == t->n_layers) &&
                           !a->sizes.n_ff == !b->sizes.n_ff && a->sizes.n_heads == b->sizes.n_heads &&
                           a->sizes.n_embd == b->sizes.n_embd;
    return same_axes && fabs(layers) < 0.25 && fabs(units) < 0.5;
}

rt_status rt_propose_cuts(rt_proposal *out, size_t *n, size_t n_max, const rt_model_config *teacher,
                          double parameters, rt_error *err)
{
    list l = {.items = calloc(CANDIDATES_MAX, sizeof *l.items), .teacher = teacher, .wanted = parameters};
    *n = 0;
    if (!l.items)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a list of shapes");
    list_cuts(&l);
    qsort(l.items, l.count, sizeof *l.items, by_harm);
    for (size_t i = 0; i < l.count && *n < n_max; i++) {
        bool seen = l.items[i].harm == 0; /* the teacher itself */
        for (size_t k = 0; k < *n && !seen; k++)
            seen = alike(teacher, &l.items[i], &out[k]);
        if (!seen)
            out[(*n)++] = l.items[i];
    }
    const double whole = (double)rt_model_config_parameters(teacher);
    if (*n == 0 && parameters >= whole)
        (void)rt_error_set(
            err, RT_INVALID,
            "the teacher has %.4g M parameters: nothing of %.4g M can be cut out of it; take a larger "
            "teacher, or train the shape you want with student.init random",
            whole / 1e6, parameters / 1e6);
    else if (*n == 0)
        (void)rt_error_set(
            err, RT_INVALID,
            "no cut of the teacher (%.4g M parameters) has %.4g M: the smallest that are proposed have "
            "%.4g M; distil into one of those and cut it again",
            whole / 1e6, parameters / 1e6, l.smallest / 1e6);
    free(l.items);
    return *n ? RT_OK : RT_INVALID;
}
