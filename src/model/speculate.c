/* model/speculate.c - see speculate.h. */
#include "model/speculate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/size.h"

/* Which of a position's uniforms is for what; the model's own draw and a marker's coin are 0 and 1, so that
 * the token after a round without a refusal is the one that the model alone would draw. */
enum { DRAW_PROPOSAL = 2, DRAW_ACCEPT, DRAW_INSTEAD };

typedef struct speculation {
    const rt_model *model, *draft;
    const rt_tokenizer *tokenizer;
    const rt_generate_options *options;
    rt_generate_stats *stats;
    rt_session *session, *draft_session;
    rt_sampler *sampler;
    size_t n_vocab, n_draft_vocab;
    float *logits;       /* [RT_DRAFT_MAX + 1, n_vocab] of the model */
    float *draft_logits; /* [max(n_vocab, n_draft_vocab)] */
    float *p;            /* [n_vocab] */
    float *q;            /* [RT_DRAFT_MAX, n_vocab] what the proposals were drawn from */
    int32_t *ids;        /* prompt, answer, and the proposals after them */
    size_t n_prompt, n;  /* of ids: the prompt's, and those that stand */
    size_t ahead;        /* how many the draft runs ahead */
    double begun;
} speculation;

/* What is accepted by equality, not by a coin. */
static bool exact(const speculation *s)
{
    return s->options->sampling.temperature == 0 || s->options->sampling.marker;
}

static double uniform(const speculation *s, const rt_prompt *prompt, size_t at, unsigned k)
{
    return rt_sampler_uniform(&s->options->sampling, prompt->stream, at - s->n_prompt, k);
}

/* The draft's logits over the model's vocabulary: ids that it does not have are never proposed. */
static void fit_vocabulary(const speculation *s)
{
    for (size_t i = s->n_draft_vocab; i < s->n_vocab; i++)
        s->draft_logits[i] = -INFINITY;
}

/* Proposal number i, for place n + i of the sequence. */
static void propose(speculation *s, const rt_prompt *prompt, size_t i)
{
    const size_t at = s->n + i;
    fit_vocabulary(s);
    if (exact(s)) {
        s->ids[at] = rt_sample(s->sampler, &s->options->sampling, s->draft_logits, s->ids, at, prompt->stream,
                               at - s->n_prompt);
        return;
    }
    float *q = s->q + i * s->n_vocab;
    rt_sampler_distribution(s->sampler, &s->options->sampling, s->draft_logits, s->ids, at, q);
    s->ids[at] = rt_sampler_pick(q, s->n_vocab, uniform(s, prompt, at, DRAW_PROPOSAL));
}

/* Lets the draft write up to k tokens behind what stands; *made of them. */
static rt_status run_ahead(speculation *s, const rt_prompt *prompt, size_t k, size_t *made, rt_error *err)
{
    const double from = rt_clock_seconds();
    *made = 0;
    while (*made < k) {
        const size_t known = rt_session_length(s->draft_session, 0), to = s->n + *made;
        if (rt_session_prefill(s->draft_session, 0, s->ids + known, to - known, s->draft_logits, err) !=
            RT_OK)
            return err->status;
        propose(s, prompt, *made);
        (*made)++;
        if (s->tokenizer && rt_tokenizer_is_end(s->tokenizer, s->ids[to]))
            break;
    }
    s->stats->draft.seconds += rt_clock_seconds() - from;
    s->stats->draft.proposed += *made;
    return RT_OK;
}

/* Is proposal i of the round kept, the one at place n?  If not, that place gets the model's token. */
static bool accept(speculation *s, const rt_prompt *prompt, size_t i)
{
    const rt_sampling *how = &s->options->sampling;
    const size_t at = s->n;
    float *logits = s->logits + i * s->n_vocab;
    const int32_t proposal = s->ids[at];
    s->stats->draft.tested++;
    if (exact(s)) {
        s->ids[at] = rt_sample(s->sampler, how, logits, s->ids, at, prompt->stream, at - s->n_prompt);
        s->stats->draft.expected += s->ids[at] == proposal;
        return s->ids[at] == proposal;
    }
    const float *q = s->q + i * s->n_vocab;
    rt_sampler_distribution(s->sampler, how, logits, s->ids, at, s->p);
    double common = 0, rest = 0;
    for (size_t v = 0; v < s->n_vocab; v++)
        common += (double)fminf(s->p[v], q[v]);
    s->stats->draft.expected += fmin(common, 1);
    if (uniform(s, prompt, at, DRAW_ACCEPT) * (double)q[proposal] < (double)s->p[proposal])
        return true;
    for (size_t v = 0; v < s->n_vocab; v++) {
        s->p[v] = fmaxf(s->p[v] - q[v], 0);
        rest += (double)s->p[v];
    }
    if (!(rest > 0)) /* p and q are the same but for rounding */
        return true;
    s->ids[at] = rt_sampler_pick(s->p, s->n_vocab, uniform(s, prompt, at, DRAW_INSTEAD));
    return false;
}

/* Takes over the token at place n.  false: the answer ends with it (*why). */
static bool take(speculation *s, const rt_prompt *prompt, size_t index, rt_finish *why, rt_status *status,
                 rt_error *err)
{
    if (s->stats->answer_tokens++ == 0)
        s->stats->first_token_s = rt_clock_seconds() - s->begun;
    const int32_t id = s->ids[s->n];
    if (s->tokenizer && rt_tokenizer_is_end(s->tokenizer, id)) {
        *why = RT_FINISH_STOP;
        return false;
    }
    s->n++;
    if (s->options->token && !s->options->token(s->options->context, index, id)) {
        *status = rt_error_set(err, RT_STOPPED, "stopped");
        return false;
    }
    *why = RT_FINISH_LENGTH;
    return s->n - s->n_prompt < prompt->tokens_max && s->n < rt_session_capacity(s->session);
}

static void adapt(speculation *s, size_t made, size_t kept)
{
    const size_t most =
        rt_size_min(s->options->draft_max ? s->options->draft_max : RT_DRAFT_DEFAULT, RT_DRAFT_MAX);
    if (kept == made && s->ahead < most)
        s->ahead++;
    else if (kept == 0 && s->ahead > 1)
        s->ahead--;
    s->ahead = rt_size_min(s->ahead, most);
}

/* The model reads the last token that stands and `made` proposals after it; rows of logits for each. */
static rt_status read_ahead(speculation *s, size_t made, rt_error *err)
{
    const rt_piece piece = {0, s->ids + s->n - 1, made + 1};
    size_t rows[RT_DRAFT_MAX + 1];
    for (size_t i = 0; i <= made; i++)
        rows[i] = i;
    if (rt_session_append(s->session, &piece, 1, false, err) != RT_OK)
        return err->status;
    rt_session_logits(s->session, rows, made + 1, s->logits);
    return RT_OK;
}

/* One round: at least one token more.  false: the answer has ended, or *status says why not. */
static bool go_round(speculation *s, const rt_prompt *prompt, size_t index, rt_finish *why, rt_status *status,
                     rt_error *err)
{
    const size_t room =
        rt_size_min(rt_session_capacity(s->session) - s->n, prompt->tokens_max - (s->n - s->n_prompt));
    size_t made, kept = 0;
    if ((*status = run_ahead(s, prompt, rt_size_min(s->ahead, room - 1), &made, err)) != RT_OK ||
        (*status = read_ahead(s, made, err)) != RT_OK)
        return false;
    bool more = true, refused = false;
    for (size_t i = 0; i < made && more && !refused; i++) {
        refused = !accept(s, prompt, i);
        kept += !refused;
        more = take(s, prompt, index, why, status, err);
    }
    if (more && !refused) {
        s->ids[s->n] = rt_sample(s->sampler, &s->options->sampling, s->logits + made * s->n_vocab, s->ids,
                                 s->n, prompt->stream, s->n - s->n_prompt);
        more = take(s, prompt, index, why, status, err);
    }
    s->stats->draft.rounds++;
    s->stats->draft.accepted += kept;
    adapt(s, made, kept);
    /* the last token that stands has not been read by the model yet */
    rt_session_truncate(s->session, 0, s->n - 1);
    rt_session_truncate(s->draft_session, 0, s->n - 1);
    return more;
}

static rt_status answer(speculation *s, const rt_prompt *prompt, size_t index, rt_error *err)
{
    if (prompt->n >= rt_session_capacity(s->session))
        return rt_error_set(err, RT_INVALID,
                            "prompt %zu has %zu tokens and leaves no room in a context of %zu", index + 1,
                            prompt->n, rt_session_capacity(s->session));
    memcpy(s->ids, prompt->ids, prompt->n * sizeof *s->ids);
    s->n_prompt = s->n = prompt->n;
    s->ahead = RT_DRAFT_DEFAULT;
    rt_session_truncate(s->session, 0, 0);
    rt_session_truncate(s->draft_session, 0, 0);
    const double from = rt_clock_seconds();
    if (rt_session_prefill(s->session, 0, prompt->ids, prompt->n, s->logits, err) != RT_OK)
        return err->status;
    s->stats->prefill_s += rt_clock_seconds() - from;
    s->stats->prompt_tokens += prompt->n;
    rt_finish why = RT_FINISH_LENGTH;
    rt_status status = RT_OK;
    if (prompt->tokens_max > 0) {
        s->ids[s->n] =
            rt_sample(s->sampler, &s->options->sampling, s->logits, s->ids, s->n, prompt->stream, 0);
        bool more = take(s, prompt, index, &why, &status, err);
        const double decoding = rt_clock_seconds();
        while (more)
            more = go_round(s, prompt, index, &why, &status, err);
        s->stats->decode_s += rt_clock_seconds() - decoding;
    }
    const rt_answer done = {index, s->ids + s->n_prompt, s->n - s->n_prompt, why};
    if (status == RT_OK && s->options->answer && !s->options->answer(s->options->context, &done))
        return rt_error_set(err, RT_STOPPED, "stopped after %zu prompts", index + 1);
    return status;
}

static rt_status open_all(speculation *s, rt_error *err)
{
    const rt_generate_options *o = s->options;
    if (rt_sampling_check(&o->sampling, err) != RT_OK ||
        rt_session_open(&s->session, s->model, 1, o->n_positions, err) != RT_OK)
        return err->status;
    const size_t positions = rt_session_capacity(s->session);
    if (s->draft->config.n_context < positions)
        return rt_error_set(err, RT_INVALID,
                            "the draft's context of %zu tokens is shorter than the %zu wanted; give a "
                            "smaller context",
                            s->draft->config.n_context, positions);
    if (rt_session_open(&s->draft_session, s->draft, 1, positions, err) != RT_OK ||
        rt_sampler_open(&s->sampler, s->n_vocab, err) != RT_OK)
        return err->status;
    if (s->tokenizer)
        rt_sampler_limit(s->sampler, rt_tokenizer_real_size(s->tokenizer));
    s->logits = malloc((RT_DRAFT_MAX + 1) * s->n_vocab * sizeof *s->logits);
    s->draft_logits = malloc(rt_size_max(s->n_vocab, s->n_draft_vocab) * sizeof *s->draft_logits);
    s->p = malloc(s->n_vocab * sizeof *s->p);
    s->q = malloc(RT_DRAFT_MAX * s->n_vocab * sizeof *s->q);
    s->ids = malloc((positions + RT_DRAFT_MAX + 1) * sizeof *s->ids);
    if (!s->logits || !s->draft_logits || !s->p || !s->q || !s->ids)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for speculative decoding over %zu ids", s->n_vocab);
    return RT_OK;
}

static void close_all(speculation *s)
{
    free(s->logits);
    free(s->draft_logits);
    free(s->p);
    free(s->q);
    free(s->ids);
    rt_sampler_close(s->sampler);
    rt_session_close(s->draft_session);
    rt_session_close(s->session);
}

rt_status rt_speculate(const rt_model *model, const rt_tokenizer *tokenizer, const rt_prompt *prompts,
                       size_t n_prompts, const rt_generate_options *options, rt_generate_stats *stats,
                       rt_error *err)
{
    speculation s = {.model = model,
                     .draft = options->draft,
                     .tokenizer = tokenizer,
                     .options = options,
                     .stats = stats,
                     .n_vocab = model->config.n_vocab,
                     .n_draft_vocab = options->draft->config.n_vocab,
                     .begun = rt_clock_seconds()};
    rt_status status = open_all(&s, err);
    for (size_t i = 0; i < n_prompts && status == RT_OK; i++)
        status = answer(&s, &prompts[i], i, err);
    close_all(&s);
    return status;
}
