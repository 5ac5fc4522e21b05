/* serve/prefix.c - see prefix.h.
 *
 * Blocks are found by a hash of the block before and their tokens; a text's end, which may lie within a
 * block, by looking through the last few blocks that hang from the same place.  Each scope has its blocks in
 * the order of use; a block is used after those that hang from it, so the last of the list has none. */
#include "serve/prefix.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"

enum { BUCKETS = 1 << 14, SIBLINGS_MAX = 256 };

typedef struct scope {
    uint64_t key;
    size_t bytes;
    rt_prefix_node *newest, *oldest; /* by use */
    rt_prefix_node *first;           /* blocks that begin a text, the newest first */
} scope;

struct rt_prefix_node {
    scope *in;
    rt_prefix_node *parent, *children;
    rt_prefix_node *sibling, *sibling_before;
    rt_prefix_node *newer, *older; /* of the scope, by use */
    rt_prefix_node *next;          /* in its bucket */
    uint64_t hash, id;             /* id: never used again, for the hashes of its children */
    size_t begin, n, bytes;
    int32_t ids[RT_PREFIX_BLOCK];
    unsigned char data[]; /* keys and values, as rt_session_save writes them */
};

struct rt_prefix_store {
    rt_session *session;
    scope **scopes;
    size_t n_scopes, capacity;
    uint64_t last_id;
    rt_prefix_stats stats;
    rt_prefix_node *buckets[BUCKETS];
};

rt_status rt_prefix_open(rt_prefix_store **out, rt_session *session, size_t bytes_max, rt_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for kept beginnings");
    (*out)->session = session;
    (*out)->stats.bytes_max = bytes_max;
    return RT_OK;
}

void rt_prefix_close(rt_prefix_store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < store->n_scopes; i++) {
        for (rt_prefix_node *node = store->scopes[i]->newest, *older; node; node = older) {
            older = node->older;
            free(node);
        }
        free(store->scopes[i]);
    }
    free(store->scopes);
    free(store);
}

rt_prefix_stats rt_prefix_get_stats(const rt_prefix_store *store)
{
    return store ? store->stats : (rt_prefix_stats){0};
}

/* ---- scopes ---- */

static scope *find_scope(const rt_prefix_store *store, uint64_t key)
{
    for (size_t i = 0; i < store->n_scopes; i++)
        if (store->scopes[i]->key == key)
            return store->scopes[i];
    return NULL;
}

static scope *make_scope(rt_prefix_store *store, uint64_t key)
{
    if (store->n_scopes == store->capacity) {
        const size_t capacity = 2 * store->capacity + 8;
        scope **scopes = realloc(store->scopes, capacity * sizeof *scopes);
        if (!scopes)
            return NULL;
        store->scopes = scopes;
        store->capacity = capacity;
    }
    scope *made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    made->key = key;
    return store->scopes[store->n_scopes++] = made;
}

static void drop_scope(rt_prefix_store *store, const scope *empty)
{
    for (size_t i = 0; i < store->n_scopes; i++)
        if (store->scopes[i] == empty) {
            free(store->scopes[i]);
            store->scopes[i] = store->scopes[--store->n_scopes];
            return;
        }
}

/* ---- lists ---- */

static void unlink_use(scope *in, rt_prefix_node *node)
{
    *(node->newer ? &node->newer->older : &in->newest) = node->older;
    *(node->older ? &node->older->newer : &in->oldest) = node->newer;
    node->newer = node->older = NULL;
}

static void link_newest(scope *in, rt_prefix_node *node)
{
    node->newer = NULL;
    node->older = in->newest;
    *(in->newest ? &in->newest->newer : &in->oldest) = node;
    in->newest = node;
}

/* A block was used, and after it those that it hangs from. */
static void use(rt_prefix_node *node)
{
    for (; node; node = node->parent) {
        unlink_use(node->in, node);
        link_newest(node->in, node);
    }
}

static rt_prefix_node **children_of(scope *in, rt_prefix_node *parent)
{
    return parent ? &parent->children : &in->first;
}

static uint64_t hash_of(uint64_t key, const rt_prefix_node *parent, const int32_t *ids)
{
    return rt_hash64(ids, RT_PREFIX_BLOCK * sizeof *ids, parent ? parent->id : key);
}

static void link_node(rt_prefix_store *store, scope *in, rt_prefix_node *node)
{
    rt_prefix_node **children = children_of(in, node->parent);
    node->sibling = *children;
    if (*children)
        (*children)->sibling_before = node;
    *children = node;
    if (node->n == RT_PREFIX_BLOCK) {
        rt_prefix_node **bucket = &store->buckets[node->hash % BUCKETS];
        node->next = *bucket;
        *bucket = node;
    }
    link_newest(in, node);
    in->bytes += node->bytes;
    store->stats.bytes += node->bytes;
}

/* Frees a block from which none hangs. */
static void remove_node(rt_prefix_store *store, scope *in, rt_prefix_node *node)
{
    *(node->sibling_before ? &node->sibling_before->sibling : children_of(in, node->parent)) = node->sibling;
    if (node->sibling)
        node->sibling->sibling_before = node->sibling_before;
    if (node->n == RT_PREFIX_BLOCK) {
        rt_prefix_node **at = &store->buckets[node->hash % BUCKETS];
        while (*at != node)
            at = &(*at)->next;
        *at = node->next;
    }
    unlink_use(in, node);
    in->bytes -= node->bytes;
    store->stats.bytes -= node->bytes;
    free(node);
}

/* ---- finding ---- */

static rt_prefix_node *whole_block(const rt_prefix_store *store, const scope *in,
                                   const rt_prefix_node *parent, const int32_t *ids)
{
    const uint64_t hash = hash_of(in->key, parent, ids);
    for (rt_prefix_node *node = store->buckets[hash % BUCKETS]; node; node = node->next)
        if (node->hash == hash && node->in == in && node->parent == parent &&
            memcmp(node->ids, ids, sizeof node->ids) == 0)
            return node;
    return NULL;
}

static size_t common(const rt_prefix_node *node, const int32_t *ids, size_t n)
{
    const size_t most = rt_size_min(node->n, n);
    size_t same = 0;
    while (same < most && node->ids[same] == ids[same])
        same++;
    return same;
}

/* The block with the longest beginning of ids among the newest of a place. */
static rt_prefix_node *part_block(scope *in, rt_prefix_node *parent, const int32_t *ids, size_t n,
                                  size_t *same)
{
    rt_prefix_node *best = NULL;
    size_t looked = 0;
    *same = 0;
    for (rt_prefix_node *node = *children_of(in, parent); node && looked < SIBLINGS_MAX;
         node = node->sibling, looked++) {
        const size_t k = common(node, ids, n);
        if (k > *same) {
            *same = k;
            best = node;
        }
    }
    return best;
}

rt_prefix_match rt_prefix_find(const rt_prefix_store *store, uint64_t key, const int32_t *ids, size_t n)
{
    rt_prefix_match match = {0};
    scope *in = store ? find_scope(store, key) : NULL;
    if (!in)
        return match;
    for (rt_prefix_node *node; n - match.n >= RT_PREFIX_BLOCK; match.n += RT_PREFIX_BLOCK, match.last = node)
        if (!(node = whole_block(store, in, match.last, ids + match.n)))
            break;
    size_t same;
    rt_prefix_node *part = part_block(in, match.last, ids + match.n, n - match.n, &same);
    if (same > 0)
        match = (rt_prefix_match){part, match.n + same};
    return match;
}

void rt_prefix_load(rt_prefix_store *store, const rt_prefix_match *match, size_t slot)
{
    rt_session_truncate(store->session, slot, 0);
    const rt_prefix_node *path = NULL;
    /* the session takes blocks in order: go up to each next one from the last */
    for (size_t at = 0; at < match->n; at += path->n) {
        path = match->last;
        while (path->begin > at)
            path = path->parent;
        rt_session_restore(store->session, slot, path->data, path->n, rt_size_min(path->n, match->n - at));
    }
    use(match->last);
    store->stats.hits++;
    store->stats.tokens += match->n;
}

/* ---- keeping ---- */

/* Frees blocks of whoever holds most until `bytes` fit; never those that `last` hangs from. */
static bool make_room(rt_prefix_store *store, const scope *mine, const rt_prefix_node *last, size_t bytes)
{
    if (bytes > store->stats.bytes_max)
        return false;
    while (store->stats.bytes > store->stats.bytes_max - bytes) {
        scope *most = store->scopes[0];
        for (size_t i = 1; i < store->n_scopes; i++)
            if (store->scopes[i]->bytes > most->bytes)
                most = store->scopes[i];
        if (!most->oldest || most->oldest == last || most->oldest->children)
            return false;
        remove_node(store, most, most->oldest);
        store->stats.evicted++;
        if (!most->newest && most != mine)
            drop_scope(store, most);
    }
    return true;
}

static rt_prefix_node *add_block(rt_prefix_store *store, scope *in, rt_prefix_node *parent, size_t slot,
                                 size_t begin, const int32_t *ids, size_t n)
{
    const size_t bytes = sizeof(rt_prefix_node) + n * rt_session_token_bytes(store->session);
    if (!make_room(store, in, parent, bytes))
        return NULL;
    rt_prefix_node *node = malloc(bytes);
    if (!node)
        return NULL;
    *node = (rt_prefix_node){
        .in = in, .parent = parent, .id = ++store->last_id, .begin = begin, .n = n, .bytes = bytes};
    memcpy(node->ids, ids, n * sizeof *ids);
    if (n == RT_PREFIX_BLOCK)
        node->hash = hash_of(in->key, parent, ids);
    rt_session_save(store->session, slot, begin, n, node->data);
    link_node(store, in, node);
    return node;
}

/* The blocks of a text's end that are a beginning of what is to be kept are in its way: at most one is. */
static void drop_beginning(rt_prefix_store *store, scope *in, rt_prefix_node *parent, const int32_t *ids,
                           size_t n)
{
    size_t same;
    rt_prefix_node *node = part_block(in, parent, ids, n, &same);
    if (node && node->n == same && same < n && !node->children)
        remove_node(store, in, node);
}

void rt_prefix_keep(rt_prefix_store *store, uint64_t key, size_t slot, const int32_t *ids, size_t n)
{
    scope *in = store ? find_scope(store, key) : NULL;
    if (!store || n == 0 || (!in && !(in = make_scope(store, key))))
        return;
    rt_prefix_node *last = NULL;
    for (size_t at = 0, count; at < n; at += count) {
        count = rt_size_min(RT_PREFIX_BLOCK, n - at);
        size_t same = count;
        rt_prefix_node *node = count == RT_PREFIX_BLOCK ? whole_block(store, in, last, ids + at)
                                                        : part_block(in, last, ids + at, count, &same);
        if (!node || same < count) {
            drop_beginning(store, in, last, ids + at, count);
            node = add_block(store, in, last, slot, at, ids + at, count);
        }
        if (!node)
            break;
        last = node;
        unlink_use(in, node); /* in front, so that making room for the next does not take it */
        link_newest(in, node);
    }
    use(last);
    if (!in->newest)
        drop_scope(store, in);
}
