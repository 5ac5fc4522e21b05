/* base/yaml.c - see yaml.h.
 *
 * libyaml gives a stream of events; the tree is built with a stack of open collections, so that depth is a
 * number that is checked and not the depth of calls. */
#include "base/yaml.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/text.h"

struct rt_yaml {
    rt_arena arena;
    rt_yaml_node *root;
    const char *where;
};

typedef struct builder {
    rt_yaml *yaml;
    rt_error *err;
    size_t nodes, depth;
    struct {
        rt_yaml_node *node, *last;
    } open[RT_YAML_DEPTH_MAX];
    const char *key; /* read, its value not yet */
    size_t key_line, key_column;
    bool is_done; /* the document has ended */
} builder;

static rt_status fail_at(const builder *b, size_t line, const char *what)
{
    return rt_error_set(b->err, RT_INVALID, "%.300s:%zu: %s", b->yaml->where, line, what);
}

static const char *keep_text(builder *b, const unsigned char *data, size_t size)
{
    char *out = rt_arena_push_raw(&b->yaml->arena, size + 1, 1);
    if (!out)
        return NULL;
    memcpy(out, data, size);
    out[size] = '\0';
    return out;
}

static rt_status add_node(builder *b, rt_yaml_node **out, rt_yaml_kind kind, const yaml_mark_t *mark)
{
    const size_t line = mark->line + 1;
    if (++b->nodes > RT_YAML_NODES_MAX)
        return fail_at(b, line, "too many values for a recipe");
    rt_yaml_node *node = rt_arena_push(&b->yaml->arena, 1, sizeof *node);
    if (!node)
        return fail_at(b, line, "the document is too large");
    *node = (rt_yaml_node){.kind = kind, .line = line, .column = mark->column + 1};
    if (b->depth == 0) {
        b->yaml->root = node;
    } else {
        rt_yaml_node *parent = b->open[b->depth - 1].node;
        if (parent->kind == RT_YAML_MAPPING) {
            node->key = b->key;
            node->line = b->key_line;
            node->column = b->key_column;
            b->key = NULL;
        }
        rt_yaml_node *last = b->open[b->depth - 1].last;
        *(last ? &last->next : &parent->first) = node;
        b->open[b->depth - 1].last = node;
        parent->count++;
    }
    *out = node;
    return RT_OK;
}

/* In a mapping, is the next event a key? */
static bool wants_key(const builder *b)
{
    return b->depth > 0 && b->open[b->depth - 1].node->kind == RT_YAML_MAPPING && !b->key;
}

static rt_status on_key(builder *b, const yaml_event_t *event)
{
    const size_t line = event->start_mark.line + 1;
    const char *key = keep_text(b, event->data.scalar.value, event->data.scalar.length);
    if (!key)
        return fail_at(b, line, "the document is too large");
    const rt_yaml_node *twin = rt_yaml_find(b->open[b->depth - 1].node, key);
    if (twin)
        return rt_error_set(b->err, RT_INVALID, "%.300s:%zu: the key '%.80s' stands here and in line %zu",
                            b->yaml->where, line, key, twin->line);
    if (strcmp(key, "<<") == 0)
        return fail_at(b, line, "merge keys ('<<') are not allowed: write the keys out");
    b->key = key;
    b->key_line = line;
    b->key_column = event->start_mark.column + 1;
    return RT_OK;
}

static rt_status on_scalar(builder *b, const yaml_event_t *event)
{
    const size_t line = event->start_mark.line + 1;
    const unsigned char *value = event->data.scalar.value;
    if (memchr(value, '\0', event->data.scalar.length))
        return fail_at(b, line, "a text holds a NUL character");
    if (event->data.scalar.tag)
        return fail_at(b, line, "tags ('!') are not allowed");
    if (wants_key(b))
        return on_key(b, event);
    rt_yaml_node *node = NULL;
    if (add_node(b, &node, RT_YAML_SCALAR, &event->start_mark) != RT_OK)
        return b->err->status;
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->text = keep_text(b, value, event->data.scalar.length);
    return node->text ? RT_OK : fail_at(b, line, "the document is too large");
}

static rt_status on_open(builder *b, const yaml_event_t *event, rt_yaml_kind kind)
{
    const size_t line = event->start_mark.line + 1;
    if (wants_key(b))
        return fail_at(b, line, "a key must be a plain word");
    if (b->depth == RT_YAML_DEPTH_MAX)
        return fail_at(b, line, "nested too deep");
    rt_yaml_node *node = NULL;
    if (add_node(b, &node, kind, &event->start_mark) != RT_OK)
        return b->err->status;
    b->open[b->depth].node = node;
    b->open[b->depth].last = NULL;
    b->depth++;
    return RT_OK;
}

static rt_status on_event(builder *b, const yaml_event_t *event)
{
    const size_t line = event->start_mark.line + 1;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        if (event->data.scalar.anchor)
            return fail_at(b, line, "anchors ('&') are not allowed: write the value out");
        return on_scalar(b, event);
    case YAML_SEQUENCE_START_EVENT:
        if (event->data.sequence_start.anchor || event->data.sequence_start.tag)
            return fail_at(b, line, "anchors ('&') and tags ('!') are not allowed: write the value out");
        return on_open(b, event, RT_YAML_SEQUENCE);
    case YAML_MAPPING_START_EVENT:
        if (event->data.mapping_start.anchor || event->data.mapping_start.tag)
            return fail_at(b, line, "anchors ('&') and tags ('!') are not allowed: write the value out");
        return on_open(b, event, RT_YAML_MAPPING);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        assert(b->depth > 0);
        b->depth--;
        return RT_OK;
    case YAML_ALIAS_EVENT:
        return fail_at(b, line, "aliases ('*') are not allowed: write the value out");
    case YAML_DOCUMENT_START_EVENT:
        if (b->yaml->root)
            return fail_at(b, line, "a second document begins here; one is read");
        return RT_OK;
    case YAML_STREAM_END_EVENT:
        b->is_done = true;
        return RT_OK;
    default: /* stream start, document end */
        return RT_OK;
    }
}

static rt_status syntax_error(const builder *b, const yaml_parser_t *parser)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return rt_error_set(b->err, RT_NO_MEMORY, "%.300s: no memory to read it", b->yaml->where);
    if (parser->error == YAML_READER_ERROR)
        return rt_error_set(b->err, RT_INVALID, "%.300s: byte %zu: %.150s", b->yaml->where,
                            parser->problem_offset, parser->problem ? parser->problem : "is not valid UTF-8");
    return rt_error_set(b->err, RT_INVALID, "%.300s:%zu: is not valid YAML: %.150s", b->yaml->where,
                        parser->problem_mark.line + 1, parser->problem ? parser->problem : "syntax error");
}

static rt_status build(builder *b, const char *data, size_t size)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return rt_error_set(b->err, RT_NO_MEMORY, "%.300s: no memory to read it", b->yaml->where);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)data, size);
    rt_status status = RT_OK;
    while (status == RT_OK && !b->is_done) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            status = syntax_error(b, &parser);
            break;
        }
        status = on_event(b, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    if (status == RT_OK && !b->yaml->root) {
        const yaml_mark_t start = {0};
        rt_yaml_node *root = NULL;
        status = add_node(b, &root, RT_YAML_MAPPING, &start);
    }
    return status;
}

rt_status rt_yaml_parse(rt_yaml **out, const char *data, size_t size, const char *where, rt_error *err)
{
    *out = NULL;
    if (size > RT_YAML_BYTES_MAX)
        return rt_error_set(err, RT_INVALID, "%.300s: has %zu bytes, more than the %d of a recipe", where,
                            size, (int)RT_YAML_BYTES_MAX);
    rt_yaml *yaml = calloc(1, sizeof *yaml);
    if (!yaml)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory to read it", where);
    /* A node and its text take up to two lines of 64 bytes and a pad each; texts are no longer than the file.
     */
    const size_t nodes_max = size + 2 < RT_YAML_NODES_MAX ? size + 2 : RT_YAML_NODES_MAX;
    builder b = {.yaml = yaml, .err = err};
    if (rt_arena_init(&yaml->arena, nodes_max * 512 + 4 * size + strlen(where) + 4096, err) != RT_OK) {
        rt_yaml_free(yaml);
        return rt_error_within(err, where);
    }
    yaml->where = keep_text(&b, (const unsigned char *)where, strlen(where));
    if (build(&b, data, size) != RT_OK) {
        rt_yaml_free(yaml);
        return err->status;
    }
    *out = yaml;
    return RT_OK;
}

rt_status rt_yaml_read(rt_yaml **out, const char *path, rt_error *err)
{
    char *data = NULL;
    size_t size = 0;
    *out = NULL;
    if (rt_file_read(&data, &size, path, RT_YAML_BYTES_MAX, err) != RT_OK)
        return err->status;
    const rt_status status = rt_yaml_parse(out, data, size, path, err);
    free(data);
    return status;
}

void rt_yaml_free(rt_yaml *yaml)
{
    if (!yaml)
        return;
    rt_arena_deinit(&yaml->arena);
    free(yaml);
}

const rt_yaml_node *rt_yaml_root(const rt_yaml *yaml) { return yaml->root; }
const char *rt_yaml_where(const rt_yaml *yaml) { return yaml->where; }

const rt_yaml_node *rt_yaml_find(const rt_yaml_node *mapping, const char *key)
{
    if (mapping->kind != RT_YAML_MAPPING)
        return NULL;
    for (const rt_yaml_node *node = mapping->first; node; node = node->next)
        if (strcmp(node->key, key) == 0)
            return node;
    return NULL;
}
