/* student/cost.h - what a model costs, from its configuration alone: parameters, multiplied weights,
 * floating point operations a token, and the loss to expect from so many tokens.
 *
 * Formulas: a dense decoder multiplies 2 * weights operations a token, and attention 4 * heads * head_dim
 * for each key that a query sees (2 for the scores, 2 for the values).  Training is three forward passes
 * (forward, gradient of inputs, gradient of weights).  Mixtures of experts and latent attention, which the
 * decoder of this build does not run, are counted too, so that a plan can be made for them. */
#ifndef RT_STUDENT_COST_H
#define RT_STUDENT_COST_H

#include "model/config.h"

typedef struct rt_cost_shape {
    char family[24];
    size_t n_layers, n_embd, n_vocab, n_context;
    double parameters;   /* all of them; a tied embedding counts once */
    double active;       /* those that one token uses: all but the experts that are not chosen */
    double matmul;       /* weights that each token is multiplied with: head included, look-up not */
    double head;         /* of those, the head's */
    double embedding;    /* the look-up table; 0 when tied */
    double experts;      /* all routed experts together */
    double kv_a_token;   /* elements of keys and values that a cache keeps for a token, all layers */
    double key_flops[2]; /* forward operations for each key that a query sees, all layers together: layers
                            without a window, and with one */
    size_t window;       /* of the windowed layers; 0: there are none */
} rt_cost_shape;

void rt_cost_shape_of(rt_cost_shape *out, const rt_model_config *config);
/* From a parsed config.json: the families of model/families.c, and qwen3_moe and deepseek_v3.  `where` names
 * the file in errors. */
rt_status rt_cost_shape_from_json(rt_cost_shape *out, const json_t *json, const char *where, rt_error *err);

/* Mean number of keys that a token of a text of n tokens sees; window 0: all before it. */
double rt_cost_mean_keys(double n, size_t window);
/* Operations of a token in the middle of texts of n tokens: forward pass, head included. */
double rt_cost_forward(const rt_cost_shape *shape, double n);
double rt_cost_attention(const rt_cost_shape *shape, double n); /* the part of it that is attention's */
/* 3 x forward; recomputed: 4 x, when all activations are computed again. */
double rt_cost_train(const rt_cost_shape *shape, double n, bool recomputed);
/* The rule of thumb that papers quote: 6 x active parameters x tokens, without attention. */
double rt_cost_training_rule(double active, double tokens);
/* Rank-r adapters on every layer matrix spare the gradient of the frozen weights: at most a third of the
 * training operations. */
double rt_cost_train_adapters(const rt_cost_shape *shape, double n);

/* Distillation's scaling law: Busbridge et al. 2025, "Distillation Scaling Laws".  Losses in nats a token;
 * n_student counts parameters without embeddings, tokens are distillation's. */
typedef struct rt_scaling_supervised {
    double e, a, b, alpha, beta, gamma;
} rt_scaling_supervised;
typedef struct rt_scaling_distilled {
    double a, b, alpha, beta, gamma, c0, c1, f1, d1;
} rt_scaling_distilled;
extern const rt_scaling_supervised rt_scaling_supervised_2025;
extern const rt_scaling_distilled rt_scaling_distilled_2025;
double rt_scaling_loss_supervised(const rt_scaling_supervised *law, double n_student, double tokens);
double rt_scaling_loss_distilled(const rt_scaling_distilled *law, const rt_scaling_supervised *supervised,
                                 double n_student, double tokens, double teacher_loss);
/* Where the law was fitted: models of 143 M to 12.6 B parameters, up to 512 G tokens. */
bool rt_scaling_is_valid(double n_parameters, double tokens);

#endif
