/* cli/cli.c - reads a command line by its table; see cli.h. */
#include "cli/cli.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "base/text.h"

enum { OPTIONS_MAX = 64, WORDS_MAX = 96 };

static bool json_wanted;

/* Set while the tables are visited instead of used. */
static struct {
    cli_visit visit;
    void *context;
    const cli_command *command;
} visitor;

static const char *default_value_word(int kind)
{
    switch (kind & ~CLI_REQUIRED) {
    case CLI_COUNT:
        return "N";
    case CLI_REAL:
        return "X";
    case CLI_FLAG:
        return "";
    default:
        return "TEXT";
    }
}

cli_name cli_name_of(const cli_option *option)
{
    cli_name name = {.is_option = option->name[0] == '-', .is_optional = option->name[0] == '['};
    const char *begin = option->name + name.is_optional;
    const size_t end = name.is_optional ? strcspn(begin, "]") : strlen(begin);
    const size_t word = name.is_option ? strcspn(begin, " ") : end;
    assert(word < sizeof name.word || !name.is_option);
    (void)snprintf(name.word, sizeof name.word, "%.*s", (int)word, begin);
    const char *value = begin;
    if (name.is_option)
        value = begin[word] == ' ' ? begin + word + 1 : default_value_word(option->kind);
    (void)snprintf(name.value, sizeof name.value, "%.*s", (int)(name.is_option ? strlen(value) : end), value);
    return name;
}

bool cli_name_has_choices(const cli_name *name) { return strchr(name->value, '|') != NULL; }

/* Fails with the nearest of the choices when `value` is none of them. */
static rt_status check_choice(const cli_name *name, const char *value, rt_error *err)
{
    char copy[sizeof name->value];
    const char *choices[16];
    size_t count = 0;
    memcpy(copy, name->value, sizeof copy);
    char *state = NULL;
    for (char *word = strtok_r(copy, "|", &state); word && count < 16; word = strtok_r(NULL, "|", &state)) {
        if (strcmp(word, value) == 0)
            return RT_OK;
        choices[count++] = word;
    }
    const char *near = rt_nearest_word(value, choices, count);
    const char *what = name->is_option ? name->word : "the argument";
    if (near)
        return rt_error_set(err, RT_INVALID, "%s: '%.80s' is not known; did you mean '%s'? (%s)", what, value,
                            near, name->value);
    return rt_error_set(err, RT_INVALID, "%s: '%.80s' is not known; it must be one of %s", what, value,
                        name->value);
}

static rt_status store_in_list(cli_list *list, const cli_name *name, const char *value, rt_error *err)
{
    if (list->count == CLI_LIST_MAX)
        return rt_error_set(err, RT_INVALID, "%s can be given %d times at most", name->word, CLI_LIST_MAX);
    list->items[list->count++] = value;
    return RT_OK;
}

static rt_status store(const cli_option *option, const cli_name *name, const char *value, rt_error *err)
{
    if (cli_name_has_choices(name) && check_choice(name, value, err) != RT_OK)
        return err->status;
    switch (option->kind & ~CLI_REQUIRED) {
    case CLI_STRING:
        *(const char **)option->target = value;
        return RT_OK;
    case CLI_LIST:
        return store_in_list(option->target, name, value, err);
    case CLI_COUNT:
        if (rt_parse_count(option->target, value))
            return RT_OK;
        return rt_error_set(err, RT_INVALID, "%s: '%.80s' is not a whole number such as 512, 2K or 1M",
                            name->word, value);
    case CLI_REAL:
        if (rt_parse_real(option->target, value))
            return RT_OK;
        return rt_error_set(err, RT_INVALID, "%s: '%.80s' is not a number such as 0.7 or 3e-4", name->word,
                            value);
    default:
        return rt_error_set(err, RT_INTERNAL, "%s: the option table is wrong", name->word);
    }
}

static rt_status unknown_option(const cli_option *spec, const char *command, const char *word, rt_error *err)
{
    char words[OPTIONS_MAX][sizeof((cli_name *)0)->word];
    const char *names[OPTIONS_MAX];
    size_t count = 0;
    for (const cli_option *o = spec; o->kind != CLI_END && count < OPTIONS_MAX - 1; o++) {
        if (o->kind == CLI_ABOUT || o->name[0] != '-')
            continue;
        const cli_name name = cli_name_of(o);
        memcpy(words[count], name.word, sizeof name.word);
        names[count] = words[count];
        count++;
    }
    names[count++] = "--help";
    const char *near = rt_nearest_word(word, names, count);
    if (near)
        return rt_error_set(err, RT_INVALID, "%s: unknown option '%.80s'; did you mean '%s'?", command, word,
                            near);
    return rt_error_set(err, RT_INVALID, "%s: unknown option '%.80s'; 'retort help %s' lists the options",
                        command, word, command);
}

typedef struct parser {
    const cli_option *spec;
    int argc, at;
    char **argv;
    bool seen[OPTIONS_MAX];
    size_t next_positional; /* row to look for the next positional argument from */
} parser;

static rt_status parse_option(parser *p, rt_error *err)
{
    const char *argument = p->argv[p->at];
    const char *equals = strchr(argument, '=');
    char word[WORDS_MAX];
    const size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
    (void)snprintf(word, sizeof word, "%.*s", (int)rt_size_min(length, sizeof word - 1), argument);
    for (size_t i = 0; p->spec[i].kind != CLI_END; i++) {
        const cli_option *option = &p->spec[i];
        if (option->kind == CLI_ABOUT || option->name[0] != '-')
            continue;
        const cli_name name = cli_name_of(option);
        if (strcmp(name.word, word) != 0)
            continue;
        p->seen[i] = true;
        if ((option->kind & ~CLI_REQUIRED) == CLI_FLAG) {
            if (equals)
                return rt_error_set(err, RT_INVALID, "%s takes no value", name.word);
            *(bool *)option->target = true;
            return RT_OK;
        }
        if (equals)
            return store(option, &name, equals + 1, err);
        if (p->at + 1 >= p->argc)
            return rt_error_set(err, RT_INVALID, "%s needs a value: %s %s", name.word, name.word, name.value);
        return store(option, &name, p->argv[++p->at], err);
    }
    return unknown_option(p->spec, p->argv[0], word, err);
}

static rt_status parse_positional(parser *p, rt_error *err)
{
    char *argument = p->argv[p->at];
    for (size_t i = p->next_positional; p->spec[i].kind != CLI_END; i++) {
        const cli_option *option = &p->spec[i];
        if (option->kind == CLI_ABOUT || option->name[0] == '-')
            continue;
        p->seen[i] = true;
        if (option->kind == CLI_REST) {
            cli_rest *rest = option->target;
            if (!rest->items)
                rest->items = p->argv + 1; /* what was read already may be overwritten */
            rest->items[rest->count++] = argument;
            p->next_positional = i;
            return RT_OK;
        }
        const cli_name name = cli_name_of(option);
        p->next_positional = i + 1;
        return store(option, &name, argument, err);
    }
    return rt_error_set(err, RT_INVALID, "%s: one argument too many: '%.80s'", p->argv[0], argument);
}

static rt_status check_required(const parser *p, rt_error *err)
{
    for (size_t i = 0; p->spec[i].kind != CLI_END; i++) {
        const cli_option *option = &p->spec[i];
        if (option->kind == CLI_ABOUT || p->seen[i])
            continue;
        const cli_name name = cli_name_of(option);
        const bool positional = !name.is_option && !name.is_optional && option->kind != CLI_REST;
        if (positional || (option->kind & CLI_REQUIRED))
            return rt_error_set(err, RT_INVALID, "%s: %s is missing; 'retort help %s' shows how it is used",
                                p->argv[0], name.word, p->argv[0]);
    }
    return RT_OK;
}

static bool given(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], word) == 0)
            return true;
    return false;
}

static bool has_json_option(const cli_option *spec)
{
    for (; spec->kind != CLI_END; spec++)
        if (spec->kind == CLI_FLAG && strcmp(spec->name, "--json") == 0)
            return true;
    return false;
}

static rt_status quiet_stop(rt_error *err)
{
    *err = (rt_error){.status = RT_STOPPED};
    return RT_STOPPED;
}

rt_status cli_parse(const cli_option *spec, int argc, char **argv, rt_error *err)
{
    if (visitor.visit) {
        visitor.visit(visitor.context, visitor.command, spec);
        return quiet_stop(err);
    }
    json_wanted = has_json_option(spec) && given(argc, argv, "--json");
    if (given(argc, argv, "--help") || given(argc, argv, "-h")) {
        cli_print_help(spec, argv[0]);
        return quiet_stop(err);
    }
    parser p = {.spec = spec, .argc = argc, .at = 1, .argv = argv};
    bool options_ended = false;
    for (; p.at < argc; p.at++) {
        const char *argument = argv[p.at];
        if (!options_ended && strcmp(argument, "--") == 0) {
            options_ended = true;
            continue;
        }
        const bool is_option = !options_ended && argument[0] == '-' && argument[1] != '\0';
        if ((is_option ? parse_option(&p, err) : parse_positional(&p, err)) != RT_OK)
            return err->status;
    }
    return check_required(&p, err);
}

bool cli_json(void) { return json_wanted; }

int cli_print_json(json_t *json)
{
    const int failed = json ? json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : -1;
    json_decref(json);
    if (failed || putchar('\n') == EOF) {
        const rt_error err = {RT_IO, "cannot write the results to standard output"};
        return cli_fail(&err);
    }
    return 0;
}

int cli_fail(const rt_error *err)
{
    if (err->text[0] == '\0' && err->status == RT_STOPPED)
        return 0; /* the help was printed */
    const char *text = err->text[0] ? err->text : rt_status_text(err->status);
    (void)fflush(stdout);
    (void)fprintf(stderr, "retort: %s\n", text);
    if (json_wanted) {
        json_t *json = json_pack("{s:{s:s,s:o}}", "error", "status", rt_status_name(err->status), "message",
                                 rt_json_text(text, strlen(text)));
        if (json)
            (void)json_dumpf(json, stdout, JSON_INDENT(2));
        (void)putchar('\n');
        json_decref(json);
    }
    return rt_status_exit_code(err->status);
}

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void cli_interrupts_watch(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

bool cli_interrupted(void) { return interrupted != 0; }

rt_status cli_stopped(rt_error *err, const char *how_to_go_on)
{
    return rt_error_set(err, RT_STOPPED, "stopped; %s", how_to_go_on);
}

const cli_command *cli_command_find(const char *name, rt_error *err)
{
    const char *names[OPTIONS_MAX];
    size_t count = 0;
    for (const cli_command *c = cli_commands; c->name; c++) {
        if (strcmp(c->name, name) == 0)
            return c;
        if (count < OPTIONS_MAX)
            names[count++] = c->name;
    }
    const char *near = rt_nearest_word(name, names, count);
    if (near)
        (void)rt_error_set(err, RT_INVALID, "unknown command '%.80s'; did you mean '%s'?", name, near);
    else
        (void)rt_error_set(err, RT_INVALID, "unknown command '%.80s'; 'retort help' lists the commands",
                           name);
    return NULL;
}

void cli_visit_commands(cli_visit visit, void *context)
{
    visitor.visit = visit;
    visitor.context = context;
    for (const cli_command *c = cli_commands; c->name; c++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%s", c->name);
        visitor.command = c;
        (void)c->run(1, (char *[]){name, NULL});
    }
    visitor.visit = NULL;
}
