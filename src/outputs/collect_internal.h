/* outputs/collect_internal.h - the state of one collection, shared by its files. */
#ifndef RT_OUTPUTS_COLLECT_INTERNAL_H
#define RT_OUTPUTS_COLLECT_INTERNAL_H

#include "outputs/answer_cache.h"
#include "outputs/collect.h"
#include "outputs/minhash.h"

/* A row that wants the answer of another's identical request. */
typedef struct collect_waiter {
    char *id, *custom_id;
    size_t index, line;
    const char *file;
    struct collect_waiter *next;
} collect_waiter;

enum { RT_REQUEST_ANEW = 2 }; /* a request whose answer cannot be shared: asked again */

/* One row from its prompt to its answer. */
typedef struct collect_item {
    char *id, *custom_id;
    size_t index, line;
    const char *file;
    json_t *body;
    rt_idkey request_key;
    char request_hash[65]; /* of which request_key is made */
    bool shareable;        /* its answer is determined */
    unsigned again;        /* times asked anew: other max_tokens, or JSON that was none */
    double reserved;
    uint64_t reserved_tokens;
    collect_waiter *waiters;
    struct collect_item *next; /* in the free list, or in the list of those to ask again */
} collect_item;

typedef struct collect {
    const rt_collect_options *options;
    const rt_teacher_info *teacher;
    rt_collect_report *report;
    rt_collect_sink sink;
    rt_prompt_reader *reader;
    rt_prompt_row row; /* whose samples are being asked */
    json_t *row_body;  /* with the parameters put in */
    char row_id[65];   /* hash without the sample's index */
    size_t row_index, row_samples, n_prompts;
    collect_item **items; /* by tag - 1 */
    size_t n_items, capacity;
    collect_item *free_items, *to_ask, *held; /* held: made, but there is no money for it now */
    rt_idmap requests; /* of shareable requests: 2 tag + 1 in flight, 2 (offset + 2) answered, or ANEW */
    rt_near near;
    rt_answer_cache *cache; /* NULL: none */
    char *source_text;
    rt_text line;
    double started_at, now, cached_at;
    size_t rows_before, rows_total;
    uint64_t tokens_before;
    bool ended, spent; /* the files are read; the limit of spending stops new requests */
    bool sorting;      /* the files are read once more, for their order */
    unsigned flags_said;
    rt_status failure; /* of a callback; ends the call */
    rt_error *err;
} collect;

/* collect_take.c: the next item to ask; NULL with *later where one waits for money, or at the end. */
collect_item *collect_take(collect *c, bool *later);
/* Gives the item's place back; its id stays known. */
void collect_item_free(collect *c, collect_item *item);
rt_status collect_reserve(collect *c, collect_item *item, bool *afforded);
void collect_settle(collect *c, collect_item *item, const rt_usage *usage);
/* The worst case of one request. */
uint64_t collect_worst_prompt(const json_t *body);
uint64_t collect_answer_limit(const json_t *body);
json_t *collect_merge(const json_t *body, const json_t *params, size_t index);
/* The text of a body, for near duplicates. */
void collect_prompt_text(rt_text *out, const json_t *body);
/* The answer of an earlier run, where the cache has one: *found. */
rt_status collect_from_cache(collect *c, collect_item *item, bool *found);
/* Writes the answer that lies at `offset` of the output for one more row. */
rt_status collect_share(collect *c, collect_item *item, uint64_t offset);
rt_row_facts collect_facts(const collect *c, const collect_item *item, double cost);
/* The id of the next row of the files, wanted or not; malloc'd, NULL at the end (or c->failure). */
char *collect_next_id(collect *c);
/* collect_order.c */
rt_status collect_sort(collect *c);

#endif
