/* guard/reference.c - see reference.h: the figures' file, the score, the p-value. */
#include "guard/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"

const char *const rt_guard_class_names[RT_GUARD_CLASSES] = {"people", "heavy people", "programs"};
enum { FILE_BYTES_MAX = 16 << 20 };

__asm__(".section .rodata\n"
        ".balign 16\n"
        "rt_guard_reference_file:\n"
        ".incbin \"" RT_GUARD_DATA_DIR "/reference.json\"\n"
        "rt_guard_reference_file_end:\n"
        ".previous\n");
extern const char rt_guard_reference_file[] __attribute__((visibility("hidden")));
extern const char rt_guard_reference_file_end[] __attribute__((visibility("hidden")));

static rt_status number(float *out, const json_t *object, const char *key, const char *where, rt_error *err)
{
    double value;
    if (rt_json_get_real(object, key, &value, where, err) != RT_OK)
        return err->status;
    if (!isfinite(value) || fabs(value) > 1e9)
        return rt_error_set(err, RT_CORRUPT, "%.120s: \"%s\" is out of range", where, key);
    *out = (float)value;
    return RT_OK;
}

/* A list of numbers in ascending order. */
static rt_status ascending(float *out, size_t count, const json_t *list, const char *what, const char *where,
                           rt_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        out[i] = (float)json_number_value(value);
        if (!json_is_number(value) || !isfinite(out[i]) || (i && out[i] < out[i - 1]))
            return rt_error_set(err, RT_CORRUPT, "%.120s: \"%s\" must hold numbers in ascending order", where,
                                what);
    }
    return RT_OK;
}

static rt_status read_term(rt_guard_reference *r, const json_t *json, const char *where, rt_error *err)
{
    const char *name;
    if (rt_json_get_string(json, "feature", &name, where, err) != RT_OK)
        return err->status;
    const int feature = rt_guard_feature_find(name);
    if (feature < 0)
        return rt_error_set(err, RT_CORRUPT, "%.120s: no signal gives \"%.60s\"", where, name);
    rt_guard_term *term = &r->terms[feature];
    if (number(&term->centre, json, "centre", where, err) != RT_OK ||
        number(&term->scale, json, "scale", where, err) != RT_OK ||
        number(&term->low, json, "low", where, err) != RT_OK ||
        number(&term->high, json, "high", where, err) != RT_OK ||
        number(&term->weight, json, "weight", where, err) != RT_OK)
        return err->status;
    if (term->scale <= 0 || term->low > term->high)
        return rt_error_set(err, RT_CORRUPT, "%.120s: \"%.60s\" needs a scale over 0 and low <= high", where,
                            name);
    for (size_t k = 0; k < RT_GUARD_CLASSES; k++) {
        const json_t *list = json_object_get(json_object_get(json, "quantiles"), rt_guard_class_names[k]);
        if (json_array_size(list) != RT_GUARD_QUANTILES)
            return rt_error_set(err, RT_CORRUPT, "%.120s: \"%.60s\" needs %d quantiles of class %s", where,
                                name, RT_GUARD_QUANTILES, rt_guard_class_names[k]);
        if (ascending(term->quantiles[k], RT_GUARD_QUANTILES, list, "quantiles", where, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status read_floats(float *out, size_t count, const json_t *list, const char *what,
                             const char *where, rt_error *err)
{
    if (json_array_size(list) != count)
        return rt_error_set(err, RT_CORRUPT, "%.120s: \"%s\" of a tree needs %zu numbers", where, what,
                            count);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        if (json_is_null(value) && what[0] == 't') { /* a node that asks nothing */
            out[i] = INFINITY;
            continue;
        }
        out[i] = (float)json_number_value(value);
        if (!json_is_number(value) || !isfinite(out[i]))
            return rt_error_set(err, RT_CORRUPT, "%.120s: \"%s\" of a tree must hold numbers", where, what);
    }
    return RT_OK;
}

static rt_status read_tree(rt_boost_tree *tree, const json_t *json, const char *where, rt_error *err)
{
    const json_t *asks = json_object_get(json, "asks");
    if (json_array_size(asks) != RT_BOOST_SPLITS)
        return rt_error_set(err, RT_CORRUPT, "%.120s: a tree needs %d features in \"asks\"", where,
                            RT_BOOST_SPLITS);
    for (size_t i = 0; i < RT_BOOST_SPLITS; i++) {
        const char *name = json_string_value(json_array_get(asks, i));
        const int feature = name ? rt_guard_feature_find(name) : -1;
        if (feature < 0)
            return rt_error_set(err, RT_CORRUPT, "%.120s: no signal gives \"%.60s\"", where,
                                name ? name : "?");
        tree->feature[i] = (uint8_t)feature;
    }
    if (read_floats(tree->threshold, RT_BOOST_SPLITS, json_object_get(json, "thresholds"), "thresholds",
                    where, err) != RT_OK)
        return err->status;
    return read_floats(tree->value, RT_BOOST_NODES, json_object_get(json, "values"), "values", where, err);
}

static rt_status read_trees(rt_guard_reference *r, const json_t *list, const char *where, rt_error *err)
{
    r->n_trees = json_array_size(list);
    if (r->n_trees > RT_BOOST_TREES_MAX)
        return rt_error_set(err, RT_CORRUPT, "%.120s: holds %zu trees; %d are the most", where, r->n_trees,
                            RT_BOOST_TREES_MAX);
    r->trees = calloc(r->n_trees + 1, sizeof *r->trees);
    if (!r->trees)
        return rt_error_set(err, RT_NO_MEMORY, "%.120s: no memory for its trees", where);
    for (size_t t = 0; t < r->n_trees; t++)
        if (read_tree(&r->trees[t], json_array_get(list, t), where, err) != RT_OK)
            return err->status;
    return RT_OK;
}

static rt_status fill(rt_guard_reference *r, const json_t *json, const char *where, rt_error *err)
{
    const json_t *terms = json_object_get(json, "terms"), *benign = json_object_get(json, "benign");
    const char *format;
    if (rt_json_get_string(json, "format", &format, where, err) != RT_OK ||
        number(&r->bias, json, "bias", where, err) != RT_OK)
        return err->status;
    if (strcmp(format, "retort guard reference 1") != 0)
        return rt_error_set(err, RT_CORRUPT, "%.120s: format \"%.40s\" is not known", where, format);
    r->habit = 0.5F;
    if (json_object_get(json, "habit") && number(&r->habit, json, "habit", where, err) != RT_OK)
        return err->status;
    if (r->habit < 0 || r->habit > 0.95F)
        return rt_error_set(err, RT_CORRUPT, "%.120s: \"habit\" must lie between 0 and 0.95", where);
    for (size_t f = 0; f < RT_GUARD_FEATURES; f++)
        r->terms[f].scale = 1;
    for (size_t i = 0; i < json_array_size(terms); i++)
        if (read_term(r, json_array_get(terms, i), where, err) != RT_OK)
            return err->status;
    if (read_trees(r, json_object_get(json, "trees"), where, err) != RT_OK)
        return err->status;
    for (size_t k = 0; k < RT_GUARD_CLASSES; k++) {
        const json_t *list = json_object_get(benign, rt_guard_class_names[k]);
        r->n_benign[k] = json_array_size(list);
        if (r->n_benign[k] < 1 || r->n_benign[k] > RT_GUARD_CALIBRATION_MAX)
            return rt_error_set(err, RT_CORRUPT, "%.120s: needs 1 to %d benign scores of class %s", where,
                                RT_GUARD_CALIBRATION_MAX, rt_guard_class_names[k]);
        r->benign[k] = calloc(r->n_benign[k], sizeof *r->benign[k]);
        if (!r->benign[k])
            return rt_error_set(err, RT_NO_MEMORY, "%.120s: no memory for the benign scores", where);
        if (ascending(r->benign[k], r->n_benign[k], list, "benign", where, err) != RT_OK)
            return err->status;
        r->floor[k] = r->benign[k][0];
    }
    return RT_OK;
}

rt_status rt_guard_reference_parse(rt_guard_reference **out, const char *data, size_t size, const char *where,
                                   rt_error *err)
{
    json_t *json = NULL;
    *out = NULL;
    if (rt_json_parse(&json, data, size, where, err) != RT_OK)
        return err->status;
    rt_guard_reference *r = calloc(1, sizeof *r);
    rt_status status =
        r ? fill(r, json, where, err) : rt_error_set(err, RT_NO_MEMORY, "%.120s: no memory", where);
    json_decref(json);
    if (status != RT_OK) {
        rt_guard_reference_close(r);
        return status;
    }
    r->digest = rt_hash64(data, size, 0);
    *out = r;
    return RT_OK;
}

rt_status rt_guard_reference_builtin(const rt_guard_reference **out, rt_error *err)
{
    static rt_guard_reference
        *builtin; /* the first caller is alone: guards are opened before threads start */
    if (!builtin && rt_guard_reference_parse(&builtin, rt_guard_reference_file,
                                             (size_t)(rt_guard_reference_file_end - rt_guard_reference_file),
                                             "the built-in reference", err) != RT_OK)
        return err->status;
    *out = builtin;
    return RT_OK;
}

rt_status rt_guard_reference_read(rt_guard_reference **out, const char *path, rt_error *err)
{
    char *data = NULL;
    size_t size;
    *out = NULL;
    if (rt_file_read(&data, &size, path, FILE_BYTES_MAX, err) != RT_OK)
        return err->status;
    const rt_status status = rt_guard_reference_parse(out, data, size, path, err);
    free(data);
    return status;
}

void rt_guard_reference_close(rt_guard_reference *reference)
{
    if (!reference)
        return;
    for (size_t k = 0; k < RT_GUARD_CLASSES; k++)
        free(reference->benign[k]);
    free(reference->trees);
    free(reference);
}

uint64_t rt_guard_reference_digest(const rt_guard_reference *reference) { return reference->digest; }

/* Five significant digits are more than a week of traffic can tell. */
static json_t *figure(float value)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%.5g", (double)value);
    return json_real(strtod(text, NULL));
}

static json_t *list_of(const float *values, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, figure(values[i]));
    return list;
}

static json_t *term_json(const rt_guard_reference *r, size_t f)
{
    char name[96];
    (void)snprintf(name, sizeof name, "%s.%s", rt_guard_feature_signal(f)->name, rt_guard_feature_name(f));
    json_t *json = json_object(), *quantiles = json_object();
    json_object_set_new(json, "feature", json_string(name));
    json_object_set_new(json, "centre", figure(r->terms[f].centre));
    json_object_set_new(json, "scale", figure(r->terms[f].scale));
    json_object_set_new(json, "low", figure(r->terms[f].low));
    json_object_set_new(json, "high", figure(r->terms[f].high));
    json_object_set_new(json, "weight", figure(r->terms[f].weight));
    for (size_t k = 0; k < RT_GUARD_CLASSES; k++)
        json_object_set_new(quantiles, rt_guard_class_names[k],
                            list_of(r->terms[f].quantiles[k], RT_GUARD_QUANTILES));
    json_object_set_new(json, "quantiles", quantiles);
    return json;
}

static json_t *tree_json(const rt_boost_tree *tree)
{
    json_t *json = json_object(), *asks = json_array(), *thresholds = json_array();
    char name[96];
    for (size_t i = 0; i < RT_BOOST_SPLITS; i++) {
        (void)snprintf(name, sizeof name, "%s.%s", rt_guard_feature_signal(tree->feature[i])->name,
                       rt_guard_feature_name(tree->feature[i]));
        json_array_append_new(asks, json_string(name));
        json_array_append_new(thresholds,
                              isfinite(tree->threshold[i]) ? figure(tree->threshold[i]) : json_null());
    }
    json_object_set_new(json, "asks", asks);
    json_object_set_new(json, "thresholds", thresholds);
    json_object_set_new(json, "values", list_of(tree->value, RT_BOOST_NODES));
    return json;
}

rt_status rt_guard_reference_write(const rt_guard_reference *reference, const char *path, rt_error *err)
{
    json_t *json = json_object(), *terms = json_array(), *trees = json_array();
    for (size_t t = 0; t < reference->n_trees; t++)
        json_array_append_new(trees, tree_json(&reference->trees[t]));
    json_object_set_new(json, "trees", trees);
    json_object_set_new(json, "format", json_string("retort guard reference 1"));
    json_object_set_new(json, "bias", figure(reference->bias));
    json_object_set_new(json, "habit", figure(reference->habit));
    for (size_t f = 0; f < rt_guard_feature_count(); f++)
        json_array_append_new(terms, term_json(reference, f));
    json_object_set_new(json, "terms", terms);
    json_t *benign = json_object();
    for (size_t k = 0; k < RT_GUARD_CLASSES; k++)
        json_object_set_new(benign, rt_guard_class_names[k],
                            list_of(reference->benign[k], reference->n_benign[k]));
    json_object_set_new(json, "benign", benign);
    const rt_status status = rt_json_write(path, json, err);
    json_decref(json);
    return status;
}

float rt_guard_term_value(const rt_guard_term *term, float feature)
{
    return fminf(term->high, fmaxf(term->low, (feature - term->centre) / term->scale));
}

float rt_guard_known_score(const rt_guard_reference *reference, const float features[RT_GUARD_FEATURES])
{
    float score = reference->bias;
    for (size_t f = 0; f < RT_GUARD_FEATURES; f++)
        if (reference->terms[f].weight != 0)
            score += reference->terms[f].weight * rt_guard_term_value(&reference->terms[f], features[f]);
    return score;
}

float rt_guard_score(const rt_guard_reference *reference, const float features[RT_GUARD_FEATURES])
{
    float score = rt_guard_known_score(reference, features);
    for (size_t t = 0; t < reference->n_trees; t++)
        score += rt_boost_value(&reference->trees[t], features, NULL);
    return score;
}

float rt_guard_contributions(const rt_guard_reference *reference, const float features[RT_GUARD_FEATURES],
                             float contributions[RT_GUARD_FEATURES])
{
    float score = rt_guard_known_score(reference, features);
    for (size_t f = 0; f < RT_GUARD_FEATURES; f++)
        contributions[f] =
            reference->terms[f].weight * rt_guard_term_value(&reference->terms[f], features[f]);
    for (size_t t = 0; t < reference->n_trees; t++)
        score += rt_boost_value(&reference->trees[t], features, contributions);
    return score;
}

/* Benign scores under `score`, or with `equal` those equal to it as well. */
static size_t count_under(const float *benign, size_t n, float score, bool equal)
{
    size_t low = 0, high = n;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (benign[middle] < score || (equal && benign[middle] == score))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

float rt_guard_p(const rt_guard_reference *reference, int use_class, float score, double lot)
{
    const float *benign = reference->benign[use_class];
    const size_t n = reference->n_benign[use_class];
    const float at = fmaxf(score, reference->floor[use_class]);
    const size_t under = count_under(benign, n, at, false), through = count_under(benign, n, at, true);
    const double ties = (double)(through - under), over = (double)(n - through);
    return (float)((over + 1 + (1 - lot) * ties) / (double)(n + 1));
}

double rt_guard_lot(const char *name)
{
    return (double)(rt_hash64(name, strlen(name), 0x6c6f74) >> 11) * 0x1p-53;
}

float rt_guard_percentile(const rt_guard_term *term, int use_class, float feature)
{
    const float *q = term->quantiles[use_class];
    size_t below = 0;
    while (below < RT_GUARD_QUANTILES && q[below] < feature)
        below++;
    if (below == 0)
        return 0;
    if (below == RT_GUARD_QUANTILES)
        return 100;
    const float step = 100.0F / (RT_GUARD_QUANTILES - 1), width = q[below] - q[below - 1];
    return step * ((float)(below - 1) + (width > 0 ? (feature - q[below - 1]) / width : 0));
}

int rt_guard_use_class_of(bool person, uint32_t requests) { return !person ? 2 : requests >= RT_GUARD_HEAVY; }

int rt_guard_use_class(const rt_guard_account *account)
{
    return rt_guard_use_class_of(account->client.people * 2 >= account->n, account->n);
}
