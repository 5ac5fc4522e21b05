/* model/generate.h - answers for many prompts: slots are refilled as answers end, so batches stay full. Where
 * a prompt begins like one that another slot holds (samples of one prompt, examples before a question), that
 * beginning is copied and not read again; the bits are those of reading all of it. */
#ifndef RT_MODEL_GENERATE_H
#define RT_MODEL_GENERATE_H

#include "model/sampler.h"
#include "model/session.h"
#include "model/tokenizer.h"

typedef enum rt_finish { RT_FINISH_STOP, RT_FINISH_LENGTH } rt_finish;

typedef struct rt_prompt {
    const int32_t *ids;
    size_t n;
    size_t tokens_max; /* of the answer; it also ends where the context does */
    uint64_t stream;   /* names the draws: an answer depends on (seed, stream) and not on its neighbours */
} rt_prompt;

typedef struct rt_answer {
    size_t index;       /* of the prompt */
    const int32_t *ids; /* borrowed; without the token that ended it */
    size_t n;
    rt_finish finish;
} rt_answer;

enum { RT_DRAFT_DEFAULT = 7, RT_DRAFT_MAX = 15 }; /* tokens ahead: a pass over 8, and over 16 */

typedef struct rt_generate_options {
    rt_sampling sampling;
    size_t n_slots;     /* sequences side by side; 0: 16, or as many as there are prompts */
    size_t n_positions; /* context of a slot; 0: the model's */
    /* Speculative decoding (model/speculate.h), with a draft, by looking up what was said before, or both.
     * One prompt after another, n_slots is not used. */
    const rt_model *draft; /* borrowed; reads the same ids, and has the same pool; NULL: none */
    bool draft_lookup;
    bool draft_fixed;  /* as many proposals as can be, whether they pay or not */
    size_t draft_max;  /* tokens that it runs ahead at most; 0: RT_DRAFT_DEFAULT */
    double draft_cost; /* of a token of the draft, in tokens of the model; 0: by what their passes read */
    /* token: each new id as it comes (may be NULL).  answer: when one is finished (may be NULL). false from
     * either stops the whole call with RT_STOPPED. */
    bool (*token)(void *context, size_t index, int32_t id);
    bool (*answer)(void *context, const rt_answer *answer);
    void *context;
} rt_generate_options;

typedef struct rt_generate_stats {
    size_t prompt_tokens, answer_tokens;
    size_t prompt_shared; /* of the prompts' tokens: copied from a slot that had read them */
    double prefill_s, decode_s, first_token_s;
    struct {
        size_t rounds, proposed, tested, accepted; /* tokens of the draft; tested: up to the first refused */
        size_t looked_up, looked_up_tested, looked_up_accepted; /* those of them that no model proposed */
        double expected; /* sum over the tested of the chance to be accepted, given what came before */
        double seconds;  /* of decode_s: the draft's */
        size_t passes, single_passes;     /* of the draft's model; those over one token, */
        double single_s;                  /* and the time that they took */
        double model_s[RT_DRAFT_MAX + 1]; /* of decode_s: passes of the model over 1 + i tokens */
        size_t model_passes[RT_DRAFT_MAX + 1];
    } draft;
} rt_generate_stats;
rt_status rt_generate(const rt_model *model, const rt_tokenizer *tokenizer, const rt_prompt *prompts,
                      size_t n_prompts, const rt_generate_options *options, rt_generate_stats *stats,
                      rt_error *err);

#endif
