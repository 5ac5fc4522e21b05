/* serve/idempotency.c - see idempotency.h. */
#include "serve/idempotency.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { ENTRIES_MAX = 4096, HOURS = 24 };
static const size_t bytes_max = (size_t)64 << 20;

static void drop(rt_kept_answers *answers, rt_kept_answer **link)
{
    rt_kept_answer *entry = *link;
    *link = entry->next;
    answers->count--;
    answers->bytes -= entry->running ? 0 : entry->body.size;
    rt_text_deinit(&entry->body);
    free(entry);
}

/* Takes out what is past its time, and the oldest finished ones until there is room. */
static void make_room(rt_kept_answers *answers, double now)
{
    for (rt_kept_answer **link = &answers->newest; *link;) {
        if (!(*link)->running && (*link)->until_s < now)
            drop(answers, link);
        else
            link = &(*link)->next;
    }
    while (answers->count >= ENTRIES_MAX || answers->bytes > bytes_max) {
        rt_kept_answer **oldest = NULL;
        for (rt_kept_answer **link = &answers->newest; *link; link = &(*link)->next)
            if (!(*link)->running)
                oldest = link;
        if (!oldest)
            return;
        drop(answers, oldest);
    }
}

static void hash_two(char out[65], const char *first, const char *second, size_t size)
{
    rt_text all = {0};
    rt_text_append(&all, first, strlen(first) + 1);
    rt_text_append(&all, second, size);
    rt_sha256_hex(out, all.data, all.size);
    rt_text_deinit(&all);
}

rt_kept_state rt_kept_begin(rt_kept_answers *answers, const char *account, const char *key, const char *path,
                            const char *body, size_t body_size, double now, rt_kept_answer **entry)
{
    char id[65], request[65];
    hash_two(id, account, key, strlen(key));
    hash_two(request, path, body, body_size);
    make_room(answers, now);
    for (rt_kept_answer *e = answers->newest; e; e = e->next) {
        if (strcmp(e->id, id) != 0)
            continue;
        *entry = e;
        return strcmp(e->request, request) != 0 ? RT_KEPT_CONFLICT
               : e->running                     ? RT_KEPT_RUNNING
                                                : RT_KEPT_DONE;
    }
    rt_kept_answer *e = answers->count < ENTRIES_MAX ? calloc(1, sizeof *e) : NULL;
    if (!e)
        return RT_KEPT_FULL;
    memcpy(e->id, id, sizeof id);
    memcpy(e->request, request, sizeof request);
    e->running = true;
    e->until_s = now + HOURS * 3600.0;
    e->next = answers->newest;
    answers->newest = e;
    answers->count++;
    *entry = e;
    return RT_KEPT_NEW;
}

void rt_kept_fill(rt_kept_answers *answers, rt_kept_answer *entry, rt_text *body, bool stream)
{
    entry->body = *body;
    *body = (rt_text){0};
    entry->stream = stream;
    rt_kept_end(answers, entry, true);
}

void rt_kept_end(rt_kept_answers *answers, rt_kept_answer *entry, bool keep)
{
    if (keep && !entry->body.failed) {
        entry->running = false;
        answers->bytes += entry->body.size;
        return;
    }
    for (rt_kept_answer **link = &answers->newest; *link; link = &(*link)->next)
        if (*link == entry) {
            drop(answers, link);
            return;
        }
}

void rt_kept_deinit(rt_kept_answers *answers)
{
    while (answers->newest)
        drop(answers, &answers->newest);
}
