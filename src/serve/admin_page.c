/* serve/admin_page.c - which file of the operator's page is at which path. */
#include "serve/admin_page.h"

#include <string.h>

#define ASSET(name) rt_asset_##name, &rt_asset_##name##_size

static const struct {
    const char *path, *type;
    const unsigned char *data;
    const size_t *size;
} files[] = {
    {"/admin", "text/html; charset=utf-8", ASSET(admin_html)},
    {"/admin/", "text/html; charset=utf-8", ASSET(admin_html)},
    {"/admin/admin.css", "text/css; charset=utf-8", ASSET(admin_css)},
    {"/admin/admin.js", "text/javascript; charset=utf-8", ASSET(admin_js)},
    {"/admin/guard.js", "text/javascript; charset=utf-8", ASSET(guard_js)},
    {"/admin/drawing.js", "text/javascript; charset=utf-8", ASSET(drawing_js)},
};

bool rt_admin_page_find(const char *path, rt_page_file *out)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (strcmp(path, files[i].path) == 0) {
            *out = (rt_page_file){files[i].type, files[i].data, *files[i].size};
            return true;
        }
    return false;
}
