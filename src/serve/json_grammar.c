/* serve/json_grammar.c - the automaton of json_grammar.h: a stack of constructs that have begun.
 *
 * The frame on top decides what a byte means.  A value that ends only with the byte after it (a number, a
 * literal such as 1 beside 10) is popped and the byte is shown to the frame below. */
#include "serve/json_grammar.h"

#include <string.h>

#include "serve/json_grammar_nodes.h"

enum { VALUE, STRING, NUMBER, WORD, LITERAL, OBJECT, KEY, ARRAY };
/* phases of OBJECT and ARRAY */
enum { OPENED, AFTER_COMMA, AFTER_KEY, AFTER_VALUE };
/* phases of STRING; 4 hexadecimal digits follow HEX_FIRST */
enum { PLAIN, ESCAPE, HEX_FIRST, HEX_AFTER_D, HEX_SECOND, HEX_THIRD, HEX_FOURTH };
/* phases of NUMBER, as in RFC 8259 */
enum { SIGN, ZERO, DIGITS, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, EXPONENT_DIGITS };

static const char *const words[] = {"true", "false", "null"};

static bool is_blank(unsigned char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
static bool is_digit(unsigned char c) { return c >= '0' && c <= '9'; }
static bool is_hex(unsigned char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static rt_grammar_frame *top(rt_grammar_state *state) { return &state->frames[state->n_frames - 1]; }

static bool push(rt_grammar_state *state, uint8_t kind, uint32_t node)
{
    if (state->n_frames == sizeof state->frames / sizeof state->frames[0])
        return false;
    state->frames[state->n_frames++] = (rt_grammar_frame){.kind = kind, .node = node};
    return true;
}

void rt_grammar_begin(const rt_grammar *grammar, rt_grammar_state *state)
{
    *state = (rt_grammar_state){0};
    (void)push(state, VALUE, grammar->root);
}

void rt_grammar_copy(rt_grammar_state *to, const rt_grammar_state *from)
{
    memcpy(to, from, offsetof(rt_grammar_state, frames) + from->n_frames * sizeof from->frames[0]);
}

/* The character that `c` begins or goes on (Unicode 3.9, table 3-7); false: ill-formed here. */
static bool step_utf8(rt_grammar_state *state, unsigned char c)
{
    if (state->utf8_left > 0) {
        if (c < state->utf8_low || c > state->utf8_high)
            return false;
        state->utf8_left--;
        state->utf8_low = 0x80;
        state->utf8_high = 0xBF;
        return true;
    }
    if (c < 0x80)
        return true;
    if (c < 0xC2 || c > 0xF4)
        return false;
    state->utf8_left = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
    state->utf8_low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    state->utf8_high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    return true;
}

static bool step_string(rt_grammar_state *state, unsigned char c)
{
    rt_grammar_frame *frame = top(state);
    switch (frame->phase) {
    case PLAIN:
        if (state->utf8_left == 0 && c == '"') {
            state->n_frames--;
            return true;
        }
        if (state->utf8_left == 0 && c == '\\') {
            frame->phase = ESCAPE;
            return true;
        }
        return c >= 0x20 && step_utf8(state, c);
    case ESCAPE:
        frame->phase = c == 'u' ? HEX_FIRST : PLAIN;
        return c == 'u' || (c && strchr("\"\\/bfnrt", c));
    case HEX_FIRST: /* D8 to DF would begin a surrogate, which alone is no character */
        frame->phase = c == 'd' || c == 'D' ? HEX_AFTER_D : HEX_SECOND;
        return is_hex(c);
    case HEX_AFTER_D:
        frame->phase = HEX_THIRD;
        return c >= '0' && c <= '7';
    case HEX_SECOND:
    case HEX_THIRD:
        frame->phase++;
        return is_hex(c);
    default:
        frame->phase = PLAIN;
        return is_hex(c);
    }
}

static bool number_may_end(const rt_grammar_frame *frame)
{
    return frame->phase == ZERO || frame->phase == DIGITS || frame->phase == FRACTION ||
           frame->phase == EXPONENT_DIGITS;
}

/* true: the byte belongs to the number. */
static bool step_number(const rt_grammar *grammar, rt_grammar_frame *frame, unsigned char c)
{
    const bool real = grammar->nodes[frame->node].types & RT_JSON_NUMBER_BIT;
    switch (frame->phase) {
    case SIGN:
        frame->phase = c == '0' ? ZERO : DIGITS;
        return is_digit(c);
    case ZERO:
    case DIGITS:
        if (is_digit(c))
            return frame->phase == DIGITS;
        if (real && c == '.') {
            frame->phase = POINT;
            return true;
        }
        break;
    case POINT:
        frame->phase = FRACTION;
        return is_digit(c);
    case FRACTION:
        if (is_digit(c))
            return true;
        break;
    case EXPONENT:
        frame->phase = is_digit(c) ? EXPONENT_DIGITS : EXPONENT_SIGN;
        return is_digit(c) || c == '+' || c == '-';
    case EXPONENT_SIGN:
    case EXPONENT_DIGITS:
        frame->phase = EXPONENT_DIGITS;
        return is_digit(c);
    default:
        return false;
    }
    if (!real || (c != 'e' && c != 'E'))
        return false;
    frame->phase = EXPONENT;
    return true;
}

static bool step_word(rt_grammar_state *state, unsigned char c)
{
    rt_grammar_frame *frame = top(state);
    const char *word = words[frame->lo];
    if ((unsigned char)word[frame->position] != c)
        return false;
    frame->position++;
    if (!word[frame->position])
        state->n_frames--;
    return true;
}

static int byte_at(const rt_grammar *grammar, const rt_grammar_text *text, uint32_t position)
{
    return position < text->size ? (unsigned char)grammar->bytes[text->begin + position] : -1;
}

/* Narrows the sorted candidates [lo, hi), which agree in `position` bytes, to those that go on with c. */
static bool narrow_literals(const rt_grammar *grammar, rt_grammar_frame *frame, unsigned char c)
{
    uint32_t lo = frame->lo, hi = frame->hi;
    while (lo < hi && byte_at(grammar, &grammar->literals[lo], frame->position) != c)
        lo++;
    while (hi > lo && byte_at(grammar, &grammar->literals[hi - 1], frame->position) != c)
        hi--;
    if (lo == hi)
        return false;
    frame->lo = lo;
    frame->hi = hi;
    frame->position++;
    return true;
}

static bool literal_may_end(const rt_grammar *grammar, const rt_grammar_frame *frame)
{
    return grammar->literals[frame->lo].size == frame->position; /* the shortest of them sorts first */
}

/* Keys that still may follow: an unused one of the candidates, or any where others are allowed. */
static bool has_unused(const rt_grammar_node *node, uint64_t used, uint32_t lo, uint32_t hi)
{
    for (uint32_t i = lo; i < hi; i++)
        if (!(used >> (i - node->properties) & 1))
            return true;
    return false;
}

static bool may_have_key(const rt_grammar_node *node, uint64_t used)
{
    return node->additional ||
           has_unused(node, used, node->properties, node->properties + node->n_properties);
}

/* The key on top of its object is complete: the object learns which one it is and expects its value. */
static bool end_key(const rt_grammar *grammar, rt_grammar_state *state)
{
    const rt_grammar_frame key = *top(state);
    rt_grammar_frame *object = &state->frames[state->n_frames - 2];
    const rt_grammar_node *node = &grammar->nodes[object->node];
    uint32_t value = 0;
    const bool named = key.lo < key.hi && grammar->properties[key.lo].name.size == key.position;
    if (named) {
        const uint64_t bit = UINT64_C(1) << (key.lo - node->properties);
        if (object->used & bit)
            return false;
        object->used |= bit;
        value = grammar->properties[key.lo].node;
    } else if (!node->additional || key.phase == ESCAPE) {
        return false;
    }
    state->n_frames--;
    object->phase = AFTER_KEY;
    object->lo = value;
    return true;
}

/* A key that the schema names may hold escapes (phase ESCAPE from the first on; `used`: a backslash was just
 * read, so a quote does not end the key); other keys may not. */
static bool step_key(const rt_grammar *grammar, rt_grammar_state *state, unsigned char c)
{
    rt_grammar_frame *key = top(state);
    const rt_grammar_frame *object = key - 1;
    const rt_grammar_node *node = &grammar->nodes[object->node];
    if (c == '"' && !key->used && state->utf8_left == 0)
        return end_key(grammar, state);
    uint32_t lo = key->lo, hi = key->hi;
    while (lo < hi && byte_at(grammar, &grammar->properties[lo].name, key->position) != c)
        lo++;
    while (hi > lo && byte_at(grammar, &grammar->properties[hi - 1].name, key->position) != c)
        hi--;
    const bool free_key = node->additional && key->phase != ESCAPE && c >= 0x20 && c != '"' && c != '\\';
    if (!free_key && !has_unused(node, object->used, lo, hi))
        return false;
    key->lo = lo;
    key->hi = hi;
    key->position++;
    key->used = c == '\\' && !key->used;
    if (c == '\\')
        key->phase = ESCAPE;
    return step_utf8(state, c);
}

static bool begin_key(const rt_grammar *grammar, rt_grammar_state *state, unsigned char c)
{
    const rt_grammar_frame *object = top(state);
    const rt_grammar_node *node = &grammar->nodes[object->node];
    if (c != '"' || !may_have_key(node, object->used) || !push(state, KEY, object->node))
        return false;
    rt_grammar_frame *key = top(state);
    key->lo = node->properties;
    key->hi = node->properties + node->n_properties;
    return true;
}

static bool step_object(const rt_grammar *grammar, rt_grammar_state *state, unsigned char c)
{
    rt_grammar_frame *object = top(state);
    const rt_grammar_node *node = &grammar->nodes[object->node];
    const bool may_close = (node->required & ~object->used) == 0;
    switch (object->phase) {
    case OPENED:
        if (c == '}' && may_close) {
            state->n_frames--;
            return true;
        }
        return begin_key(grammar, state, c);
    case AFTER_COMMA:
        return begin_key(grammar, state, c);
    case AFTER_KEY:
        object->phase = AFTER_VALUE;
        return c == ':' && push(state, VALUE, object->lo);
    default:
        if (c == '}' && may_close) {
            state->n_frames--;
            return true;
        }
        object->phase = AFTER_COMMA;
        return c == ',' && may_have_key(node, object->used);
    }
}

static bool step_value(const rt_grammar *grammar, rt_grammar_state *state, unsigned char c);

static bool begin_item(const rt_grammar *grammar, rt_grammar_state *state, unsigned char c)
{
    rt_grammar_frame *array = top(state);
    const rt_grammar_node *node = &grammar->nodes[array->node];
    if (array->lo == node->max_items)
        return false;
    array->lo++;
    array->phase = AFTER_VALUE;
    return push(state, VALUE, node->items) && step_value(grammar, state, c);
}

static bool step_array(const rt_grammar *grammar, rt_grammar_state *state, unsigned char c)
{
    rt_grammar_frame *array = top(state);
    const rt_grammar_node *node = &grammar->nodes[array->node];
    if (array->phase == OPENED || array->phase == AFTER_VALUE) {
        if (c == ']' && array->lo >= node->min_items) {
            state->n_frames--;
            return true;
        }
        if (array->phase == OPENED)
            return begin_item(grammar, state, c);
        array->phase = AFTER_COMMA;
        return c == ',' && array->lo < node->max_items;
    }
    return begin_item(grammar, state, c);
}

/* The first byte of a value says of which kind it is. */
static bool step_value(const rt_grammar *grammar, rt_grammar_state *state, unsigned char c)
{
    rt_grammar_frame *frame = top(state);
    const rt_grammar_node *node = &grammar->nodes[frame->node];
    if (node->n_literals > 0) {
        frame->kind = LITERAL;
        frame->lo = node->literals;
        frame->hi = node->literals + node->n_literals;
        return narrow_literals(grammar, frame, c);
    }
    unsigned need;
    if (c == '{' || c == '[') {
        need = c == '{' ? RT_JSON_OBJECT_BIT : RT_JSON_ARRAY_BIT;
        frame->kind = c == '{' ? OBJECT : ARRAY;
        frame->phase = OPENED;
        /* what it holds needs two more frames; an object or array that could never close is not begun */
        if (state->n_frames + 2 > sizeof state->frames / sizeof state->frames[0])
            return false;
    } else if (c == '"') {
        need = RT_JSON_STRING_BIT;
        frame->kind = STRING;
        frame->phase = PLAIN;
    } else if (c == '-' || is_digit(c)) {
        need = RT_JSON_NUMBER_BIT | RT_JSON_INTEGER_BIT;
        frame->kind = NUMBER;
        frame->phase = c == '-' ? SIGN : c == '0' ? ZERO : DIGITS;
    } else {
        need = c == 'n' ? RT_JSON_NULL_BIT : RT_JSON_BOOLEAN_BIT;
        frame->kind = WORD;
        frame->lo = c == 't' ? 0 : c == 'f' ? 1 : 2;
        frame->position = 1;
        if (c != 't' && c != 'f' && c != 'n')
            return false;
    }
    return (node->types & need) != 0;
}

/* Where blanks may stand: between the parts of objects and arrays. */
static bool takes_blanks(const rt_grammar_state *state)
{
    const rt_grammar_frame *frame = &state->frames[state->n_frames - 1];
    if (frame->kind == VALUE)
        return state->n_frames > 1;
    return frame->kind == ARRAY || (frame->kind == OBJECT && frame->phase != AFTER_KEY);
}

bool rt_grammar_step(const rt_grammar *grammar, rt_grammar_state *state, unsigned char byte)
{
    for (;;) {
        if (state->n_frames == 0)
            return false;
        rt_grammar_frame *frame = top(state);
        if (is_blank(byte) && takes_blanks(state))
            return ++state->blanks <= RT_GRAMMAR_BLANKS_MAX;
        state->blanks = 0;
        switch (frame->kind) {
        case VALUE:
            return step_value(grammar, state, byte);
        case STRING:
            return step_string(state, byte);
        case WORD:
            return step_word(state, byte);
        case OBJECT:
            return step_object(grammar, state, byte);
        case KEY:
            return step_key(grammar, state, byte);
        case ARRAY:
            return step_array(grammar, state, byte);
        case NUMBER: {
            const bool may_end = number_may_end(frame);
            if (step_number(grammar, frame, byte))
                return true;
            if (!may_end)
                return false;
            break;
        }
        default: {
            const bool may_end = literal_may_end(grammar, frame);
            if (narrow_literals(grammar, frame, byte)) {
                if (frame->lo + 1 == frame->hi && literal_may_end(grammar, frame))
                    state->n_frames--;
                return true;
            }
            if (!may_end)
                return false;
            break;
        }
        }
        state->n_frames--; /* it ended before this byte */
    }
}

bool rt_grammar_complete(const rt_grammar *grammar, const rt_grammar_state *state)
{
    if (state->n_frames == 0)
        return true;
    const rt_grammar_frame *frame = &state->frames[0];
    if (state->n_frames > 1)
        return false;
    return (frame->kind == NUMBER && number_may_end(frame)) ||
           (frame->kind == LITERAL && literal_may_end(grammar, frame));
}

bool rt_grammar_in_free_string(const rt_grammar_state *state)
{
    if (state->n_frames == 0 || state->utf8_left > 0)
        return false;
    const rt_grammar_frame *frame = &state->frames[state->n_frames - 1];
    return frame->kind == STRING && frame->phase == PLAIN;
}
