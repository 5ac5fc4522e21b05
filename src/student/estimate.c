/* student/estimate.c - see estimate.h. */
#include "student/estimate.h"

#include <math.h>

#include "base/size.h"

enum { BATCHES_COUNTED_MAX = 256 };
/* Program, tokenizer, compiled kernels and the heap: measured, see docs/plan.md. */
static const double program_bytes = 44e6;
/* A step's line in log.jsonl; a token in the outputs store, with 12 draws and with the top 50 (DESIGN.md). */
static const double log_line_bytes = 210, draws_token_bytes = 30, topk_token_bytes = 110;

rt_status rt_estimate_text_of(rt_estimate_text *out, const rt_documents *docs, uint64_t seed,
                              size_t tokens_max, uint64_t n_batches, rt_error *err)
{
    rt_dealer dealer = {0};
    rt_deal deal = {0};
    double tokens = 0, rows = 0, keys = 0;
    const uint64_t counted = n_batches < BATCHES_COUNTED_MAX ? n_batches : BATCHES_COUNTED_MAX;
    rt_status status = rt_dealer_init(&dealer, docs, seed, tokens_max, err);
    if (status == RT_OK)
        status = rt_deal_init(&deal, tokens_max, err);
    for (uint64_t i = 0; status == RT_OK && i < counted; i++) {
        rt_dealer_next(&dealer, &deal);
        tokens += (double)deal.batch.n_tokens;
        rows += (double)deal.targets.n;
        for (size_t s = 0; s < deal.batch.n_segments; s++) {
            const double n = (double)deal.batch.segments[s].count;
            keys += n * (n + 1) / 2;
        }
    }
    if (status == RT_OK)
        *out = (rt_estimate_text){.read = true,
                                  .documents = (double)docs->n_docs,
                                  .tokens = (double)docs->n_tokens,
                                  .targets = (double)docs->n_targets,
                                  .batch_tokens = tokens / (double)counted,
                                  .batch_rows = rows / (double)counted,
                                  .length = 2 * keys / tokens - 1};
    rt_deal_deinit(&deal);
    rt_dealer_deinit(&dealer);
    return status;
}

/* ---- parts ---- */

/* Forward operations of a token in the layers alone. */
static double layers_forward(const rt_cost_shape *shape, double length)
{
    return 2 * (shape->matmul - shape->head) + rt_cost_attention(shape, length);
}

/* Values that the optimiser moves. */
static double trained_of(const rt_estimate_input *in)
{
    const double whole = in->factors.trained > 0 ? in->factors.trained : in->student.parameters;
    return in->adapters.trained > 0 ? in->adapters.trained : whole;
}

/* Passes over a layer that training counts: forward, the gradient of what came in, and the weights'; frozen
 * weights have none, but DoRA makes it for the lengths of its rows. */
static double passes_of(const rt_estimate_input *in)
{
    return in->adapters.trained > 0 && !in->adapters.dora ? 2 : 3;
}

/* A token's operations through A and B, and a step's that put W + B A together: once, or for each layer on
 * its way forward and back.  A factored embedding is put together once, and its gradient taken apart. */
static double adapter_token(const rt_estimate_input *in) { return 4 * in->adapters.trained; }

static double merges_of_step(const rt_estimate_input *in)
{
    if (in->adapters.trained <= 0)
        return 6 * in->factors.rank * in->factors.merged;
    const double times = in->adapters.from_file ? 2 * (double)in->micro_batches : 1;
    return times * 2 * in->adapters.rank * (in->student.matmul - in->student.head);
}

/* The teacher reads the same text in tokens of its own; where both have a border its head is used. */
static double teacher_tokens(const rt_estimate_input *in)
{
    return in->text.teacher_tokens > 0 ? in->text.teacher_tokens : 1;
}

static void count_flops(rt_estimate *out, const rt_estimate_input *in)
{
    const double length = in->text.length, rows = in->text.batch_rows / in->text.batch_tokens;
    const rt_cost_shape *s = &in->student, *t = &in->teacher;
    const double head = in->adapters.trained > 0 ? 2 : 3; /* passes over it: frozen, it has no gradient */
    const double passes = passes_of(in), merges = merges_of_step(in);
    const double step_tokens = in->text.batch_tokens * (double)in->micro_batches;
    out->flops.student_token = passes * layers_forward(s, length) + head * 2 * s->head * rows +
                               adapter_token(in) + merges / step_tokens;
    double attention = passes * rt_cost_attention(s, length);
    if (in->has_teacher) {
        out->flops.teacher_token =
            layers_forward(t, length) * teacher_tokens(in) + 2 * t->head * rows * fmin(teacher_tokens(in), 1);
        attention += rt_cost_attention(t, length);
    }
    const double token = out->flops.student_token + out->flops.teacher_token;
    out->flops.attention_share = attention / token;
    out->tokens = (double)in->steps * (double)in->micro_batches * in->text.batch_tokens;
    out->flops.total = token * out->tokens;
    out->flops.rule_6nd = rt_cost_training_rule(s->active, out->tokens);
}

static void time_measured(rt_estimate *out, const rt_estimate_input *in)
{
    const rt_machine_rates *r = &in->machine->rates;
    const rt_cost_shape *s = &in->student, *t = &in->teacher;
    const double n = in->text.batch_tokens * (double)in->micro_batches, length = in->text.length;
    const double rows = in->text.batch_rows * (double)in->micro_batches;
    const double layers = passes_of(in) * layers_forward(s, length) + adapter_token(in);
    out->time.student_s = (n * layers + merges_of_step(in)) / r->train[in->student_precision];
    out->time.head_s =
        rows * (in->adapters.trained > 0 ? 4 : 6) * s->head / r->head_train[in->student_precision];
    if (in->has_teacher) {
        const double rate = r->forward[in->teacher_precision];
        out->time.teacher_s = n * teacher_tokens(in) * layers_forward(t, length) / rate +
                              rows * fmin(teacher_tokens(in), 1) * 2 * t->head / rate;
        out->time.head_s += rows * (double)t->n_vocab * r->head_loss[in->teacher_precision];
    }
    out->time.update_s = trained_of(in) / r->update;
    out->time.step_s = out->time.student_s + out->time.head_s + out->time.teacher_s + out->time.update_s;
}

/* Data parallel (student/ranks.h): a ring sends 2 (N-1)/N of the gradients, while the last micro-batch's
 * backward pass (two thirds of its time) goes on, and then (N-1)/N of the parameters. */
static void count_network(rt_estimate *out, const rt_estimate_input *in)
{
    const double n = (double)in->devices, share = (n - 1) / n, bytes = trained_of(in) * 4;
    const double alone = out->time.step_s;
    out->time.efficiency = 1;
    if (in->network <= 0 || in->devices < 2)
        return;
    out->time.network_bytes = 3 * share * bytes;
    out->time.reduce_s = 2 * share * bytes / in->network + 2 * (n - 1) * in->latency_s;
    out->time.gather_s = share * bytes / in->network + (n - 1) * in->latency_s;
    const double own = fmax((double)in->micro_batches / n, 1), hidden = alone / own * 2 / 3;
    out->time.waiting_s = fmax(out->time.reduce_s - hidden, 0) + out->time.gather_s;
    out->time.step_s += out->time.waiting_s;
    out->time.efficiency = alone / out->time.step_s;
}

static void count_time(rt_estimate *out, const rt_estimate_input *in)
{
    const double devices = (double)in->devices;
    if (in->machine->measured)
        time_measured(out, in);
    else
        out->time.step_s =
            out->flops.total / (double)in->steps / (in->machine->bf16 * in->machine->utilisation);
    out->time.step_s /= devices;
    count_network(out, in);
    out->time.tokens_per_s = out->tokens / (double)in->steps / out->time.step_s;
    out->time.total_s = out->time.step_s * (double)in->steps;
    out->time.device_hours = out->time.total_s * devices / 3600;
    out->time.usd = out->time.device_hours * in->machine->usd_hour;
}

static void count_memory(rt_estimate *out, const rt_estimate_input *in)
{
    const double devices = (double)in->devices;
    /* master, two moments, gradient, bf16 copy: the arenas hold them, and the activations */
    out->memory.arenas = in->arena_bytes ? (double)in->arena_bytes : in->student.parameters * 18;
    out->memory.teacher = (double)in->teacher_bytes;
    out->memory.mapped = (double)in->mapped_bytes;
    out->memory.text = in->text.tokens * (1 + in->text.teacher_tokens) * 5; /* both, where there are two */
    out->memory.program = program_bytes;
    const double models =
        in->network > 0 /* each device holds all but the others' moments */
            ? out->memory.arenas - trained_of(in) * 8 * (1 - 1 / devices) + out->memory.teacher
            : (out->memory.arenas + out->memory.teacher) / devices;
    out->memory.peak = models + out->memory.mapped + out->memory.text + out->memory.program;
    out->memory.fits = in->machine->memory <= 0 || out->memory.peak <= in->machine->memory;
}

static void count_disk(rt_estimate *out, const rt_estimate_input *in)
{
    const double parameters = in->student.parameters;
    out->disk.log = (double)in->steps * log_line_bytes;
    out->disk.checkpoint = trained_of(in) * 12;
    out->disk.student = parameters * 2;
    out->disk.adapter = in->adapters.trained * 4;
    out->disk.outputs = parameters * in->output_bits / 8;
    out->disk.total =
        out->disk.log + out->disk.checkpoint + out->disk.student + out->disk.adapter + out->disk.outputs;
    const double tokens = in->text.targets > 0 ? in->text.targets : out->tokens;
    out->disk.store_draws = tokens * draws_token_bytes;
    out->disk.store_topk = tokens * topk_token_bytes;
}

void rt_estimate_make(rt_estimate *out, const rt_estimate_input *in)
{
    *out = (rt_estimate){0};
    count_flops(out, in);
    count_time(out, in);
    count_memory(out, in);
    count_disk(out, in);
}

void rt_estimate_stream_pass(rt_estimate_stream *out, const rt_estimate_stream_input *in)
{
    /* tokens of a task of the forward pass: fewer keep fewer threads busy, but for those few that share rows
     */
    enum { BLOCK = 128, SHARED = 32 };
    const rt_machine *m = in->machine;
    const double threads = m->threads > 0 ? (double)m->threads : 1;
    const double busy = in->tokens <= SHARED ? 1 : fmin(ceil(in->tokens / BLOCK), threads) / threads;
    const double token = 2 * (in->shape->matmul - in->shape->head) + rt_cost_attention(in->shape, in->length);
    const double layers = (double)in->shape->n_layers;
    out->read_s = in->layer_bytes / in->disk;
    out->load_s = in->layer_bytes / m->rates.load[in->precision];
    out->compute_s = in->tokens * token / (m->rates.forward[in->precision] * busy);
    const double own = out->load_s + out->compute_s;
    /* the first layer is awaited, the last one has nothing to read behind it: one layer's share of the
     * shorter */
    out->pass_s = fmax(out->read_s, own) + fmin(out->read_s, own) / layers;
    out->disk_bound = out->read_s > own;
    out->tokens_per_s = in->tokens / out->pass_s;
    out->bytes_per_s = in->layer_bytes / out->pass_s;
    out->tokens_balanced = fmax(out->read_s - out->load_s, 0) * m->rates.forward[in->precision] / token;
}

double rt_estimate_api_usd(const rt_estimate_api *api)
{
    return api->prompts * api->samples *
           (api->prompt_tokens * api->usd_in + api->answer_tokens * api->usd_out) / 1e6;
}
