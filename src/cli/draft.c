/* cli/draft.c - see draft.h. */
#include "cli/draft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/shortlist.h"

#define LOOKUP "lookup"

char *cli_shortlist_path(const char *model_path)
{
    if (rt_path_is_dir(model_path))
        return rt_path_join(model_path, RT_SHORTLIST_FILE);
    const size_t size = strlen(model_path) + sizeof "." RT_SHORTLIST_FILE;
    char *path = malloc(size);
    if (path)
        (void)snprintf(path, size, "%s.%s", model_path, RT_SHORTLIST_FILE);
    return path;
}

/* An id of the padding would never be said, and a list of nothing else leaves nothing to say. */
static rt_status check_ids(const rt_shortlist *list, const cli_model *draft, const char *path, rt_error *err)
{
    const size_t real = rt_tokenizer_real_size(draft->tokenizer);
    if (list->ids[list->n - 1] >= real)
        return rt_error_set(err, RT_MISMATCH, "%.200s: id %u is not in the draft's tokenizer, which has %zu",
                            path, (unsigned)list->ids[list->n - 1], real);
    return RT_OK;
}

rt_status cli_shortlist_read(rt_shortlist *out, const char *path, const cli_model *draft, rt_error *err)
{
    if (rt_shortlist_read(out, path, err) != RT_OK)
        return err->status;
    rt_status status = check_ids(out, draft, path, err);
    if (status == RT_OK && rt_shortlist_fits(out, draft->model, err) != RT_OK)
        status = rt_error_within(err, path);
    if (status != RT_OK)
        rt_shortlist_deinit(out);
    return status;
}

static rt_status shorten(cli_draft *out, const char *path, rt_error *err)
{
    rt_shortlist list;
    if (cli_shortlist_read(&list, path, &out->model, err) != RT_OK)
        return err->status;
    rt_status status = rt_model_shorten_head(out->model.model, out->model.weights, &list, err);
    if (status != RT_OK)
        status = rt_error_within(err, path);
    out->n_ids = list.n;
    rt_shortlist_deinit(&list);
    return status;
}

static rt_status find_shortlist(cli_draft *out, const char *asked, rt_error *err)
{
    if (asked && strcmp(asked, "none") == 0)
        return RT_OK;
    if (asked)
        return shorten(out, asked, err);
    char *path = cli_shortlist_path(out->model.path);
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the name of the draft's shortlist");
    const rt_status status = rt_path_exists(path) ? shorten(out, path, err) : RT_OK;
    free(path);
    return status;
}

rt_status cli_draft_open(cli_draft *out, const cli_draft_options *options, const cli_model *model,
                         rt_precision precision, rt_pool *pool, rt_error *err)
{
    *out = (cli_draft){0};
    const char *name = options->draft;
    if (options->max > RT_DRAFT_MAX)
        return rt_error_set(err, RT_INVALID, "--draft-max is %d at most", RT_DRAFT_MAX);
    if (options->cost < 0)
        return rt_error_set(err, RT_INVALID, "--draft-cost is not below 0");
    if (!name && (options->shortlist || options->fixed || options->max || options->cost > 0))
        return rt_error_set(err, RT_INVALID, "--draft-... says how a draft is used: name it with --draft");
    if (!name)
        return RT_OK;
    if (strncmp(name, LOOKUP, strlen(LOOKUP)) == 0 && strchr("+", name[strlen(LOOKUP)])) {
        out->lookup = true;
        name += strlen(LOOKUP);
        if (*name == '\0')
            return options->shortlist
                       ? rt_error_set(err, RT_INVALID, "--draft-shortlist belongs to a draft model")
                       : RT_OK;
        name++;
    }
    if (cli_model_open(&out->model, name, precision, CLI_MODEL_NO_TEMPLATE, pool, err) != RT_OK ||
        cli_models_match(model, &out->model, err) != RT_OK ||
        find_shortlist(out, options->shortlist, err) != RT_OK) {
        cli_model_close(&out->model);
        return err->status;
    }
    return RT_OK;
}

void cli_draft_close(cli_draft *draft) { cli_model_close(&draft->model); }

void cli_draft_use(const cli_draft *draft, const cli_draft_options *options, rt_generate_options *out)
{
    out->draft = draft->model.model;
    out->draft_lookup = draft->lookup;
    out->draft_fixed = options->fixed;
    out->draft_max = options->max;
    out->draft_cost = options->cost;
}
