/* report/svg.c - see svg.h. */
#include "report/svg.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define FONT_PX 12.0 /* what the style sheet gives to text in a picture */

/* The smallest of 1, 2, 2.5, 5, 10 times a power of ten that is at least `wanted`. */
static double nice_step(double wanted)
{
    static const double nice[] = {1, 2, 2.5, 5, 10};
    const double power = pow(10, floor(log10(wanted)));
    for (size_t i = 0; i < 5; i++)
        if (nice[i] * power >= wanted * (1 - 1e-9))
            return nice[i] * power;
    return 10 * power;
}

rt_ticks rt_ticks_cover(double low, double high, size_t count_wanted)
{
    if (!isfinite(low) || !isfinite(high) || high < low)
        low = 0, high = 1;
    if (high - low <= 1e-9 * fmax(fabs(low), fabs(high)) ||
        high - low < 1e-300) { /* one value: give it room */
        const double room = fabs(low) > 1e-290 ? fabs(low) * 0.1 : 1;
        low -= room;
        high += room;
    }
    const double intervals = (double)(count_wanted < 3 ? 2 : count_wanted - 1);
    double step = nice_step((high / intervals) - (low / intervals)); /* the difference itself may overflow */
    rt_ticks ticks = {0};
    for (int attempt = 0; attempt < 8; attempt++, step = nice_step(step * 1.5)) {
        const double first = floor(low / step + 1e-9), last = ceil(high / step - 1e-9);
        if (!(last - first < RT_TICKS_MAX))
            continue;
        ticks.step = step;
        ticks.count = (size_t)(last - first) + 1;
        for (size_t i = 0; i < ticks.count; i++)
            ticks.values[i] = (first + (double)i) * step;
        break;
    }
    assert(ticks.count >= 2);
    return ticks;
}

double rt_scale_at(const rt_scale *scale, double value)
{
    const double span = scale->data_to - scale->data_from;
    return scale->px_from + (value - scale->data_from) / span * (scale->px_to - scale->px_from);
}

void rt_svg_open(rt_svg *svg, rt_text *out, double width, double height, rt_margin margin,
                 const char *classes, const char *label)
{
    *svg = (rt_svg){.out = out,
                    .width = width,
                    .height = height,
                    .left = margin.left,
                    .right = width - margin.right,
                    .top = margin.top,
                    .bottom = height - margin.bottom};
    svg->x = (rt_scale){0, 1, svg->left, svg->right};
    svg->y = (rt_scale){0, 1, svg->bottom, svg->top};
    rt_text_printf(
        out, "<svg class=\"%s\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" role=\"img\" aria-label=\"",
        classes, width, height, width, height);
    rt_html_puts(out, label);
    rt_text_puts(out, "\">\n");
}

void rt_svg_close(rt_svg *svg) { rt_text_puts(svg->out, "</svg>\n"); }

void rt_svg_text(rt_svg *svg, double x, double y, rt_anchor anchor, const char *classes, const char *text)
{
    static const char *const names[] = {"start", "middle", "end"};
    if (!isfinite(x) || !isfinite(y))
        return;
    rt_text_printf(svg->out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y,
                   names[anchor], classes);
    rt_html_puts(svg->out, text);
    rt_text_puts(svg->out, "</text>\n");
}

double rt_svg_text_width(const char *text, double font_px)
{
    double width = 0;
    const size_t size = strlen(text);
    size_t n = 0;
    for (size_t i = 0; i < size; i += n) {
        const uint32_t c = rt_utf8_decode(text + i, size - i, &n);
        if (c < 0x80 && strchr("iljtfr.,:;'|!()[] ", (int)c))
            width += 0.33;
        else if (c >= 0x2E80)
            width += 1;
        else
            width += c == 'm' || c == 'w' || c == '%' || (c >= 'A' && c <= 'Z') ? 0.78 : 0.58;
    }
    return width * font_px;
}

void rt_svg_segment(rt_svg *svg, const char *classes, double x1, double y1, double x2, double y2)
{
    if (isfinite(x1) && isfinite(y1) && isfinite(x2) && isfinite(y2))
        rt_text_printf(svg->out, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", classes, x1, y1, x2,
                       y2);
}

void rt_svg_axis_y(rt_svg *svg, const rt_ticks *ticks, rt_number kind, const char *title)
{
    const double largest = ticks->values[ticks->count - 1];
    svg->y.data_from = ticks->values[0];
    svg->y.data_to = largest;
    for (size_t i = 0; i < ticks->count; i++) {
        const double y = rt_scale_at(&svg->y, ticks->values[i]);
        char text[RT_NUMBER_SIZE];
        rt_number_format_tick(text, ticks->values[i], ticks->step, largest, kind);
        rt_svg_segment(svg, i ? "grid" : "axis", svg->left, y, svg->right, y);
        rt_svg_text(svg, svg->left - 7, y + 4, RT_ANCHOR_END, "tick", text);
    }
    rt_svg_text(svg, 0, svg->top - 14, RT_ANCHOR_START, "title", title);
}

/* Every how manieth tick has a text, so that no two touch. */
static size_t tick_stride(const rt_svg *svg, const rt_ticks *ticks, rt_number kind, double largest)
{
    double widest = 0;
    for (size_t i = 0; i < ticks->count; i++) {
        char text[RT_NUMBER_SIZE];
        rt_number_format_tick(text, ticks->values[i], ticks->step, largest, kind);
        widest = fmax(widest, rt_svg_text_width(text, FONT_PX));
    }
    const double apart = rt_scale_at(&svg->x, ticks->values[1]) - rt_scale_at(&svg->x, ticks->values[0]);
    size_t stride = 1;
    while (stride < ticks->count && apart * (double)stride < widest + 12)
        stride++;
    return stride;
}

void rt_svg_axis_x(rt_svg *svg, const rt_ticks *ticks, double data_to, rt_number kind, const char *title)
{
    svg->x.data_from = ticks->values[0];
    svg->x.data_to = data_to;
    const size_t stride = tick_stride(svg, ticks, kind, data_to);
    for (size_t i = 0; i < ticks->count; i++) {
        const double x = rt_scale_at(&svg->x, ticks->values[i]);
        if (x > svg->right + 0.5)
            break;
        rt_svg_segment(svg, "axis", x, svg->bottom, x, svg->bottom + 4);
        if (i % stride)
            continue;
        char text[RT_NUMBER_SIZE];
        rt_number_format_tick(text, ticks->values[i], ticks->step, data_to, kind);
        rt_svg_text(svg, x, svg->bottom + 18, RT_ANCHOR_MIDDLE, "tick", text);
    }
    rt_svg_text(svg, svg->right, svg->bottom + 36, RT_ANCHOR_END, "title", title);
}

void rt_svg_line(rt_svg *svg, const char *classes, const double *x, const double *y, size_t count)
{
    rt_text_printf(svg->out, "<path class=\"%s\" d=\"", classes);
    bool drawing = false;
    size_t drawn = 0;
    for (size_t i = 0; i < count; i++) {
        const double px = rt_scale_at(&svg->x, x[i]), py = rt_scale_at(&svg->y, y[i]);
        if (isfinite(px) && isfinite(py)) {
            rt_text_printf(svg->out, "%c%.1f %.1f", drawing ? 'L' : 'M', px, py);
            drawn++;
        }
        drawing = isfinite(px) && isfinite(py);
    }
    rt_text_puts(svg->out, drawn ? "\"/>\n" : "M0 0\"/>\n");
}

void rt_svg_band(rt_svg *svg, const char *classes, const double *x, const double *low, const double *high,
                 size_t count)
{
    for (size_t i = 0; i < count;) { /* one closed shape for each run without gaps */
        size_t end = i;
        while (end < count && isfinite(x[end]) && isfinite(low[end]) && isfinite(high[end]))
            end++;
        if (end >= i + 2) {
            rt_text_printf(svg->out, "<path class=\"%s\" d=\"", classes);
            for (size_t k = i; k < end; k++)
                rt_text_printf(svg->out, "%c%.1f %.1f", k == i ? 'M' : 'L', rt_scale_at(&svg->x, x[k]),
                               rt_scale_at(&svg->y, high[k]));
            for (size_t k = end; k > i; k--)
                rt_text_printf(svg->out, "L%.1f %.1f", rt_scale_at(&svg->x, x[k - 1]),
                               rt_scale_at(&svg->y, low[k - 1]));
            rt_text_puts(svg->out, "Z\"/>\n");
        }
        i = end + 1;
    }
}

/* The tip is shown by the page's small script; without it the picture says the same in its labels. */
static void put_tip(rt_svg *svg, const char *tip)
{
    if (!tip)
        return;
    rt_text_puts(svg->out, " data-tip=\"");
    rt_html_puts(svg->out, tip);
    rt_text_puts(svg->out, "\"");
}

void rt_svg_rect(rt_svg *svg, const char *classes, double x, double y, double width, double height,
                 const char *tip)
{
    if (!isfinite(x) || !isfinite(y) || !(width >= 0) || !(height >= 0))
        return;
    rt_text_printf(svg->out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"",
                   classes, x, y, width, height);
    put_tip(svg, tip);
    rt_text_puts(svg->out, "/>\n");
}

void rt_svg_dot(rt_svg *svg, const char *classes, double x, double y, double radius, const char *tip)
{
    if (!isfinite(x) || !isfinite(y) || !(radius > 0))
        return;
    rt_text_printf(svg->out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"", classes, x, y,
                   radius);
    put_tip(svg, tip);
    rt_text_puts(svg->out, "/>\n");
}

void rt_svg_whisker_x(rt_svg *svg, double y, double low_px, double high_px, double cap)
{
    if (isfinite(low_px) && isfinite(high_px))
        rt_text_printf(svg->out, "<path class=\"whisker\" d=\"M%.1f %.1fv%.1fm0 %.1fH%.1fm0 %.1fv%.1f\"/>\n",
                       low_px, y - cap, 2 * cap, -cap, high_px, -cap, 2 * cap);
}

void rt_spread(double *positions, size_t count, double gap, double from, double to)
{
    assert(count <= 8);
    size_t order[8];
    for (size_t i = 0; i < count; i++) { /* insertion sort by position */
        size_t k = i;
        for (; k > 0 && positions[order[k - 1]] > positions[i]; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
    for (int round = 0; round < 50; round++) /* neighbours that are too near give way by half each */
        for (size_t k = 1; k < count; k++) {
            double *above = &positions[order[k - 1]], *below = &positions[order[k]];
            const double missing = gap - (*below - *above);
            if (missing > 0) {
                *above -= missing / 2;
                *below += missing / 2;
            }
        }
    for (size_t k = count; k > 0; k--) { /* and stay inside, from the bottom up, then from the top down */
        const double limit = k == count ? to : positions[order[k]] - gap;
        positions[order[k - 1]] = fmin(positions[order[k - 1]], limit);
    }
    for (size_t k = 0; k < count; k++) {
        const double limit = k == 0 ? from : positions[order[k - 1]] + gap;
        positions[order[k]] = fmax(positions[order[k]], limit);
    }
}

void rt_boxes_take(rt_boxes *boxes, rt_box box)
{
    if (boxes->count < RT_BOXES_MAX)
        boxes->taken[boxes->count++] = box;
}

/* The area that `box` shares with the boxes taken and with the outside of the picture. */
static double overlap(const rt_boxes *boxes, rt_box box, const rt_svg *svg)
{
    double area = 1e3 * (fmax(0, svg->left + 2 - box.left) + fmax(0, box.right - svg->width) +
                         fmax(0, svg->top - 10 - box.top) + fmax(0, box.bottom - svg->bottom));
    for (size_t i = 0; i < boxes->count; i++) {
        const rt_box *b = &boxes->taken[i];
        const double w = fmin(box.right, b->right) - fmax(box.left, b->left) + 4; /* some air */
        const double h = fmin(box.bottom, b->bottom) - fmax(box.top, b->top);
        if (w > 0 && h > 0)
            area += w * h;
    }
    return area;
}

void rt_svg_label_near(rt_svg *svg, rt_boxes *boxes, double x, double y, double radius, const char *classes,
                       const char *text)
{
    if (!isfinite(x) || !isfinite(y))
        return;
    const double w = rt_svg_text_width(text, FONT_PX), h = FONT_PX + 2, off = radius + 5;
    const struct {
        double left, top;
    } places[] = {
        {x + off, y - h / 2},
        {x - off - w, y - h / 2},
        {x - w / 2, y - off - h},
        {x - w / 2, y + off},
        {x + off * 0.7, y - off - h * 0.7},
        {x - off * 0.7 - w, y - off - h * 0.7},
        {x + off * 0.7, y + off * 0.5},
        {x - off * 0.7 - w, y + off * 0.5},
        {x - w / 2, y - 2 * off - h},
        {x - w / 2, y + 2 * off},
    };
    rt_box best = {0};
    double least = INFINITY;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const rt_box box = {places[i].left, places[i].top, places[i].left + w, places[i].top + h};
        const double area = overlap(boxes, box, svg);
        if (area < least) {
            least = area;
            best = box;
        }
    }
    rt_boxes_take(boxes, best);
    rt_svg_text(svg, best.left, best.bottom - 4, RT_ANCHOR_START, classes, text);
}
