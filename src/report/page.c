/* report/page.c - see page.h. */
#include "report/page.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "report/html.h"
#include "report/style.h"

static unsigned hex_digit(char c) { return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10); }

/* The script's SHA-256 in base64, as the policy names it. */
static void put_script_hash(rt_text *out)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char hex[65];
    rt_sha256_hex(hex, rt_report_script, strlen(rt_report_script));
    for (size_t i = 0; i < 64; i += 6) { /* three bytes, six digits, four letters */
        uint32_t bits = 0;
        for (size_t k = i; k < i + 6; k++)
            bits = bits << 4 | (k < 64 ? hex_digit(hex[k]) : 0);
        for (size_t k = 0; k < 4; k++) {
            const bool padding = i + 6 > 64 && k == 3; /* 32 bytes: the last group has two */
            rt_text_printf(out, "%c", padding ? '=' : alphabet[bits >> (18 - 6 * k) & 63]);
        }
    }
}

/* The heading's words; one with hyphens, such as a model's name, is not broken at them while it is short. */
static void put_heading(rt_text *out, const char *title)
{
    while (*title) {
        const size_t size = strcspn(title, " "), blanks = strspn(title + size, " ");
        const bool whole = size <= 32 && memchr(title, '-', size);
        rt_text_puts(out, whole ? "<span>" : "");
        rt_html_text(out, title, size, size);
        rt_text_puts(out, whole ? "</span>" : "");
        rt_text_append(out, title + size, blanks);
        title += size + blanks;
    }
}

void rt_page_open(rt_text *out, const char *title, const char *kicker, const char *deck)
{
    rt_text_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                      "style-src 'unsafe-inline'; script-src 'sha256-");
    put_script_hash(out);
    rt_text_puts(out, "'; base-uri 'none'; form-action 'none'\">\n<meta name=\"referrer\" "
                      "content=\"no-referrer\">\n<title>");
    rt_html_puts(out, title);
    rt_text_puts(out, "</title>\n<style>\n");
    rt_text_puts(out, rt_report_style);
    rt_text_puts(out, "</style>\n</head>\n<body>\n<header>\n<p class=\"kicker\">");
    rt_html_puts(out, kicker);
    rt_text_puts(out, "</p>\n<h1>");
    put_heading(out, title);
    rt_text_puts(out, "</h1>\n");
    if (deck[0])
        rt_page_paragraph(out, "deck", deck);
}

void rt_page_close(rt_text *out, const char *colophon)
{
    rt_text_puts(out, "<footer>");
    rt_html_puts(out, colophon);
    rt_text_puts(out, "</footer>\n<script>");
    rt_text_puts(out, rt_report_script);
    rt_text_puts(out, "</script>\n</body>\n</html>\n");
}

void rt_page_section_open(rt_text *out, const char *id, const char *heading)
{
    rt_text_printf(out, "<section id=\"%s\">\n<h2>%s</h2>\n", id, heading);
}

void rt_page_section_close(rt_text *out) { rt_text_puts(out, "</section>\n"); }

void rt_page_paragraph(rt_text *out, const char *classes, const char *text)
{
    rt_text_printf(out, "<p class=\"%s\">", classes);
    rt_html_puts(out, text);
    rt_text_puts(out, "</p>\n");
}

void rt_page_missing(rt_text *out, const char *sentence) { rt_page_paragraph(out, "missing", sentence); }

void rt_page_figure_open(rt_text *out, const char *title)
{
    rt_text_puts(out, "<figure>\n");
    if (title)
        rt_text_printf(out, "<h3>%s</h3>\n", title);
}

void rt_page_figure_close(rt_text *out, const char *caption)
{
    if (caption) {
        rt_text_puts(out, "<figcaption>");
        rt_html_puts(out, caption);
        rt_text_puts(out, "</figcaption>\n");
    }
    rt_text_puts(out, "</figure>\n");
}
