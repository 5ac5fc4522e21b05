/* cli/distill_run.c - see distill_run.h. */
#include "cli/distill_run.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/open_model.h"
#include "model/export.h"
#include "model/stream.h"
#include "retort/version.h"
#include "tensor/cpu.h"

/* ---- opening ---- */

/* Without a teacher the student's own files bring the tokenizer and the template. */
static rt_status open_teacher(distill_run *d, rt_error *err)
{
    d->has_teacher = d->recipe.teacher.model[0] != '\0';
    const char *model = d->has_teacher ? d->recipe.teacher.model : d->recipe.student.model;
    if (cli_model_path(&d->teacher_path, model, err) != RT_OK)
        return err->status;
    if (d->has_teacher && (rt_weights_open(&d->weights, d->teacher_path, err) != RT_OK ||
                           rt_model_config_read(&d->teacher_config, d->weights, err) != RT_OK))
        return err->status;
    if (distill_across_open(d, err) != RT_OK)
        return err->status;
    const bool store = d->recipe.teacher.store[0] != '\0';
    d->kept = store && rt_loss_mix_needs_teacher(&d->objective.mix);
    d->on_policy = d->recipe.on_policy.share > 0;
    const bool across = rt_recipe_across(&d->recipe).way != RT_ACROSS_NONE;
    if (store || (!across && !rt_loss_mix_needs_teacher(&d->objective.mix) &&
                  !rt_recipe_has_features(&d->recipe) && !d->on_policy))
        return RT_OK;
    if (!d->has_teacher)
        return rt_error_set(err, RT_INVALID,
                            "loss: it needs a teacher: give teacher.model or teacher.store, or loss: [ce]");
    const rt_precision precision = rt_recipe_precision(d->recipe.teacher.precision);
    if (!d->recipe.teacher.stream)
        return rt_model_open(&d->teacher, d->weights, precision, d->pool, err);
    if (rt_weights_open_headers(&d->stream, d->teacher_path, err) != RT_OK)
        return err->status;
    return rt_model_open_streamed(&d->teacher, d->stream, precision, d->pool, NULL, err);
}

static rt_status read_text(distill_run *d, rt_error *err)
{
    const rt_document_options options = {d->recipe.data.tokens_max, d->recipe.data.loss_on == RT_LOSS_ON_ALL};
    if (d->recipe.teacher.store[0] != '\0')
        return distill_store_open(d, err);
    if (rt_recipe_across(&d->recipe).way != RT_ACROSS_NONE)
        return distill_across_text(d, &options, err);
    for (size_t i = 0; i < d->recipe.data.train.count; i++)
        if (rt_documents_read(&d->docs, d->recipe.data.train.items[i], d->tokenizer, d->chat_template,
                              &options, err) != RT_OK)
            return err->status;
    return RT_OK;
}

static rt_status open_own(distill_run *d, rt_error *err)
{
    rt_own_options options;
    if (!d->on_policy)
        return RT_OK;
    if (rt_recipe_own(&options, &d->recipe, err) != RT_OK)
        return err->status;
    return rt_own_open(&d->own, &options, &d->docs, d->tokenizer, d->recipe.train.batch_tokens, err);
}

static void objective_identity(rt_text *text, const rt_objective *o)
{
    for (size_t i = 0; i < o->mix.n_terms; i++) {
        const rt_loss_spec *t = &o->mix.terms[i].spec;
        rt_text_printf(text, " loss %a %d %d %a %a %a %a %a %a %a tail %d %d", o->mix.terms[i].weight,
                       (int)t->kind, t->tau2, t->tau, t->beta, t->alpha, t->mu, t->t, t->label_smoothing,
                       t->z_loss, (int)t->tail, t->self_normalised);
    }
    for (size_t i = 0; i < o->course.n_ramps; i++) {
        const rt_ramp *r = &o->course.ramps[i];
        rt_text_printf(text, " ramp %zu %d %a %a %a %d", r->term, (int)r->of, r->from, r->to, r->over,
                       r->cosine);
    }
    if (o->course.adaptive)
        rt_text_printf(text, " taid %zu %a %a", o->course.taid_term, o->course.taid.t_start,
                       o->course.taid.t_end);
}

static void own_identity(rt_text *text, const rt_own_options *o)
{
    rt_text_printf(text, " own %a %zu %zu %a %a sampled %d %d %a %a", o->share, o->answers, o->tokens_max,
                   o->temperature, o->top_p, o->sampled, (int)o->policy.kind, o->policy.clip_low,
                   o->policy.cap);
    objective_identity(text, &o->objective);
}

static void features_identity(rt_text *text, const rt_feature_options *f)
{
    if (!rt_features_any(f))
        return;
    rt_text_printf(text, " hidden %a %d %d", f->hidden_weight, (int)f->hidden, f->projection);
    for (size_t i = 0; i < f->n_pairs; i++)
        rt_text_printf(text, " %zu-%zu", f->pairs[i].student, f->pairs[i].teacher);
    rt_text_printf(text, " relation %a %u %zu %zu-%zu", f->relation_weight, f->relations, f->relation_heads,
                   f->relation_student, f->relation_teacher);
}

/* Everything that decides the run's bits; names, threads and times of checkpoints do not. */
static rt_status make_identity(distill_run *d, rt_error *err)
{
    const rt_recipe *r = &d->recipe;
    const rt_documents *docs = &d->docs;
    rt_text text = {0};
    rt_text_printf(&text, "%s %s teacher %s %d student %d", RT_VERSION, rt_cpu_name(rt_cpu_level()),
                   d->teacher_hash, r->teacher.precision, r->student.precision);
    rt_text_printf(&text, " steps %llu batch %zu x %zu seed %zu", (unsigned long long)rt_recipe_steps(r),
                   r->train.batch_tokens, r->train.micro_batches, r->train.seed);
    const double reals[] = {r->train.lr,          r->train.warmup,       r->train.floor,
                            r->train.decay_share, r->train.beta1,        r->train.beta2,
                            r->train.eps,         r->train.weight_decay, r->train.clip};
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
        rt_text_printf(&text, " %a", reals[i]);
    rt_text_printf(&text, " schedule %d %d", r->train.schedule, r->train.decay);
    rt_text_printf(&text, " accept %zu", r->teacher.accept.count);
    objective_identity(&text, &d->objective);
    features_identity(&text, &d->trainer->options.features);
    if (d->adapters)
        rt_text_printf(&text, " adapters %d %zu %a base %016llx", r->adapters.kind, r->adapters.rank,
                       r->adapters.alpha, (unsigned long long)rt_adapters_base_hash(d->adapters));
    for (size_t i = 0; d->adapters && i < rt_adapters_count(d->adapters); i++)
        rt_text_printf(&text, " %zu", rt_adapters_at(d->adapters, i)->a);
    if (r->student.embd_rank)
        rt_text_printf(&text, " factors %zu", r->student.embd_rank);
    if (d->on_policy)
        own_identity(&text, &d->own.options);
    const rt_across_options across = rt_recipe_across(r);
    if (d->teacher_tokenizer)
        rt_text_printf(&text, " tokenizers %s %s across %d %a %a %a", rt_tokenizer_hash(d->tokenizer),
                       rt_tokenizer_hash(d->teacher_tokenizer), (int)across.way, across.weight, across.ce,
                       across.tau);
    if (d->kept)
        rt_text_printf(&text, " store %zu %a %a", d->source.n_max, d->source.tau, d->source.proposal);
    const size_t kept_bytes =
        d->source.memory.n_rows ? d->source.memory.begins[d->source.memory.n_rows] * sizeof(float) : 0;
    const uint64_t sums[] = {rt_hash64(docs->ids, docs->n_tokens * sizeof *docs->ids, 0),
                             rt_hash64(docs->mask, docs->n_tokens, 0),
                             rt_hash64(docs->begins, (docs->n_docs + 1) * sizeof *docs->begins, 0),
                             rt_hash64(d->trainer->values, d->trainer->total * sizeof(float), 0),
                             d->kept ? rt_hash64(d->source.memory.logq, kept_bytes, 0) : 0};
    rt_text_append(&text, sums, sizeof sums); /* the text, and the student's start */
    const bool failed = text.failed;
    if (!failed)
        rt_sha256_hex(d->identity, text.data, text.size);
    rt_text_deinit(&text);
    return failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for the run's identity") : RT_OK;
}

static rt_status hash_teacher(distill_run *d, rt_error *err)
{
    if (!d->has_teacher)
        return RT_OK;
    if (!rt_path_is_dir(d->teacher_path))
        return rt_sha256_file(d->teacher_hash, d->teacher_path, err);
    uint64_t sum = 0; /* a folder: names and data of its tensors */
    for (size_t i = 0; i < rt_weights_count(d->weights); i++) {
        const rt_weight *w = rt_weights_at(d->weights, i);
        sum = rt_hash64(w->data, w->bytes, rt_hash64(w->name, strlen(w->name), sum));
    }
    (void)snprintf(d->teacher_hash, sizeof d->teacher_hash, "%016llx", (unsigned long long)sum);
    return RT_OK;
}

static rt_status keep_recipe(const distill_run *d, rt_error *err)
{
    rt_text text = {0};
    rt_settings_print(d->settings, &text);
    char *path = rt_path_join(d->dir, "recipe.yaml");
    const rt_status status = path && !text.failed
                                 ? rt_file_write(path, text.data, text.size, err)
                                 : rt_error_set(err, RT_NO_MEMORY, "no memory for the recipe");
    free(path);
    rt_text_deinit(&text);
    return status;
}

bool distill_run_is_first(const distill_run *d)
{
    return !rt_dist_ranks(&d->dist) || d->dist.ranks.rank == 0;
}

rt_status distill_run_open(distill_run *d, rt_error *err)
{
    d->started = (json_int_t)rt_clock_unix_seconds();
    if (rt_cpu_check(err) != RT_OK ||
        rt_pool_open(&d->pool, (unsigned)d->recipe.train.threads, err) != RT_OK ||
        open_teacher(d, err) != RT_OK || hash_teacher(d, err) != RT_OK || read_text(d, err) != RT_OK ||
        distill_start(d, err) != RT_OK || open_own(d, err) != RT_OK || make_identity(d, err) != RT_OK)
        return err->status;
    return distill_run_is_first(d) ? keep_recipe(d, err) : RT_OK;
}

void distill_run_close(distill_run *d)
{
    rt_own_close(&d->own);
    rt_survey_deinit(&d->survey);
    rt_trainer_close(d->trainer);
    rt_adapters_close(d->adapters);
    rt_weights_close(d->base);
    rt_kept_source_close(&d->source);
    rt_documents_deinit(&d->docs);
    rt_model_close(d->teacher);
    distill_across_close(d);
    rt_chat_template_free(d->chat_template);
    rt_tokenizer_close(d->tokenizer);
    rt_weights_close(d->stream);
    rt_weights_close(d->weights);
    rt_pool_close(d->pool);
    rt_settings_close(d->settings);
    free(d->teacher_path);
    *d = (distill_run){0};
}

/* ---- what is told ---- */

static void licence_of(const distill_run *d, char out[64])
{
    const char *text;
    size_t size;
    if (d->weights && rt_weights_meta_string(d->weights, "general.license", &text, &size))
        (void)snprintf(out, 64, "%.*s", (int)rt_size_min(size, 60), text);
    else
        (void)snprintf(out, 64, "not stated in its file");
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static void start_words(const distill_run *d, char out[96])
{
    const rt_model_config *c = &d->student_config;
    const rt_cut_sizes sizes = rt_recipe_cut(&d->recipe);
    int n = snprintf(
        out, 96, d->recipe.student.init == RT_INIT_LAYERS ? "%zu of the teacher's %zu layers" : "own weights",
        c->n_layers, d->teacher_config.n_layers);
    if (rt_cut_is_narrow(&sizes))
        (void)snprintf(out + n, 96 - (size_t)n, ", %zu wide, %zu units, %zu heads", c->n_embd, c->n_ff,
                       c->n_heads);
}

void distill_run_say(const distill_run *d, FILE *out)
{
    char licence[64];
    licence_of(d, licence);
    if (d->has_teacher)
        (void)fprintf(out, "teacher  %s: %s, %.1f M parameters, licence %s\n", base_name(d->teacher_path),
                      d->teacher_config.family, (double)rt_model_config_parameters(&d->teacher_config) / 1e6,
                      licence);
    char start[96];
    start_words(d, start);
    (void)fprintf(out, "student  %s, %.1f M parameters\n", start,
                  (double)rt_model_config_parameters(&d->student_config) / 1e6);
    if (d->survey.tokens)
        (void)fprintf(out, "survey   %zu tokens of %zu documents in %.1f s\n", d->survey.tokens,
                      d->survey.documents, d->survey_seconds);
    if (d->adapters)
        (void)fprintf(out, "adapters %s of rank %zu on %zu matrices, %.2f M values are trained\n",
                      d->recipe.adapters.kind ? "DoRA" : "LoRA", d->recipe.adapters.rank,
                      rt_adapters_count(d->adapters), (double)rt_adapters_total(d->adapters) / 1e6);
    if (d->trainer->factors.count)
        (void)fprintf(out, "factors  the embedding as two of rank %zu, %.1f M values are trained\n",
                      d->trainer->factors.rank, (double)d->trainer->trained / 1e6);
    (void)fprintf(out, "text     %zu documents, %zu tokens, %zu of them with a loss", d->docs.n_docs,
                  d->docs.n_tokens, d->docs.n_targets);
    if (d->docs.n_cut)
        (void)fprintf(out, "; %zu answers were cut at %zu tokens", d->docs.n_cut, d->recipe.data.tokens_max);
    distill_store_say(d, out);
    distill_across_say(d, out);
    if (d->on_policy)
        (void)fprintf(out,
                      "\nown      %.0f%% of the steps on the student's answers to %zu prompts, %zu at a time",
                      100 * d->own.options.share, d->own.n_prompts, d->own.options.answers);
    if (rt_dist_ranks(&d->dist))
        (void)fprintf(out, "\nranks    %zu, %zu micro-batches a step shared out", d->dist.ranks.size,
                      d->recipe.train.micro_batches);
    (void)fprintf(
        out, "\ntrain    %llu steps of up to %zu tokens, %.2f GiB of memory\n",
        (unsigned long long)rt_recipe_steps(&d->recipe),
        d->recipe.train.batch_tokens * d->recipe.train.micro_batches,
        (double)(rt_trainer_bytes(d->trainer) + (d->teacher ? rt_model_weight_bytes(d->teacher) : 0)) /
            0x1p30);
}

void distill_run_say_phases(const distill_run *d, FILE *out)
{
    if (d->on_policy && d->state.seconds > 0)
        (void)fprintf(
            out,
            "retort: %.0f%% of the time in sampling %zu answers (%.0f%% ended by themselves), the rest "
            "in scoring and training\n",
            100 * d->own.seconds / d->state.seconds, d->own.answers,
            100 * (double)d->own.stopped / (double)rt_size_max(d->own.answers, 1));
}

rt_status distill_run_train(distill_run *d, rt_run_step_fn step_fn, void *context, rt_error *err)
{
    const rt_run_options options = {.dir = d->dir,
                                    .identity = d->identity,
                                    .seed = d->recipe.train.seed,
                                    .steps = rt_recipe_steps(&d->recipe),
                                    .micro_batches = d->recipe.train.micro_batches,
                                    .checkpoint_seconds = d->recipe.train.checkpoint_minutes * 60,
                                    .kept = d->kept ? &d->source : NULL,
                                    .across = d->across_text.begins ? &d->across_text : NULL,
                                    .own = d->on_policy ? &d->own : NULL};
    return rt_run(d->trainer, &d->docs, &options, step_fn, context, &d->state, &d->resumed_at, err);
}

/* ---- the student's files ---- */

static rt_status student_tensor(void *context, rt_canonical *out, size_t layer, int which, rt_error *err)
{
    const rt_trainer *t = context;
    if (t->options.adapters)
        return rt_adapters_tensor(t->options.adapters, out, layer, which, err);
    const rt_param *p = layer == RT_NO_LAYER ? rt_layout_global(&t->layout, (rt_global)which)
                                             : rt_layout_role(&t->layout, layer, which);
    if (!p)
        return rt_error_set(err, RT_NOT_FOUND, "the student has no such tensor");
    *out = (rt_canonical){.dtype = RT_F32, .rows = p->rows, .cols = p->cols, .data = t->values + p->offset};
    return RT_OK;
}

static json_t *lineage_of(const distill_run *d)
{
    char licence[64];
    licence_of(d, licence);
    rt_text recipe = {0};
    rt_settings_print(d->settings, &recipe);
    json_t *layers = json_array();
    for (size_t i = 0; i < d->n_layers; i++)
        (void)json_array_append_new(layers, json_integer((json_int_t)d->layers[i]));
    json_t *out = json_pack(
        "{s:s, s:{s:s, s:s, s:s}, s:o, s:I, s:I, s:s, s:o}", "made_by", "retort " RT_VERSION, "teacher",
        "file", base_name(d->teacher_path), "hash", d->teacher_hash, "licence", licence, "layers", layers,
        "steps", (json_int_t)d->state.step, "tokens", (json_int_t)d->state.tokens, "tokenizer",
        rt_tokenizer_hash(d->tokenizer), "recipe", rt_json_text(recipe.data, recipe.size));
    rt_text_deinit(&recipe);
    return out;
}

static rt_status export_types(const distill_run *d, const rt_export_source *source, rt_error *err)
{
    for (size_t i = 0; i < d->recipe.output.types.count; i++) {
        rt_export_options options = {.pool = d->pool};
        char name[64];
        (void)rt_dtype_from_name(&options.type, d->recipe.output.types.items[i]);
        (void)snprintf(name, sizeof name, "student.%s.gguf", rt_dtype_get(options.type)->name);
        char *path = rt_path_join(d->dir, name);
        const rt_status status = path ? rt_export_gguf(source, path, &options, err)
                                      : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
        free(path);
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}

/* Only a base that exists as a file can be given adapters by others. */
static rt_status export_adapters(const distill_run *d, rt_error *err)
{
    char *dir = rt_path_join(d->dir, "adapter");
    const rt_status status = dir ? rt_adapters_write(d->adapters, dir, d->recipe.student.model, err)
                                 : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    free(dir);
    return status;
}

rt_status distill_run_export(const distill_run *d, rt_error *err)
{
    rt_model_config config = d->student_config;
    config.norm_plus_one = false; /* the trainer's values are the factors themselves */
    json_t *lineage = lineage_of(d);
    const bool gguf = d->weights && rt_weights_get_format(d->weights) == RT_FORMAT_GGUF;
    const rt_export_source source = {.config = &config,
                                     .tensor = student_tensor,
                                     .context = d->trainer,
                                     .tokenizer_path = d->tokenizer_path,
                                     .meta = gguf ? d->weights : NULL,
                                     .name = d->recipe.output.name,
                                     .lineage = lineage};
    const rt_export_options options = {.type = RT_BF16, .pool = d->pool};
    char *folder = rt_path_join(d->dir, "student");
    rt_status status = folder && lineage
                           ? rt_export_folder(&source, folder, &options, err)
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for the student's files");
    if (status == RT_OK)
        status = export_types(d, &source, err);
    if (status == RT_OK && d->base)
        status = export_adapters(d, err);
    free(folder);
    json_decref(lineage);
    return status;
}

/* ---- run.json ---- */

static json_t *machine_facts(void)
{
    return json_pack("{s:s, s:I, s:I}", "isa", rt_cpu_name(rt_cpu_level()), "cores",
                     (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "memory_bytes",
                     (json_int_t)sysconf(_SC_PHYS_PAGES) * (json_int_t)sysconf(_SC_PAGESIZE));
}

static json_t *strings_facts(const rt_strings *strings)
{
    json_t *out = json_array();
    for (size_t i = 0; i < strings->count; i++)
        (void)json_array_append_new(out, json_string(strings->items[i]));
    return out;
}

/* What is learnt from the text: the recipe's terms, but for the ways across tokenizers that have their own.
 */
static json_t *text_loss_facts(const distill_run *d)
{
    const rt_across_options across = rt_recipe_across(&d->recipe);
    const bool other = d->recipe.student.tokenizer[0] != '\0';
    char way[48], ce[48];
    if (!other || d->recipe.across.way == RT_RECIPE_MAP)
        return strings_facts(&d->recipe.loss);
    (void)snprintf(way, sizeof way, "%g %s", across.weight, across.way == RT_ACROSS_ULD ? "uld" : "chunks");
    (void)snprintf(ce, sizeof ce, "%g ce", across.ce);
    return across.way == RT_ACROSS_NONE ? json_pack("[s]", "ce") : json_pack("[s, s]", way, ce);
}

/* And from the student's own answers: those terms, or the sampled tokens alone. */
static json_t *own_loss_facts(const distill_run *d)
{
    static const char *const sampled[] = {"", "importance", "clip", "truncated"}; /* on_policy.objective */
    char text[64];
    if (!d->own.options.sampled)
        return strings_facts(&d->recipe.on_policy.loss);
    (void)snprintf(text, sizeof text, "rkl of the sampled tokens (%s)",
                   sampled[d->recipe.on_policy.objective]);
    return json_pack("[s]", text);
}

static json_t *recipe_facts(const distill_run *d)
{
    const double share = d->on_policy ? d->own.options.share : 0;
    json_t *layers = json_array();
    for (size_t i = 0; i < d->n_layers; i++)
        (void)json_array_append_new(layers, json_integer((json_int_t)d->layers[i]));
    json_t *out =
        json_pack("{s:o, s:f, s:I, s:f, s:I, s:o}", "loss",
                  share < 1 ? text_loss_facts(d) : own_loss_facts(d), "learning rate", d->recipe.train.lr,
                  "tokens a step", (json_int_t)(d->recipe.train.batch_tokens * d->recipe.train.micro_batches),
                  "weight decay", d->recipe.train.weight_decay, "longest document",
                  (json_int_t)d->recipe.data.tokens_max, "layers", layers);
    if (share > 0)
        (void)json_object_set_new(out, "share of own answers", json_real(share));
    if (share > 0 && share < 1)
        (void)json_object_set_new(out, "loss on own answers", own_loss_facts(d));
    return out;
}

static json_t *model_facts(const char *name, const rt_model_config *config, size_t bytes)
{
    return json_pack("{s:s, s:I, s:I, s:I}", "name", name, "parameters",
                     (json_int_t)rt_model_config_parameters(config), "layers", (json_int_t)config->n_layers,
                     "bytes", (json_int_t)bytes);
}

static size_t weight_bytes(const rt_weights *weights)
{
    size_t bytes = 0;
    for (size_t i = 0; i < rt_weights_count(weights); i++)
        bytes += rt_weights_at(weights, i)->bytes;
    return bytes;
}

rt_status distill_run_facts(const distill_run *d, json_t **out, rt_error *err)
{
    char licence[64], started[32], start[96];
    licence_of(d, licence);
    const time_t when = (time_t)d->started;
    struct tm utc;
    (void)strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&when, &utc));
    start_words(d, start);
    json_t *teacher = json_object();
    if (d->has_teacher) {
        json_decref(teacher);
        teacher = model_facts(base_name(d->teacher_path), &d->teacher_config, weight_bytes(d->weights));
        (void)json_object_set_new(teacher, "licence", json_string(licence));
        (void)json_object_set_new(teacher, "hash", json_string(d->teacher_hash));
    }
    json_t *student = model_facts(d->recipe.output.name, &d->student_config,
                                  rt_model_config_parameters(&d->student_config) * 2);
    (void)json_object_set_new(student, "init", json_string(start));
    (void)json_object_set_new(student, "trained", json_integer((json_int_t)d->trainer->trained));
    json_t *run = json_pack(
        "{s:o, s:o, s:o, s:o, s:{s:s}, s:I, s:I, s:f, s:I, s:I, s:s, s:[s, s]}", "recipe", recipe_facts(d),
        "teacher", teacher, "student", student, "machine", machine_facts(), "versions", "retort", RT_VERSION,
        "tokens", (json_int_t)d->state.tokens, "steps", (json_int_t)d->state.step, "seconds",
        d->state.seconds, "peak_bytes", (json_int_t)rt_peak_memory_bytes(), "seed",
        (json_int_t)d->recipe.train.seed, "started", started, "lineage", base_name(d->teacher_path), start);
    if (run && d->on_policy)
        (void)json_object_set_new(run, "on_policy",
                                  json_pack("{s:f, s:I, s:I, s:f}", "share", d->own.options.share, "answers",
                                            (json_int_t)d->own.answers, "ended by themselves",
                                            (json_int_t)d->own.stopped, "sampling_seconds", d->own.seconds));
    json_t *survey = distill_survey_facts(d);
    if (run && survey)
        (void)json_object_set_new(run, "survey", survey);
    char *path = rt_path_join(d->dir, "run.json");
    const rt_status status = run && path ? rt_json_write(path, run, err)
                                         : rt_error_set(err, RT_NO_MEMORY, "no memory for the run's facts");
    free(path);
    if (status == RT_OK)
        *out = run;
    else
        json_decref(run);
    return status;
}
