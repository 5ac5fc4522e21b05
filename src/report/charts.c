/* report/charts.c - see charts.h. */
#include "report/charts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "report/html.h"
#include "report/svg.h"

enum { WIDE = 680, NARROW = 342, TIP_SIZE = 240 };

/* Classes: "s-<model>" gives the colour, the second word the way of drawing. */
static const char *const line_classes[RT_RUN_MODELS] = {"s-teacher line", "s-untrained line",
                                                        "s-student line", "s-ce line dashed"};
static const char *const fill_classes[RT_RUN_MODELS] = {"s-teacher fill", "s-untrained fill",
                                                        "s-student fill", "s-ce fill"};
static const char *const band_classes[RT_RUN_MODELS] = {"s-teacher band", "s-untrained band",
                                                        "s-student band", "s-ce band"};
static const char *const word_classes[RT_RUN_MODELS] = {"s-teacher word", "s-untrained word",
                                                        "s-student word", "s-ce word"};
static const char *const short_names[RT_RUN_MODELS] = {"teacher", "untrained", "trained", "cross-entropy"};

static double first_finite(double a, double b) { return isfinite(a) ? a : b; }

/* The names of the series in their colours, in one row above a narrow plot. */
static void draw_key(rt_svg *svg, const bool *shown, double y)
{
    double x = svg->left;
    for (size_t m = 0; m < RT_RUN_MODELS; m++) {
        if (!shown[m])
            continue;
        rt_svg_segment(svg, line_classes[m], x, y - 4, x + 16, y - 4);
        rt_svg_text(svg, x + 21, y, RT_ANCHOR_START, word_classes[m], short_names[m]);
        x += 21 + rt_svg_text_width(short_names[m], 12) + 14;
    }
}

/* The names at the right ends of their lines, moved apart. */
static void draw_end_labels(rt_svg *svg, const bool *shown, const double *end_y)
{
    double y[RT_RUN_MODELS];
    size_t models[RT_RUN_MODELS], n = 0;
    for (size_t m = 0; m < RT_RUN_MODELS; m++)
        if (shown[m]) {
            models[n] = m;
            y[n++] = end_y[m];
        }
    rt_spread(y, n, 16, svg->top, svg->bottom);
    for (size_t i = 0; i < n; i++)
        rt_svg_text(svg, svg->right + 9, y[i] + 4, RT_ANCHOR_START, word_classes[models[i]],
                    short_names[models[i]]);
}

/* ---- loss ---- */

static bool has_any(const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (isfinite(values[i]))
            return true;
    return false;
}

static bool has_all(const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return false;
    return count > 0;
}

typedef struct loss_view {
    const rt_curve *curves[RT_RUN_MODELS];
    bool shown[RT_RUN_MODELS];
    bool by_tokens, of_kl;
} loss_view;

static const double *loss_x(const loss_view *view, size_t m)
{
    return view->by_tokens ? view->curves[m]->tokens : view->curves[m]->step;
}

static const double *loss_y(const loss_view *view, size_t m)
{
    return view->of_kl ? view->curves[m]->kl : view->curves[m]->loss;
}

static const double *loss_smooth(const loss_view *view, size_t m)
{
    return view->of_kl ? view->curves[m]->kl_smooth : view->curves[m]->loss_smooth;
}

/* Invisible strips over the plot that carry the numbers for whoever points at them. */
static void draw_loss_strips(rt_svg *svg, const loss_view *view)
{
    const rt_curve *curve = view->curves[RT_RUN_STUDENT];
    const size_t strips = rt_size_min(curve->count, 100);
    const double x_unit = (svg->right - svg->left) / (double)rt_size_max(1, strips);
    for (size_t s = 0; view->shown[RT_RUN_STUDENT] && s < strips; s++) {
        const size_t i = s * curve->count / strips;
        char step[RT_NUMBER_SIZE], loss[RT_NUMBER_SIZE], tip[TIP_SIZE];
        rt_number_format(step, rint(curve->step[i]), RT_NUMBER_INTEGER);
        rt_number_format(loss, loss_smooth(view, RT_RUN_STUDENT)[i], RT_NUMBER_PLAIN);
        (void)snprintf(tip, sizeof tip, "step %s: trained %s", step, loss);
        if (view->shown[RT_RUN_CE]) {
            const rt_curve *ce = view->curves[RT_RUN_CE];
            rt_number_format(loss,
                             loss_smooth(view, RT_RUN_CE)[rt_size_min(s * ce->count / strips, ce->count - 1)],
                             RT_NUMBER_PLAIN);
            const size_t used = strlen(tip);
            (void)snprintf(tip + used, sizeof tip - used, ", cross-entropy %s", loss);
        }
        const double x = rt_scale_at(&svg->x, loss_x(view, RT_RUN_STUDENT)[i]);
        rt_svg_rect(svg, "hit", x - x_unit / 2, svg->top, x_unit, svg->bottom - svg->top, tip);
    }
}

static void draw_loss(rt_text *out, const loss_view *view, double width, const char *classes)
{
    const bool wide = width > 500;
    double low = 0, high = 0, x_low = INFINITY, x_high = 0, end_y[RT_RUN_MODELS] = {0};
    for (size_t m = 0; m < RT_RUN_MODELS; m++)
        for (size_t i = 0; view->shown[m] && i < view->curves[m]->count; i++) {
            const double loss = loss_y(view, m)[i], x = loss_x(view, m)[i];
            x_low = fmin(x_low, x);
            x_high = fmax(x_high, x);
            if (isfinite(loss)) {
                low = fmin(low, loss);
                high = fmax(high, loss);
            }
        }
    rt_svg svg;
    rt_svg_open(&svg, out, width, wide ? 330 : 296, (rt_margin){40, wide ? 104 : 10, wide ? 30 : 58, 44},
                classes, "Training loss");
    const rt_ticks y = rt_ticks_cover(low, high, 6);
    rt_svg_axis_y(&svg, &y, RT_NUMBER_PLAIN,
                  view->of_kl ? "KL to the teacher, nats per token" : "loss, nats per token");
    const rt_ticks x = rt_ticks_cover(fmin(0, x_low), x_high, wide ? 7 : 5);
    rt_svg_axis_x(&svg, &x, fmax(x_high, x.values[1]), RT_NUMBER_COUNT,
                  view->by_tokens ? "tokens trained on" : "steps");
    for (size_t m = 0; m < RT_RUN_MODELS; m++) {
        if (!view->shown[m])
            continue;
        const rt_curve *curve = view->curves[m];
        char raw[64];
        (void)snprintf(raw, sizeof raw, "s-%s raw", rt_run_model_keys[m]);
        rt_svg_line(&svg, raw, loss_x(view, m), loss_y(view, m), curve->count);
    }
    for (size_t m = 0; m < RT_RUN_MODELS; m++) {
        if (!view->shown[m])
            continue;
        const rt_curve *curve = view->curves[m];
        rt_svg_line(&svg, line_classes[m], loss_x(view, m), loss_smooth(view, m), curve->count);
        for (size_t i = 0; i < curve->count; i++)
            if (isfinite(loss_smooth(view, m)[i]))
                end_y[m] = rt_scale_at(&svg.y, loss_smooth(view, m)[i]);
    }
    if (wide)
        draw_end_labels(&svg, view->shown, end_y);
    else
        draw_key(&svg, view->shown, 12);
    draw_loss_strips(&svg, view);
    rt_svg_close(&svg);
}

rt_loss_chart rt_chart_loss(rt_text *out, const rt_run_record *run)
{
    const rt_curve *student = &run->student, *ce = &run->ce;
    loss_view view = {.curves = {[RT_RUN_STUDENT] = student, [RT_RUN_CE] = ce}};
    view.shown[RT_RUN_STUDENT] = has_any(student->loss, student->count);
    view.shown[RT_RUN_CE] = has_any(ce->loss, ce->count);
    const bool both = view.shown[RT_RUN_STUDENT] && view.shown[RT_RUN_CE];
    if (!view.shown[RT_RUN_STUDENT] && !view.shown[RT_RUN_CE])
        return RT_LOSS_CHART_NONE;
    view.by_tokens = (!view.shown[RT_RUN_STUDENT] || has_all(student->tokens, student->count)) &&
                     (!view.shown[RT_RUN_CE] || has_all(ce->tokens, ce->count));
    view.of_kl = both && has_any(student->kl, student->count) && has_any(ce->kl, ce->count);
    draw_loss(out, &view, WIDE, "chart wide");
    draw_loss(out, &view, NARROW, "chart narrow");
    return view.of_kl ? RT_LOSS_CHART_KL : both ? RT_LOSS_CHART_TWO_LOSSES : RT_LOSS_CHART_ONE_LOSS;
}

/* ---- bars ---- */

static void draw_bars(rt_text *out, const rt_figure *figures, const char *axis_title, double width,
                      const char *classes)
{
    enum { ROW = 50, TOP = 30 };
    size_t rows = 0;
    double high = 0;
    for (size_t m = RT_RUN_UNTRAINED; m < RT_RUN_MODELS; m++)
        if (isfinite(figures[m].value)) {
            rows++;
            high = fmax(high, fmax(figures[m].value, first_finite(figures[m].high, 0)));
        }
    const bool wide = width > 500;
    rt_svg svg;
    rt_svg_open(&svg, out, width, (double)(TOP + rows * ROW - 6), (rt_margin){0, wide ? 150 : 116, TOP, 24},
                classes, axis_title);
    rt_svg_text(&svg, 0, 14, RT_ANCHOR_START, "title", axis_title);
    svg.x = (rt_scale){0, high > 0 ? high : 1, svg.left, svg.right};
    size_t row = 0;
    for (size_t m = RT_RUN_UNTRAINED; m < RT_RUN_MODELS; m++) {
        const rt_figure *f = &figures[m];
        if (!isfinite(f->value))
            continue;
        const double y = TOP + (double)(row++ * ROW);
        char value[RT_NUMBER_SIZE], low[RT_NUMBER_SIZE], high_text[RT_NUMBER_SIZE], text[160];
        rt_number_format(value, f->value, RT_NUMBER_PLAIN);
        rt_number_format_like(low, f->low, f->value, RT_NUMBER_PLAIN);
        rt_number_format_like(high_text, f->high, f->value, RT_NUMBER_PLAIN);
        const double end = rt_scale_at(&svg.x, fmax(0, f->value));
        rt_svg_text(&svg, 0, y + 14, RT_ANCHOR_START, word_classes[m], rt_run_model_names[m]);
        rt_svg_rect(&svg, fill_classes[m], svg.left, y + 21, fmax(1, end - svg.left), 14, NULL);
        rt_svg_whisker_x(&svg, y + 28, rt_scale_at(&svg.x, f->low), rt_scale_at(&svg.x, f->high), 4);
        (void)snprintf(text, sizeof text, "%s", value);
        const double text_x = fmax(end, isfinite(f->high) ? rt_scale_at(&svg.x, f->high) : end) + 9;
        rt_svg_text(&svg, text_x, y + 32.5, RT_ANCHOR_START, "value", text);
        if (isfinite(f->low)) {
            (void)snprintf(text, sizeof text, "%s\xE2\x80\x93%s", low, high_text);
            rt_svg_text(&svg, text_x + rt_svg_text_width(value, 13) + 8, y + 32.5, RT_ANCHOR_START, "tick",
                        text);
        }
    }
    rt_svg_close(&svg);
}

bool rt_chart_bars(rt_text *out, const rt_run_record *run, const char *key, const char *axis_title)
{
    rt_figure figures[RT_RUN_MODELS];
    bool any = false;
    for (size_t m = 0; m < RT_RUN_MODELS; m++) {
        figures[m] = rt_figure_get(rt_run_figures(run, (rt_run_model)m), key);
        any = any || (m != RT_RUN_TEACHER && isfinite(figures[m].value));
    }
    if (!any)
        return false;
    draw_bars(out, figures, axis_title, WIDE, "chart wide");
    draw_bars(out, figures, axis_title, NARROW, "chart narrow");
    return true;
}

/* ---- agreement by position ---- */

enum { BINS_SHOWN_MAX = 200, TOKENS_MIN = 10 };
typedef struct positions {
    double x[BINS_SHOWN_MAX], y[BINS_SHOWN_MAX], low[BINS_SHOWN_MAX], high[BINS_SHOWN_MAX];
    double to; /* the last position */
    size_t count;
} positions;

static void read_positions(positions *p, const json_t *figures)
{
    const json_t *list = json_object_get(figures, "by_position"), *item;
    size_t i;
    *p = (positions){0};
    json_array_foreach(list, i, item)
    {
        const double from = rt_number_get(item, "from"), to = rt_number_get(item, "to"),
                     y = rt_number_get(item, "top1");
        if (p->count == BINS_SHOWN_MAX || !isfinite(from) || !isfinite(to) || !isfinite(y))
            continue;
        p->x[p->count] = (from + to) / 2;
        p->y[p->count] = y;
        p->low[p->count] = rt_number_get(item, "low");
        p->high[p->count] = rt_number_get(item, "high");
        p->to = fmax(p->to, to);
        p->count++;
    }
}

static void draw_positions(rt_text *out, const positions *all, const bool *shown, double width,
                           const char *classes)
{
    const bool wide = width > 500;
    double high = 0.1, to = 1, end_y[RT_RUN_MODELS] = {0};
    for (size_t m = 0; m < RT_RUN_MODELS; m++)
        for (size_t i = 0; shown[m] && i < all[m].count; i++) {
            high = fmax(high, fmax(all[m].y[i], first_finite(all[m].high[i], 0)));
            to = fmax(to, all[m].to);
        }
    rt_svg svg;
    rt_svg_open(&svg, out, width, wide ? 270 : 276, (rt_margin){40, wide ? 104 : 10, wide ? 30 : 58, 44},
                classes, "Agreement by position");
    const rt_ticks y = rt_ticks_cover(0, fmin(high, 1), 5);
    rt_svg_axis_y(&svg, &y, RT_NUMBER_SHARE, "same first choice as the teacher");
    const rt_ticks x = rt_ticks_cover(0, to, wide ? 8 : 5);
    rt_svg_axis_x(&svg, &x, fmax(to, x.values[1]), RT_NUMBER_INTEGER, "position in the text, tokens");
    for (size_t m = 0; m < RT_RUN_MODELS; m++)
        if (shown[m])
            rt_svg_band(&svg, band_classes[m], all[m].x, all[m].low, all[m].high, all[m].count);
    for (size_t m = 0; m < RT_RUN_MODELS; m++) {
        if (!shown[m])
            continue;
        rt_svg_line(&svg, line_classes[m], all[m].x, all[m].y, all[m].count);
        for (size_t i = 0; i < all[m].count; i++) {
            char value[RT_NUMBER_SIZE], tip[TIP_SIZE];
            rt_number_format(value, all[m].y[i], RT_NUMBER_SHARE);
            (void)snprintf(tip, sizeof tip, "around token %.0f: %s, %s", all[m].x[i], short_names[m], value);
            const double px = rt_scale_at(&svg.x, all[m].x[i]), py = rt_scale_at(&svg.y, all[m].y[i]);
            rt_svg_dot(&svg, fill_classes[m], px, py, 2.5, tip);
            end_y[m] = py;
        }
    }
    if (wide)
        draw_end_labels(&svg, shown, end_y);
    else
        draw_key(&svg, shown, 12);
    rt_svg_close(&svg);
}

bool rt_chart_position(rt_text *out, const rt_run_record *run)
{
    positions all[RT_RUN_MODELS] = {0};
    bool shown[RT_RUN_MODELS] = {false}, any = false;
    for (size_t m = RT_RUN_UNTRAINED; m < RT_RUN_MODELS; m++) { /* the teacher agrees with itself */
        read_positions(&all[m], rt_run_figures(run, (rt_run_model)m));
        shown[m] = all[m].count > 1;
        any = any || shown[m];
    }
    if (!any)
        return false;
    draw_positions(out, all, shown, WIDE, "chart wide");
    draw_positions(out, all, shown, NARROW, "chart narrow");
    return true;
}

/* ---- calibration ---- */

typedef struct reliability {
    double confidence[BINS_SHOWN_MAX], accuracy[BINS_SHOWN_MAX], count[BINS_SHOWN_MAX];
    double count_max;
    size_t bins;
} reliability;

static void read_reliability(reliability *r, const json_t *figures)
{
    const json_t *list = json_object_get(figures, "reliability"), *item;
    size_t i;
    *r = (reliability){0};
    json_array_foreach(list, i, item)
    {
        const double confidence = rt_number_get(item, "confidence"),
                     accuracy = rt_number_get(item, "accuracy");
        const double count = rt_number_get(item, "count");
        if (r->bins == BINS_SHOWN_MAX || !(confidence >= 0 && confidence <= 1) ||
            !(accuracy >= 0 && accuracy <= 1) || !(count >= TOKENS_MIN))
            continue; /* the share of a handful is noise */
        r->confidence[r->bins] = confidence;
        r->accuracy[r->bins] = accuracy;
        r->count[r->bins++] = count;
        r->count_max = fmax(r->count_max, count);
    }
}

static void draw_reliability(rt_text *out, const reliability *all, const bool *shown)
{
    rt_svg svg;
    rt_svg_open(&svg, out, NARROW, 346, (rt_margin){44, 14, 58, 44}, "chart half", "Calibration");
    const rt_ticks ticks = {.values = {0, 0.25, 0.5, 0.75, 1}, .count = 5, .step = 0.25};
    rt_svg_axis_y(&svg, &ticks, RT_NUMBER_SHARE, "how often it was right");
    rt_svg_axis_x(&svg, &ticks, 1, RT_NUMBER_SHARE, "how sure the model was");
    rt_svg_segment(&svg, "diagonal", svg.left, svg.bottom, svg.right, svg.top);
    for (size_t m = 0; m < RT_RUN_MODELS; m++) {
        if (!shown[m])
            continue;
        const reliability *r = &all[m];
        rt_svg_line(&svg, line_classes[m], r->confidence, r->accuracy, r->bins);
        for (size_t i = 0; i < r->bins; i++) {
            char sure[RT_NUMBER_SIZE], right[RT_NUMBER_SIZE], count[RT_NUMBER_SIZE], tip[TIP_SIZE];
            rt_number_format(sure, r->confidence[i], RT_NUMBER_SHARE);
            rt_number_format(right, r->accuracy[i], RT_NUMBER_SHARE);
            rt_number_format(count, r->count[i], RT_NUMBER_INTEGER);
            (void)snprintf(tip, sizeof tip, "%s: %s sure, %s right, %s tokens", short_names[m], sure, right,
                           count);
            rt_svg_dot(&svg, fill_classes[m], rt_scale_at(&svg.x, r->confidence[i]),
                       rt_scale_at(&svg.y, r->accuracy[i]), 2 + 5 * sqrt(r->count[i] / r->count_max), tip);
        }
    }
    draw_key(&svg, shown, 12);
    rt_svg_close(&svg);
}

bool rt_chart_reliability(rt_text *out, const rt_run_record *run)
{
    reliability all[RT_RUN_MODELS];
    bool shown[RT_RUN_MODELS] = {false}, any = false;
    for (size_t m = 0; m < RT_RUN_MODELS; m++) {
        read_reliability(&all[m], rt_run_figures(run, (rt_run_model)m));
        shown[m] =
            m != RT_RUN_UNTRAINED && all[m].bins > 1; /* what is never right has no calibration to speak of */
        any = any || shown[m];
    }
    if (any)
        draw_reliability(out, all, shown);
    return any;
}

/* ---- size, speed, quality ---- */

enum { DOTS_MAX = 24 };
typedef struct cost_dot {
    const char *label;
    double x;
    rt_figure kl;
    rt_run_model model;
} cost_dot;

static size_t gather_dots(cost_dot *dots, const rt_run_record *run, const char *x_key)
{
    static const rt_run_model models[] = {RT_RUN_TEACHER, RT_RUN_STUDENT, RT_RUN_CE};
    size_t count = 0, i;
    for (size_t k = 0; k < 3;
         k++) { /* the untrained student costs what the trained one does and is off the scale */
        const json_t *figures = rt_run_figures(run, models[k]);
        cost_dot dot = {.label = short_names[models[k]],
                        .x = rt_figure_get(figures, x_key).value,
                        .kl = rt_figure_get(figures, "kl_teacher_student"),
                        .model = models[k]};
        if (models[k] == RT_RUN_TEACHER)
            dot.kl = (rt_figure){0, (double)NAN, (double)NAN}; /* from itself, by definition */
        if (isfinite(dot.x) && isfinite(dot.kl.value))
            dots[count++] = dot;
    }
    const json_t *item;
    json_array_foreach(json_object_get(run->eval, "exports"), i, item)
    {
        const cost_dot dot = {.label = rt_string_get(item, "label"),
                              .x = rt_figure_get(item, x_key).value,
                              .kl = rt_figure_get(item, "kl_teacher_student"),
                              .model = RT_RUN_STUDENT};
        if (count < DOTS_MAX && dot.label && isfinite(dot.x) && isfinite(dot.kl.value))
            dots[count++] = dot;
    }
    return count;
}

/* At most 24 bytes of a label, whole characters: a foreign name must not fill the plot. */
static void short_label(char out[40], const char *label)
{
    const size_t size = strlen(label);
    size_t end = 0, n = 0;
    for (; end < size; end += n) {
        (void)rt_utf8_decode(label + end, size - end, &n);
        if (end + n > 24)
            break;
    }
    (void)snprintf(out, 40, "%.*s%s", (int)end, label, end < size ? "\xE2\x80\xA6" : "");
}

bool rt_chart_cost(rt_text *out, const rt_run_record *run, const char *x_key, const char *x_title)
{
    cost_dot dots[DOTS_MAX];
    const size_t count = gather_dots(dots, run, x_key);
    if (count < 2) /* one dot compares nothing */
        return false;
    double x_high = 0, y_high = 0;
    for (size_t i = 0; i < count; i++) {
        x_high = fmax(x_high, dots[i].x);
        y_high = fmax(y_high, fmax(dots[i].kl.value, first_finite(dots[i].kl.high, 0)));
    }
    const rt_number kind = strcmp(x_key, "bytes") == 0 ? RT_NUMBER_BYTES : RT_NUMBER_INTEGER;
    rt_svg svg;
    rt_svg_open(&svg, out, NARROW, 300, (rt_margin){36, 14, 34, 44}, "chart half", x_title);
    const rt_ticks y = rt_ticks_cover(0, y_high, 5), x = rt_ticks_cover(0, x_high, 4);
    rt_svg_axis_y(&svg, &y, RT_NUMBER_PLAIN, "KL to the teacher, nats per token");
    rt_svg_axis_x(&svg, &x, x.values[x.count - 1], kind, x_title);
    rt_boxes boxes = {0};
    for (size_t i = 0; i < count; i++) {
        const double px = rt_scale_at(&svg.x, dots[i].x), py = rt_scale_at(&svg.y, dots[i].kl.value);
        rt_boxes_take(&boxes, (rt_box){px - 6, py - 6, px + 6, py + 6});
    }
    for (size_t i = 0; i < count; i++) {
        const cost_dot *dot = &dots[i];
        const double px = rt_scale_at(&svg.x, dot->x), py = rt_scale_at(&svg.y, dot->kl.value);
        char label[40], kl[RT_NUMBER_SIZE], cost[RT_NUMBER_SIZE], tip[TIP_SIZE];
        short_label(label, dot->label);
        rt_number_format(kl, dot->kl.value, RT_NUMBER_PLAIN);
        rt_number_format(cost, dot->x, kind == RT_NUMBER_BYTES ? RT_NUMBER_BYTES : RT_NUMBER_PLAIN);
        (void)snprintf(tip, sizeof tip, "%s: KL %s, %s%s", label, kl, cost,
                       kind == RT_NUMBER_BYTES ? "" : " tokens/s");
        rt_svg_segment(&svg, "stem", px, rt_scale_at(&svg.y, dot->kl.low), px,
                       rt_scale_at(&svg.y, dot->kl.high));
        rt_svg_dot(&svg, fill_classes[dot->model], px, py, 5, tip);
        rt_svg_label_near(&svg, &boxes, px, py, 5, word_classes[dot->model], label);
    }
    rt_svg_close(&svg);
    return true;
}
