/* serve/json_schema.c - a JSON Schema becomes the nodes of a grammar.
 *
 * What is not supported is refused by name, never ignored: a caller who asks for a pattern and gets any
 * string would find out too late.  Schemas that refer to themselves are fine; the depth of the text is
 * bounded by the automaton. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "base/text.h"
#include "serve/json_grammar_nodes.h"

typedef struct compiler {
    rt_grammar *grammar;
    const json_t *root;
    const json_t *seen[RT_GRAMMAR_NODES_MAX]; /* schema of each node */
    rt_error *err;
} compiler;

static rt_status no_memory(rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY, "no room for the schema of an answer");
}

/* Room for `more` elements at the end of an array that grows. */
static bool grow(void **data, size_t *capacity, size_t count, size_t more, size_t size)
{
    if (count + more <= *capacity)
        return true;
    const size_t wanted = (count + more) * 2;
    void *bigger = realloc(*data, wanted * size);
    if (!bigger)
        return false;
    *data = bigger;
    *capacity = wanted;
    return true;
}

static rt_status add_node(compiler *c, const json_t *schema, uint32_t *out)
{
    rt_grammar *g = c->grammar;
    if (g->n_nodes == RT_GRAMMAR_NODES_MAX)
        return rt_error_set(c->err, RT_INVALID, "the schema has more than %d parts", RT_GRAMMAR_NODES_MAX);
    if (!grow((void **)&g->nodes, &g->nodes_capacity, g->n_nodes, 1, sizeof *g->nodes))
        return no_memory(c->err);
    g->nodes[g->n_nodes] =
        (rt_grammar_node){.types = RT_JSON_ANY_BITS, .additional = true, .max_items = UINT32_MAX};
    c->seen[g->n_nodes] = schema;
    *out = (uint32_t)g->n_nodes++;
    return RT_OK;
}

/* Keeps JSON text; without_quotes: the inside of a string. */
static rt_status add_text(compiler *c, const json_t *value, bool without_quotes, rt_grammar_text *out)
{
    rt_grammar *g = c->grammar;
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    if (!text)
        return no_memory(c->err);
    const size_t size = strlen(text) - (without_quotes ? 2 : 0);
    if (g->n_bytes + size > RT_GRAMMAR_BYTES_MAX) {
        free(text);
        return rt_error_set(c->err, RT_INVALID, "the schema's keys and values hold more than %d bytes",
                            RT_GRAMMAR_BYTES_MAX);
    }
    if (!grow((void **)&g->bytes, &g->bytes_capacity, g->n_bytes, size + 1, 1)) {
        free(text);
        return no_memory(c->err);
    }
    memcpy(g->bytes + g->n_bytes, text + (without_quotes ? 1 : 0), size);
    free(text);
    *out = (rt_grammar_text){(uint32_t)g->n_bytes, (uint32_t)size};
    g->n_bytes += size;
    return RT_OK;
}

static int compare_texts(const rt_grammar *g, const rt_grammar_text *a, const rt_grammar_text *b)
{
    const int order = memcmp(g->bytes + a->begin, g->bytes + b->begin, rt_size_min(a->size, b->size));
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

static int compare_literals(const void *a, const void *b, void *grammar)
{
    return compare_texts(grammar, a, b);
}
static int compare_properties(const void *a, const void *b, void *grammar)
{
    const rt_grammar_property *x = a, *y = b;
    return compare_texts(grammar, &x->name, &y->name);
}

static unsigned type_bit(const char *name)
{
    static const struct {
        const char *name;
        unsigned bit;
    } types[] = {{"object", RT_JSON_OBJECT_BIT},   {"array", RT_JSON_ARRAY_BIT},
                 {"string", RT_JSON_STRING_BIT},   {"number", RT_JSON_NUMBER_BIT},
                 {"integer", RT_JSON_INTEGER_BIT}, {"boolean", RT_JSON_BOOLEAN_BIT},
                 {"null", RT_JSON_NULL_BIT}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(name, types[i].name) == 0)
            return types[i].bit;
    return 0;
}

static unsigned type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return RT_JSON_OBJECT_BIT;
    case JSON_ARRAY:
        return RT_JSON_ARRAY_BIT;
    case JSON_STRING:
        return RT_JSON_STRING_BIT;
    case JSON_INTEGER:
        return RT_JSON_INTEGER_BIT | RT_JSON_NUMBER_BIT;
    case JSON_REAL:
        return RT_JSON_NUMBER_BIT;
    case JSON_NULL:
        return RT_JSON_NULL_BIT;
    default:
        return RT_JSON_BOOLEAN_BIT;
    }
}

static rt_status compile_types(compiler *c, const json_t *type, const char *path, unsigned *out)
{
    unsigned bits = 0;
    const size_t count = json_is_array(type) ? json_array_size(type) : 1;
    for (size_t i = 0; i < count; i++) {
        const json_t *one = json_is_array(type) ? json_array_get(type, i) : type;
        const unsigned bit = json_is_string(one) ? type_bit(json_string_value(one)) : 0;
        if (!bit)
            return rt_error_set(
                c->err, RT_INVALID,
                "%.200s.type: '%.40s' is none of object, array, string, number, integer, boolean, null", path,
                json_is_string(one) ? json_string_value(one) : "(no text)");
        bits |= bit;
    }
    if (!bits)
        return rt_error_set(c->err, RT_INVALID, "%.200s.type: the list is empty", path);
    *out = bits;
    return RT_OK;
}

/* enum and const: the values of the wanted types, sorted, each once. */
static rt_status compile_literals(compiler *c, const json_t *schema, const char *path, uint32_t node)
{
    rt_grammar *g = c->grammar;
    const json_t *constant = json_object_get(schema, "const"), *values = json_object_get(schema, "enum");
    if (!constant && !values)
        return RT_OK;
    if (values && (!json_is_array(values) || json_array_size(values) == 0))
        return rt_error_set(c->err, RT_INVALID, "%.200s.enum: must be a list that is not empty", path);
    const unsigned types = g->nodes[node].types;
    const size_t first = g->n_literals, count = values ? json_array_size(values) : 1;
    for (size_t i = 0; i < count; i++) {
        const json_t *value = values ? json_array_get(values, i) : constant;
        if (!(type_of(value) & types) || (values && constant && !json_equal(value, constant)))
            continue;
        if (!grow((void **)&g->literals, &g->literals_capacity, g->n_literals, 1, sizeof *g->literals))
            return no_memory(c->err);
        if (add_text(c, value, false, &g->literals[g->n_literals]) != RT_OK)
            return c->err->status;
        g->n_literals++;
    }
    if (g->n_literals == first)
        return rt_error_set(c->err, RT_INVALID, "%.200s: none of the values of enum or const can be met",
                            path);
    qsort_r(g->literals + first, g->n_literals - first, sizeof *g->literals, compare_literals, g);
    size_t kept = first + 1;
    for (size_t i = first + 1; i < g->n_literals; i++)
        if (compare_texts(g, &g->literals[i], &g->literals[kept - 1]) != 0)
            g->literals[kept++] = g->literals[i];
    g->n_literals = kept;
    g->nodes[node].literals = (uint32_t)first;
    g->nodes[node].n_literals = (uint32_t)(kept - first);
    return RT_OK;
}

static rt_status compile(compiler *c, const json_t *schema, const char *path, unsigned depth, uint32_t *out);

static rt_status read_additional(compiler *c, const json_t *schema, const char *path, bool *out)
{
    const json_t *additional = json_object_get(schema, "additionalProperties");
    *out = !additional || json_is_true(additional);
    if (additional && !json_is_boolean(additional))
        return rt_error_set(c->err, RT_UNSUPPORTED,
                            "%.200s.additionalProperties: only true and false are supported, not a schema",
                            path);
    return RT_OK;
}

/* The names of the object: its properties, and those that are only required, which may hold any value. */
static rt_status collect_names(compiler *c, const json_t *schema, const char *path, bool additional,
                               json_t *names)
{
    const json_t *properties = json_object_get(schema, "properties"),
                 *required = json_object_get(schema, "required");
    if (properties && !json_is_object(properties))
        return rt_error_set(c->err, RT_INVALID, "%.200s.properties: must be an object", path);
    if (required && !json_is_array(required))
        return rt_error_set(c->err, RT_INVALID, "%.200s.required: must be a list", path);
    if (properties && json_object_update(names, (json_t *)properties) != 0)
        return no_memory(c->err);
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (!name)
            return rt_error_set(c->err, RT_INVALID, "%.200s.required[%zu]: must be a text", path, i);
        if (json_object_get(names, name))
            continue;
        if (!additional)
            return rt_error_set(c->err, RT_INVALID,
                                "%.200s: '%.60s' is required but neither a property nor allowed beside them",
                                path, name);
        if (json_object_set_new(names, name, json_true()) != 0)
            return no_memory(c->err);
    }
    if (json_object_size(names) > RT_GRAMMAR_PROPERTIES_MAX)
        return rt_error_set(c->err, RT_UNSUPPORTED, "%.200s.properties: more than %d are not supported", path,
                            RT_GRAMMAR_PROPERTIES_MAX);
    return RT_OK;
}

/* The properties themselves: their nodes first (which may add properties of their own), then a run of them.
 */
static rt_status compile_names(compiler *c, const json_t *names, const char *path, unsigned depth,
                               uint32_t node)
{
    rt_grammar *g = c->grammar;
    rt_grammar_property run[RT_GRAMMAR_PROPERTIES_MAX];
    size_t count = 0;
    const char *name;
    json_t *schema;
    json_object_foreach((json_t *)names, name, schema)
    {
        char below[256];
        (void)snprintf(below, sizeof below, "%.180s.properties.%.60s", path, name);
        json_t *text = json_string(name);
        const rt_status status = text ? add_text(c, text, true, &run[count].name) : no_memory(c->err);
        json_decref(text);
        if (status != RT_OK || compile(c, schema, below, depth + 1, &run[count].node) != RT_OK)
            return c->err->status;
        count++;
    }
    qsort_r(run, count, sizeof *run, compare_properties, g);
    if (!grow((void **)&g->properties, &g->properties_capacity, g->n_properties, count, sizeof *run))
        return no_memory(c->err);
    if (count > 0)
        memcpy(g->properties + g->n_properties, run, count * sizeof *run);
    g->nodes[node].properties = (uint32_t)g->n_properties;
    g->nodes[node].n_properties = (uint32_t)count;
    g->n_properties += count;
    return RT_OK;
}

static void mark_required(compiler *c, const json_t *required, uint32_t node_index)
{
    rt_grammar *g = c->grammar;
    rt_grammar_node *node = &g->nodes[node_index];
    for (size_t i = 0; i < json_array_size(required); i++) {
        json_t *name = json_array_get(required, i);
        char *text = json_dumps(name, JSON_ENCODE_ANY);
        const size_t size = text ? strlen(text) - 2 : 0;
        for (uint32_t p = 0; text && p < node->n_properties; p++) {
            const rt_grammar_text *own = &g->properties[node->properties + p].name;
            if (own->size == size && memcmp(g->bytes + own->begin, text + 1, size) == 0)
                node->required |= UINT64_C(1) << p;
        }
        free(text);
    }
}

static rt_status compile_object(compiler *c, const json_t *schema, const char *path, unsigned depth,
                                uint32_t node)
{
    bool additional = true;
    json_t *names = json_object();
    rt_status status = names ? read_additional(c, schema, path, &additional) : no_memory(c->err);
    if (status == RT_OK)
        status = collect_names(c, schema, path, additional, names);
    if (status == RT_OK)
        status = compile_names(c, names, path, depth, node);
    json_decref(names);
    if (status != RT_OK)
        return status;
    c->grammar->nodes[node].additional = additional;
    mark_required(c, json_object_get(schema, "required"), node);
    return RT_OK;
}

static rt_status read_count(compiler *c, const json_t *schema, const char *key, const char *path,
                            uint32_t *out)
{
    const json_t *value = json_object_get(schema, key);
    if (!value)
        return RT_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > 1000000)
        return rt_error_set(c->err, RT_INVALID, "%.200s.%s: must be a whole number from 0 to 1000000", path,
                            key);
    *out = (uint32_t)json_integer_value(value);
    return RT_OK;
}

static rt_status compile_array(compiler *c, const json_t *schema, const char *path, unsigned depth,
                               uint32_t node)
{
    uint32_t items = 0, min = 0, max = UINT32_MAX;
    if (read_count(c, schema, "minItems", path, &min) != RT_OK ||
        read_count(c, schema, "maxItems", path, &max) != RT_OK)
        return c->err->status;
    if (min > max)
        return rt_error_set(c->err, RT_INVALID, "%.200s: minItems is more than maxItems", path);
    const json_t *of = json_object_get(schema, "items");
    if (of) {
        char below[256];
        (void)snprintf(below, sizeof below, "%.240s.items", path);
        if (compile(c, of, below, depth + 1, &items) != RT_OK)
            return c->err->status;
    }
    c->grammar->nodes[node].items = items;
    c->grammar->nodes[node].min_items = min;
    c->grammar->nodes[node].max_items = max;
    return RT_OK;
}

/* "#" or "#/a/b" (RFC 6901) within the document; NULL: no such place. */
static const json_t *resolve(const json_t *root, const char *reference)
{
    if (*reference++ != '#')
        return NULL;
    const json_t *at = root;
    while (at && *reference == '/') {
        char name[256];
        size_t size = 0;
        for (reference++; *reference && *reference != '/' && size < sizeof name - 1; reference++) {
            const bool escaped = reference[0] == '~' && (reference[1] == '0' || reference[1] == '1');
            name[size++] = !escaped ? *reference : reference[1] == '0' ? '~' : '/';
            reference += escaped;
        }
        name[size] = '\0';
        at = json_object_get(at, name);
    }
    return *reference ? NULL : at;
}

static rt_status compile_reference(compiler *c, const json_t *schema, const char *path, unsigned depth,
                                   uint32_t *out)
{
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    const json_t *target = reference ? resolve(c->root, reference) : NULL;
    if (!target)
        return rt_error_set(c->err, RT_INVALID, "%.200s.$ref: '%.80s' is no place in this schema", path,
                            reference ? reference : "(no text)");
    return compile(c, target, path, depth + 1, out);
}

static bool is_annotation(const char *key)
{
    static const char *const known[] = {"title",       "description", "default",  "examples",
                                        "$schema",     "$id",         "$comment", "$defs",
                                        "definitions", "deprecated",  "readOnly", "writeOnly"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(key, known[i]) == 0)
            return true;
    return false;
}

static bool is_supported(const char *key)
{
    static const char *const known[] = {"type",  "properties", "required", "additionalProperties",
                                        "items", "minItems",   "maxItems", "enum",
                                        "const"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(key, known[i]) == 0)
            return true;
    return false;
}

static rt_status check_keywords(compiler *c, const json_t *schema, const char *path, bool reference)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)schema, key, value)
    {
        if (is_annotation(key) || strcmp(key, "$ref") == 0 || (!reference && is_supported(key)))
            continue;
        return rt_error_set(c->err, RT_UNSUPPORTED, "%.200s: the keyword '%.60s' is not supported%s", path,
                            key, reference ? " beside $ref" : "");
    }
    return RT_OK;
}

/* Where no type is named, the keywords say which is meant; without any, every value is. */
static unsigned implied_types(const json_t *schema)
{
    if (json_object_get(schema, "properties") || json_object_get(schema, "required") ||
        json_object_get(schema, "additionalProperties"))
        return RT_JSON_OBJECT_BIT;
    if (json_object_get(schema, "items") || json_object_get(schema, "minItems") ||
        json_object_get(schema, "maxItems"))
        return RT_JSON_ARRAY_BIT;
    return RT_JSON_ANY_BITS;
}

static rt_status compile(compiler *c, const json_t *schema, const char *path, unsigned depth, uint32_t *out)
{
    if (json_is_true(schema)) {
        *out = 0;
        return RT_OK;
    }
    if (!json_is_object(schema))
        return rt_error_set(c->err, RT_INVALID, "%.200s: must be an object or true", path);
    if (depth > 2 * RT_GRAMMAR_DEPTH_MAX)
        return rt_error_set(c->err, RT_INVALID,
                            "%.200s: the schema is nested too deeply, or refers to itself only", path);
    for (size_t i = 1; i < c->grammar->n_nodes; i++)
        if (c->seen[i] == schema) {
            *out = (uint32_t)i;
            return RT_OK;
        }
    const bool reference = json_object_get(schema, "$ref") != NULL;
    if (check_keywords(c, schema, path, reference) != RT_OK)
        return c->err->status;
    if (reference)
        return compile_reference(c, schema, path, depth, out);
    uint32_t node;
    if (add_node(c, schema, &node) != RT_OK)
        return c->err->status;
    *out = node;
    unsigned types = implied_types(schema);
    const json_t *type = json_object_get(schema, "type");
    if (type && compile_types(c, type, path, &types) != RT_OK)
        return c->err->status;
    c->grammar->nodes[node].types = types;
    if ((types & RT_JSON_OBJECT_BIT) && compile_object(c, schema, path, depth, node) != RT_OK)
        return c->err->status;
    if ((types & RT_JSON_ARRAY_BIT) && compile_array(c, schema, path, depth, node) != RT_OK)
        return c->err->status;
    return compile_literals(c, schema, path, node);
}

static rt_status make(rt_grammar **out, const json_t *schema, rt_error *err)
{
    *out = NULL;
    compiler *c = calloc(1, sizeof *c);
    rt_grammar *grammar = calloc(1, sizeof *grammar);
    uint32_t any, root = 0;
    rt_status status = c && grammar ? RT_OK : no_memory(err);
    if (status == RT_OK) {
        *c = (compiler){.grammar = grammar, .root = schema, .err = err};
        status = add_node(c, NULL, &any);
    }
    if (status == RT_OK && schema)
        status = compile(c, schema, "schema", 0, &root);
    else if (status == RT_OK && (status = add_node(c, NULL, &root)) == RT_OK)
        grammar->nodes[root].types = RT_JSON_OBJECT_BIT;
    free(c);
    if (status != RT_OK) {
        rt_grammar_close(grammar);
        return status;
    }
    grammar->root = root;
    *out = grammar;
    return RT_OK;
}

rt_status rt_grammar_object(rt_grammar **out, rt_error *err) { return make(out, NULL, err); }

rt_status rt_grammar_schema(rt_grammar **out, const json_t *schema, rt_error *err)
{
    return make(out, schema, err);
}

void rt_grammar_close(rt_grammar *grammar)
{
    if (!grammar)
        return;
    free(grammar->nodes);
    free(grammar->properties);
    free(grammar->literals);
    free(grammar->bytes);
    free(grammar);
}
