/* guard/screen.c - see train.h: collectors among the accounts that a reference is to be made of. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "guard/sample.h"

static int by_p(const void *a, const void *b)
{
    const rt_guard_screened *x = a, *y = b;
    return x->p != y->p ? (x->p > y->p) - (x->p < y->p)
                        : (x->account > y->account) - (x->account < y->account);
}

void rt_guard_screen(rt_guard_screened *accounts, size_t n, double alpha)
{
    size_t stay = 0;
    if (n)
        qsort(accounts, n, sizeof *accounts, by_p);
    for (size_t i = 0; i < n; i++) {
        const double expected = (double)n * accounts[i].p;
        accounts[i].aside =
            !accounts[i].keep && accounts[i].p < alpha && (double)(stay + 1) > expected + sqrt(expected);
        stay += !accounts[i].aside;
    }
}

/* What a person decided: 1 benign, -1 collects, 0 nothing. */
static int decision(const json_t *reviewed, const char *name)
{
    const char *label = json_string_value(json_object_get(json_object_get(reviewed, name), "label"));
    return !label ? 0 : !strcmp(label, "benign") ? 1 : -1;
}

typedef struct screening {
    rt_guard_sample *sample;
    const rt_guard_reference *by;
    void (*tell)(void *context, const rt_guard_aside *aside);
    void *context;
} screening;

static void set_aside(const screening *s, size_t a, bool decided)
{
    rt_sample_account *account = &s->sample->accounts[a];
    const float score = rt_sample_largest_score(NULL, s->by, s->sample, account);
    const rt_guard_aside told = {
        .account = account->name,
        .score = (double)score,
        .p = (double)rt_guard_p(s->by, account->use_class, score, rt_guard_lot(account->name)),
        .decided = decided};
    account->only_scored = true;
    if (s->tell)
        s->tell(s->context, &told);
}

static void screen_class(const screening *s, rt_guard_screened *room, int use_class, const json_t *reviewed,
                         double alpha)
{
    size_t n = 0;
    for (size_t a = 0; a < s->sample->n_accounts; a++) {
        const rt_sample_account *account = &s->sample->accounts[a];
        const int decided = decision(reviewed, account->name);
        if (account->use_class != use_class || account->attacker || account->only_scored)
            continue;
        if (decided < 0) {
            set_aside(s, a, true);
            continue;
        }
        const float score = rt_sample_largest_score(NULL, s->by, s->sample, account);
        room[n++] =
            (rt_guard_screened){.account = a,
                                .p = (double)rt_guard_p(s->by, use_class, score, rt_guard_lot(account->name)),
                                .keep = decided > 0};
    }
    rt_guard_screen(room, n, alpha);
    for (size_t i = 0; i < n; i++)
        if (room[i].aside)
            set_aside(s, room[i].account, false);
}

rt_status rt_guard_sample_screen(rt_guard_sample *sample, const rt_guard_reference *by, double alpha,
                                 const char *reviewed_path,
                                 void (*tell)(void *context, const rt_guard_aside *aside), void *context,
                                 rt_error *err)
{
    json_t *reviewed = NULL;
    rt_status status = reviewed_path ? rt_sample_labels(&reviewed, reviewed_path, err) : RT_OK;
    rt_guard_screened *room = calloc(sample->n_accounts + 1, sizeof *room);
    if (status == RT_OK && !room)
        status =
            rt_error_set(err, RT_NO_MEMORY, "guard: no memory to screen %zu accounts", sample->n_accounts);
    const screening s = {sample, by, tell, context};
    for (int k = 0; status == RT_OK && k < RT_GUARD_CLASSES; k++)
        screen_class(&s, room, k, reviewed, alpha);
    free(room);
    json_decref(reviewed);
    return status;
}
