/* cli/plan_inputs.c - see plan_inputs.h. */
#include "cli/plan_inputs.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/home.h"
#include "cli/model_arg.h"
#include "model/stream.h"
#include "tensor/cpu.h"

enum { CONFIG_BYTES_MAX = 4 << 20, TEXT_BYTES_MAX = 64 << 20, PACKED_TEXT_BYTES_MAX = 16 << 20 };

void plan_note(plan_inputs *p, const char *fmt, ...)
{
    if (p->n_notes == PLAN_NOTES_MAX)
        return;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(p->notes[p->n_notes++], sizeof p->notes[0], fmt, args);
    va_end(args);
}

/* ---- models ---- */

typedef struct plan_model { /* one model's headers */
    char *path;
    rt_weights *weights; /* NULL: only a config.json */
    rt_model_config config;
    bool runs; /* config holds: the decoder knows the family */
    rt_cost_shape shape;
    double bytes; /* of the tensors in the file */
} plan_model;

static void model_close(plan_model *m)
{
    rt_weights_close(m->weights);
    free(m->path);
    *m = (plan_model){0};
}

static rt_status shape_from_json(plan_model *m, const json_t *json, rt_error *err)
{
    rt_error unused;
    m->runs = rt_model_config_from_json(&m->config, json, m->path, &unused) == RT_OK;
    return rt_cost_shape_from_json(&m->shape, json, m->path, err);
}

static rt_status read_config_file(plan_model *m, const char *path, rt_error *err)
{
    json_t *json = NULL;
    rt_status status = rt_json_read(&json, path, CONFIG_BYTES_MAX, err);
    if (status == RT_OK)
        status = shape_from_json(m, json, err);
    json_decref(json);
    return status;
}

static rt_status read_weights_header(plan_model *m, rt_error *err)
{
    if (rt_weights_open(&m->weights, m->path, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < rt_weights_count(m->weights); i++)
        m->bytes += (double)rt_weights_at(m->weights, i)->bytes;
    if (rt_weights_config_json(m->weights))
        return shape_from_json(m, rt_weights_config_json(m->weights), err);
    if (rt_model_config_read(&m->config, m->weights, err) != RT_OK)
        return err->status;
    m->runs = true;
    rt_cost_shape_of(&m->shape, &m->config);
    return RT_OK;
}

/* A weight file, a folder with or without weights, or a config.json alone. */
static rt_status model_read(plan_model *m, const char *name, rt_error *err)
{
    if (cli_model_path(&m->path, name, err) != RT_OK)
        return err->status;
    const size_t n = strlen(m->path);
    if (n > 5 && strcmp(m->path + n - 5, ".json") == 0)
        return read_config_file(m, m->path, err);
    if (!rt_path_is_dir(m->path) || read_weights_header(m, err) == RT_OK)
        return rt_path_is_dir(m->path) ? RT_OK : read_weights_header(m, err);
    if (err->status != RT_NOT_FOUND)
        return err->status;
    char *config = rt_path_join(m->path, "config.json");
    const rt_status status =
        config ? read_config_file(m, config, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    free(config);
    return status;
}

/* ---- this machine ---- */

static void name_of_cpu(char out[64])
{
    FILE *stream = fopen("/proc/cpuinfo", "re");
    char line[512];
    (void)snprintf(out, 64, "this machine");
    while (stream && fgets(line, sizeof line, stream)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value)
            continue;
        (void)snprintf(out, 64, "%.*s", (int)rt_size_min(strcspn(value + 2, "\n"), 60), value + 2);
        break;
    }
    if (stream)
        (void)fclose(stream);
}

/* The rates are kept beside the models; a cache that cannot be written is only slower. */
static rt_status measure_this(plan_inputs *p, const rt_precision *teacher, bool streamed, bool again,
                              rt_pool *pool, rt_error *err)
{
    char *path = NULL;
    json_t *kept = NULL;
    rt_error unused;
    if (cli_home_path(&path, "machine.json", err) != RT_OK)
        return err->status;
    if (!again && rt_json_read(&kept, path, CONFIG_BYTES_MAX, &unused) == RT_OK)
        (void)rt_machine_rates_from_json(&p->machine, kept);
    json_decref(kept);
    json_t *before = rt_machine_rates_to_json(&p->machine);
    rt_status status =
        rt_machine_measure(&p->machine, rt_recipe_precision(p->recipe.student.precision), teacher, pool, err);
    if (status == RT_OK && streamed && teacher)
        status = rt_machine_measure_load(&p->machine, *teacher, pool, err);
    json_t *now = rt_machine_rates_to_json(&p->machine);
    char *slash = strrchr(path, '/');
    if (status == RT_OK && !json_equal(before, now) && slash) {
        *slash = '\0';
        const bool made = rt_dir_make(path, &unused) == RT_OK;
        *slash = '/';
        if (made)
            (void)rt_json_write(path, now, &unused);
    }
    json_decref(before);
    json_decref(now);
    free(path);
    return status;
}

static rt_status choose_machine(plan_inputs *p, const plan_options *options, const rt_precision *teacher,
                                rt_pool *pool, rt_error *err)
{
    const char *name = options->machine;
    const rt_machine *found = rt_machine_find(name);
    rt_status status = RT_OK;
    json_t *json = NULL;
    if (found) {
        p->machine = *found;
    } else if (strcmp(name, "this") == 0) {
        p->machine = (rt_machine){.threads = rt_pool_threads(pool),
                                  .memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE)};
        name_of_cpu(p->machine.name);
        status = measure_this(p, teacher, options->stream, options->measure, pool, err);
    } else if (rt_path_exists(name)) {
        status = rt_json_read(&json, name, CONFIG_BYTES_MAX, err);
        if (status == RT_OK)
            status = rt_machine_from_json(&p->machine, json, name, err);
        json_decref(json);
    } else {
        return rt_error_set(
            err, RT_INVALID,
            "--machine: '%.100s' is neither 'this', nor one of %s, nor a file that describes one", name,
            rt_machine_names());
    }
    if (options->utilisation > 0)
        p->machine.utilisation = options->utilisation;
    if (options->usd_hour > 0)
        p->machine.usd_hour = options->usd_hour;
    return status;
}

/* ---- the text ---- */

static bool text_is_small(const rt_recipe *recipe)
{
    double bytes = 0, packed = 0;
    for (size_t i = 0; i < recipe->data.train.count; i++) {
        struct stat info;
        const char *path = recipe->data.train.items[i];
        const size_t n = strlen(path);
        if (stat(path, &info) != 0)
            return false;
        if (n > 4 && strcmp(path + n - 4, ".zst") == 0)
            packed += (double)info.st_size;
        else
            bytes += (double)info.st_size;
    }
    return bytes <= TEXT_BYTES_MAX && packed <= PACKED_TEXT_BYTES_MAX;
}

typedef struct plan_reader { /* what turns text into documents */
    rt_tokenizer *tokenizer;
    rt_chat_template *chat_template;
    rt_documents docs;
} plan_reader;

static rt_status reader_open(plan_reader *reader, const char *path, rt_error *err)
{
    if (rt_tokenizer_open(&reader->tokenizer, path, err) != RT_OK)
        return err->status;
    const char *source = rt_tokenizer_chat_template(reader->tokenizer);
    return source ? rt_chat_template_parse(&reader->chat_template, source, err) : RT_OK;
}

static void reader_close(plan_reader *reader)
{
    rt_documents_deinit(&reader->docs);
    rt_chat_template_free(reader->chat_template);
    rt_tokenizer_close(reader->tokenizer);
}

/* teacher_path NULL: it has the student's tokenizer, or does not read. */
static rt_status count_text(plan_inputs *p, const char *tokenizer_path, const char *teacher_path,
                            rt_error *err)
{
    const rt_recipe *r = &p->recipe;
    plan_reader student = {0}, teacher = {0};
    const rt_document_options options = {r->data.tokens_max, r->data.loss_on == RT_LOSS_ON_ALL};
    rt_status status = reader_open(&student, tokenizer_path, err);
    if (status == RT_OK && teacher_path)
        status = reader_open(&teacher, teacher_path, err);
    const rt_documents_side sides[] = {{&student.docs, student.tokenizer, student.chat_template},
                                       {&teacher.docs, teacher.tokenizer, teacher.chat_template}};
    for (size_t i = 0; status == RT_OK && i < r->data.train.count; i++) {
        const char *path = r->data.train.items[i];
        status = teacher_path ? rt_documents_read_both(&sides[0], &sides[1], path, &options, err)
                              : rt_documents_read(&student.docs, path, student.tokenizer,
                                                  student.chat_template, &options, err);
    }
    if (status == RT_OK)
        status = rt_estimate_text_of(&p->in.text, &student.docs, r->train.seed, r->train.batch_tokens,
                                     p->in.steps * p->in.micro_batches, err);
    if (status == RT_OK && teacher_path)
        p->in.text.teacher_tokens = (double)teacher.docs.n_tokens / (double)student.docs.n_tokens;
    reader_close(&student);
    reader_close(&teacher);
    return status;
}

static void know_text(plan_inputs *p, const char *tokenizer_path, const char *teacher_path, bool wanted)
{
    const rt_recipe *r = &p->recipe;
    const double full = (double)r->train.batch_tokens;
    rt_error why = {0};
    p->in.text = (rt_estimate_text){
        .batch_tokens = full, .batch_rows = full, .length = fmin(full, (double)r->data.tokens_max)};
    if (!wanted)
        plan_note(p, "the text was not read: full batches are assumed, and a loss on every token");
    else if (!text_is_small(r))
        plan_note(p, "the text is not here or is large: full batches are assumed, and a loss on every token");
    else if (count_text(p, tokenizer_path, teacher_path, &why) != RT_OK)
        plan_note(p, "the text could not be counted (%.90s): full batches are assumed", why.text);
}

/* ---- the recipe ---- */

static rt_status read_recipe(plan_inputs *p, const char *path, char **words, size_t n_words, rt_error *err)
{
    if (rt_settings_open(&p->settings, rt_recipe_fields, rt_recipe_field_count, err) != RT_OK ||
        (path && rt_settings_read(p->settings, path, err) != RT_OK))
        return err->status;
    for (size_t i = 0; i < n_words; i++)
        if (rt_settings_override(p->settings, words[i], err) != RT_OK)
            return err->status;
    if (rt_settings_fill(p->settings, &p->recipe, err) != RT_OK || rt_recipe_check(&p->recipe, err) != RT_OK)
        return err->status;
    rt_objective objective;
    const rt_status status =
        rt_recipe_objective(&objective, &p->recipe, p->recipe.teacher.store[0] != '\0', err);
    p->mix = objective.mix;
    return status;
}

/* Where the student's tokenizer is; NULL: it has none of its own. */
static rt_status own_tokenizer(char **out, const rt_recipe *r, rt_error *err)
{
    const bool own = strcmp(r->student.tokenizer, "own") == 0;
    *out = NULL;
    if (r->student.tokenizer[0] == '\0')
        return RT_OK;
    return cli_model_path(out, own ? r->student.model : r->student.tokenizer, err);
}

/* The vocabulary that a run would give the student. */
static rt_status take_vocabulary(rt_model_config *config, const char *tokenizer_path, rt_error *err)
{
    rt_tokenizer *tokenizer = NULL;
    if (!tokenizer_path)
        return RT_OK;
    if (rt_tokenizer_open(&tokenizer, tokenizer_path, err) != RT_OK)
        return err->status;
    config->n_vocab = rt_tokenizer_size(tokenizer);
    rt_tokenizer_close(tokenizer);
    return RT_OK;
}

/* The student's configuration: some of the teacher's layers, or the model that is named. */
static rt_status student_config(plan_model *student, const plan_inputs *p, const plan_model *teacher,
                                const char *tokenizer_path, rt_error *err)
{
    size_t map[RT_LAYERS_MAX], n;
    if (p->recipe.student.init != RT_INIT_LAYERS)
        return model_read(student, p->recipe.student.model, err);
    if (!teacher->runs)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "%.200s: layers of a model of the family %s cannot be taken by this "
                            "build",
                            teacher->path, teacher->shape.family);
    const rt_cut_sizes sizes = rt_recipe_cut(&p->recipe);
    if (rt_recipe_layers(map, &n, &p->recipe, teacher->config.n_layers, NULL, err) != RT_OK)
        return err->status;
    rt_model_config_take_layers(&student->config, &teacher->config, map, n);
    if (rt_cut_config(&student->config, &sizes, err) != RT_OK ||
        take_vocabulary(&student->config, tokenizer_path, err) != RT_OK)
        return err->status;
    student->runs = true;
    rt_cost_shape_of(&student->shape, &student->config);
    return RT_OK;
}

/* Memory from the same functions that the trainer takes it by. */
static rt_status count_arenas(plan_inputs *p, const plan_model *student, const plan_model *teacher,
                              rt_pool *pool, rt_error *err)
{
    rt_model *s = NULL, *t = NULL;
    rt_layout layout = {0};
    size_t unused;
    const bool live = p->in.has_teacher && teacher->runs;
    p->in.mapped_bytes = (size_t)teacher->bytes;
    if (p->in.has_teacher && !teacher->runs)
        p->in.teacher_bytes = (size_t)(teacher->shape.parameters * 2);
    if (!student->runs) {
        plan_note(p,
                  "this build cannot train the family %s: memory counts 18 bytes a parameter, no activations",
                  student->shape.family);
        return RT_OK;
    }
    const rt_trainer_options options = {.mix = p->mix,
                                        .precision = p->in.student_precision,
                                        .tokens_max = p->recipe.train.batch_tokens,
                                        .across = rt_recipe_across(&p->recipe),
                                        .embd_rank = p->recipe.student.embd_rank};
    rt_status status = rt_layout_build(&layout, &student->config, err);
    if (status == RT_OK)
        status = rt_model_shape(&s, &student->config, NULL, p->in.student_precision, pool, &unused, err);
    if (status == RT_OK && live)
        status = rt_model_shape(&t, &teacher->config, teacher->weights, p->in.teacher_precision, pool,
                                &p->in.teacher_bytes, err);
    rt_factors factors;
    if (status == RT_OK && options.embd_rank)
        status = rt_factors_place(&factors, &layout, options.embd_rank, 0, err);
    size_t trained = layout.total, more = 0;
    if (status == RT_OK && options.embd_rank) {
        trained = factors.trained;
        p->in.factors.rank = (double)factors.rank;
        p->in.factors.trained = (double)factors.trained;
        p->in.factors.merged = (double)factors.merged;
    }
    rt_adapter_options adapters;
    if (status == RT_OK && p->recipe.adapters.rank)
        status = rt_recipe_adapters(&adapters, &p->recipe, err);
    if (status == RT_OK && p->recipe.adapters.rank) {
        status = rt_adapters_size(&trained, &more, &adapters, &student->config, pool, err);
        p->in.adapters.trained = (double)trained;
        p->in.adapters.rank = (double)adapters.rank;
        p->in.adapters.dora = adapters.kind == RT_ADAPTER_DORA;
        p->in.adapters.from_file = adapters.from_file;
        p->in.mapped_bytes +=
            (size_t)student->bytes; /* a base of its own is read as long as the run goes on */
    }
    if (status == RT_OK) {
        p->in.arena_bytes = rt_trainer_bytes_of(s, t, trained, &options) + more;
        if (p->recipe.adapters.rank && options.precision == RT_PRECISION_BF16)
            p->in.arena_bytes -= trained * sizeof(rt_bf16); /* adapters count their own */
    }
    rt_model_close(s);
    rt_model_close(t);
    rt_layout_free(&layout);
    return status;
}

static double bits_of_outputs(const rt_recipe *recipe)
{
    double bits = 0;
    for (size_t i = 0; i < recipe->output.types.count; i++) {
        rt_dtype dtype;
        if (!rt_dtype_from_name(&dtype, recipe->output.types.items[i]))
            continue;
        const rt_dtype_info *info = rt_dtype_get(dtype);
        bits += 8 * (double)info->block_bytes / (double)info->block_elements;
    }
    return bits;
}

/* ---- streaming ---- */

/* Bytes of the layers' matrices in the file: all but the embedding and the head. */
static double layer_bytes(const plan_model *m)
{
    static const rt_global tables[] = {RT_GLOBAL_EMBED, RT_GLOBAL_HEAD, RT_GLOBAL_POSITIONS};
    double bytes = 0;
    if (!m->weights || !m->runs)
        return 2 * (m->shape.matmul - m->shape.head);
    for (size_t i = 0; i < rt_weights_count(m->weights); i++)
        bytes += rt_weights_at(m->weights, i)->n_dims > 1 ? (double)rt_weights_at(m->weights, i)->bytes : 0;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        const rt_weight *table;
        rt_error unused;
        size_t rows, cols;
        rt_global_shape(&m->config, tables[i], &rows, &cols);
        if (rows &&
            rt_canonical_source(&table, m->weights, &m->config, SIZE_MAX, (int)tables[i], &unused) == RT_OK)
            bytes -= (double)table->bytes;
    }
    return bytes;
}

/* A machine that is not measured: its peaks at the stated utilisation, layers copied at the memory's rate. */
static rt_machine rates_for_stream(const plan_inputs *p)
{
    rt_machine m = p->machine;
    if (m.measured)
        return m;
    for (size_t i = 0; i < RT_PRECISION_COUNT; i++) {
        m.rates.forward[i] = m.bf16 * m.utilisation;
        m.rates.load[i] = m.read > 0 ? m.read / 2 : 1e10;
    }
    return m;
}

static rt_status plan_stream(plan_inputs *p, const plan_model *teacher, const plan_options *options,
                             rt_error *err)
{
    if (!options->stream)
        return RT_OK;
    if (!teacher->path)
        return rt_error_set(err, RT_INVALID, "--stream: the recipe has no teacher.model to be streamed");
    p->streams = true;
    p->stream_tokens = options->stream_tokens;
    p->stream_layer_bytes = layer_bytes(teacher);
    p->stream_disk = options->disk > 0 ? options->disk : p->machine.disk;
    if (p->stream_disk <= 0 && (!p->machine.measured || !teacher->weights))
        return rt_error_set(err, RT_INVALID,
                            "--stream: the disk's rate is not known; give it as --disk-rate BYTES");
    if (p->stream_disk <= 0 &&
        rt_stream_measure_disk(&p->stream_disk, rt_weights_file_path(teacher->weights, 0), 0.7, err) != RT_OK)
        return err->status;
    const rt_machine machine = rates_for_stream(p);
    const rt_estimate_stream_input in = {&teacher->shape,  p->in.teacher_precision, &machine,
                                         p->stream_disk,   p->stream_layer_bytes,   (double)p->stream_tokens,
                                         p->in.text.length};
    rt_estimate_stream_pass(&p->stream, &in);
    return RT_OK;
}

static rt_status read_models(plan_inputs *p, plan_model *student, plan_model *teacher,
                             const char *tokenizer_path, const plan_options *options, rt_pool *pool,
                             rt_error *err)
{
    const rt_recipe *r = &p->recipe;
    const bool named = r->teacher.model[0] != '\0';
    if ((named && model_read(teacher, r->teacher.model, err) != RT_OK) ||
        student_config(student, p, teacher, tokenizer_path, err) != RT_OK)
        return err->status;
    const rt_precision precision = rt_recipe_precision(r->teacher.precision);
    const bool across = rt_recipe_across(r).way != RT_ACROSS_NONE;
    p->needs_teacher = ((rt_loss_mix_needs_teacher(&p->mix) || across) && r->teacher.store[0] == '\0') ||
                       rt_recipe_has_features(r);
    p->in = (rt_estimate_input){.student = student->shape,
                                .teacher = teacher->shape,
                                .has_teacher = named && p->needs_teacher,
                                .student_precision = rt_recipe_precision(r->student.precision),
                                .teacher_precision = precision,
                                .steps = rt_recipe_steps(r),
                                .micro_batches = r->train.micro_batches,
                                .devices = options->nodes,
                                .network = options->network * 1e9,
                                .latency_s = options->latency_us * 1e-6,
                                .machine = &p->machine,
                                .output_bits = bits_of_outputs(r)};
    if (choose_machine(p, options, p->in.has_teacher || (named && options->stream) ? &precision : NULL, pool,
                       err) != RT_OK ||
        count_arenas(p, student, teacher, pool, err) != RT_OK)
        return err->status;
    const char *shared = named ? teacher->path : student->path;
    know_text(p, tokenizer_path ? tokenizer_path : shared, across ? teacher->path : NULL, !options->no_text);
    if (across && p->in.text.teacher_tokens <= 0)
        plan_note(p, "the teacher is taken to make as many tokens of the text as the student");
    return plan_stream(p, teacher, options, err);
}

static rt_status read_all(plan_inputs *p, plan_model *student, plan_model *teacher,
                          const plan_options *options, rt_pool *pool, rt_error *err)
{
    char *tokenizer_path = NULL;
    rt_status status = own_tokenizer(&tokenizer_path, &p->recipe, err);
    if (status == RT_OK)
        status = read_models(p, student, teacher, tokenizer_path, options, pool, err);
    free(tokenizer_path);
    return status;
}

rt_status plan_teacher_config(rt_model_config *out, plan_inputs *p, const char *recipe_path, char **words,
                              size_t n_words, rt_error *err)
{
    plan_model teacher = {0};
    *p = (plan_inputs){0};
    rt_status status = read_recipe(p, recipe_path, words, n_words, err);
    if (status == RT_OK && p->recipe.teacher.model[0] == '\0')
        status = rt_error_set(err, RT_INVALID,
                              "--target: the recipe has no teacher.model to cut; give --from MODEL");
    if (status == RT_OK)
        status = model_read(&teacher, p->recipe.teacher.model, err);
    if (status == RT_OK && !teacher.runs)
        status = rt_error_set(err, RT_UNSUPPORTED, "%.200s: this build cannot cut a model of the family %s",
                              teacher.path, teacher.shape.family);
    *out = teacher.config;
    model_close(&teacher);
    return status;
}

rt_status plan_inputs_read(plan_inputs *p, const char *recipe_path, char **words, size_t n_words,
                           const plan_options *options, rt_error *err)
{
    plan_model student = {0}, teacher = {0};
    rt_pool *pool = NULL;
    *p = (plan_inputs){0};
    rt_status status = read_recipe(p, recipe_path, words, n_words, err);
    const size_t threads = options->threads ? options->threads : p->recipe.train.threads;
    if (status == RT_OK && (options->nodes == 0 || options->nodes > 1000000))
        status = rt_error_set(err, RT_INVALID, "--nodes %zu is not in 1..1000000", options->nodes);
    if (status == RT_OK)
        status = rt_cpu_check(err);
    if (status == RT_OK)
        status = rt_pool_open(&pool, (unsigned)rt_size_min(threads, 1 << 16), err);
    if (status == RT_OK)
        status = read_all(p, &student, &teacher, options, pool, err);
    rt_pool_close(pool);
    model_close(&student);
    model_close(&teacher);
    return status;
}

void plan_inputs_close(plan_inputs *p)
{
    rt_settings_close(p->settings);
    *p = (plan_inputs){0};
}
