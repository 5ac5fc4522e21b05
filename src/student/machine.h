/* student/machine.h - how fast a machine is: a named accelerator, a description in a file, or this one by
 * measurement.
 *
 * A named or described machine has peaks and a utilisation: the share of the peak that counted operations
 * reach, all overheads in.  For this machine the rates are those that this build's own forward, backward,
 * head and update reach on a small model with random weights, so that no utilisation has to be guessed. */
#ifndef RT_STUDENT_MACHINE_H
#define RT_STUDENT_MACHINE_H

#include <jansson.h>

#include "model/decoder.h"

enum { RT_PRECISION_COUNT = 3 };

typedef struct rt_machine_rates {
    double forward[RT_PRECISION_COUNT]; /* operations/s of frozen layers; index: rt_precision; 0: not known */
    double train[RT_PRECISION_COUNT];   /* of a student's layers, forward and backward */
    double head_train[RT_PRECISION_COUNT]; /* of the student's head with its loss: 6 n_embd n_vocab a token */
    double head_loss[RT_PRECISION_COUNT]; /* seconds for each (token, id) that a teacher's logits add, without
                                             their product; index: the teacher's precision */
    double load[RT_PRECISION_COUNT];      /* bytes of a file/s that are brought into the products' form: 4-bit
                                             blocks for      INT8, else bf16 */
    double update;                        /* parameters/s of AdamW with clipping */
} rt_machine_rates;

typedef struct rt_machine {
    char name[64];
    bool measured; /* rates hold */
    size_t threads;
    double bf16, f32, int8; /* operations/s at best, of one device */
    double read;            /* bytes/s of its memory */
    double memory;          /* bytes */
    double disk;            /* bytes/s read; 0: not known */
    double usd_hour;        /* of one device; 0: not known */
    double utilisation;     /* of the peak, 0..1; for machines that are not measured */
    rt_machine_rates rates;
} rt_machine;

/* H100, H200, H800, A100 (dense peaks of the makers' data sheets, a stated utilisation of 0.35); NULL:
 * unknown. */
const rt_machine *rt_machine_find(const char *name);
const char *rt_machine_names(void); /* "H100, ..." */
/* A description in JSON: name, bf16_flops (needed), f32_flops, int8_ops, read_bytes_per_s, memory_bytes,
 * disk_bytes_per_s, usd_per_hour, utilisation.  Unknown keys are refused. */
rt_status rt_machine_from_json(rt_machine *out, const json_t *json, const char *where, rt_error *err);

/* Measures what the rates still lack for these precisions, some seconds of work on all threads of the pool.
 * teacher: NULL for none. */
rt_status rt_machine_measure(rt_machine *machine, rt_precision student, const rt_precision *teacher,
                             rt_pool *pool, rt_error *err);
/* The same for the frozen layers alone, and for bringing layers into the products' form, which a streamed
 * model does at every pass. */
rt_status rt_machine_measure_forward(rt_machine *machine, rt_precision precision, rt_pool *pool,
                                     rt_error *err);
rt_status rt_machine_measure_load(rt_machine *machine, rt_precision precision, rt_pool *pool, rt_error *err);
/* The measured rates as JSON and back, for a cache; read: false when it is of another build or machine. */
json_t *rt_machine_rates_to_json(const rt_machine *machine);
bool rt_machine_rates_from_json(rt_machine *machine, const json_t *json);

#endif
