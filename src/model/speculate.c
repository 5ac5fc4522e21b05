/* model/speculate.c - see speculate.h. */
#include "model/speculate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/size.h"
#include "model/lookup.h"
#include "model/pace.h"

/* Which of a position's uniforms is for what; the model's own draw and a marker's coin are 0 and 1, so that
 * the token after a round without a refusal is the one that the model alone would draw. */
enum { DRAW_PROPOSAL = 2, DRAW_ACCEPT, DRAW_INSTEAD };

/* Where a proposal comes from: its bin (model/pace.h), and whether all of q is at it. */
typedef struct origin {
    size_t bin;
    bool looked_up;
} origin;

typedef struct speculation {
    const rt_model *model, *draft; /* draft NULL: proposals are looked up alone */
    const rt_tokenizer *tokenizer;
    const rt_generate_options *options;
    rt_generate_stats *stats;
    rt_session *session, *draft_session;
    rt_sampler *sampler;
    rt_lookup *lookup; /* NULL: none */
    rt_pace pace;
    size_t n_vocab, n_draft_vocab, n_draft_ids;
    float *logits;       /* [RT_DRAFT_MAX + 1, n_vocab] of the model */
    float *draft_logits; /* [max(n_vocab, n_draft_vocab)] */
    float *p;            /* [max(n_vocab, n_draft_vocab)] */
    float *q;            /* [RT_DRAFT_MAX, n_vocab] what the draft's proposals were drawn from */
    origin origins[RT_DRAFT_MAX];
    int32_t *ids;       /* prompt, answer, and the proposals after them */
    size_t n_prompt, n; /* of ids: the prompt's, and those that stand */
    size_t unasked;     /* rounds since the draft ran */
    double draft_cost, begun;
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

/* ---- proposals ---- */

/* The largest probability of the draft's logits, at temperature 1. */
static double largest_of_logits(const speculation *s)
{
    const uint32_t *ids = s->draft->head_ids;
    const size_t n = s->n_draft_ids;
    float top = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        s->p[i] = s->draft_logits[ids ? ids[i] : i];
        top = fmaxf(top, s->p[i]);
    }
    return exp((double)top - (double)s->draft->ops->softmax(s->p, n, 1));
}

static double largest_of(const float *q, size_t n)
{
    float top = 0;
    for (size_t i = 0; i < n; i++)
        top = fmaxf(top, q[i]);
    return (double)top;
}

/* The draft reads up to place n + i and says what it would draw proposal i from; *bin by its first choice. */
static rt_status ask_draft(speculation *s, size_t i, size_t *bin, rt_error *err)
{
    const size_t known = rt_session_length(s->draft_session, 0), to = s->n + i;
    const double from = rt_clock_seconds();
    if (rt_session_prefill(s->draft_session, 0, s->ids + known, to - known, s->draft_logits, err) != RT_OK)
        return err->status;
    s->stats->draft.passes++;
    if (to - known == 1) {
        s->stats->draft.single_passes++;
        s->stats->draft.single_s += rt_clock_seconds() - from;
    }
    s->unasked = 0;
    if (exact(s)) {
        *bin = rt_pace_draft_bin(largest_of_logits(s));
        fit_vocabulary(s);
        return RT_OK;
    }
    fit_vocabulary(s);
    float *q = s->q + i * s->n_vocab;
    rt_sampler_distribution(s->sampler, &s->options->sampling, s->draft_logits, s->ids, to, q);
    *bin = rt_pace_draft_bin(largest_of(q, s->n_vocab));
    return RT_OK;
}

static int32_t draw_proposal(const speculation *s, const rt_prompt *prompt, size_t i)
{
    const size_t at = s->n + i;
    if (exact(s))
        return rt_sample(s->sampler, &s->options->sampling, s->draft_logits, s->ids, at, prompt->stream,
                         at - s->n_prompt);
    return rt_sampler_pick(s->q + i * s->n_vocab, s->n_vocab, uniform(s, prompt, at, DRAW_PROPOSAL));
}

enum {
    DRAFT_AGAIN = 16
}; /* after so many rounds without it the draft is asked, if nothing else is proposed */

/* What asking the draft for proposal i is expected to bring; it also reads what it has not read of the answer
 * (the prompt it has to read in any case, sooner or later). */
static double draft_gain(const speculation *s, size_t i, double reach)
{
    const size_t known = rt_size_max(rt_session_length(s->draft_session, 0), s->n_prompt);
    const double behind = (double)(rt_size_max(s->n + i, known + 1) - known - 1);
    return rt_pace_gain(&s->pace, reach, rt_pace_draft_chance(&s->pace),
                        RT_PACE_ROW + s->draft_cost * (1 + behind * RT_PACE_ROW));
}

/* Makes proposal i if it is expected to pay; *reach: the chance that all before it are kept. */
static rt_status propose(speculation *s, const rt_prompt *prompt, size_t i, double *reach, bool *made,
                         rt_error *err)
{
    const bool fixed = s->options->draft_fixed;
    int32_t found;
    origin *from = &s->origins[i];
    const size_t agreement = s->lookup ? rt_lookup_find(s->lookup, s->ids, s->n + i, &found) : 0;
    double by_lookup = -1, by_draft = -1;
    if (agreement) {
        from->bin = rt_pace_lookup_bin(agreement);
        by_lookup =
            fixed ? 1 : rt_pace_gain(&s->pace, *reach, rt_pace_chance(&s->pace, from->bin), RT_PACE_ROW);
    }
    if (s->draft && fixed)
        by_draft = agreement ? 0 : 1;
    else if (s->draft)
        by_draft = draft_gain(s, i, *reach);
    if (s->draft && by_lookup <= 0 && i == 0 && s->unasked >= DRAFT_AGAIN)
        by_draft = 1;
    *made = false;
    if (by_lookup <= 0 && by_draft <= 0)
        return RT_OK;
    from->looked_up = by_lookup >= by_draft;
    if (from->looked_up) {
        s->ids[s->n + i] = found;
        s->stats->draft.looked_up++;
    } else {
        if (ask_draft(s, i, &from->bin, err) != RT_OK)
            return err->status;
        if (!fixed && rt_pace_gain(&s->pace, *reach, rt_pace_chance(&s->pace, from->bin), RT_PACE_ROW) <= 0)
            return RT_OK;
        s->ids[s->n + i] = draw_proposal(s, prompt, i);
    }
    *reach *= rt_pace_chance(&s->pace, from->bin);
    *made = true;
    return RT_OK;
}

/* Up to k proposals behind what stands; *made of them. */
static rt_status run_ahead(speculation *s, const rt_prompt *prompt, size_t k, size_t *made, rt_error *err)
{
    const double from = rt_clock_seconds();
    double reach = 1;
    bool more = true;
    if (s->lookup)
        rt_lookup_learn(s->lookup, s->ids, s->n);
    s->unasked++;
    for (*made = 0; *made < k; ++*made) {
        if (propose(s, prompt, *made, &reach, &more, err) != RT_OK)
            return err->status;
        if (!more)
            break;
        if (s->tokenizer && rt_tokenizer_is_end(s->tokenizer, s->ids[s->n + *made])) {
            ++*made;
            break;
        }
    }
    s->stats->draft.seconds += rt_clock_seconds() - from;
    s->stats->draft.proposed += *made;
    return RT_OK;
}

/* ---- what the model makes of them ---- */

/* The chance that both distributions give proposal i, and p becomes what is drawn from when it is refused:
 * max(p - q, 0).  *kept: is it kept? */
static double weigh(const speculation *s, const rt_prompt *prompt, size_t i, bool *kept)
{
    const size_t at = s->n;
    const int32_t proposal = s->ids[at];
    const double coin = uniform(s, prompt, at, DRAW_ACCEPT), mine = (double)s->p[proposal];
    if (s->origins[i].looked_up) { /* q is 1 at it */
        *kept = coin < mine;
        s->p[proposal] = 0;
        return fmin(mine, 1);
    }
    const float *q = s->q + i * s->n_vocab;
    *kept = coin * (double)q[proposal] < mine;
    float common[8] = {0}; /* sums side by side */
    double sum = 0;
    size_t v = 0;
    for (; v + 8 <= s->n_vocab; v += 8)
        for (size_t j = 0; j < 8; j++)
            common[j] += fminf(s->p[v + j], q[v + j]);
    for (; v < s->n_vocab; v++)
        common[0] += fminf(s->p[v], q[v]);
    for (size_t j = 0; j < 8; j++)
        sum += (double)common[j];
    for (v = 0; v < s->n_vocab && !*kept; v++)
        s->p[v] = fmaxf(s->p[v] - q[v], 0);
    return fmin(sum, 1);
}

/* Is proposal i of the round kept, the one at place n?  If not, that place gets the model's token. */
static bool accept(speculation *s, const rt_prompt *prompt, size_t i)
{
    const rt_sampling *how = &s->options->sampling;
    const size_t at = s->n;
    float *logits = s->logits + i * s->n_vocab;
    const int32_t proposal = s->ids[at];
    bool kept;
    double chance;
    if (exact(s)) {
        s->ids[at] = rt_sample(s->sampler, how, logits, s->ids, at, prompt->stream, at - s->n_prompt);
        kept = s->ids[at] == proposal;
        chance = kept;
    } else {
        rt_sampler_distribution(s->sampler, how, logits, s->ids, at, s->p);
        chance = weigh(s, prompt, i, &kept);
        /* nothing left: p and q are the same but for rounding */
        if (!kept && !(largest_of(s->p, s->n_vocab) > 0))
            kept = true;
        if (!kept)
            s->ids[at] = rt_sampler_pick(s->p, s->n_vocab, uniform(s, prompt, at, DRAW_INSTEAD));
    }
    rt_pace_learn(&s->pace, s->origins[i].bin, chance);
    s->stats->draft.tested++;
    s->stats->draft.expected += chance;
    s->stats->draft.looked_up_tested += s->origins[i].looked_up;
    s->stats->draft.looked_up_accepted += s->origins[i].looked_up && kept;
    return kept;
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

/* The model reads the last token that stands and `made` proposals after it; rows of logits for each. */
static rt_status read_ahead(speculation *s, size_t made, rt_error *err)
{
    const rt_piece piece = {0, s->ids + s->n - 1, made + 1};
    size_t rows[RT_DRAFT_MAX + 1];
    for (size_t i = 0; i <= made; i++)
        rows[i] = i;
    const double from = rt_clock_seconds();
    if (rt_session_append(s->session, &piece, 1, false, err) != RT_OK)
        return err->status;
    rt_session_logits(s->session, rows, made + 1, s->logits);
    s->stats->draft.model_s[made] += rt_clock_seconds() - from;
    s->stats->draft.model_passes[made]++;
    return RT_OK;
}

/* One round: at least one token more.  false: the answer has ended, or *status says why not. */
static bool go_round(speculation *s, const rt_prompt *prompt, size_t index, rt_finish *why, rt_status *status,
                     rt_error *err)
{
    const size_t room =
        rt_size_min(rt_session_capacity(s->session) - s->n, prompt->tokens_max - (s->n - s->n_prompt));
    const size_t most = s->options->draft_max ? s->options->draft_max : RT_DRAFT_DEFAULT;
    const size_t n_before = s->n, passes_before = s->stats->draft.passes;
    size_t made, kept = 0;
    if ((*status = run_ahead(s, prompt, rt_size_min(rt_size_min(most, RT_DRAFT_MAX), room - 1), &made,
                             err)) != RT_OK ||
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
    rt_pace_round(&s->pace, s->stats->draft.passes - passes_before, made, s->n - n_before);
    /* the last token that stands has not been read by the model yet */
    rt_session_truncate(s->session, 0, s->n - 1);
    if (s->draft)
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
    s->unasked = 0;
    rt_pace_begin(&s->pace, s->draft_cost);
    rt_session_truncate(s->session, 0, 0);
    if (s->draft)
        rt_session_truncate(s->draft_session, 0, 0);
    if (s->lookup)
        rt_lookup_reset(s->lookup);
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
    if (s->draft && s->draft->config.n_context < positions)
        return rt_error_set(err, RT_INVALID,
                            "the draft's context of %zu tokens is shorter than the %zu wanted; give a "
                            "smaller context",
                            s->draft->config.n_context, positions);
    if ((s->draft && rt_session_open(&s->draft_session, s->draft, 1, positions, err) != RT_OK) ||
        (o->draft_lookup && rt_lookup_open(&s->lookup, positions, err) != RT_OK) ||
        rt_sampler_open(&s->sampler, s->n_vocab, err) != RT_OK)
        return err->status;
    if (s->tokenizer)
        rt_sampler_limit(s->sampler, rt_tokenizer_real_size(s->tokenizer));
    s->logits = malloc((RT_DRAFT_MAX + 1) * s->n_vocab * sizeof *s->logits);
    const size_t most = rt_size_max(s->n_vocab, s->n_draft_vocab);
    s->draft_logits = malloc(most * sizeof *s->draft_logits);
    s->p = malloc(most * sizeof *s->p);
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
    rt_lookup_close(s->lookup);
    if (s->draft)
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
                     .begun = rt_clock_seconds()};
    if (s.draft) {
        s.n_draft_vocab = s.draft->config.n_vocab;
        s.n_draft_ids = s.draft->head.rows;
        s.draft_cost = options->draft_cost > 0 ? options->draft_cost : rt_pace_cost(s.draft, model);
    }
    rt_status status = open_all(&s, err);
    for (size_t i = 0; i < n_prompts && status == RT_OK; i++)
        status = answer(&s, &prompts[i], i, err);
    close_all(&s);
    return status;
}
