/* student/recipe_loss.c - the terms of `loss` in a recipe: words into numbers, and numbers that move. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "student/kept.h"
#include "student/recipe.h"

typedef struct term { /* under way */
    const char *text;
    size_t index; /* in the mixture */
    rt_objective *out;
    bool cosine, t_given;
    double over;
    size_t first_ramp;
} term;

static bool read_real(double *out, const char *text)
{
    char *end;
    const double x = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(x))
        return false;
    *out = x;
    return true;
}

/* "a", or "a..b", which becomes a ramp. */
static bool read_number(term *t, double *to, rt_ramp_of of, const char *text, bool *full)
{
    const char *dots = strstr(text, "..");
    rt_course *course = &t->out->course;
    char from[64];
    rt_ramp ramp = {.term = t->index, .of = of};
    if (!dots)
        return read_real(to, text);
    if ((size_t)(dots - text) >= sizeof from)
        return false;
    memcpy(from, text, (size_t)(dots - text));
    from[dots - text] = '\0';
    if (!read_real(&ramp.from, from) || !read_real(&ramp.to, dots + 2))
        return false;
    *full = course->n_ramps == RT_RAMPS_MAX;
    if (!*full)
        course->ramps[course->n_ramps++] = ramp;
    *to = ramp.from;
    return true;
}

static rt_status bad_word(const term *t, const char *name, const char *value, rt_error *err)
{
    return rt_error_set(err, RT_INVALID,
                        "loss: '%.60s=%.60s' in '%s' is not understood; temperature, beta, alpha, mu, t, "
                        "label_smoothing, z_loss "
                        "take a number (the first five also a..b, over the steps), tau2, self and adaptive "
                        "yes or no, tail one "
                        "of bucket, renorm, renorm_both, partial, uniform, floor, shape linear or cosine, "
                        "over a share of the "
                        "steps",
                        name, value, t->text);
}

/* Words that choose. */
static bool set_choice(term *t, rt_loss_spec *spec, const char *name, const char *value)
{
    const bool yes = strcmp(value, "yes") == 0, known = yes || strcmp(value, "no") == 0;
    if (strcmp(name, "tau2") == 0 && known)
        spec->tau2 = yes;
    else if (strcmp(name, "self") == 0 && known)
        spec->self_normalised = yes;
    else if (strcmp(name, "adaptive") == 0 && known) {
        t->out->course.adaptive = yes;
        t->out->course.taid_term = t->index;
    } else if (strcmp(name, "shape") == 0 && (strcmp(value, "linear") == 0 || strcmp(value, "cosine") == 0))
        t->cosine = value[0] == 'c';
    else if (strcmp(name, "tail") == 0)
        return rt_tail_mode_from_name(&spec->tail, value);
    else
        return false;
    return true;
}

static rt_status set_parameter(term *t, rt_loss_spec *spec, const char *name, const char *value,
                               rt_error *err)
{
    const struct {
        const char *name;
        double *to;
        rt_ramp_of of;
    } moving[] = {{"temperature", &spec->tau, RT_RAMP_TAU},
                  {"beta", &spec->beta, RT_RAMP_BETA},
                  {"alpha", &spec->alpha, RT_RAMP_ALPHA},
                  {"mu", &spec->mu, RT_RAMP_MU},
                  {"t", &spec->t, RT_RAMP_T}};
    const struct {
        const char *name;
        double *to;
    } fixed[] = {{"label_smoothing", &spec->label_smoothing}, {"z_loss", &spec->z_loss}, {"over", &t->over}};
    bool full = false;
    for (size_t i = 0; i < sizeof moving / sizeof moving[0]; i++) {
        if (strcmp(name, moving[i].name) != 0)
            continue;
        t->t_given = t->t_given || moving[i].of == RT_RAMP_T;
        if (!read_number(t, moving[i].to, moving[i].of, value, &full))
            return bad_word(t, name, value, err);
        return full ? rt_error_set(err, RT_INVALID, "loss: more than %d numbers move", (int)RT_RAMPS_MAX)
                    : RT_OK;
    }
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (strcmp(name, fixed[i].name) == 0 && read_real(fixed[i].to, value))
            return RT_OK;
    return set_choice(t, spec, name, value) ? RT_OK : bad_word(t, name, value, err);
}

static rt_status no_kind(const term *t, const char *word, rt_error *err)
{
    char known[256] = "";
    size_t n = 0;
    for (int k = 0; k < RT_LOSS_KIND_COUNT && n < sizeof known; k++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", k ? ", " : "",
                              rt_loss_kind_name((rt_loss_kind)k));
    return rt_error_set(err, RT_INVALID, "loss: '%.60s' in '%s' is no kind of loss; known are %s", word,
                        t->text, known);
}

/* After its words: what TAID starts with, and the ramps' shape. */
static rt_status finish_term(term *t, const rt_loss_spec *spec, rt_error *err)
{
    rt_course *course = &t->out->course;
    const bool adaptive = course->adaptive && course->taid_term == t->index;
    if (adaptive && spec->kind != RT_LOSS_TAID)
        return rt_error_set(err, RT_INVALID,
                            "loss: adaptive=yes in '%s': only taid has a t that follows the loss", t->text);
    if (!(t->over > 0 && t->over <= 1))
        return rt_error_set(err, RT_INVALID, "loss: over=%g in '%s' is not in (0, 1]", t->over, t->text);
    if (spec->kind == RT_LOSS_TAID && !t->t_given && course->n_ramps < RT_RAMPS_MAX)
        course->ramps[course->n_ramps++] =
            (rt_ramp){.term = t->index, .of = RT_RAMP_T, .from = 0.4, .to = 1}; /* METHODS 2 */
    for (size_t i = t->first_ramp; i < course->n_ramps; i++) {
        course->ramps[i].over = t->over;
        course->ramps[i].cosine = t->cosine;
    }
    return RT_OK;
}

static rt_status read_term(term *t, rt_error *err)
{
    double *weight = &t->out->mix.terms[t->index].weight;
    rt_loss_spec *spec = &t->out->mix.terms[t->index].spec;
    char copy[256];
    if (strlen(t->text) >= sizeof copy)
        return rt_error_set(err, RT_INVALID, "loss: a term of %zu characters is too long", strlen(t->text));
    memcpy(copy, t->text, strlen(t->text) + 1);
    *weight = 1;
    *spec = (rt_loss_spec){.tau = 1, .beta = 0.5, .alpha = 0.1, .mu = 0.5, .t = 0.4};
    t->over = 1;
    t->first_ramp = t->out->course.n_ramps;
    bool has_kind = false, full = false;
    char *rest = NULL;
    size_t position = 0;
    for (char *word = strtok_r(copy, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest), position++) {
        char *equals = strchr(word, '=');
        if (equals) {
            *equals = '\0';
            if (set_parameter(t, spec, word, equals + 1, err) != RT_OK)
                return err->status;
        } else if (position == 0 && read_number(t, weight, RT_RAMP_WEIGHT, word, &full) && !full) {
            continue;
        } else if (!has_kind && rt_loss_kind_from_name(&spec->kind, word)) {
            has_kind = true;
        } else {
            return no_kind(t, word, err);
        }
    }
    if (!has_kind)
        return rt_error_set(err, RT_INVALID, "loss: the term '%s' names no kind of loss", t->text);
    return finish_term(t, spec, err);
}

/* TAID's t follows the loss instead of its ramp, from the ramp's ends. */
static void start_taid(rt_course *course, const rt_loss_mix *mix, uint64_t steps)
{
    double from = mix->terms[course->taid_term].spec.t, to = 1;
    size_t kept = 0;
    for (size_t i = 0; i < course->n_ramps; i++) {
        const rt_ramp *r = &course->ramps[i];
        if (r->term == course->taid_term && r->of == RT_RAMP_T) {
            from = r->from;
            to = r->to;
        } else {
            course->ramps[kept++] = *r;
        }
    }
    course->n_ramps = kept;
    course->taid = rt_taid_make(from, to, 5e-4, 0.99, steps);
}

rt_status rt_recipe_loss(rt_objective *out, const rt_strings *terms, bool kept, uint64_t steps, rt_error *err)
{
    *out = (rt_objective){.mix = {.n_terms = terms->count}};
    if (terms->count == 0 || terms->count > RT_LOSS_TERMS_MAX)
        return rt_error_set(err, RT_INVALID, "loss: %zu terms; 1 to %d are possible", terms->count,
                            (int)RT_LOSS_TERMS_MAX);
    size_t adaptive = 0;
    for (size_t i = 0; i < terms->count; i++) {
        term t = {.text = terms->items[i], .index = i, .out = out};
        rt_loss_spec *spec = &out->mix.terms[i].spec;
        if (read_term(&t, err) != RT_OK)
            return err->status;
        adaptive += out->course.adaptive && out->course.taid_term == i;
        if (kept && spec->tail == RT_TAIL_NONE && spec->kind != RT_LOSS_CE && spec->kind != RT_LOSS_RSKD)
            spec->tail = RT_TAIL_BUCKET;
    }
    if (adaptive > 1)
        return rt_error_set(err, RT_INVALID, "loss: adaptive=yes stands in %zu terms; one can be", adaptive);
    if (out->course.adaptive)
        start_taid(&out->course, &out->mix, steps);
    rt_loss_mix end; /* each end of the run must have a meaning */
    for (uint64_t step = 0; step < 2; step++) {
        rt_course_at(&end, &out->mix, &out->course, step * steps, steps, out->course.taid.t);
        const rt_status status =
            kept ? rt_kept_mix_check(&end, true, true, (double)NAN, err) : rt_loss_mix_check(&end, err);
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}
