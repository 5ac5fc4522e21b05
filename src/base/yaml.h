/* base/yaml.h - a YAML document as a small tree that knows its lines.
 *
 * The part of YAML that people write by hand: mappings with scalar keys, sequences, scalars; one
 * document.  Anchors, aliases, merge keys and tags are refused, duplicate keys are errors, size and
 * depth are bounded.  Errors begin with "where:line:". */
#ifndef RT_BASE_YAML_H
#define RT_BASE_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "retort/error.h"

enum { RT_YAML_BYTES_MAX = 1 << 20, RT_YAML_DEPTH_MAX = 32, RT_YAML_NODES_MAX = 1 << 16 };

typedef enum rt_yaml_kind { RT_YAML_SCALAR, RT_YAML_SEQUENCE, RT_YAML_MAPPING } rt_yaml_kind;

typedef struct rt_yaml_node { /* owned by its rt_yaml */
    rt_yaml_kind kind;
    bool quoted;                       /* a scalar in quotes, or a block: never a number or null */
    const char *key;                   /* of a mapping's member; NULL elsewhere.  NUL-terminated */
    const char *text;                  /* of a scalar, NUL-terminated, valid UTF-8 without NUL */
    size_t count;                      /* of members or items */
    struct rt_yaml_node *first, *next; /* the first child; the next sibling */
    size_t line, column;               /* from 1; of the key where there is one */
} rt_yaml_node;

typedef struct rt_yaml rt_yaml;

/* `where` names the source in errors.  An empty document is an empty mapping. */
rt_status rt_yaml_parse(rt_yaml **out, const char *data, size_t size, const char *where, rt_error *err);
rt_status rt_yaml_read(rt_yaml **out, const char *path, rt_error *err);
void rt_yaml_free(rt_yaml *yaml);
const rt_yaml_node *rt_yaml_root(const rt_yaml *yaml);
const char *rt_yaml_where(const rt_yaml *yaml);
/* The member of a mapping, NULL when it is not there. */
const rt_yaml_node *rt_yaml_find(const rt_yaml_node *mapping, const char *key);

#endif
