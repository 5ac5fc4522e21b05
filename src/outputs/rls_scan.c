/* outputs/rls_scan.c - which sequences a .rls file holds: from its index, or from its blocks.
 *
 * The scan walks from block to block.  Where a block's header or checksum is wrong, or the file ends in it,
 * the next block is looked for by its magic and the checksum of its header, and between the two every record
 * that is whole by its own checksum. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"
#include "outputs/rls_bytes.h"
#include "outputs/rls_file.h"
#include "outputs/rls_marks.h"

void rls_index_deinit(rls_index *index)
{
    free(index->entries);
    *index = (rls_index){0};
}

rt_status rls_index_add(rls_index *index, rls_entry entry, rt_error *err)
{
    if (index->n == index->capacity) {
        const size_t wanted = index->capacity * 2 + 256;
        rls_entry *grown = realloc(index->entries, wanted * sizeof *grown);
        if (!grown)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the index of %zu sequences", wanted);
        index->entries = grown;
        index->capacity = wanted;
    }
    index->entries[index->n++] = entry;
    index->n_tokens += entry.n_tokens;
    index->n_rows += entry.n_rows;
    return RT_OK;
}

typedef struct mark { /* the 32 bytes before a block, an index, or at the end */
    uint32_t magic, count;
    uint64_t bytes, check;
} mark;

static bool read_mark(mark *out, const unsigned char *data, size_t size)
{
    if (size < RLS_BLOCK_HEADER)
        return false;
    *out = (mark){rls_get_u32(data), rls_get_u32(data + 4), rls_get_u64(data + 8), rls_get_u64(data + 16)};
    return (out->magic == RLS_MARK_BLOCK || out->magic == RLS_MARK_INDEX || out->magic == RLS_MARK_END) &&
           rls_get_u64(data + 24) == rt_hash64(data, 24, 0);
}

void rls_mark_write(unsigned char out[RLS_BLOCK_HEADER], uint32_t magic, uint32_t count, uint64_t bytes,
                    uint64_t check)
{
    rls_put_u32(out, magic);
    rls_put_u32(out + 4, count);
    rls_put_u64(out + 8, bytes);
    rls_put_u64(out + 16, check);
    rls_put_u64(out + 24, rt_hash64(out, 24, 0));
}

/* ---- the index at the end ---- */

static rt_status load_index(rls_index *out, const unsigned char *data, size_t size, bool *loaded,
                            rt_error *err)
{
    mark end, index;
    *loaded = false;
    if (size < RT_RLS_HEADER_BYTES + 2 * RLS_BLOCK_HEADER ||
        !read_mark(&end, data + size - RLS_BLOCK_HEADER, RLS_BLOCK_HEADER) || end.magic != RLS_MARK_END)
        return RT_OK;
    const uint64_t at = end.bytes, room = size - RLS_BLOCK_HEADER;
    if (at < RT_RLS_HEADER_BYTES || at > room || !read_mark(&index, data + at, room - at) ||
        index.magic != RLS_MARK_INDEX || index.bytes != room - at - RLS_BLOCK_HEADER ||
        index.bytes != (uint64_t)index.count * RLS_ENTRY_BYTES)
        return RT_OK;
    const unsigned char *entries = data + at + RLS_BLOCK_HEADER;
    if (index.check != rt_hash64(entries, (size_t)index.bytes, 0))
        return RT_OK;
    for (size_t i = 0; i < index.count; i++) {
        const unsigned char *e = entries + i * RLS_ENTRY_BYTES;
        const rls_entry entry = {rls_get_u64(e), rls_get_u32(e + 8), rls_get_u32(e + 12)};
        if (entry.offset < RT_RLS_HEADER_BYTES || entry.offset > at || at - entry.offset < RLS_RECORD_HEADER)
            return RT_OK; /* a checksum that fits by design: look at the blocks */
        if (rls_index_add(out, entry, err) != RT_OK)
            return err->status;
    }
    *loaded = out->complete = true;
    return RT_OK;
}

/* ---- the blocks ---- */

typedef struct scan {
    rls_index *out;
    const unsigned char *data;
    size_t size;
    rls_damage_fn damage;
    void *context;
} scan;

static rt_status add_record(scan *s, const rls_record *record, rt_error *err)
{
    const rls_entry entry = {(uint64_t)(record->data - s->data), record->n_tokens, record->n_rows};
    return rls_index_add(s->out, entry, err);
}

/* Records of a block whose checksum is right; false: they do not fill it, which only a forger can do. */
static rt_status walk_sound(scan *s, size_t at, size_t end, uint32_t count, bool *ok, rt_error *err)
{
    const size_t before = s->out->n;
    const uint64_t tokens = s->out->n_tokens, rows = s->out->n_rows;
    rls_record record;
    uint32_t found = 0;
    while (at < end && rls_record_find(&record, s->data + at, end - at)) {
        if (add_record(s, &record, err) != RT_OK)
            return err->status;
        at += record.size;
        found++;
    }
    *ok = at == end && found == count;
    if (!*ok) {
        s->out->n = before;
        s->out->n_tokens = tokens;
        s->out->n_rows = rows;
    }
    return RT_OK;
}

/* Every whole record in [at, end), wherever it begins. */
static rt_status walk_damaged(scan *s, size_t at, size_t end, size_t *saved, rt_error *err)
{
    rls_record record;
    size_t budget = 16 * (end - at) + (1 << 20); /* bytes to hash: a forger's headers could ask for more */
    while (at < end) {
        if (!rls_record_header(&record, s->data + at, end - at)) {
            at++;
            continue;
        }
        if (record.size > budget)
            break;
        budget -= record.size;
        if (!rls_record_find(&record, s->data + at, end - at)) {
            at++;
            continue;
        }
        if (add_record(s, &record, err) != RT_OK)
            return err->status;
        ++*saved;
        at += record.size;
    }
    return RT_OK;
}

/* The next sound mark at or after `at`; the size when there is none. */
static size_t find_mark(const scan *s, size_t at)
{
    mark m;
    while (at + RLS_BLOCK_HEADER <= s->size) {
        const unsigned char *hit = memmem(s->data + at, s->size - at, "\x89RL", 3);
        if (!hit)
            break;
        at = (size_t)(hit - s->data);
        if (read_mark(&m, hit, s->size - at))
            return at;
        at++;
    }
    return s->size;
}

/* From *at to the next sound mark. */
static rt_status damaged_place(scan *s, size_t *at, bool torn, const char *what, rt_error *err)
{
    rls_damage place = {.offset = *at, .what = what};
    const size_t begin = rt_size_min(*at + RLS_BLOCK_HEADER, s->size);
    *at = find_mark(s, begin);
    if (walk_damaged(s, begin, *at, &place.saved, err) != RT_OK)
        return err->status;
    place.end = *at;
    place.torn = torn && *at == s->size;
    s->out->n_damaged++;
    if (s->damage)
        s->damage(s->context, &place);
    return RT_OK;
}

static rt_status scan_blocks(scan *s, rt_error *err)
{
    mark m;
    for (size_t at = RT_RLS_HEADER_BYTES; at < s->size;) {
        rt_status status = RT_OK;
        bool ok = false;
        if (!read_mark(&m, s->data + at, s->size - at)) {
            const bool cut = s->size - at < RLS_BLOCK_HEADER;
            status = damaged_place(
                s, &at, cut,
                cut ? "the file ends in the header of a block" : "the header of a block is damaged", err);
        } else if (m.magic == RLS_MARK_END) {
            at += RLS_BLOCK_HEADER;
        } else if (m.bytes > s->size - at - RLS_BLOCK_HEADER) {
            status = damaged_place(
                s, &at, true,
                m.magic == RLS_MARK_INDEX ? "the file ends in its index" : "the file ends in a block", err);
        } else {
            const size_t begin = at + RLS_BLOCK_HEADER, end = begin + (size_t)m.bytes;
            ok = m.check == rt_hash64(s->data + begin, (size_t)m.bytes, 0);
            if (ok && m.magic == RLS_MARK_BLOCK)
                status = walk_sound(s, begin, end, m.count, &ok, err);
            if (status == RT_OK && ok)
                at = end;
            else if (status == RT_OK)
                status = damaged_place(
                    s, &at, false,
                    m.magic == RLS_MARK_INDEX ? "the index is damaged" : "a block's checksum is wrong", err);
        }
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}

rt_status rls_index_load(rls_index *out, const unsigned char *data, size_t size, bool full,
                         rls_damage_fn damage, void *context, rt_error *err)
{
    *out = (rls_index){0};
    bool loaded = false;
    rt_status status = full ? RT_OK : load_index(out, data, size, &loaded, err);
    if (status == RT_OK && !loaded) {
        rls_index trial = {0}; /* is there an index, for a full scan that wants to know */
        status = load_index(&trial, data, size, &loaded, err);
        rls_index_deinit(&trial);
        rls_index_deinit(out);
        scan s = {out, data, size, damage, context};
        if (status == RT_OK)
            status = scan_blocks(&s, err);
        out->complete = loaded;
    }
    if (status != RT_OK)
        rls_index_deinit(out);
    return status;
}
