/* student/recipe.c - see recipe.h. */
#include "student/recipe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

#define AT(member) offsetof(rt_recipe, member)

const rt_field rt_recipe_fields[] = {
    {"teacher.model", RT_FIELD_STRING, AT(teacher.model), "''",
     "GGUF file, model folder, or a name known to pull", NULL, 0, 0},
    {"teacher.precision", RT_FIELD_CHOICE, AT(teacher.precision), "bf16",
     "int8 is faster for quantised files and off by some 0.004 nats", "bf16|f32|int8", 0, 0},
    {"teacher.stream", RT_FIELD_BOOL, AT(teacher.stream), "no",
     "larger than memory: its layers are read from disk, once a micro-batch (make train.batch_tokens large)",
     NULL, 0, 0},
    {"teacher.store", RT_FIELD_STRING, AT(teacher.store), "''",
     "folder of kept outputs to learn from; the model above is then not run, only its layers are taken", NULL,
     0, 0},
    {"teacher.accept", RT_FIELD_STRINGS, AT(teacher.accept), "[]",
     "differences between store and student that are fine: template, end_token", NULL, 0, 0},
    {"student.init", RT_FIELD_CHOICE, AT(student.init), "layers",
     "take some of the teacher's layers, draw weights, or start from student.model",
     "layers|random|checkpoint", 0, 0},
    {"student.layers", RT_FIELD_COUNTS, AT(student.layers), "[]",
     "the teacher's layers to keep; none: n_layers of them, evenly", NULL, 0, RT_LAYERS_MAX - 1},
    {"student.n_layers", RT_FIELD_COUNT, AT(student.n_layers), "0",
     "how many layers, where they are not listed; 0: half of the teacher's, all if it is made narrower", NULL,
     0, RT_LAYERS_MAX},
    {"student.choice", RT_FIELD_CHOICE, AT(student.choice), "even",
     "which n_layers: spread evenly, or those that change the residual stream most (block influence)",
     "even|influence", 0, 0},
    {"student.n_ff", RT_FIELD_COUNT, AT(student.n_ff), "0",
     "MLP units to keep in each layer, the most active ones; 0: all", NULL, 0, 1 << 24},
    {"student.n_heads", RT_FIELD_COUNT, AT(student.n_heads), "0",
     "query heads to keep, the same number of each kept kv head; 0: all of those", NULL, 0, 4096},
    {"student.n_heads_kv", RT_FIELD_COUNT, AT(student.n_heads_kv), "0",
     "kv heads to keep, with the queries that share them; 0: all, or n_heads where none is shared", NULL, 0,
     4096},
    {"student.n_embd", RT_FIELD_COUNT, AT(student.n_embd), "0",
     "channels of the residual stream to keep; 0: all", NULL, 0, 1 << 20},
    {"student.embd_rank", RT_FIELD_COUNT, AT(student.embd_rank), "0",
     "train the embedding (and head) as the product of two factors of this rank, started by a truncated SVD; "
     "the student's files hold it whole; 0: train it whole",
     NULL, 0, 1 << 16},
    {"student.survey_tokens", RT_FIELD_COUNT, AT(student.survey_tokens), "16K",
     "of the training text, on which the teacher's activations decide what is kept", NULL, 1, 1e12},
    {"student.model", RT_FIELD_STRING, AT(student.model), "''",
     "checkpoint: the model to start from; random: a folder or config.json with the shape", NULL, 0, 0},
    {"student.tokenizer", RT_FIELD_STRING, AT(student.tokenizer), "''",
     "other than the teacher's: folder, tokenizer.json or model; own: that of student.model", NULL, 0, 0},
    {"student.precision", RT_FIELD_CHOICE, AT(student.precision), "bf16",
     "of the products; master weights are float32", "bf16|f32", 0, 0},
    {"adapters.rank", RT_FIELD_COUNT, AT(adapters.rank), "0",
     "train adapters of this rank on a frozen start; 0: train everything", NULL, 0, RT_ADAPTER_RANK_MAX},
    {"adapters.kind", RT_FIELD_CHOICE, AT(adapters.kind), "lora",
     "lora: W + alpha/rank B A; dora: its rows' lengths are trained too", "lora|dora", 0, 0},
    {"adapters.alpha", RT_FIELD_REAL, AT(adapters.alpha), "16", "the adapters' scale is alpha / rank", NULL,
     1e-6, 1e6},
    {"adapters.targets", RT_FIELD_STRINGS, AT(adapters.targets), "[q, k, v, o, gate, up, down]",
     "which matrices have adapters", NULL, 0, 0},
    {"adapters.base", RT_FIELD_CHOICE, AT(adapters.base), "memory",
     "memory: merged matrices are kept in bf16; file: made for a layer at a time from the file's own blocks, "
     "in the memory of the file and one layer",
     "memory|file", 0, 0},
    {"data.train", RT_FIELD_STRINGS, AT(data.train), "[]",
     "JSONL (.zst) rows: text | prompt, completion | messages; or .txt; none with teacher.store", NULL, 0, 0},
    {"data.tokens_max", RT_FIELD_COUNT, AT(data.tokens_max), "512",
     "longest document; longer text is split, longer answers are cut", NULL, 2, 1 << 20},
    {"data.loss_on", RT_FIELD_CHOICE, AT(data.loss_on), "answer", "which tokens are learnt", "answer|all", 0,
     0},
    {"loss", RT_FIELD_STRINGS, AT(loss), "[fkl]",
     "terms: '[WEIGHT] KIND [name=value ...]', e.g. ['0.8 fkl temperature=2 tau2=yes', '0.2 ce']", NULL, 0,
     0},
    {"across.way", RT_FIELD_CHOICE, AT(across.way), "map",
     "with student.tokenizer: loss over the teacher's distribution carried over to the student's ids; "
     "probabilities of chunks of text; sorted distributions; the text alone",
     "map|chunks|uld|text", 0, 0},
    {"across.weight", RT_FIELD_REAL, AT(across.weight), "1", "chunks, uld: of that loss", NULL, 0, 1e6},
    {"across.ce", RT_FIELD_REAL, AT(across.ce), "1",
     "of cross-entropy on the text; map: at tokens where the teacher has no border, else at all", NULL, 0,
     1e6},
    {"across.temperature", RT_FIELD_REAL, AT(across.temperature), "0",
     "chunks: of the two outcomes; 0: the limit of large ones", NULL, 0, 1e9},
    {"on_policy.share", RT_FIELD_REAL, AT(on_policy.share), "0",
     "of the steps, by chance, on answers that the student itself samples to the prompts of data.train", NULL,
     0, 1},
    {"on_policy.answers", RT_FIELD_COUNT, AT(on_policy.answers), "16",
     "sampled side by side, and gone through once", NULL, 1, 4096},
    {"on_policy.tokens_max", RT_FIELD_COUNT, AT(on_policy.tokens_max), "128", "of such an answer", NULL, 1,
     1 << 20},
    {"on_policy.temperature", RT_FIELD_REAL, AT(on_policy.temperature), "1", "of the sampling", NULL, 0, 100},
    {"on_policy.top_p", RT_FIELD_REAL, AT(on_policy.top_p), "1", "of the sampling", NULL, 1e-6, 1},
    {"on_policy.loss", RT_FIELD_STRINGS, AT(on_policy.loss), "[rkl]", "terms of those steps, as in loss",
     NULL, 0, 0},
    {"on_policy.objective", RT_FIELD_CHOICE, AT(on_policy.objective), "loss",
     "loss: over the whole vocabulary; else the sampled tokens alone, the per-token reverse KL as advantage: "
     "p/p_old times it, clipped (PPO), or p/p_old cut and without gradient",
     "loss|importance|clip|truncated", 0, 0},
    {"on_policy.clip", RT_FIELD_REAL, AT(on_policy.clip), "0.2", "objective clip: p/p_old in 1-c..1+c", NULL,
     0, 1},
    {"on_policy.cap", RT_FIELD_REAL, AT(on_policy.cap), "2", "objective truncated: of p/p_old", NULL, 1e-6,
     1e6},
    {"features.hidden", RT_FIELD_CHOICE, AT(features.hidden), "none",
     "compare hidden states, each over its rms", "none|mse|mse_normalised|cosine", 0, 0},
    {"features.hidden_weight", RT_FIELD_REAL, AT(features.hidden_weight), "1", "in the objective", NULL, 0,
     1e6},
    {"features.layers", RT_FIELD_CHOICE, AT(features.layers), "uniform",
     "which layers meet: every student's with its place in the teacher, the last ones, or those of pairs",
     "uniform|last|pairs", 0, 0},
    {"features.pairs", RT_FIELD_COUNTS, AT(features.pairs), "[]",
     "student's layer, teacher's layer, and so on, from 0", NULL, 0, RT_LAYERS_MAX - 1},
    {"features.projection", RT_FIELD_CHOICE, AT(features.projection), "learned",
     "from the student's width to the teacher's; dropped after training", "learned|none", 0, 0},
    {"features.relations", RT_FIELD_STRINGS, AT(features.relations), "[]",
     "of q, k, v: how tokens relate in one layer (MiniLM)", NULL, 0, 0},
    {"features.relation_weight", RT_FIELD_REAL, AT(features.relation_weight), "1", "in the objective", NULL,
     0, 1e6},
    {"features.relation_heads", RT_FIELD_COUNT, AT(features.relation_heads), "0",
     "into how many the states are split on both sides; 0: the student's kv heads", NULL, 0, 4096},
    {"features.relation_layers", RT_FIELD_COUNTS, AT(features.relation_layers), "[]",
     "student's layer, teacher's layer; none: the last of both", NULL, 0, RT_LAYERS_MAX - 1},
    {"train.tokens", RT_FIELD_COUNT, AT(train.tokens), "200K",
     "how much to train on, the same text again where it is shorter", NULL, 1, 1e15},
    {"train.steps", RT_FIELD_COUNT, AT(train.steps), "0", "instead of tokens", NULL, 0, 1e12},
    {"train.batch_tokens", RT_FIELD_COUNT, AT(train.batch_tokens), "2048", "of a micro-batch", NULL, 64,
     1 << 20},
    {"train.micro_batches", RT_FIELD_COUNT, AT(train.micro_batches), "1", "a step: gradients are added up",
     NULL, 1, 1024},
    {"train.lr", RT_FIELD_REAL, AT(train.lr), "6e-4", "peak learning rate", NULL, 1e-9, 10},
    {"train.schedule", RT_FIELD_CHOICE, AT(train.schedule), "cosine", "of the learning rate",
     "constant|linear|cosine|wsd", 0, 0},
    {"train.warmup", RT_FIELD_REAL, AT(train.warmup), "0.05", "share of the steps", NULL, 0, 1},
    {"train.floor", RT_FIELD_REAL, AT(train.floor), "0.1", "of the peak, where the schedule ends", NULL, 0,
     1},
    {"train.decay", RT_FIELD_CHOICE, AT(train.decay), "linear", "shape of wsd's end", "linear|sqrt|cosine", 0,
     0},
    {"train.decay_share", RT_FIELD_REAL, AT(train.decay_share), "0.2",
     "share of the steps that wsd's end takes", NULL, 0, 1},
    {"train.beta1", RT_FIELD_REAL, AT(train.beta1), "0.9", "AdamW", NULL, 0, 0.999999},
    {"train.beta2", RT_FIELD_REAL, AT(train.beta2), "0.95", "AdamW", NULL, 0, 0.999999},
    {"train.eps", RT_FIELD_REAL, AT(train.eps), "1e-8", "AdamW", NULL, 1e-16, 1},
    {"train.weight_decay", RT_FIELD_REAL, AT(train.weight_decay), "0.1",
     "of matrices; norms and biases have none", NULL, 0, 10},
    {"train.clip", RT_FIELD_REAL, AT(train.clip), "1", "largest norm of the gradient; 0: none", NULL, 0, 1e9},
    {"train.seed", RT_FIELD_COUNT, AT(train.seed), "1", "order of the text, random starts", NULL, 0, 1e15},
    {"train.threads", RT_FIELD_COUNT, AT(train.threads), "0",
     "0: all processors; the result does not depend on it", NULL, 0, 256},
    {"train.checkpoint_minutes", RT_FIELD_REAL, AT(train.checkpoint_minutes), "5",
     "0: only when stopped and at the end", NULL, 0, 1e6},
    {"output.types", RT_FIELD_STRINGS, AT(output.types), "[BF16]", "one GGUF of each type, beside the folder",
     NULL, 0, 0},
    {"output.name", RT_FIELD_STRING, AT(output.name), "student", "name of the model in its files", NULL, 0,
     0},
};
const size_t rt_recipe_field_count = sizeof rt_recipe_fields / sizeof rt_recipe_fields[0];

rt_precision rt_recipe_precision(int choice)
{
    static const rt_precision order[] = {RT_PRECISION_BF16, RT_PRECISION_F32, RT_PRECISION_INT8};
    return order[choice];
}

/* ---- the rest ---- */

rt_cut_sizes rt_recipe_cut(const rt_recipe *recipe)
{
    return (rt_cut_sizes){recipe->student.n_embd, recipe->student.n_ff, recipe->student.n_heads,
                          recipe->student.n_heads_kv};
}

bool rt_recipe_needs_survey(const rt_recipe *recipe)
{
    const rt_cut_sizes sizes = rt_recipe_cut(recipe);
    return rt_cut_is_narrow(&sizes) || recipe->student.choice == RT_LAYERS_INFLUENCE;
}

static rt_status listed_layers(size_t *map, const rt_counts *listed, size_t teacher_layers, rt_error *err)
{
    if (listed->count > RT_LAYERS_MAX)
        return rt_error_set(err, RT_INVALID, "student.layers: %zu layers are too many", listed->count);
    for (size_t i = 0; i < listed->count; i++) {
        if (listed->items[i] >= teacher_layers)
            return rt_error_set(err, RT_INVALID, "student.layers: the teacher has layers 0 to %zu, not %zu",
                                teacher_layers - 1, listed->items[i]);
        map[i] = listed->items[i];
    }
    return RT_OK;
}

rt_status rt_recipe_layers(size_t *map, size_t *n, const rt_recipe *recipe, size_t teacher_layers,
                           const double *influence, rt_error *err)
{
    const rt_cut_sizes sizes = rt_recipe_cut(recipe);
    *n = recipe->student.layers.count;
    if (*n)
        return listed_layers(map, &recipe->student.layers, teacher_layers, err);
    *n = recipe->student.n_layers;
    if (*n == 0)
        *n = rt_cut_is_narrow(&sizes) ? teacher_layers : rt_size_max(teacher_layers / 2, 1);
    if (*n > teacher_layers)
        return rt_error_set(err, RT_INVALID, "student.n_layers: %zu is more than the teacher's %zu", *n,
                            teacher_layers);
    if (influence)
        return rt_influence_keep(map, *n, influence, teacher_layers, err);
    for (size_t i = 0; i < *n; i++) /* round(i (L - 1) / (n - 1)): the first and the last are kept */
        map[i] = *n == 1 ? 0 : (2 * i * (teacher_layers - 1) + (*n - 1)) / (2 * (*n - 1));
    return RT_OK;
}

static rt_status check_cut(const rt_recipe *recipe, rt_error *err)
{
    const rt_cut_sizes sizes = rt_recipe_cut(recipe);
    if (!rt_recipe_needs_survey(recipe))
        return RT_OK;
    if (recipe->student.init != RT_INIT_LAYERS)
        return rt_error_set(err, RT_INVALID,
                            "student.choice, n_ff, n_heads, n_heads_kv and n_embd cut the teacher: they are "
                            "only used with student.init layers");
    if (recipe->student.choice == RT_LAYERS_INFLUENCE && recipe->student.layers.count)
        return rt_error_set(err, RT_INVALID,
                            "student.layers lists the layers, so student.choice has nothing to choose; leave "
                            "one of them out");
    if (rt_cut_is_narrow(&sizes) && recipe->adapters.rank)
        return rt_error_set(
            err, RT_INVALID,
            "adapters.rank: adapters need a base as a file holds it; write the narrower "
            "student with --init-only first, then start from it with student.init checkpoint");
    return RT_OK;
}

/* ---- adapters ---- */

rt_status rt_recipe_adapters(rt_adapter_options *out, const rt_recipe *recipe, rt_error *err)
{
    *out = (rt_adapter_options){.kind = (rt_adapter_kind)recipe->adapters.kind,
                                .rank = recipe->adapters.rank,
                                .alpha = recipe->adapters.alpha,
                                .from_file = recipe->adapters.base == 1,
                                .seed = recipe->train.seed,
                                .tokens_max = recipe->train.batch_tokens,
                                .precision = rt_recipe_precision(recipe->student.precision)};
    for (size_t i = 0; i < recipe->adapters.targets.count; i++) {
        unsigned k = 0;
        while (k < RT_ADAPTER_TARGETS &&
               strcmp(rt_adapter_targets[k], recipe->adapters.targets.items[i]) != 0)
            k++;
        if (k == RT_ADAPTER_TARGETS)
            return rt_error_set(err, RT_INVALID,
                                "adapters.targets: '%s' is none of q, k, v, o, gate, up, down",
                                recipe->adapters.targets.items[i]);
        out->targets |= 1U << k;
    }
    return RT_OK;
}

static rt_status check_adapters(const rt_recipe *recipe, rt_error *err)
{
    rt_adapter_options adapters;
    if (recipe->adapters.rank == 0)
        return RT_OK;
    if (recipe->student.init == RT_INIT_RANDOM)
        return rt_error_set(err, RT_INVALID,
                            "adapters.rank: a random start has nothing worth keeping; use student.init "
                            "checkpoint or layers");
    if (recipe->adapters.base == 1 && recipe->on_policy.share > 0)
        return rt_error_set(err, RT_INVALID,
                            "adapters.base file: sampling would make every layer again for each token; use "
                            "adapters.base memory with on_policy.share");
    if (recipe->student.embd_rank)
        return rt_error_set(err, RT_INVALID,
                            "student.embd_rank: adapters leave the embedding as it is, so it cannot be "
                            "trained as two factors; leave one of them out");
    if (recipe->adapters.targets.count == 0)
        return rt_error_set(err, RT_INVALID,
                            "adapters.targets is empty; name some of q, k, v, o, gate, up, down");
    return rt_recipe_adapters(&adapters, recipe, err);
}

/* ---- features ---- */

enum { RT_FEATURE_LAYERS_UNIFORM, RT_FEATURE_LAYERS_LAST, RT_FEATURE_LAYERS_PAIRS };

bool rt_recipe_has_features(const rt_recipe *recipe)
{
    return (recipe->features.hidden != 0 && recipe->features.hidden_weight != 0) ||
           (recipe->features.relations.count > 0 && recipe->features.relation_weight != 0);
}

static unsigned relation_bit(const char *word)
{
    static const char names[] = "qkv";
    const char *at = word[0] && !word[1] ? strchr(names, word[0]) : NULL;
    return at ? 1U << (at - names) : 0;
}

static rt_status feature_pairs(rt_feature_options *out, const rt_recipe *recipe, size_t n_student,
                               size_t n_teacher, rt_error *err)
{
    const rt_counts *listed = &recipe->features.pairs;
    switch (recipe->features.layers) {
    case RT_FEATURE_LAYERS_UNIFORM:
        out->n_pairs = n_student;
        break;
    case RT_FEATURE_LAYERS_LAST:
        out->n_pairs = 1;
        break;
    default:
        out->n_pairs = listed->count / 2;
    }
    if (out->n_pairs > RT_FEATURE_PAIRS_MAX)
        return rt_error_set(err, RT_INVALID,
                            "features.layers: %zu pairs of layers; at most %d are possible: list fewer in "
                            "features.pairs",
                            out->n_pairs, (int)RT_FEATURE_PAIRS_MAX);
    for (size_t i = 0; i < out->n_pairs; i++) {
        if (recipe->features.layers == RT_FEATURE_LAYERS_PAIRS) {
            out->pairs[i].student = listed->items[2 * i];
            out->pairs[i].teacher = listed->items[2 * i + 1];
        } else {
            out->pairs[i].student = out->n_pairs == 1 ? n_student - 1 : i;
            out->pairs[i].teacher =
                out->n_pairs == 1 ? n_teacher - 1 : rt_layer_map_uniform(i, n_student, n_teacher);
        }
    }
    return RT_OK;
}

rt_status rt_recipe_features(rt_feature_options *out, const rt_recipe *recipe, const rt_model_config *student,
                             const rt_model_config *teacher, rt_error *err)
{
    *out = (rt_feature_options){0};
    if (recipe->features.hidden != 0) {
        out->hidden = (rt_hidden_kind)(recipe->features.hidden - 1);
        out->hidden_weight = recipe->features.hidden_weight;
        out->projection = recipe->features.projection == 0;
        if (feature_pairs(out, recipe, student->n_layers, teacher->n_layers, err) != RT_OK)
            return err->status;
    }
    for (size_t i = 0; i < recipe->features.relations.count; i++)
        out->relations |= relation_bit(recipe->features.relations.items[i]);
    if (out->relations)
        out->relation_weight = recipe->features.relation_weight;
    const rt_counts *layers = &recipe->features.relation_layers;
    out->relation_heads = recipe->features.relation_heads;
    out->relation_student = layers->count ? layers->items[0] : student->n_layers - 1;
    out->relation_teacher = layers->count ? layers->items[1] : teacher->n_layers - 1;
    out->sequence_max = recipe->data.tokens_max;
    return rt_features_any(out) ? rt_features_check(out, student, teacher, err) : RT_OK;
}

/* ---- steps ---- */

uint64_t rt_recipe_steps(const rt_recipe *recipe)
{
    if (recipe->train.steps)
        return recipe->train.steps;
    return rt_size_max(recipe->train.tokens / (recipe->train.batch_tokens * recipe->train.micro_batches), 1);
}

rt_schedule rt_recipe_schedule(const rt_recipe *recipe)
{
    const uint64_t steps = rt_recipe_steps(recipe);
    return (rt_schedule){.kind = (rt_schedule_kind)recipe->train.schedule,
                         .shape = (rt_decay_shape)recipe->train.decay,
                         .warmup = (uint64_t)(recipe->train.warmup * (double)steps),
                         .total = steps,
                         .decay = (uint64_t)(recipe->train.decay_share * (double)steps),
                         .floor = recipe->train.floor};
}

static rt_status check_teacher(const rt_recipe *recipe, rt_error *err)
{
    const bool store = recipe->teacher.store[0] != '\0';
    if (recipe->data.train.count == 0 && !store)
        return rt_error_set(err, RT_INVALID, "data.train names no file, and there is no teacher.store");
    if (recipe->data.train.count > 0 && store)
        return rt_error_set(
            err, RT_INVALID,
            "data.train and teacher.store: a store brings its own text; leave one of them out");
    if (store && rt_recipe_has_features(recipe))
        return rt_error_set(err, RT_INVALID,
                            "features need the teacher's inside, which teacher.store does not hold; leave "
                            "teacher.store out");
    for (size_t i = 0; i < recipe->teacher.accept.count; i++) {
        const char *word = recipe->teacher.accept.items[i];
        if (strcmp(word, "template") != 0 && strcmp(word, "end_token") != 0)
            return rt_error_set(err, RT_INVALID, "teacher.accept: '%s' is neither template nor end_token",
                                word);
    }
    return RT_OK;
}

static rt_status check_features(const rt_recipe *recipe, rt_error *err)
{
    const bool pairs = recipe->features.layers == RT_FEATURE_LAYERS_PAIRS;
    if (rt_recipe_has_features(recipe) && recipe->teacher.model[0] == '\0')
        return rt_error_set(err, RT_INVALID, "features need teacher.model");
    if (pairs != (recipe->features.pairs.count > 0) || recipe->features.pairs.count % 2 != 0)
        return rt_error_set(
            err, RT_INVALID,
            "features.pairs lists %zu numbers with features.layers %s; it takes pairs, student's "
            "layer and teacher's, with features.layers pairs",
            recipe->features.pairs.count, pairs ? "pairs" : "other than pairs");
    if (recipe->features.relation_layers.count != 0 && recipe->features.relation_layers.count != 2)
        return rt_error_set(
            err, RT_INVALID,
            "features.relation_layers lists %zu numbers; it takes the student's layer and the "
            "teacher's",
            recipe->features.relation_layers.count);
    for (size_t i = 0; i < recipe->features.relations.count; i++)
        if (relation_bit(recipe->features.relations.items[i]) == 0)
            return rt_error_set(err, RT_INVALID, "features.relations: '%s' is none of q, k, v",
                                recipe->features.relations.items[i]);
    return RT_OK;
}

/* ---- own answers ---- */

enum { OWN_LOSS, OWN_IMPORTANCE, OWN_CLIP, OWN_TRUNCATED };

rt_status rt_recipe_own(rt_own_options *out, const rt_recipe *recipe, rt_error *err)
{
    static const rt_policy_kind kinds[] = {
        [OWN_IMPORTANCE] = RT_POLICY_IS, [OWN_CLIP] = RT_POLICY_CLIP, [OWN_TRUNCATED] = RT_POLICY_TRUNCATED};
    *out = (rt_own_options){.share = recipe->on_policy.share,
                            .answers = recipe->on_policy.answers,
                            .tokens_max = recipe->on_policy.tokens_max,
                            .document_max = recipe->data.tokens_max,
                            .temperature = recipe->on_policy.temperature,
                            .top_p = recipe->on_policy.top_p,
                            .seed = recipe->train.seed,
                            .sampled = recipe->on_policy.objective != OWN_LOSS};
    if (out->sampled)
        out->policy = (rt_policy){.kind = kinds[recipe->on_policy.objective],
                                  .clip_low = recipe->on_policy.clip,
                                  .clip_high = recipe->on_policy.clip,
                                  .cap = recipe->on_policy.cap};
    if (rt_recipe_loss(&out->objective, &recipe->on_policy.loss, false, rt_recipe_steps(recipe), err) !=
        RT_OK)
        return rt_error_within(err, "on_policy");
    if (out->objective.course.adaptive)
        return rt_error_set(err, RT_INVALID, "on_policy.loss: adaptive=yes belongs to loss alone");
    return RT_OK;
}

/* ---- across tokenizers ---- */

rt_across_options rt_recipe_across(const rt_recipe *recipe)
{
    static const rt_across_way ways[] = {[RT_RECIPE_MAP] = RT_ACROSS_MAP,
                                         [RT_RECIPE_CHUNKS] = RT_ACROSS_CHUNKS,
                                         [RT_RECIPE_ULD] = RT_ACROSS_ULD,
                                         [RT_RECIPE_TEXT] = RT_ACROSS_NONE};
    const double tau = recipe->across.temperature;
    if (recipe->student.tokenizer[0] == '\0')
        return (rt_across_options){0};
    return (rt_across_options){.way = ways[recipe->across.way],
                               .weight = recipe->across.weight,
                               .ce = recipe->across.ce,
                               .tau = tau > 0 ? tau : (double)INFINITY};
}

rt_status rt_recipe_objective(rt_objective *out, const rt_recipe *recipe, bool kept, rt_error *err)
{
    static const char *const text[] = {"ce"};
    const rt_strings alone = {text, 1};
    const bool other = recipe->student.tokenizer[0] != '\0';
    const bool map = other && recipe->across.way == RT_RECIPE_MAP;
    return rt_recipe_loss(out, other && !map ? &alone : &recipe->loss, kept && !other,
                          rt_recipe_steps(recipe), err);
}

static bool is_default_loss(const rt_strings *loss)
{
    return loss->count == 1 && (strcmp(loss->items[0], "fkl") == 0 || strcmp(loss->items[0], "ce") == 0);
}

static rt_status check_across(const rt_recipe *recipe, rt_error *err)
{
    const bool text = recipe->across.way == RT_RECIPE_TEXT, store = recipe->teacher.store[0] != '\0';
    const bool own = strcmp(recipe->student.tokenizer, "own") == 0;
    rt_objective objective;
    if (recipe->student.tokenizer[0] == '\0')
        return RT_OK;
    if (own && recipe->student.init != RT_INIT_CHECKPOINT)
        return rt_error_set(err, RT_INVALID,
                            "student.tokenizer own is that of student.model, with student.init checkpoint");
    if (!own && recipe->student.init == RT_INIT_CHECKPOINT)
        return rt_error_set(err, RT_INVALID,
                            "student.tokenizer: a checkpoint keeps its own; write student.tokenizer: own");
    if (store && !text)
        return rt_error_set(err, RT_INVALID,
                            "teacher.store holds what the teacher said in its own tokens: with "
                            "student.tokenizer it teaches its text (across.way text), or give teacher.model "
                            "and data.train instead");
    if (!text && recipe->teacher.model[0] == '\0')
        return rt_error_set(err, RT_INVALID, "across.way: it needs teacher.model; text alone does not");
    if (rt_recipe_has_features(recipe) || recipe->on_policy.share > 0)
        return rt_error_set(err, RT_INVALID,
                            "features and on_policy compare token with token: they cannot be had with "
                            "student.tokenizer");
    if (rt_recipe_needs_survey(recipe) || (recipe->adapters.rank && !own))
        return rt_error_set(err, RT_INVALID,
                            "student.tokenizer: cut the student (student.choice, n_ff, n_heads, n_heads_kv, "
                            "n_embd) or give it adapters in a run of its own, then start from it");
    if (recipe->across.way != RT_RECIPE_MAP && !is_default_loss(&recipe->loss))
        return rt_error_set(err, RT_INVALID, "loss is only used with across.way map; leave it out");
    if (recipe->across.way == RT_RECIPE_MAP &&
        (rt_recipe_loss(&objective, &recipe->loss, false, rt_recipe_steps(recipe), err) != RT_OK))
        return err->status;
    return RT_OK;
}

static rt_status check_own(const rt_recipe *recipe, rt_error *err)
{
    rt_own_options own;
    if (recipe->on_policy.share == 0)
        return RT_OK;
    if (recipe->teacher.model[0] == '\0' || recipe->teacher.store[0] != '\0')
        return rt_error_set(err, RT_INVALID,
                            "on_policy needs a teacher that can score new text: give teacher.model, and no "
                            "teacher.store");
    if (rt_recipe_has_features(recipe))
        return rt_error_set(err, RT_INVALID, "on_policy and features cannot be had together; leave one out");
    if (recipe->on_policy.tokens_max >= recipe->data.tokens_max)
        return rt_error_set(err, RT_INVALID,
                            "on_policy.tokens_max %zu leaves no room for a prompt in data.tokens_max %zu",
                            recipe->on_policy.tokens_max, recipe->data.tokens_max);
    if (recipe->on_policy.objective != OWN_LOSS &&
        (recipe->on_policy.temperature != 1 || recipe->on_policy.top_p != 1))
        return rt_error_set(err, RT_INVALID,
                            "on_policy.objective: sampled tokens speak for the student's distribution only "
                            "at temperature 1 and top_p 1");
    return rt_recipe_own(&own, recipe, err);
}

rt_status rt_recipe_check(const rt_recipe *recipe, rt_error *err)
{
    const bool named = recipe->student.model[0] != '\0';
    if (recipe->student.init == RT_INIT_LAYERS && named)
        return rt_error_set(err, RT_INVALID,
                            "student.model is only used with student.init checkpoint or random");
    if (recipe->student.init != RT_INIT_LAYERS && !named)
        return rt_error_set(err, RT_INVALID, "student.init %s needs student.model",
                            recipe->student.init == RT_INIT_RANDOM ? "random" : "checkpoint");
    if (recipe->student.init != RT_INIT_LAYERS && (recipe->student.layers.count || recipe->student.n_layers))
        return rt_error_set(err, RT_INVALID,
                            "student.layers and student.n_layers are only used with student.init layers");
    if (recipe->student.init == RT_INIT_LAYERS && recipe->teacher.model[0] == '\0')
        return rt_error_set(err, RT_INVALID, "student.init layers needs teacher.model");
    if (recipe->student.layers.count && recipe->student.n_layers &&
        recipe->student.n_layers != recipe->student.layers.count)
        return rt_error_set(err, RT_INVALID, "student.layers lists %zu layers and student.n_layers says %zu",
                            recipe->student.layers.count, recipe->student.n_layers);
    if (check_teacher(recipe, err) != RT_OK || check_features(recipe, err) != RT_OK ||
        check_own(recipe, err) != RT_OK || check_adapters(recipe, err) != RT_OK ||
        check_cut(recipe, err) != RT_OK || check_across(recipe, err) != RT_OK)
        return err->status;
    if (recipe->data.tokens_max > recipe->train.batch_tokens)
        return rt_error_set(
            err, RT_INVALID,
            "data.tokens_max %zu is more than train.batch_tokens %zu: a document must fit in a batch",
            recipe->data.tokens_max, recipe->train.batch_tokens);
    if (recipe->train.batch_tokens % 32 != 0)
        return rt_error_set(err, RT_INVALID, "train.batch_tokens %zu is not a multiple of 32",
                            recipe->train.batch_tokens);
    for (size_t i = 0; i < recipe->output.types.count; i++) {
        rt_dtype dtype;
        if (!rt_dtype_from_name(&dtype, recipe->output.types.items[i]))
            return rt_error_set(err, RT_INVALID, "output.types: '%s' is no type; try BF16, Q8_0 or Q4_K",
                                recipe->output.types.items[i]);
    }
    return RT_OK;
}
