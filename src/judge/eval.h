/* judge/eval.h - one or several students against their teacher on documents that none of them learnt from.
 *
 * Every model reads the same packed tokens; the teacher runs once a batch for all students.  Tokens' figures
 * are summed by document, by position and by kind of token; documents (whole ones, though the models read
 * pieces) are drawn again for the intervals, and two students are compared on the same draws.  The teacher is
 * judged too, as model 0: against the text like the others, and against itself (its KL is 0).
 *
 * Distributions are over the ids that all models have (and no more than n_vocab of the options): embeddings
 * that are padded to different sizes are cut to the same one.  Results do not depend on the number of
 * threads. */
#ifndef RT_JUDGE_EVAL_H
#define RT_JUDGE_EVAL_H

#include <jansson.h>

#include "judge/bootstrap.h"
#include "judge/eval_kind.h"
#include "model/shortlist.h"
#include "student/data.h"

/* name in eval.json, figure of a sum, one line for people */
#define RT_EVAL_FIGURE_MAP(X)                                                                                \
    X(perplexity, rt_metrics_perplexity, "perplexity")                                                       \
    X(kl_teacher_student, rt_metrics_kl_forward, "KL(teacher||model), nats")                                 \
    X(kl_student_teacher, rt_metrics_kl_reverse, "KL(model||teacher), nats")                                 \
    X(tvd, rt_metrics_tvd, "total variation")                                                                \
    X(acceptance, rt_metrics_acceptance, "expected acceptance")                                              \
    X(top1, rt_metrics_top1_agree, "top-1 agreement")                                                        \
    X(top5, rt_metrics_top5_agree, "top-5 agreement")                                                        \
    X(ece, rt_metrics_ece, "calibration error (ECE)")

typedef enum rt_eval_figure_id {
#define RT_EVAL_FIGURE_ENUM(name, figure, text) RT_EVAL_##name,
    RT_EVAL_FIGURE_MAP(RT_EVAL_FIGURE_ENUM)
#undef RT_EVAL_FIGURE_ENUM
        RT_EVAL_FIGURES
} rt_eval_figure_id;

enum {
    RT_EVAL_MODELS_MAX = 17, /* the teacher and 16 students */
    RT_EVAL_DRAFTS = 4,      /* of a round of speculative decoding */
    RT_EVAL_POSITIONS = 16   /* bin 0: positions below 16, bin b > 0: 16 * 2^(b-1) up to twice that */
};

typedef struct rt_eval_model {
    const char *name, *label; /* key in eval.json; for people.  Borrowed */
    const rt_model *model;
    uint64_t file_bytes; /* of the weights on disk */
    /* As a draft it may say those ids alone: total variation and acceptance are then the draft's, all else is
     * the whole model's.  NULL: all.  Borrowed. */
    const rt_shortlist *shortlist;
} rt_eval_model;

typedef struct rt_eval_options {
    size_t n_vocab;      /* ids that the tokenizer knows; 0: as many as the models have */
    size_t tokens;       /* judge texts from the first on while they have no more targets; 0: all */
    size_t batch_tokens; /* 0: 2,048 */
    size_t resamples;    /* 0: 1,000 */
    uint64_t seed;
    double speed_seconds; /* how long each model decodes to be timed; 0: not at all */
    /* done and total tokens of text; false ends the judging with RT_STOPPED.  May be NULL. */
    bool (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
} rt_eval_options;

typedef struct rt_eval_group { /* tokens at some positions, or of a kind */
    double tokens, kl_sum, tvd_sum, top1_sum;
    rt_interval kl, acceptance, top1;
} rt_eval_group;

typedef struct rt_eval_figures { /* of one model */
    rt_metrics_sum total;
    rt_interval figures[RT_EVAL_FIGURES]; /* of a single document there are no intervals: lo, hi are NAN */
    rt_eval_group positions[RT_EVAL_POSITIONS], kinds[RT_KIND_COUNT];
    double decode_tokens_per_s; /* at batch 1 and short context; NAN: not measured */
    uint64_t memory_bytes;      /* that the weights take while it runs */
    /* This model less the first student (model 1), on the same draws; all 0 for that one. */
    rt_interval kl_difference, acceptance_difference;
    /* Nats a token of the text that this model pays more than the teacher, on the same draws.  With a
     * student's start as teacher and a text of what it knew this is what it forgot. */
    rt_interval nll_above_teacher;
} rt_eval_figures;

typedef struct rt_eval_result {
    const rt_eval_model *models; /* the caller's */
    rt_eval_figures *figures;    /* [n_models]: the teacher, then the students */
    size_t n_models, n_tokens, n_targets, n_vocab;
    size_t n_docs;            /* that were drawn from */
    size_t n_pieces, longest; /* of them; tokens of the longest */
    size_t resamples;
    uint64_t seed;
    bool has_kinds;
} rt_eval_result;

/* What is judged: documents, or pieces of longer ones. */
typedef struct rt_eval_text {
    rt_documents docs;
    uint32_t *sources; /* [n_docs] which document a piece is of, from 0 in order; NULL: each is its own */
    uint8_t *kinds;    /* [n_tokens] an rt_token_kind for each token; NULL: not told apart */
} rt_eval_text;

/* Plain text longer than tokens_max is split, an answer is cut there and counted in out->docs.n_cut: as in
 * training, but pieces remember where they come from.  kinds are left NULL. */
rt_status rt_eval_text_split(rt_eval_text *out, const rt_documents *whole, size_t tokens_max, rt_error *err);
void rt_eval_text_deinit(rt_eval_text *text);

/* models[0] is the teacher, then the students, n_models >= 2; all on one pool.  `models` must outlive the
 * result. */
rt_status rt_eval(rt_eval_result *out, const rt_eval_model *models, size_t n_models, const rt_eval_text *text,
                  const rt_eval_options *options, rt_error *err);
void rt_eval_result_deinit(rt_eval_result *result);

/* First and last position of a bin, of documents no longer than `longest`. */
void rt_eval_position_bin(size_t bin, size_t longest, size_t *from, size_t *to);

/* Tokens a second of greedy decoding, one sequence, from a prompt of up to 32 of `ids`: one over the median
 * time of a token, which a neighbour on the machine disturbs least. */
rt_status rt_eval_speed(double *tokens_per_s, const rt_model *model, const int32_t *ids, size_t n,
                        double seconds, rt_error *err);

/* eval.json as docs/report-format.md describes it; NULL when out of memory. */
json_t *rt_eval_json(const rt_eval_result *result);

#endif
