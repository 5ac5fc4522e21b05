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
    {"student.init", RT_FIELD_CHOICE, AT(student.init), "layers",
     "take some of the teacher's layers, draw weights, or start from student.model",
     "layers|random|checkpoint", 0, 0},
    {"student.layers", RT_FIELD_COUNTS, AT(student.layers), "[]",
     "the teacher's layers to keep; none: n_layers of them, evenly", NULL, 0, RT_LAYERS_MAX - 1},
    {"student.n_layers", RT_FIELD_COUNT, AT(student.n_layers), "0",
     "how many layers, where they are not listed; 0: half of the teacher's", NULL, 0, RT_LAYERS_MAX},
    {"student.model", RT_FIELD_STRING, AT(student.model), "''",
     "checkpoint: the model to start from; random: a folder or config.json with the shape", NULL, 0, 0},
    {"student.precision", RT_FIELD_CHOICE, AT(student.precision), "bf16",
     "of the products; master weights are float32", "bf16|f32", 0, 0},
    {"data.train", RT_FIELD_STRINGS, AT(data.train), NULL,
     "JSONL (.zst) rows: text | prompt, completion | messages; or .txt", NULL, 0, 0},
    {"data.tokens_max", RT_FIELD_COUNT, AT(data.tokens_max), "512",
     "longest document; longer text is split, longer answers are cut", NULL, 2, 1 << 20},
    {"data.loss_on", RT_FIELD_CHOICE, AT(data.loss_on), "answer", "which tokens are learnt", "answer|all", 0,
     0},
    {"loss", RT_FIELD_STRINGS, AT(loss), "[fkl]",
     "terms: '[WEIGHT] KIND [name=value ...]', e.g. ['0.8 fkl temperature=2 tau2=yes', '0.2 ce']", NULL, 0,
     0},
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

/* ---- the loss ---- */

static bool read_real(double *out, const char *text)
{
    char *end;
    const double x = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(x))
        return false;
    *out = x;
    return true;
}

static rt_status set_parameter(rt_loss_spec *spec, const char *name, const char *value, const char *term,
                               rt_error *err)
{
    const struct {
        const char *name;
        double *to;
    } reals[] = {
        {"temperature", &spec->tau}, {"beta", &spec->beta}, {"alpha", &spec->alpha},
        {"mu", &spec->mu},           {"t", &spec->t},       {"label_smoothing", &spec->label_smoothing},
        {"z_loss", &spec->z_loss}};
    if (strcmp(name, "tau2") == 0 && (strcmp(value, "yes") == 0 || strcmp(value, "no") == 0)) {
        spec->tau2 = value[0] == 'y';
        return RT_OK;
    }
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
        if (strcmp(name, reals[i].name) == 0 && read_real(reals[i].to, value))
            return RT_OK;
    return rt_error_set(
        err, RT_INVALID,
        "loss: '%s=%s' in '%s' is not understood; temperature, beta, alpha, mu, t, label_smoothing, z_loss "
        "take a number, tau2 takes yes or no",
        name, value, term);
}

static rt_status read_term(double *weight, rt_loss_spec *spec, const char *term, rt_error *err)
{
    char copy[256];
    if (strlen(term) >= sizeof copy)
        return rt_error_set(err, RT_INVALID, "loss: a term of %zu characters is too long", strlen(term));
    memcpy(copy, term, strlen(term) + 1);
    *weight = 1;
    *spec = (rt_loss_spec){.tau = 1, .beta = 0.5, .alpha = 0.1, .mu = 0.5, .t = 1};
    bool has_kind = false;
    char *rest = NULL;
    size_t position = 0;
    for (char *word = strtok_r(copy, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest), position++) {
        char *equals = strchr(word, '=');
        if (equals) {
            *equals = '\0';
            if (set_parameter(spec, word, equals + 1, term, err) != RT_OK)
                return err->status;
        } else if (position == 0 && read_real(weight, word)) {
            continue;
        } else if (!has_kind && rt_loss_kind_from_name(&spec->kind, word)) {
            has_kind = true;
        } else {
            return rt_error_set(err, RT_INVALID,
                                "loss: '%s' in '%s' is no kind of loss; known are ce, fkl, rkl, jsd, "
                                "jsd_norm, skl, srkl, tvd, ab, "
                                "akl, taid, mse, mse_centred",
                                word, term);
        }
    }
    return has_kind ? RT_OK
                    : rt_error_set(err, RT_INVALID, "loss: the term '%s' names no kind of loss", term);
}

rt_status rt_recipe_loss(rt_loss_mix *out, const rt_strings *terms, rt_error *err)
{
    *out = (rt_loss_mix){.n_terms = terms->count};
    if (terms->count == 0 || terms->count > RT_LOSS_TERMS_MAX)
        return rt_error_set(err, RT_INVALID, "loss: %zu terms; 1 to %d are possible", terms->count,
                            (int)RT_LOSS_TERMS_MAX);
    for (size_t i = 0; i < terms->count; i++)
        if (read_term(&out->terms[i].weight, &out->terms[i].spec, terms->items[i], err) != RT_OK)
            return err->status;
    return rt_loss_mix_check(out, err);
}

/* ---- the rest ---- */

rt_status rt_recipe_layers(size_t *map, size_t *n, const rt_recipe *recipe, size_t teacher_layers,
                           rt_error *err)
{
    const rt_counts *listed = &recipe->student.layers;
    if (listed->count > RT_LAYERS_MAX)
        return rt_error_set(err, RT_INVALID, "student.layers: %zu layers are too many", listed->count);
    for (size_t i = 0; i < listed->count; i++) {
        if (listed->items[i] >= teacher_layers)
            return rt_error_set(err, RT_INVALID, "student.layers: the teacher has layers 0 to %zu, not %zu",
                                teacher_layers - 1, listed->items[i]);
        map[i] = listed->items[i];
    }
    *n = listed->count;
    if (listed->count)
        return RT_OK;
    *n = recipe->student.n_layers ? recipe->student.n_layers : rt_size_max(teacher_layers / 2, 1);
    if (*n > teacher_layers)
        return rt_error_set(err, RT_INVALID, "student.n_layers: %zu is more than the teacher's %zu", *n,
                            teacher_layers);
    for (size_t i = 0; i < *n; i++) /* round(i (L - 1) / (n - 1)): the first and the last are kept */
        map[i] = *n == 1 ? 0 : (2 * i * (teacher_layers - 1) + (*n - 1)) / (2 * (*n - 1));
    return RT_OK;
}

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
    if (recipe->data.train.count == 0)
        return rt_error_set(err, RT_INVALID, "data.train names no file");
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
