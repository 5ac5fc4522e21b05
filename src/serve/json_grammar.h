/* serve/json_grammar.h - which bytes may come next in a JSON text that obeys a schema.
 *
 * A grammar is made once from a request's response_format and is immutable.  A state is a plain value that
 * can be copied; it moves byte by byte, so tokens that hold half a character or two syntactic elements need
 * no special case.  Every text that reaches `complete` is JSON in valid UTF-8, without duplicate keys among
 * those that the schema names, and valid under the schema.
 *
 * Narrower than JSON on purpose, so that a model cannot wander: at most RT_GRAMMAR_BLANKS_MAX blanks in a row
 * and none around the whole, no escapes in keys that the schema does not name, no \u escapes of surrogates,
 * at most RT_GRAMMAR_DEPTH_MAX open objects and arrays. */
#ifndef RT_SERVE_JSON_GRAMMAR_H
#define RT_SERVE_JSON_GRAMMAR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

enum {
    RT_GRAMMAR_DEPTH_MAX = 64,
    RT_GRAMMAR_BLANKS_MAX = 32,
    RT_GRAMMAR_NODES_MAX = 4096,
    RT_GRAMMAR_PROPERTIES_MAX = 64, /* of one object */
    RT_GRAMMAR_BYTES_MAX = 1 << 20  /* of all keys and literals */
};

typedef struct rt_grammar rt_grammar;

/* Any JSON object. */
rt_status rt_grammar_object(rt_grammar **out, rt_error *err);
/* The subset of JSON Schema: type (one or several), properties, required, additionalProperties (true, false),
 * items, minItems, maxItems, enum, const, $ref within the document, true, {}; titles, descriptions and other
 * annotations are allowed and ignored.  RT_UNSUPPORTED names any other keyword and where it stands,
 * RT_INVALID what is malformed or cannot be met. */
rt_status rt_grammar_schema(rt_grammar **out, const json_t *schema, rt_error *err);
void rt_grammar_close(rt_grammar *grammar); /* NULL is allowed */

typedef struct rt_grammar_frame { /* one construct that has begun and not ended */
    uint8_t kind, phase;
    uint32_t node;
    uint32_t lo, hi;   /* literal, key: candidates, sorted; array: lo counts the items */
    uint32_t position; /* literal, key, word: bytes matched */
    uint64_t used;     /* object: bits of properties that were written */
} rt_grammar_frame;

typedef struct rt_grammar_state {
    uint32_t n_frames, blanks;
    uint8_t utf8_left, utf8_low,
        utf8_high; /* of a character that has begun: bytes to come, range of the next */
    rt_grammar_frame frames[RT_GRAMMAR_DEPTH_MAX + 2];
} rt_grammar_state;

void rt_grammar_begin(const rt_grammar *grammar, rt_grammar_state *state);
/* Copies what is in use. */
void rt_grammar_copy(rt_grammar_state *to, const rt_grammar_state *from);
/* Moves over one byte; false: it may not come here, and the state is not to be used further. */
bool rt_grammar_step(const rt_grammar *grammar, rt_grammar_state *state, unsigned char byte);
/* May the text end here? */
bool rt_grammar_complete(const rt_grammar *grammar, const rt_grammar_state *state);
/* Inside a string that the schema leaves free, between two characters: any text without quotes, backslashes
 * and control characters may come. */
bool rt_grammar_in_free_string(const rt_grammar_state *state);

#endif
