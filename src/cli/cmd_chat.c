/* cli/cmd_chat.c - `retort chat MODEL`: a conversation on the terminal, or one turn a line from a pipe.
 *
 * Every turn renders the whole conversation with the model's template and keeps of the cache the tokens that
 * are the same from the start, so that a template which rewrites earlier turns is still followed exactly. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/open_model.h"
#include "cli/sampling.h"
#include "cli/stream.h"
#include "model/session.h"
#include "student/data.h"

typedef struct chat {
    const char *name, *precision;
    const char *system; /* what new conversations begin with; NULL or empty: nothing */
    char *system_owned; /* behind it when it came from /system */
    size_t tokens_max, context, threads;
    rt_sampling sampling;
    rt_pool *pool;
    cli_model model;
    rt_session *session;
    rt_sampler *sampler;
    float *logits;
    json_t *messages;
    rt_token_list cached, prompt; /* tokens in the cache; those of the conversation now */
    uint64_t turn;
    bool terminal; /* both ends: prompts are shown */
} chat;

static volatile sig_atomic_t stop_wanted;

static void on_interrupt(int number)
{
    (void)number;
    stop_wanted = 1;
}

/* Ctrl-C ends the answer, or the conversation when none is under way: reading must not be taken up again. */
static void watch_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
}

static void reset(chat *c)
{
    json_decref(c->messages);
    c->messages = json_array();
    if (c->system && c->system[0])
        (void)json_array_append_new(c->messages, json_pack("{s:s,s:o}", "role", "system", "content",
                                                           rt_json_text(c->system, strlen(c->system))));
}

static rt_status push_cached(chat *c, int32_t id, rt_error *err)
{
    rt_token_list *list = &c->cached;
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 1024;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (!ids)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu tokens", capacity);
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return RT_OK;
}

/* Brings the cache to the conversation as it is now; logits follow its last token. */
static rt_status prefill(chat *c, rt_error *err)
{
    c->prompt.count = 0;
    if (rt_render_prompt(c->model.tokenizer, c->model.chat_template, c->messages, &c->prompt, err) != RT_OK)
        return err->status;
    if (c->prompt.count >= rt_session_capacity(c->session))
        return rt_error_set(
            err, RT_INVALID,
            "the conversation has %zu tokens and leaves no room in the context of %zu; /reset "
            "starts a new one",
            c->prompt.count, rt_session_capacity(c->session));
    size_t same = 0;
    while (same < c->cached.count && same + 1 < c->prompt.count && c->cached.ids[same] == c->prompt.ids[same])
        same++;
    rt_session_truncate(c->session, 0, same);
    c->cached.count = same;
    if (rt_session_prefill(c->session, 0, c->prompt.ids + same, c->prompt.count - same, c->logits, err) !=
        RT_OK)
        return err->status;
    rt_status status = RT_OK;
    for (size_t i = same; i < c->prompt.count && status == RT_OK; i++)
        status = push_cached(c, c->prompt.ids[i], err);
    return status;
}

static rt_status answer(chat *c, rt_text *text, rt_error *err)
{
    cli_stream stream = {.terminal = isatty(STDOUT_FILENO)};
    const size_t slot = 0;
    stop_wanted = 0;
    if (prefill(c, err) != RT_OK)
        return err->status;
    const size_t begin = c->cached.count;
    rt_status status = RT_OK;
    for (size_t n = 0; n < c->tokens_max && !stop_wanted && status == RT_OK; n++) {
        const int32_t id =
            rt_sample(c->sampler, &c->sampling, c->logits, c->cached.ids, c->cached.count, c->turn, n);
        if (rt_tokenizer_is_end(c->model.tokenizer, id) || c->cached.count >= rt_session_capacity(c->session))
            break;
        size_t size;
        const char *bytes = rt_tokenizer_token_bytes(c->model.tokenizer, id, &size);
        if (!rt_tokenizer_is_special(c->model.tokenizer, id))
            cli_stream_write(&stream, bytes, size);
        status = rt_session_decode(c->session, &slot, &id, 1, c->logits, err);
        if (status == RT_OK)
            status = push_cached(c, id, err);
    }
    cli_stream_end(&stream);
    (void)printf("\n");
    c->turn++;
    if (status != RT_OK)
        return status;
    return rt_tokenizer_decode(c->model.tokenizer, c->cached.ids + begin, c->cached.count - begin, true, text,
                               err);
}

/* A failed turn leaves the conversation as it was before. */
static rt_status take_turn(chat *c, const char *line, rt_error *err)
{
    rt_text text = {0};
    (void)json_array_append_new(
        c->messages, json_pack("{s:s,s:o}", "role", "user", "content", rt_json_text(line, strlen(line))));
    const rt_status status = answer(c, &text, err);
    if (status == RT_OK)
        (void)json_array_append_new(c->messages,
                                    json_pack("{s:s,s:o}", "role", "assistant", "content",
                                              rt_json_text(text.data ? text.data : "", text.size)));
    else
        (void)json_array_remove(c->messages, json_array_size(c->messages) - 1);
    rt_text_deinit(&text);
    return status;
}

/* One row of the form that `retort distill` and `generate --prompts` read. */
static rt_status save(const chat *c, const char *path, rt_error *err)
{
    json_t *row = json_pack("{s:O}", "messages", c->messages);
    char *text = row ? json_dumps(row, JSON_COMPACT) : NULL;
    json_decref(row);
    rt_text line = {0};
    rt_text_printf(&line, "%s\n", text ? text : "");
    const rt_status status = text && !line.failed ? rt_file_write(path, line.data, line.size, err)
                                                  : rt_error_set(err, RT_NO_MEMORY, "no memory to save");
    free(text);
    rt_text_deinit(&line);
    return status;
}

static void say(const char *text) { (void)fprintf(stderr, "%s\n", text); }

/* A line that begins with a slash.  *quit is set when it ends the conversation. */
static rt_status obey(chat *c, char *line, bool *quit, rt_error *err)
{
    char *rest = line + strcspn(line, " \t");
    if (*rest) {
        *rest++ = '\0';
        rest += strspn(rest, " \t");
    }
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0) {
        *quit = true;
    } else if (strcmp(line, "/reset") == 0) {
        reset(c);
        say("a new conversation");
    } else if (strcmp(line, "/system") == 0) {
        char *copy = strdup(rest);
        if (!copy)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the instructions");
        free(c->system_owned);
        c->system = c->system_owned = copy;
        reset(c);
        say("a new conversation with other instructions");
    } else if (strcmp(line, "/save") == 0) {
        if (!rest[0])
            return rt_error_set(err, RT_INVALID, "/save needs a file name");
        return save(c, rest, err);
    } else {
        static const char *const words[] = {"/reset", "/system", "/save", "/quit", "/help"};
        if (strcmp(line, "/help") != 0) {
            const char *near = rt_nearest_word(line, words, sizeof words / sizeof words[0]);
            return rt_error_set(err, RT_INVALID, "'%.40s' is not known%s%s; /help lists the commands", line,
                                near ? "; did you mean " : "", near ? near : "");
        }
        say("/reset          a new conversation\n/system TEXT    a new one with these instructions\n"
            "/save FILE      keep the conversation as a JSONL row\n/quit           end (Ctrl-D too)\n"
            "Ctrl-C          end the answer");
    }
    return RT_OK;
}

static rt_status one_line(chat *c, char *line, bool *quit, rt_error *err)
{
    if (line[0] == '/')
        return obey(c, line, quit, err);
    return line[strspn(line, " \t")] ? take_turn(c, line, err) : RT_OK;
}

/* On a terminal a failed line is told and the next one read; in a pipe it ends the run. */
static rt_status converse(chat *c, rt_error *err)
{
    char *line = NULL;
    size_t capacity = 0;
    rt_status status = RT_OK;
    for (bool quit = false; !quit && status == RT_OK;) {
        if (c->terminal) {
            (void)fputs("> ", stderr);
            (void)fflush(stderr);
        }
        stop_wanted = 0;
        const ssize_t length = getline(&line, &capacity, stdin);
        if (length < 0)
            break;
        line[strcspn(line, "\r\n")] = '\0';
        status = one_line(c, line, &quit, err);
        if (status != RT_OK && c->terminal) {
            (void)fprintf(stderr, "retort: %s\n", err->text);
            status = RT_OK;
        }
        if (ferror(stdout))
            status = rt_error_set(err, RT_IO, "the answer cannot be written to standard output");
    }
    free(line);
    if (c->terminal)
        (void)fputs("\n", stderr);
    return status;
}

static rt_status open_chat(chat *c, rt_error *err)
{
    if (rt_sampling_check(&c->sampling, err) != RT_OK ||
        rt_pool_open(&c->pool, (unsigned)rt_size_min(c->threads, 1 << 16), err) != RT_OK ||
        cli_model_open(&c->model, c->name, cli_precision(c->precision), 0, c->pool, err) != RT_OK)
        return err->status;
    const size_t vocab = c->model.model->config.n_vocab;
    c->logits = malloc(vocab * sizeof *c->logits);
    if (!c->logits)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu logits", vocab);
    if (rt_session_open(&c->session, c->model.model, 1, c->context, err) != RT_OK)
        return err->status;
    if (rt_sampler_open(&c->sampler, vocab, err) != RT_OK)
        return err->status;
    rt_sampler_limit(c->sampler, rt_tokenizer_real_size(c->model.tokenizer));
    return RT_OK;
}

static void close_chat(chat *c)
{
    rt_sampler_close(c->sampler);
    rt_session_close(c->session);
    free(c->logits);
    free(c->system_owned);
    json_decref(c->messages);
    rt_token_list_deinit(&c->cached);
    rt_token_list_deinit(&c->prompt);
    cli_model_close(&c->model);
    rt_pool_close(c->pool);
}

int cmd_chat(int argc, char **argv)
{
    chat c = {.precision = "int8", .tokens_max = 1024, .sampling = rt_sampling_default()};
    c.sampling.temperature = 0.2;
    c.sampling.top_p = 0.9;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Lines are turns; /reset, /system TEXT, /save FILE, /quit and /help are commands. Ctrl-C ends the\n"
         "answer. When the input is a pipe, each line of it is a turn and the answers are all that is "
         "printed.\n"
         "--temperature is 0.2 and --top-p 0.9 unless given.\n\n"
         "Examples:\n  retort chat smollm2-135m-instruct\n"
         "  printf 'Name a fruit.\\nAnother one.\\n' | retort chat student/ --temperature 0"},
        {CLI_STRING, "MODEL", &c.name, "GGUF file, folder, or a model that was pulled"},
        {CLI_STRING, "--system TEXT", &c.system, "what the model is told first"},
        {CLI_COUNT, "--tokens-max N", &c.tokens_max, "of an answer (default 1024)"},
        CLI_SAMPLING_ROWS(c.sampling),
        {CLI_COUNT, "--context N", &c.context, "tokens of the conversation (default: the model's)"},
        {CLI_STRING, "--precision " CLI_PRECISIONS, &c.precision, "of the computation (default int8)"},
        {CLI_COUNT, "--threads N", &c.threads, "default: one a processor"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    rt_status status = open_chat(&c, &err);
    if (status == RT_OK) {
        c.terminal = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
        reset(&c);
        watch_interrupts();
        status = converse(&c, &err);
    }
    close_chat(&c);
    return status == RT_OK ? 0 : cli_fail(&err);
}
