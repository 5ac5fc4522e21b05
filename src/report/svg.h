/* report/svg.h - drawing with SVG: scales, nice ticks, axes, lines, bars, dots, labels.
 *
 * Coordinates are CSS pixels of a picture that is shown at its own size on a screen of its own
 * width, so that 12 px of text are 12 px on a phone too.  Colours are classes, never values: the page's style
 * sheet gives each series a colour in light, in dark and on paper.  What is not finite is not
 * drawn.  Labels are escaped here. */
#ifndef RT_REPORT_SVG_H
#define RT_REPORT_SVG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/text.h"
#include "report/html.h"

enum { RT_TICKS_MAX = 16 };

typedef struct rt_ticks { /* equal steps of 1, 2, 2.5 or 5 times a power of ten */
    double values[RT_TICKS_MAX];
    size_t count;
    double step;
} rt_ticks;
/* Ticks that cover [low, high], about count_wanted of them; the first is <= low, the last >= high. */
rt_ticks rt_ticks_cover(double low, double high, size_t count_wanted);

typedef struct rt_scale { /* a straight map from data to pixels */
    double data_from, data_to, px_from, px_to;
} rt_scale;
double rt_scale_at(const rt_scale *scale, double value);

typedef struct rt_svg {
    rt_text *out;
    double width, height;
    double left, right, top, bottom; /* the plot's rectangle in px */
    rt_scale x, y;
} rt_svg;

/* Margins around the plot in px. */
typedef struct rt_margin {
    double left, right, top, bottom;
} rt_margin;

/* `classes` are of our own making; `label` is read aloud instead of the picture. */
void rt_svg_open(rt_svg *svg, rt_text *out, double width, double height, rt_margin margin,
                 const char *classes, const char *label);
void rt_svg_close(rt_svg *svg);

/* Sets the scale from the ticks' first to last and draws lines across, tick texts, and the axis's title: y
 * above the axis, x below its right end.  Tick texts that would touch are thinned. */
void rt_svg_axis_y(rt_svg *svg, const rt_ticks *ticks, rt_number kind, const char *title);
void rt_svg_axis_x(rt_svg *svg, const rt_ticks *ticks, double data_to, rt_number kind, const char *title);

typedef enum rt_anchor { RT_ANCHOR_START, RT_ANCHOR_MIDDLE, RT_ANCHOR_END } rt_anchor;
void rt_svg_text(rt_svg *svg, double x, double y, rt_anchor anchor, const char *classes, const char *text);
double rt_svg_text_width(const char *text, double font_px); /* an estimate, on the large side */

/* Points in data units; a break in the line where one is not finite. */
void rt_svg_line(rt_svg *svg, const char *classes, const double *x, const double *y, size_t count);
void rt_svg_band(rt_svg *svg, const char *classes, const double *x, const double *low, const double *high,
                 size_t count);
/* In pixels. */
void rt_svg_segment(rt_svg *svg, const char *classes, double x1, double y1, double x2, double y2);
void rt_svg_rect(rt_svg *svg, const char *classes, double x, double y, double width, double height,
                 const char *tip);
void rt_svg_dot(rt_svg *svg, const char *classes, double x, double y, double radius, const char *tip);
/* A whisker from low to high at height y, with caps. */
void rt_svg_whisker_x(rt_svg *svg, double y, double low_px, double high_px, double cap);

/* Moves the positions apart until neighbours are `gap` away from each other, inside [from, to], changing as
 * little as it can; for labels at the ends of lines.  count <= 8. */
void rt_spread(double *positions, size_t count, double gap, double from, double to);

/* Finds room for a label beside a dot, clear of the boxes that are there, and records its own. */
enum { RT_BOXES_MAX = 64 };
typedef struct rt_box {
    double left, top, right, bottom;
} rt_box;
typedef struct rt_boxes {
    rt_box taken[RT_BOXES_MAX];
    size_t count;
} rt_boxes;
void rt_boxes_take(rt_boxes *boxes, rt_box box); /* past RT_BOXES_MAX: forgotten */
void rt_svg_label_near(rt_svg *svg, rt_boxes *boxes, double x, double y, double radius, const char *classes,
                       const char *text);

#endif
