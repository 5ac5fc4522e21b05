/* base/schema.c - see schema.h.
 *
 * Defaults and overrides are YAML too, so that one piece of code turns a node into a value, whatever
 * the node came from. */
#include "base/schema.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/size.h"
#include "base/yaml.h"

enum { FIELDS_MAX = 256, DOCUMENTS_MAX = 512, WORDS_MAX = FIELDS_MAX };

typedef struct setting {
    const rt_yaml_node *node; /* NULL: not given and no default */
    const rt_yaml *document;  /* that the node is of */
    bool is_default, is_word; /* from the table; from a "key=value" word */
} setting;

struct rt_settings {
    const rt_field *fields;
    size_t n_fields;
    setting *values; /* [n_fields] */
    rt_yaml **documents;
    size_t n_documents;
    rt_arena lists; /* what filled structs point to, beside the documents' texts */
};

static rt_status keep_document(rt_settings *s, rt_yaml *document, rt_error *err)
{
    if (s->n_documents == DOCUMENTS_MAX) {
        rt_yaml_free(document);
        return rt_error_set(err, RT_INVALID, "too many key=value words");
    }
    s->documents[s->n_documents++] = document;
    return RT_OK;
}

void rt_settings_close(rt_settings *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_documents; i++)
        rt_yaml_free(s->documents[i]);
    rt_arena_deinit(&s->lists);
    free(s->documents);
    free(s->values);
    free(s);
}

rt_status rt_settings_open(rt_settings **out, const rt_field *fields, size_t n_fields, rt_error *err)
{
    assert(n_fields <= FIELDS_MAX);
    *out = NULL;
    rt_settings *s = calloc(1, sizeof *s);
    if (!s)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the settings");
    *s = (rt_settings){.fields = fields, .n_fields = n_fields};
    s->values = calloc(n_fields + 1, sizeof *s->values);
    s->documents = calloc(DOCUMENTS_MAX, sizeof(rt_yaml *));
    if (!s->values || !s->documents) {
        rt_settings_close(s);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the settings");
    }
    rt_status status = rt_arena_init(&s->lists, (size_t)64 << 20, err);
    for (size_t i = 0; i < n_fields && status == RT_OK; i++) {
        if (!fields[i].fallback)
            continue;
        rt_yaml *document;
        status =
            rt_yaml_parse(&document, fields[i].fallback, strlen(fields[i].fallback), fields[i].path, err);
        if (status == RT_OK)
            status = keep_document(s, document, err);
        if (status == RT_OK)
            s->values[i] = (setting){rt_yaml_root(document), document, .is_default = true};
    }
    if (status != RT_OK) {
        rt_settings_close(s);
        return status;
    }
    *out = s;
    return RT_OK;
}

/* The words that may stand after `prefix` ("" or "student."), each once. */
static size_t words_after(const rt_settings *s, const char *prefix, char (*words)[64], const char **names)
{
    size_t count = 0;
    const size_t skip = strlen(prefix);
    for (size_t i = 0; i < s->n_fields && count < WORDS_MAX; i++) {
        if (strncmp(s->fields[i].path, prefix, skip) != 0)
            continue;
        const char *word = s->fields[i].path + skip;
        (void)snprintf(words[count], sizeof words[count], "%.*s", (int)strcspn(word, "."), word);
        if (count == 0 || strcmp(words[count], words[count - 1]) != 0) {
            names[count] = words[count];
            count++;
        }
    }
    return count;
}

static rt_status unknown_key(const rt_settings *s, const char *where, const char *prefix, const char *word,
                             rt_error *err)
{
    char words[WORDS_MAX][64];
    const char *names[WORDS_MAX];
    const char *near = rt_nearest_word(word, names, words_after(s, prefix, words, names));
    if (near)
        return rt_error_set(err, RT_INVALID, "%.250s: unknown key '%.64s%.64s' (did you mean '%.64s%.64s'?)",
                            where, prefix, word, prefix, near);
    return rt_error_set(err, RT_INVALID, "%.250s: unknown key '%.64s%.64s'", where, prefix, word);
}

static const rt_field *find_field(const rt_settings *s, const char *path)
{
    for (size_t i = 0; i < s->n_fields; i++)
        if (strcmp(s->fields[i].path, path) == 0)
            return &s->fields[i];
    return NULL;
}

static bool is_section(const rt_settings *s, const char *path)
{
    const size_t n = strlen(path);
    for (size_t i = 0; i < s->n_fields; i++)
        if (strncmp(s->fields[i].path, path, n) == 0 && s->fields[i].path[n] == '.')
            return true;
    return false;
}

/* "file:line", the beginning of every error about a node. */
static void place(char out[300], const rt_yaml *document, const rt_yaml_node *node)
{
    (void)snprintf(out, 300, "%.270s:%zu", rt_yaml_where(document), node->line);
}

/* Takes every key below a mapping; calls itself at most RT_YAML_DEPTH_MAX deep. */
static rt_status take_mapping(rt_settings *s, const rt_yaml *document, const rt_yaml_node *mapping,
                              const char *prefix, rt_error *err)
{
    for (const rt_yaml_node *node = mapping->first; node; node = node->next) {
        char path[160], where[300];
        place(where, document, node);
        if ((size_t)snprintf(path, sizeof path, "%s%s", prefix, node->key) >= sizeof path)
            return unknown_key(s, where, prefix, node->key, err);
        const rt_field *field = find_field(s, path);
        if (field) {
            s->values[field - s->fields] = (setting){.node = node, .document = document};
        } else if (!is_section(s, path)) {
            return unknown_key(s, where, prefix, node->key, err);
        } else if (node->kind == RT_YAML_MAPPING) {
            const size_t n = strlen(path);
            if (n + 1 >= sizeof path)
                return unknown_key(s, where, prefix, node->key, err);
            memcpy(path + n, ".", 2);
            if (take_mapping(s, document, node, path, err) != RT_OK)
                return err->status;
        } else if (node->kind != RT_YAML_SCALAR || node->text[0] ||
                   node->quoted) { /* "student:" alone is fine */
            return rt_error_set(err, RT_INVALID, "%s: '%s' is a section: its keys go below it, indented",
                                where, path);
        }
    }
    return RT_OK;
}

static rt_status take_document(rt_settings *s, rt_yaml *document, rt_error *err)
{
    if (keep_document(s, document, err) != RT_OK)
        return err->status;
    const rt_yaml_node *root = rt_yaml_root(document);
    if (root->kind != RT_YAML_MAPPING)
        return rt_error_set(err, RT_INVALID,
                            "%.300s:%zu: a recipe is 'key: value' lines, this is something else",
                            rt_yaml_where(document), root->line);
    return take_mapping(s, document, root, "", err);
}

rt_status rt_settings_read(rt_settings *s, const char *path, rt_error *err)
{
    rt_yaml *document;
    if (rt_yaml_read(&document, path, err) != RT_OK)
        return err->status;
    return take_document(s, document, err);
}

rt_status rt_settings_read_text(rt_settings *s, const char *data, size_t size, const char *where,
                                rt_error *err)
{
    rt_yaml *document;
    if (rt_yaml_parse(&document, data, size, where, err) != RT_OK)
        return err->status;
    return take_document(s, document, err);
}

rt_status rt_settings_override(rt_settings *s, const char *word, rt_error *err)
{
    const char *equals = strchr(word, '=');
    if (!equals)
        return rt_error_set(err, RT_INVALID, "'%.100s' is no key=value", word);
    char path[160], prefix[160] = "";
    if ((size_t)(equals - word) >= sizeof path)
        return rt_error_set(err, RT_INVALID, "'%.100s...': the key is too long", word);
    (void)snprintf(path, sizeof path, "%.*s", (int)(equals - word), word);
    const rt_field *field = find_field(s, path);
    if (!field) { /* name what is wrong: the section, or the key in it */
        const char *last = path;
        for (char *dot = strchr(path, '.'); dot; dot = strchr(last, '.')) {
            *dot = '\0';
            const bool known = is_section(s, path);
            if (!known)
                break;
            *dot = '.';
            (void)snprintf(prefix, sizeof prefix, "%.*s", (int)(dot + 1 - path), path);
            last = dot + 1;
        }
        return unknown_key(s, word, prefix, last, err);
    }
    rt_yaml *document;
    if (rt_yaml_parse(&document, equals + 1, strlen(equals + 1), word, err) != RT_OK ||
        keep_document(s, document, err) != RT_OK)
        return err->status;
    s->values[field - s->fields] = (setting){rt_yaml_root(document), document, .is_word = true};
    return RT_OK;
}

/* What goes into errors about one field's value. */
typedef struct value_context {
    const rt_field *field;
    const setting *value;
    rt_error *err;
} value_context;

static rt_status wrong_value(const value_context *c, const rt_yaml_node *node, const char *wanted)
{
    char where[300];
    if (c->value->is_word)
        (void)snprintf(where, sizeof where, "%.270s", rt_yaml_where(c->value->document));
    else
        place(where, c->value->document, node);
    if (node->kind == RT_YAML_SCALAR)
        return rt_error_set(c->err, RT_INVALID, "%s: %s: '%.80s' is not %s", where, c->field->path,
                            node->text, wanted);
    return rt_error_set(c->err, RT_INVALID, "%s: %s: a %s is not %s", where, c->field->path,
                        node->kind == RT_YAML_MAPPING ? "mapping" : "list", wanted);
}

static bool in_range(const rt_field *field, double x)
{
    return (field->min == 0 && field->max == 0) || (x >= field->min && x <= field->max);
}

static rt_status out_of_range(const value_context *c, const rt_yaml_node *node)
{
    char wanted[96];
    (void)snprintf(wanted, sizeof wanted, "in the range %g to %g", c->field->min, c->field->max);
    return wrong_value(c, node, wanted);
}

static rt_status fill_count(const value_context *c, const rt_yaml_node *node, size_t *out)
{
    if (node->kind != RT_YAML_SCALAR || node->quoted || !rt_parse_count(out, node->text))
        return wrong_value(c, node, "a whole number such as 512, 2K or 1M");
    return in_range(c->field, (double)*out) ? RT_OK : out_of_range(c, node);
}

static rt_status fill_real(const value_context *c, const rt_yaml_node *node, double *out)
{
    if (node->kind != RT_YAML_SCALAR || node->quoted || !rt_parse_real(out, node->text))
        return wrong_value(c, node, "a number such as 0.7 or 3e-4");
    return in_range(c->field, *out) ? RT_OK : out_of_range(c, node);
}

static rt_status fill_string(const value_context *c, const rt_yaml_node *node, const char **out)
{
    if (node->kind != RT_YAML_SCALAR)
        return wrong_value(c, node, "a text");
    if (!node->quoted &&
        (node->text[0] == '\0' || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0))
        return wrong_value(c, node, "a text (write '' for an empty one)");
    *out = node->text;
    return RT_OK;
}

static rt_status fill_bool(const value_context *c, const rt_yaml_node *node, bool *out)
{
    const bool is_plain = node->kind == RT_YAML_SCALAR && !node->quoted;
    if (is_plain && (strcmp(node->text, "true") == 0 || strcmp(node->text, "yes") == 0))
        *out = true;
    else if (is_plain && (strcmp(node->text, "false") == 0 || strcmp(node->text, "no") == 0))
        *out = false;
    else
        return wrong_value(c, node, "true or false");
    return RT_OK;
}

static rt_status fill_choice(const value_context *c, const rt_yaml_node *node, int *out)
{
    const char *choice = c->field->choices;
    for (int i = 0; node->kind == RT_YAML_SCALAR && choice; i++) {
        const size_t n = strcspn(choice, "|");
        if (strlen(node->text) == n && strncmp(choice, node->text, n) == 0) {
            *out = i;
            return RT_OK;
        }
        choice = choice[n] ? choice + n + 1 : NULL;
    }
    char wanted[256];
    (void)snprintf(wanted, sizeof wanted, "one of %s", c->field->choices);
    return wrong_value(c, node, wanted);
}

/* A list, or one scalar as a list of one: the first item and how many there are. */
static const rt_yaml_node *list_begin(const rt_yaml_node *node, size_t *count)
{
    *count = node->kind == RT_YAML_SEQUENCE ? node->count : 1;
    return node->kind == RT_YAML_SEQUENCE ? node->first : node;
}

static rt_status fill_list(rt_settings *s, const value_context *c, const rt_yaml_node *node, void *out)
{
    size_t count;
    const bool counts = c->field->type == RT_FIELD_COUNTS;
    const rt_yaml_node *item = list_begin(node, &count);
    void *items = rt_arena_push(&s->lists, count + 1, counts ? sizeof(size_t) : sizeof(char *));
    if (!items)
        return wrong_value(c, node, "short enough");
    for (size_t i = 0; i < count; i++, item = item->next) {
        const rt_status status = counts ? fill_count(c, item, (size_t *)items + i)
                                        : fill_string(c, item, (const char **)items + i);
        if (status != RT_OK)
            return status;
    }
    if (counts)
        *(rt_counts *)out = (rt_counts){items, count};
    else
        *(rt_strings *)out = (rt_strings){items, count};
    return RT_OK;
}

static rt_status fill_one(rt_settings *s, const value_context *c, void *out)
{
    const rt_yaml_node *node = c->value->node;
    switch (c->field->type) {
    case RT_FIELD_STRING:
        return fill_string(c, node, out);
    case RT_FIELD_COUNT:
        return fill_count(c, node, out);
    case RT_FIELD_REAL:
        return fill_real(c, node, out);
    case RT_FIELD_BOOL:
        return fill_bool(c, node, out);
    case RT_FIELD_CHOICE:
        return fill_choice(c, node, out);
    case RT_FIELD_STRINGS:
    case RT_FIELD_COUNTS:
        return fill_list(s, c, node, out);
    }
    return rt_error_set(c->err, RT_INTERNAL, "%s: the table of settings is wrong", c->field->path);
}

rt_status rt_settings_fill(rt_settings *s, void *target, rt_error *err)
{
    for (size_t i = 0; i < s->n_fields; i++) {
        const value_context c = {&s->fields[i], &s->values[i], err};
        if (!c.value->node)
            return rt_error_set(err, RT_INVALID, "the recipe lacks '%s' (%s)", c.field->path, c.field->help);
        if (fill_one(s, &c, (char *)target + c.field->offset) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

/* A scalar such that it reads back as the same text: in double quotes unless it is a plain word or number. */
static void print_scalar(rt_text *out, const rt_yaml_node *node)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";
    const size_t n = strlen(node->text);
    if (!node->quoted && n > 0 && strspn(node->text, plain) == n && node->text[0] != '-') {
        rt_text_puts(out, node->text);
        return;
    }
    if (!node->quoted && n > 1 && strspn(node->text, plain) == n && strchr("0123456789.", node->text[1])) {
        rt_text_puts(out, node->text); /* a negative number */
        return;
    }
    rt_text_puts(out, "\"");
    for (const char *p = node->text; *p; p++) {
        const unsigned char byte = (unsigned char)*p;
        if (byte == '"' || byte == '\\')
            rt_text_printf(out, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7F)
            rt_text_printf(out, "\\x%02x", byte);
        else
            rt_text_append(out, p, 1);
    }
    rt_text_puts(out, "\"");
}

static void print_value(rt_text *out, const rt_yaml_node *node)
{
    if (node->kind == RT_YAML_SCALAR) {
        print_scalar(out, node);
        return;
    }
    rt_text_puts(out, "[");
    for (const rt_yaml_node *item = node->first; item; item = item->next) {
        if (item->kind == RT_YAML_SCALAR)
            print_scalar(out, item);
        rt_text_puts(out, item->next ? ", " : "");
    }
    rt_text_puts(out, "]");
}

/* Opens the sections of `path` that the key before it was not in; returns the last word. */
static const char *print_sections(rt_text *out, const char *path, const char *before, int *indent)
{
    const char *word = path;
    bool same = true;
    *indent = 0;
    for (const char *dot = strchr(path, '.'); dot; dot = strchr(word, '.')) {
        const size_t n = (size_t)(dot + 1 - path);
        same = same && strncmp(path, before, n) == 0;
        if (!same)
            rt_text_printf(out, "%*s%.*s:\n", *indent, "", (int)(dot - word), word);
        *indent += 2;
        word = dot + 1;
    }
    return word;
}

void rt_settings_print(const rt_settings *s, rt_text *out)
{
    const char *before = "";
    for (size_t i = 0; i < s->n_fields; i++) {
        const rt_field *field = &s->fields[i];
        const setting *value = &s->values[i];
        if (!value->node)
            continue;
        int indent;
        const char *word = print_sections(out, field->path, before, &indent);
        before = field->path;
        rt_text_printf(out, "%*s%s: ", indent, "", word);
        print_value(out, value->node);
        rt_text_printf(out, "  # %s", field->help);
        if (field->type == RT_FIELD_CHOICE)
            rt_text_printf(out, " (%s)", field->choices);
        rt_text_puts(out, value->is_default ? " [default]\n" : value->is_word ? " [command line]\n" : "\n");
    }
}
