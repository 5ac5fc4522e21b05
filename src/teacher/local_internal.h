/* teacher/local_internal.h - what local.c, local_ask.c and local_score.c share. */
#ifndef RT_TEACHER_LOCAL_INTERNAL_H
#define RT_TEACHER_LOCAL_INTERNAL_H

#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "teacher/local.h"

typedef struct local_teacher {
    rt_local_options options; /* with the defaults filled in */
    rt_weights *weights;
    rt_model *model;
    rt_tokenizer *tokenizer;
    rt_chat_template *chat_template; /* NULL: contents are joined */
    rt_pool *pool, *own_pool;        /* own_pool: NULL, or the same */
    rt_teacher_info info;
    char *path, *name, template_hash[65], fingerprint[65], licence[64];
} local_teacher;

rt_status local_ask(void *self, const rt_ask_calls *calls, rt_error *err);
rt_status local_score(void *self, const rt_score_options *options, const rt_score_calls *calls,
                      rt_error *err);

/* The prompt of a request as ids, BOS in front where the model wants it. */
rt_status local_prompt(const local_teacher *t, const json_t *body, rt_token_list *out, rt_error *err);

#endif
