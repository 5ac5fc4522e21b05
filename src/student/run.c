/* student/run.c - see run.h. */
#include "student/run.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/size.h"

enum { MICRO_BATCHES_MAX = 1024 };

typedef struct run {
    rt_trainer *trainer;
    const rt_run_options *options;
    rt_dealer dealer;
    rt_deal deal;
    rt_across_deal across; /* where the options have one */
    char *checkpoint, *log_path;
    FILE *log;
    rt_run_state state;
} run;

static const rt_ranks *ranks_of(const run *r) { return r->trainer->options.ranks; }

/* Of several processes one writes the log. */
static bool is_first(const run *r) { return !ranks_of(r) || ranks_of(r)->rank == 0; }

static rt_status save(run *r, rt_error *err)
{
    r->state.step = r->trainer->step;
    r->state.cursor = r->dealer.cursor;
    if (r->log && (fflush(r->log) != 0 || fsync(fileno(r->log)) != 0))
        return rt_error_set(err, RT_IO, "%.300s: cannot write: %s", r->log_path, strerror(errno));
    return rt_checkpoint_write(r->checkpoint, r->trainer, &r->state, r->options->own, r->options->identity,
                               err);
}

/* Keeps the log's lines up to the checkpoint's step: later ones will be written again. */
static rt_status trim_log(run *r, rt_error *err)
{
    char *text = NULL;
    size_t size = 0, kept = 0;
    if (rt_path_exists(r->log_path) && rt_file_read(&text, &size, r->log_path, (size_t)1 << 32, err) != RT_OK)
        return err->status;
    for (size_t at = 0; at < size;) {
        const char *newline = memchr(text + at, '\n', size - at);
        if (!newline)
            break; /* half a line: the process died while writing it */
        json_t *line = json_loadb(text + at, (size_t)(newline - text) - at, 0, NULL);
        const json_int_t step = json_integer_value(json_object_get(line, "step"));
        json_decref(line);
        if (step < 1 || (uint64_t)step > r->state.step)
            break;
        at = (size_t)(newline - text) + 1;
        kept = at;
    }
    if (!is_first(r)) {
        free(text);
        return RT_OK;
    }
    const rt_status status = rt_file_write(r->log_path, text, kept, err);
    free(text);
    if (status != RT_OK)
        return status;
    r->log = fopen(r->log_path, "ae");
    if (!r->log)
        return rt_error_set(err, RT_IO, "%.300s: cannot open: %s", r->log_path, strerror(errno));
    return RT_OK;
}

static void put_real(json_t *line, const char *key, double value)
{
    if (isfinite(value))
        (void)json_object_set_new(line, key, json_real(value));
}

static rt_status log_step(run *r, const rt_run_progress *p, rt_error *err)
{
    if (!r->log)
        return RT_OK;
    json_t *line = json_object();
    (void)json_object_set_new(line, "step", json_integer((json_int_t)p->report.step));
    (void)json_object_set_new(line, "tokens", json_integer((json_int_t)p->tokens));
    (void)json_object_set_new(line, "rows", json_integer((json_int_t)p->report.rows));
    put_real(line, "loss", p->report.loss);
    put_real(line, "kl", p->report.kl_forward);
    put_real(line, "kl_reverse", p->report.kl_reverse);
    put_real(line, "nll", p->report.nll);
    put_real(line, "features", p->report.features);
    put_real(line, "taid_t", p->report.taid);
    put_real(line, "grad_norm", p->report.grad_norm);
    put_real(line, "lr", p->report.lr);
    put_real(line, "tokens_per_s", p->tokens_per_s);
    put_real(line, "seconds", p->seconds);
    if (r->options->own) {
        (void)json_object_set_new(line, "own", json_boolean(p->own));
        put_real(line, "sample_s", p->sample_s);
    }
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(line);
    const bool ok = text && fprintf(r->log, "%s\n", text) > 0 && fflush(r->log) == 0;
    free(text);
    return ok ? RT_OK
              : rt_error_set(err, RT_IO, "%.300s: cannot write the log: %s; the last checkpoint is whole",
                             r->log_path, strerror(errno));
}

/* A step's loss is a weighted sum over all its micro-batches, so they are counted before any is run. */
static size_t count_targets(run *r, rt_dealer *dealer)
{
    const uint64_t cursor = dealer->cursor;
    size_t targets = 0;
    for (size_t m = 0; m < r->options->micro_batches; m++) {
        rt_dealer_next(dealer, &r->deal);
        targets += r->deal.targets.n;
    }
    dealer->cursor = cursor;
    return targets;
}

static rt_status train_step(run *r, rt_run_progress *p, rt_error *err)
{
    const double begun = rt_clock_seconds();
    rt_own *own = r->options->own;
    p->own = own && rt_own_step(own, r->trainer->step);
    if (p->own && rt_own_refill(own, r->trainer, err) != RT_OK)
        return err->status;
    p->sample_s = rt_clock_seconds() - begun;
    rt_dealer *dealer = p->own ? &own->dealer : &r->dealer;
    const size_t targets = count_targets(r, dealer);
    uint64_t tokens = 0;
    rt_loss_mix mix;
    const rt_ranks *ranks = ranks_of(r);
    for (size_t m = 0; m < r->options->micro_batches; m++) {
        rt_dealer_next(dealer, &r->deal);
        tokens += r->deal.batch.n_tokens;
        if (ranks && m % ranks->size != ranks->rank)
            continue; /* another rank's */
        r->trainer->last_batch = !ranks || m + ranks->size >= r->options->micro_batches;
        for (size_t i = 0; i < r->deal.targets.n; i++)
            r->deal.scales[i] = 1.0 / (double)targets; /* the mean over the step's tokens */
        if (p->own)
            rt_own_fill(own, r->trainer, &mix, &r->deal);
        else if (r->options->kept && rt_kept_source_fill(r->options->kept, &r->deal, err) != RT_OK)
            return err->status;
        if (r->options->across)
            rt_across_deal_fill(&r->across, r->options->across, r->dealer.docs, &r->deal);
        if (rt_trainer_accumulate(r->trainer, &r->deal.batch, &r->deal.targets, err) != RT_OK)
            return err->status;
    }
    if (rt_trainer_update(r->trainer, &p->report, err) != RT_OK)
        return err->status;
    const double seconds = rt_clock_seconds() - begun;
    r->state.tokens += tokens;
    r->state.seconds += seconds;
    p->steps_done = r->trainer->step;
    p->steps_total = r->options->steps;
    p->tokens = r->state.tokens;
    p->seconds = r->state.seconds;
    p->tokens_per_s = (double)tokens / seconds;
    return RT_OK;
}

/* What one rank wants, all do: stop where any was told to, save when the first one's clock says so. */
static rt_status agree(const run *r, bool *stop, bool *due, rt_error *err)
{
    const rt_ranks *ranks = ranks_of(r);
    double wishes[] = {*stop, is_first(r) && *due};
    if (!ranks)
        return RT_OK;
    if (ranks->sum(ranks->self, wishes, 2, err) != RT_OK)
        return err->status;
    *stop = wishes[0] > 0;
    *due = wishes[1] > 0;
    return RT_OK;
}

static rt_status train(run *r, rt_run_step_fn step_fn, void *context, rt_error *err)
{
    double saved = rt_clock_seconds();
    while (r->trainer->step < r->options->steps) {
        rt_run_progress p = {0};
        if (train_step(r, &p, err) != RT_OK || log_step(r, &p, err) != RT_OK)
            return err->status;
        bool stop = step_fn && !step_fn(context, &p);
        bool due = r->options->checkpoint_seconds > 0 &&
                   rt_clock_seconds() - saved >= r->options->checkpoint_seconds;
        if (agree(r, &stop, &due, err) != RT_OK)
            return err->status;
        const bool go_on = !stop;
        if (!go_on || due || r->trainer->step == r->options->steps) {
            if (save(r, err) != RT_OK)
                return err->status;
            saved = rt_clock_seconds();
        }
        if (!go_on && r->trainer->step < r->options->steps)
            return rt_error_set(err, RT_STOPPED,
                                "stopped at step %llu of %llu; the same command goes on from there",
                                (unsigned long long)r->trainer->step, (unsigned long long)r->options->steps);
    }
    return RT_OK;
}

static rt_status begin(run *r, const rt_documents *docs, uint64_t *resumed_at, rt_error *err)
{
    const size_t tokens_max = r->trainer->options.tokens_max;
    r->checkpoint = rt_path_join(r->options->dir, "checkpoint.safetensors");
    r->log_path = rt_path_join(r->options->dir, "log.jsonl");
    if (!r->checkpoint || !r->log_path)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the run's paths");
    if (rt_dealer_init(&r->dealer, docs, r->options->seed, tokens_max, err) != RT_OK ||
        rt_deal_init(&r->deal, tokens_max, err) != RT_OK ||
        (r->options->across && rt_across_deal_init(&r->across, tokens_max, err) != RT_OK))
        return err->status;
    r->dealer.beside = r->options->across ? &r->options->across->docs : NULL;
    const rt_status status =
        rt_checkpoint_read(r->checkpoint, r->trainer, &r->state, r->options->own, r->options->identity, err);
    if (status != RT_OK && status != RT_NOT_FOUND)
        return status;
    *resumed_at = r->state.step;
    r->dealer.cursor = r->state.cursor;
    return trim_log(r, err);
}

rt_status rt_run(rt_trainer *trainer, const rt_documents *docs, const rt_run_options *options,
                 rt_run_step_fn step_fn, void *context, rt_run_state *state, uint64_t *resumed_at,
                 rt_error *err)
{
    if (options->micro_batches == 0 || options->micro_batches > MICRO_BATCHES_MAX)
        return rt_error_set(err, RT_INVALID, "%zu micro-batches a step; 1 to %d are possible",
                            options->micro_batches, (int)MICRO_BATCHES_MAX);
    const rt_ranks *ranks = trainer->options.ranks;
    if (ranks && options->micro_batches < ranks->size)
        return rt_error_set(err, RT_INVALID,
                            "train.micro_batches %zu is fewer than the %zu ranks: each needs one of a step's",
                            options->micro_batches, ranks->size);
    if (ranks && ranks->same(ranks->self, "settings, text, models or build", options->identity, err) != RT_OK)
        return err->status;
    run r = {.trainer = trainer, .options = options};
    rt_status status = begin(&r, docs, resumed_at, err);
    if (status == RT_OK)
        status = train(&r, step_fn, context, err);
    *state = r.state;
    if (r.log)
        (void)fclose(r.log);
    rt_dealer_deinit(&r.dealer);
    rt_deal_deinit(&r.deal);
    rt_across_deal_deinit(&r.across);
    free(r.checkpoint);
    free(r.log_path);
    return status;
}
