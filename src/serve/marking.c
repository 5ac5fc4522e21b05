/* serve/marking.c - see marking.h: which mark a request's answer gets. */
#include "serve/marking.h"

#include "serve/service.h"

rt_status rt_marking_take(rt_marking_use *use, const rt_marking *marking, const char *account, rt_error *err)
{
    *use = (rt_marking_use){.marking = marking, .own_share = account ? marking->own_share : 0};
    const rt_status status = marking->take(marking->context, account, &use->marker, err);
    if (status != RT_OK)
        *use = (rt_marking_use){0};
    return status;
}

void rt_marking_give(rt_marking_use *use)
{
    if (use->marker)
        use->marking->give(use->marking->context, use->marker);
    *use = (rt_marking_use){0};
}

/* The account whose own key stands at the answer; NULL: none. */
static const char *own_key_of(const rt_call *call, const rt_marking *marking)
{
    rt_watch *watch = call->serve->options.watch;
    if (!call->caller || marking->own == RT_MARKING_NOBODY)
        return NULL;
    if (marking->own == RT_MARKING_GUARD &&
        !(watch && rt_watch_rules_of(watch, call->caller->account).own_mark))
        return NULL;
    return call->caller->account;
}

bool rt_call_mark(rt_call *call, rt_fault *fault)
{
    rt_error err = {0};
    rt_job *job = call->job;
    const rt_marking *marking = call->serve->options.models[call->lane].marking;
    if (!marking || call->scores)
        return true;
    if (rt_marking_take(&job->mark, marking, own_key_of(call, marking), &err) != RT_OK)
        return rt_fault_set(fault, 503, "server_error", "overloaded", "there is no memory for the request");
    job->options.sampling.marker = job->mark.marker;
    call->mark = (rt_marking_use){.marking = marking, .own_share = job->mark.own_share};
    return true;
}

void rt_call_note_mark(rt_call *call)
{
    const rt_marking *marking = call->mark.marking;
    const rt_job *job = call->job;
    for (size_t i = 0; marking && i < job->n_choices; i++)
        call->marked |= (marking->greedy || job->options.sampling.temperature > 0) &&
                        job->choices[i].n_sampled > marking->h;
}
