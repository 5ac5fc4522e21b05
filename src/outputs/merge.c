/* outputs/merge.c - the rows of several stores in one. */
#include <stdlib.h>
#include <string.h>

#include "outputs/check_internal.h"
#include "outputs/store_internal.h"

typedef struct merger {
    rt_store *out;
    rt_store_merged *merged;
} merger;

static rt_status add_text(void *context, const json_t *row, rt_error *err)
{
    const merger *m = context;
    bool added;
    if (rt_store_add_text(m->out, row, &added, err) != RT_OK)
        return err->status;
    m->merged->texts += added;
    m->merged->texts_known += !added;
    return RT_OK;
}

static rt_status add_all(const merger *m, const rt_reader *reader, rt_error *err)
{
    rt_status status = rt_reader_texts(reader, add_text, (void *)(size_t)m, err);
    for (size_t i = 0; i < rt_reader_documents(reader) && status == RT_OK; i++) {
        rls_record record;
        bool added = false;
        status = reader_record(reader, i, &record, err);
        if (status == RT_OK)
            status = store_add_record(m->out, &record, &added, err);
        m->merged->documents += status == RT_OK && added;
        m->merged->documents_known += status == RT_OK && !added;
    }
    return status;
}

/* The members of a manifest that say what the rows are. */
static json_t *facts_of(const rt_reader *reader)
{
    static const char *const keys[] = {"teacher", "sampling", "logits", "prompts"};
    json_t *facts = json_object();
    for (size_t i = 0; facts && i < sizeof keys / sizeof keys[0]; i++) {
        json_t *value = json_object_get(rt_reader_manifest(reader), keys[i]);
        if (value)
            (void)json_object_set(facts, keys[i], value);
    }
    const rt_rls_header *header = rt_reader_header(reader);
    if (facts && header && !json_object_get(facts, "logits"))
        (void)json_object_set_new(facts, "logits", rt_rls_facts(header));
    return facts;
}

static rt_status merge_one(merger *m, const char *out, const char *in, rt_error *err)
{
    rt_reader *reader;
    if (rt_reader_open(&reader, in, err) != RT_OK)
        return err->status;
    json_t *facts = facts_of(reader);
    rt_status status = facts ? rt_store_open(&m->out, out, facts, "retort outputs merge", err)
                             : rt_error_set(err, RT_NO_MEMORY, "no memory for a manifest");
    json_decref(facts);
    if (status == RT_MISMATCH)
        (void)rt_error_within(err, in);
    if (status == RT_OK) {
        status = add_all(m, reader, err);
        rt_error later = {0};
        const rt_status closed = rt_store_close(m->out, status == RT_OK ? err : &later);
        status = status == RT_OK ? closed : status;
    }
    rt_reader_close(reader);
    return status;
}

rt_status rt_store_merge(const char *out, const char *const *in, size_t n, rt_store_merged *merged,
                         rt_error *err)
{
    *merged = (rt_store_merged){0};
    merger m = {.merged = merged};
    for (size_t i = 0; i < n; i++) {
        if (strcmp(in[i], out) == 0)
            return rt_error_set(err, RT_INVALID, "%.300s: cannot be merged into itself", out);
        if (merge_one(&m, out, in[i], err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}
