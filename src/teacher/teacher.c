/* teacher/teacher.c - the handle of any teacher, and the life of a reply; see teacher.h. */
#include "teacher/teacher.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct rt_teacher {
    const rt_teacher_verbs *verbs;
    void *self;
};

rt_status rt_teacher_open(rt_teacher **out, const rt_teacher_verbs *verbs, void *self, rt_error *err)
{
    assert(out && verbs && verbs->ask && verbs->info && verbs->close);
    *out = calloc(1, sizeof **out);
    if (!*out) {
        verbs->close(self);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the teacher");
    }
    **out = (rt_teacher){.verbs = verbs, .self = self};
    return RT_OK;
}

rt_status rt_teacher_ask(rt_teacher *teacher, const rt_ask_calls *calls, rt_error *err)
{
    assert(teacher && calls && calls->next && calls->done);
    return teacher->verbs->ask(teacher->self, calls, err);
}

rt_status rt_teacher_score(rt_teacher *teacher, const rt_score_options *options, const rt_score_calls *calls,
                           rt_error *err)
{
    assert(teacher && options && calls && calls->next && calls->end);
    if (!teacher->verbs->score)
        return rt_error_set(err, RT_UNSUPPORTED, "%.200s: this teacher cannot score given tokens",
                            rt_teacher_info_of(teacher)->name);
    return teacher->verbs->score(teacher->self, options, calls, err);
}

const rt_teacher_info *rt_teacher_info_of(const rt_teacher *teacher)
{
    return teacher->verbs->info(teacher->self);
}

void rt_teacher_close(rt_teacher *teacher)
{
    if (!teacher)
        return;
    teacher->verbs->close(teacher->self);
    free(teacher);
}

void rt_answered_init(rt_answered *reply) { memset(reply, 0, sizeof *reply); }

void rt_answered_reset(rt_answered *reply)
{
    rt_answered kept = *reply;
    free(kept.ids);
    free(kept.prompt_ids);
    json_decref(kept.raw);
    rt_text_clear(&kept.text);
    rt_text_clear(&kept.reasoning);
    rt_text_clear(&kept.refusal);
    rt_text_clear(&kept.pool);
    *reply = (rt_answered){.text = kept.text,
                           .reasoning = kept.reasoning,
                           .refusal = kept.refusal,
                           .pool = kept.pool,
                           .tokens = kept.tokens,
                           .tokens_capacity = kept.tokens_capacity,
                           .alternatives = kept.alternatives,
                           .alternatives_capacity = kept.alternatives_capacity};
}

void rt_answered_deinit(rt_answered *reply)
{
    rt_answered_reset(reply);
    rt_text_deinit(&reply->text);
    rt_text_deinit(&reply->reasoning);
    rt_text_deinit(&reply->refusal);
    rt_text_deinit(&reply->pool);
    free(reply->tokens);
    free(reply->alternatives);
    rt_answered_init(reply);
}

const char *rt_answered_flag_text(unsigned flags, unsigned *cursor)
{
    static const char *const texts[] = {
        "log-probabilities sum to more than 1: they are dropped",
        "the number of log-probabilities is not usage.completion_tokens",
        "the tokens' bytes do not spell the text",
        "token ids outside the vocabulary: they are dropped",
        "usage is missing or cannot be true: tokens are estimated (bytes / 4)",
        "another model answered than was asked for",
        "chunks of a stream came twice: the second was left out",
        "log-probabilities were asked for and not given",
        "a think tag is not closed: the reasoning was cut off"};
    while (*cursor < sizeof texts / sizeof texts[0]) {
        const unsigned bit = (*cursor)++;
        if (flags & (1U << bit))
            return texts[bit];
    }
    return NULL;
}
