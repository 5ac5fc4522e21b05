/* model/penalty.h - what is done to logits before a token is drawn: penalties and biases.
 *
 * repetition_penalty looks at prompt and answer: logits of ids seen are divided by it (positive) or
 * multiplied (negative).  frequency_penalty (times the count) and presence_penalty (once) look at the answer
 * alone. Biases are added last; one of -100 or less bans the id.  Neutral values change no bit. */
#ifndef RT_MODEL_PENALTY_H
#define RT_MODEL_PENALTY_H

#include <stddef.h>
#include <stdint.h>

typedef struct rt_logit_bias {
    int32_t id;
    float bias; /* added to the logit; <= -100: banned */
} rt_logit_bias;

typedef struct rt_penalties {
    double repetition, frequency, presence; /* neutral: 1, 0, 0 */
    const rt_logit_bias *biases;            /* [n_biases], ids < n_vocab */
    size_t n_biases;
} rt_penalties;

/* counts [n_vocab]: scratch, all zero before and after. ids outside the vocabulary are passed over. */
void rt_penalise(const rt_penalties *how, float *logits, size_t n_vocab, const int32_t *prompt,
                 size_t n_prompt, const int32_t *answer, size_t n_answer, uint32_t *counts);

#endif
