/* serve/admin_page.c - which file of the operator's page is at which path. */
#include "serve/admin_page.h"

#include <string.h>

bool rt_admin_page_find(const char *path, rt_page_file *out)
{
    if (strcmp(path, "/admin") == 0 || strcmp(path, "/admin/") == 0)
        *out = (rt_page_file){"text/html; charset=utf-8", rt_asset_admin_html, rt_asset_admin_html_size};
    else if (strcmp(path, "/admin/admin.css") == 0)
        *out = (rt_page_file){"text/css; charset=utf-8", rt_asset_admin_css, rt_asset_admin_css_size};
    else if (strcmp(path, "/admin/admin.js") == 0)
        *out = (rt_page_file){"text/javascript; charset=utf-8", rt_asset_admin_js, rt_asset_admin_js_size};
    else
        return false;
    return true;
}
