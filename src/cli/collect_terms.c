/* cli/collect_terms.c - terms of use of teachers; see collect_terms.h.
 *
 * The table holds hosts whose published terms restrict what outputs may be used for: training models that
 * compete with the provider's.  It is a notice, not legal advice; terms change, and a contract may say
 * otherwise. */
#include "cli/collect_terms.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *host, *terms;
} restricted[] = {
    {"api.openai.com", "https://openai.com/policies/"},
    {"api.anthropic.com", "https://www.anthropic.com/legal"},
    {"generativelanguage.googleapis.com", "https://ai.google.dev/gemini-api/terms"},
};

static const char *host_of(const char *url, size_t *size)
{
    const char *start = strstr(url, "://");
    start = start ? start + 3 : url;
    *size = strcspn(start, "/:");
    return start;
}

rt_status collect_terms_check(const rt_teacher_info *info, bool permitted, rt_error *err)
{
    size_t size;
    const char *host = host_of(info->source, &size), *terms = info->terms;
    bool forbids = info->forbids_training;
    for (size_t i = 0; i < sizeof restricted / sizeof restricted[0]; i++)
        if (strlen(restricted[i].host) == size && strncmp(host, restricted[i].host, size) == 0) {
            forbids = true;
            terms = terms[0] ? terms : restricted[i].terms;
        }
    if (forbids && !permitted)
        return rt_error_set(
            err, RT_FORBIDDEN,
            "the terms of %.*s do not allow training other models on its outputs (%.200s): collect only "
            "with the provider's consent, and then say --i-have-permission, which is recorded",
            (int)size, host, terms[0] ? terms : "teacher.forbids_training is set");
    if (strcmp(info->kind, "remote") == 0)
        (void)fprintf(stderr, "retort: what %.*s answers is subject to its terms of use%s%s%s\n", (int)size,
                      host, terms[0] || info->licence[0] ? ": " : "; --terms and --licence record them",
                      info->licence[0] ? info->licence : terms,
                      info->licence[0] && terms[0] ? " (terms are recorded)" : "");
    return RT_OK;
}
