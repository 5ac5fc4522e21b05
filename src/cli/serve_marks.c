/* cli/serve_marks.c - see serve_marks.h.  The mark of an account is made for each of its answers: for the
 * native schemes that is a hash and a small allocation, and nothing has to be kept for a million accounts. */
#include "cli/serve_marks.h"

#include <string.h>

static rt_status take(void *context, const char *account, const rt_marker **out, rt_error *err)
{
    const cli_serve_mark *m = context;
    rt_watermark own;
    rt_mark *mark;
    if (!account) {
        *out = rt_mark_marker(m->common);
        return RT_OK;
    }
    if (rt_mark_key_for_account(&own, &m->key.mark, account, err) != RT_OK ||
        rt_mark_open(&mark, &m->key.mark, &own, m->alpha, m->skip_repeated, err) != RT_OK)
        return err->status;
    *out = rt_mark_marker(mark);
    return RT_OK;
}

static void give(void *context, const rt_marker *marker)
{
    const cli_serve_mark *m = context;
    if (marker != rt_mark_marker(m->common))
        rt_mark_close(rt_mark_of_marker(marker));
}

rt_status cli_serve_mark_open(cli_serve_mark *m, json_t **json, const cli_mark_options *options,
                              const char *own, size_t n_vocab, const rt_tokenizer *tokenizer, rt_error *err)
{
    *m = (cli_serve_mark){.alpha = options->alpha, .skip_repeated = options->skip_repeated};
    if (!(options->alpha >= 0 && options->alpha <= 1))
        return rt_error_set(err, RT_INVALID, "--watermark-alpha is a share in 0..1, not %g", options->alpha);
    const rt_status status = cli_mark_open(&m->common, &m->key, json, options, n_vocab, tokenizer, err);
    if (status != RT_OK || !m->common)
        return status;
    const rt_scheme scheme = m->key.mark.scheme;
    m->marking = (rt_marking){.scheme = rt_scheme_word(scheme),
                              .key = m->key.id,
                              .h = scheme == RT_SCHEME_HF_KGW || scheme == RT_SCHEME_HF_SYNTHID
                                       ? 0 /* marked from the first token on */
                                       : rt_watermark_context(&m->key.mark),
                              .greedy = scheme == RT_SCHEME_KGW || scheme == RT_SCHEME_UNIGRAM ||
                                        scheme == RT_SCHEME_HF_KGW,
                              .own = strcmp(own, "all") == 0     ? RT_MARKING_ALL
                                     : strcmp(own, "guard") == 0 ? RT_MARKING_GUARD
                                                                 : RT_MARKING_NOBODY,
                              .own_share = options->alpha,
                              .take = take,
                              .give = give,
                              .context = m};
    (void)json_object_update_new(*json, json_pack("{s:s,s:f}", "own_keys", own, "alpha", options->alpha));
    return RT_OK;
}

void cli_serve_mark_close(cli_serve_mark *m) { rt_mark_close(m->common); }
