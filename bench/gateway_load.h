/* bench/gateway_load.h - the load of bench_gateway: a process that asks a server on loopback and measures.
 *
 * The process is forked once, before there are threads, and takes orders through a socket pair, so that its
 * descriptors, memory and processor time are not those of the server. */
#ifndef RT_BENCH_GATEWAY_LOAD_H
#define RT_BENCH_GATEWAY_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef enum load_kind {
    LOAD_PACED,  /* `rate` requests a second at fixed times; latency counts from the time a request was due */
    LOAD_CLOSED, /* every connection asks again as soon as it is answered */
    LOAD_STREAMS, /* every connection holds a stream; latency is that of its events, from their time stamps */
    LOAD_IDLE     /* every connection asks once and then stays open, until the next order */
} load_kind;

typedef struct load_order {
    load_kind kind;
    int port;
    char secret[100]; /* the API key */
    double rate, seconds;
    size_t connections, requests; /* requests: stop after so many; 0: after `seconds` */
} load_order;

typedef struct load_result {
    size_t count, lost, connections; /* answers (events of streams); failures; connections that stood */
    double p50_ms, p99_ms, rate, cpu_s;
} load_result;

typedef struct load {
    pid_t process;
    int fd;
} load;

/* The text before an event's time stamp (nanoseconds of the monotonic clock), and after it. */
extern const char load_event_head[], load_event_tail[];
/* The answer to what is not a stream. */
extern const char load_answer[];

bool load_start(load *l);
void load_stop(load *l);
/* Gives an order; load_wait returns its result, of LOAD_IDLE as soon as all connections stand. */
bool load_give(const load *l, const load_order *order);
bool load_wait(const load *l, load_result *result);

#endif
