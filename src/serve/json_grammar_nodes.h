/* serve/json_grammar_nodes.h - a compiled schema: what json_schema.c writes and json_grammar.c reads. */
#ifndef RT_SERVE_JSON_GRAMMAR_NODES_H
#define RT_SERVE_JSON_GRAMMAR_NODES_H

#include "serve/json_grammar.h"

enum {
    RT_JSON_OBJECT_BIT = 1,
    RT_JSON_ARRAY_BIT = 2,
    RT_JSON_STRING_BIT = 4,
    RT_JSON_NUMBER_BIT = 8,
    RT_JSON_INTEGER_BIT = 16,
    RT_JSON_BOOLEAN_BIT = 32,
    RT_JSON_NULL_BIT = 64,
    RT_JSON_ANY_BITS = 1 | 2 | 4 | 8 | 32 | 64
};

typedef struct rt_grammar_text { /* JSON as it is written: a literal, or a key without its quotes */
    uint32_t begin, size;        /* in rt_grammar.bytes */
} rt_grammar_text;

typedef struct rt_grammar_property {
    rt_grammar_text name;
    uint32_t node;
} rt_grammar_property;

typedef struct rt_grammar_node {
    unsigned types;                    /* RT_JSON_*_BIT; not looked at when there are literals */
    uint32_t literals, n_literals;     /* sorted by bytes; enum and const */
    uint32_t properties, n_properties; /* sorted by name */
    uint64_t required;                 /* bits of properties */
    bool additional;                   /* other keys may come, with any value */
    uint32_t items;                    /* node */
    uint32_t min_items, max_items;     /* max UINT32_MAX: none */
} rt_grammar_node;

struct rt_grammar {
    rt_grammar_node *nodes; /* 0: any value; `root`: the whole text */
    size_t n_nodes, nodes_capacity;
    uint32_t root;
    rt_grammar_property *properties;
    size_t n_properties, properties_capacity;
    rt_grammar_text *literals;
    size_t n_literals, literals_capacity;
    char *bytes;
    size_t n_bytes, bytes_capacity;
};

#endif
