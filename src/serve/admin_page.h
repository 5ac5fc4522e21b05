/* serve/admin_page.h - the operator's page: its files (src/serve/page), built into the program. */
#ifndef RT_SERVE_ADMIN_PAGE_H
#define RT_SERVE_ADMIN_PAGE_H

#include <stdbool.h>
#include <stddef.h>

extern const unsigned char rt_asset_admin_html[], rt_asset_admin_css[], rt_asset_admin_js[],
    rt_asset_guard_js[], rt_asset_drawing_js[];
extern const size_t rt_asset_admin_html_size, rt_asset_admin_css_size, rt_asset_admin_js_size,
    rt_asset_guard_js_size, rt_asset_drawing_js_size;

typedef struct rt_page_file {
    const char *type;
    const unsigned char *data;
    size_t size;
} rt_page_file;

/* The file at a path of the admin listener; false: none. */
bool rt_admin_page_find(const char *path, rt_page_file *out);

#endif
