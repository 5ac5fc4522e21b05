/* serve/job.c - see job.h. */
#include "serve/job.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/size.h"

void rt_job_options_deinit(rt_job_options *options)
{
    free(options->stops);
    free(options->biases);
    rt_grammar_close(options->grammar);
    options->grammar = NULL;
    options->stops = NULL;
    options->biases = NULL;
}

static rt_status take_prompts(rt_job *job, rt_token_list *prompts, rt_error *err)
{
    const int top = job->options.prompt_top_logprobs;
    for (size_t i = 0; i < job->n_prompts; i++) {
        rt_job_prompt *prompt = &job->prompts[i];
        prompt->n = prompts[i].count;
        if (top >= 0) {
            prompt->scored = calloc(prompt->n + 1, sizeof *prompt->scored);
            prompt->top = calloc((prompt->n + 1) * (size_t)top + 1, sizeof *prompt->top);
            if (!prompt->scored || !prompt->top)
                return rt_error_set(err, RT_NO_MEMORY, "no memory to score %zu tokens", prompt->n);
        }
    }
    for (size_t i = 0; i < job->n_prompts; i++) {
        job->prompts[i].ids = prompts[i].ids;
        prompts[i] = (rt_token_list){0};
    }
    return RT_OK;
}

static bool add_states(rt_job *job, const rt_grammar *grammar)
{
    for (size_t i = 0; grammar && i < job->n_choices; i++) {
        if (!(job->choices[i].state = malloc(sizeof *job->choices[i].state)))
            return false;
        rt_grammar_begin(grammar, job->choices[i].state);
    }
    return true;
}

rt_status rt_job_new(rt_job **out, rt_job_options *options, rt_token_list *prompts, size_t n_prompts,
                     rt_error *err)
{
    *out = NULL;
    rt_job *job = calloc(1, sizeof *job);
    if (!job)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a request");
    (void)pthread_mutex_init(&job->lock, NULL);
    job->options = *options;
    job->options.stops = NULL;
    job->options.biases = NULL;
    job->options.grammar = NULL;
    job->n_prompts = n_prompts;
    job->n_choices = n_prompts * options->n;
    job->arrived_s = rt_clock_seconds();
    job->prompts = calloc(n_prompts, sizeof *job->prompts);
    job->choices = calloc(job->n_choices, sizeof *job->choices);
    job->prompt_logits = calloc(n_prompts, sizeof *job->prompt_logits);
    if (!job->prompts || !job->choices || !job->prompt_logits || !add_states(job, options->grammar) ||
        take_prompts(job, prompts, err) != RT_OK) {
        rt_job_free(job);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a request of %zu prompts", n_prompts);
    }
    for (size_t i = 0; i < job->n_choices; i++) {
        job->choices[i].prompt = i / options->n;
        job->choices[i].index = i % options->n;
    }
    job->options.stops = options->stops;
    job->options.biases = options->biases;
    job->options.penalties.biases = options->biases;
    job->options.grammar = options->grammar;
    options->stops = NULL;
    options->biases = NULL;
    options->grammar = NULL;
    *out = job;
    return RT_OK;
}

void rt_job_free(rt_job *job)
{
    if (!job)
        return;
    for (size_t i = 0; job->prompts && i < job->n_prompts; i++) {
        free(job->prompts[i].ids);
        free(job->prompts[i].scored);
        free(job->prompts[i].top);
    }
    for (size_t i = 0; job->prompt_logits && i < job->n_prompts; i++)
        free(job->prompt_logits[i]);
    for (size_t i = 0; job->choices && i < job->n_choices; i++) {
        rt_text_deinit(&job->choices[i].text);
        rt_text_deinit(&job->choices[i].raw);
        free(job->choices[i].tokens);
        free(job->choices[i].top);
        free(job->choices[i].state);
    }
    free(job->prompts);
    free(job->choices);
    free(job->prompt_logits);
    rt_job_options_deinit(&job->options);
    rt_marking_give(&job->mark);
    (void)pthread_mutex_destroy(&job->lock);
    free(job);
}

size_t rt_job_prompt_tokens(const rt_job *job)
{
    size_t total = 0;
    for (size_t i = 0; i < job->n_prompts; i++)
        total += job->prompts[i].n;
    return total;
}
