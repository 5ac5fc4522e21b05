/* guard/record.h - a request reduced to what the guard wants of it: numbers, hashes, no text.
 *
 * A server that answered makes the record at once; it may be judged later, after a crash or on another
 * server, and gives the bits that the request itself would have given.  As bytes it is a few hundred of them.
 * The words' hashes have no key, so that who holds the bytes can try words: they are kept sealed. */
#ifndef RT_GUARD_RECORD_H
#define RT_GUARD_RECORD_H

#include "guard/digest.h"

enum {
    RT_GUARD_REQUEST_ID_BYTES = 47,     /* of a request's id; it is cut where it is longer */
    RT_GUARD_RECORD_BYTES_MAX = 4 << 10 /* of a record as bytes */
};

typedef struct rt_guard_record {
    double ts, created; /* as in rt_guard_event, and those that follow */
    char account[RT_GUARD_ACCOUNT_BYTES_MAX + 1], request[RT_GUARD_REQUEST_ID_BYTES + 1];
    float temperature;
    uint32_t n, max_tokens, top_logprobs, prompt_tokens, completion_tokens;
    bool logprobs, stream;
    bool person;                    /* the client is a program that a person types into */
    int8_t network;                 /* index in rt_guard_networks, -1: not known */
    uint8_t model;                  /* of its name, 0 to 31 */
    uint32_t address, agent, payer; /* keyed hashes; 0: not known */
    uint32_t bias_count, bias_ids[RT_GUARD_BIAS_IDS_MAX];
    rt_guard_digest digest;
} rt_guard_record;

/* RT_INVALID for an account's name of the wrong size. */
rt_status rt_guard_record_make(rt_guard_record *out, const rt_guard_event *event, uint64_t key, int network,
                               rt_error *err);

/* As bytes, and back.  key: of the hashes; bytes under another one are RT_INVALID, malformed ones RT_CORRUPT.
 * out has room for RT_GUARD_RECORD_BYTES_MAX; returns how many were written. */
size_t rt_guard_record_write(const rt_guard_record *record, uint64_t key, unsigned char *out);
rt_status rt_guard_record_read(rt_guard_record *out, uint64_t key, const void *data, size_t size,
                               rt_error *err);

#endif
