/* student/estimate.h - what a run will take before it is started: operations, time, memory, disk, money.
 *
 * Pure arithmetic on shapes, a recipe's numbers, what is known of the text, and a machine's rates. */
#ifndef RT_STUDENT_ESTIMATE_H
#define RT_STUDENT_ESTIMATE_H

#include "student/cost.h"
#include "student/data.h"
#include "student/machine.h"
#include "student/trainer.h"

/* Means over the run's micro-batches. */
typedef struct rt_estimate_text {
    bool read;                         /* counted in the text itself; else full batches, all tokens learnt */
    double documents, tokens, targets; /* of the text; 0 when it was not read */
    double batch_tokens;               /* of a micro-batch, as documents fill it */
    double batch_rows;                 /* of them with a loss */
    double teacher_tokens; /* that the teacher makes of each of these; 0: it has the same tokenizer */
    double length;         /* of texts whose tokens see as many keys on average as these do */
} rt_estimate_text;

/* Deals micro-batches as the run would and counts. */
rt_status rt_estimate_text_of(rt_estimate_text *out, const rt_documents *docs, uint64_t seed,
                              size_t tokens_max, uint64_t n_batches, rt_error *err);

typedef struct rt_estimate_input {
    rt_cost_shape student, teacher;
    bool has_teacher; /* its forward pass is part of every step */
    rt_precision student_precision, teacher_precision;
    uint64_t steps, micro_batches;
    rt_estimate_text text;
    const rt_machine *machine;
    size_t devices;
    double network,
        latency_s;      /* bytes/s of a device's link each way, seconds a message; network 0: costs nothing */
    size_t arena_bytes; /* rt_trainer_bytes_of; 0: not known, only parameters are counted */
    size_t teacher_bytes; /* its weights in memory */
    size_t mapped_bytes;  /* files that are mapped and read through */
    double output_bits;   /* a weight, all GGUF files of the recipe together */
    struct {              /* low-rank adapters on a frozen start; trained 0: everything is trained */
        double trained, rank;
        bool dora, from_file;
    } adapters;
    struct {                          /* of the embedding; trained 0: none */
        double rank, trained, merged; /* values that are trained, of all; elements of the embedding */
    } factors;
} rt_estimate_input;

typedef struct rt_estimate {
    struct {                                 /* operations */
        double teacher_token, student_token; /* for each token of text, head at its share of rows */
        double attention_share;
        double total, rule_6nd;
    } flops;
    struct {
        double teacher_s, student_s, head_s, update_s; /* of a step; 0 where the machine is not measured */
        double step_s, tokens_per_s, total_s, device_hours, usd;
        /* of a step over a network, by a ring: bytes that each device sends; gradients' and parameters' way;
         * the part of it that the backward pass does not hide; speed over that of `devices` alone */
        double network_bytes, reduce_s, gather_s, waiting_s, efficiency;
    } time;
    struct {
        double arenas, teacher, mapped, text, program, peak; /* bytes, of one device */
        bool fits;
    } memory;
    struct {
        double log, checkpoint, student, adapter, outputs, total; /* bytes in the run's folder */
        double store_draws, store_topk; /* a store of the teacher's outputs for this text: 12 draws, top 50 */
    } disk;
    double tokens;
} rt_estimate;
void rt_estimate_make(rt_estimate *out, const rt_estimate_input *in);

/* One pass of a model whose layers are streamed from disk: while one layer is brought into the products' form
 * and computes, the next one is read. */
typedef struct rt_estimate_stream_input {
    const rt_cost_shape *shape;
    rt_precision precision;
    const rt_machine *machine; /* with rates forward and load of this precision */
    double disk;               /* bytes/s */
    double layer_bytes;        /* of all layers in the file */
    double tokens, length;     /* that go through together; of a text */
} rt_estimate_stream_input;
typedef struct rt_estimate_stream {
    double read_s, load_s, compute_s; /* of all layers */
    double pass_s, tokens_per_s, bytes_per_s;
    bool disk_bound;
    double tokens_balanced; /* so many tokens together, and computing takes as long as reading */
} rt_estimate_stream;
void rt_estimate_stream_pass(rt_estimate_stream *out, const rt_estimate_stream_input *in);

/* What answers from a paid server cost. */
typedef struct rt_estimate_api {
    double prompts, samples, prompt_tokens, answer_tokens; /* the last two a request */
    double usd_in, usd_out;                                /* a million tokens */
} rt_estimate_api;
double rt_estimate_api_usd(const rt_estimate_api *api);

#endif
