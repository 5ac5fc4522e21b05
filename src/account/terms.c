/* account/terms.c - see terms.h. */
#include "account/terms.h"

#include <stdlib.h>
#include <string.h>

#include "base/schema.h"

struct rt_terms {
    rt_settings *settings; /* owns the texts */
    const char *version, *link, *text;
    int distillation;
};

static const rt_field fields[] = {
    {"version", RT_FIELD_STRING, offsetof(rt_terms, version), NULL, "what an acceptance is recorded for",
     NULL, 0, 0},
    {"distillation", RT_FIELD_CHOICE, offsetof(rt_terms, distillation), NULL,
     "may answers be used to train other models?", "allowed|forbidden|by_agreement|by agreement", 0, 0},
    {"link", RT_FIELD_STRING, offsetof(rt_terms, link), NULL, "where the terms can be read", NULL, 0, 0},
    {"text", RT_FIELD_STRING, offsetof(rt_terms, text), "''", "the terms, or what they say in short", NULL, 0,
     0},
};
enum { N_FIELDS = sizeof fields / sizeof fields[0], VERSION_MAX = 64, LINK_MAX = 200 };

static bool plain(const char *text, size_t size_max)
{
    const size_t size = strlen(text);
    if (size == 0 || size > size_max || !rt_utf8_valid(text, size))
        return false;
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 127)
            return false;
    return true;
}

static rt_status finish(rt_terms **out, rt_terms *terms, rt_status status, const char *where, rt_error *err)
{
    if (status == RT_OK)
        status = rt_settings_fill(terms->settings, terms, err);
    if (status == RT_OK && (!plain(terms->version, VERSION_MAX) || !plain(terms->link, LINK_MAX)))
        status = rt_error_set(err, RT_INVALID,
                              "%s: version (1 to %d bytes) and link (1 to %d) must be plain text on one line",
                              where, VERSION_MAX, LINK_MAX);
    if (status == RT_OK)
        *out = terms;
    else
        rt_terms_close(terms);
    return status;
}

static rt_terms *empty(rt_error *err)
{
    rt_terms *terms = calloc(1, sizeof *terms);
    if (!terms) {
        (void)rt_error_set(err, RT_NO_MEMORY, "no memory for the terms");
        return NULL;
    }
    if (rt_settings_open(&terms->settings, fields, N_FIELDS, err) != RT_OK) {
        free(terms);
        return NULL;
    }
    return terms;
}

rt_status rt_terms_open(rt_terms **out, const char *path, rt_error *err)
{
    *out = NULL;
    rt_terms *terms = empty(err);
    return terms ? finish(out, terms, rt_settings_read(terms->settings, path, err), path, err) : err->status;
}

rt_status rt_terms_read(rt_terms **out, const char *data, size_t size, const char *where, rt_error *err)
{
    *out = NULL;
    rt_terms *terms = empty(err);
    return terms ? finish(out, terms, rt_settings_read_text(terms->settings, data, size, where, err), where,
                          err)
                 : err->status;
}

void rt_terms_close(rt_terms *terms)
{
    if (!terms)
        return;
    rt_settings_close(terms->settings);
    free(terms);
}

const char *rt_terms_version(const rt_terms *terms) { return terms->version; }
const char *rt_terms_link(const rt_terms *terms) { return terms->link; }
const char *rt_terms_text(const rt_terms *terms) { return terms->text; }
rt_distillation rt_terms_distillation(const rt_terms *terms)
{
    return terms->distillation > RT_DISTILLATION_BY_AGREEMENT ? RT_DISTILLATION_BY_AGREEMENT
                                                              : (rt_distillation)terms->distillation;
}

const char *rt_distillation_name(rt_distillation distillation)
{
    static const char *const names[] = {"allowed", "forbidden", "by agreement"};
    return names[distillation];
}
