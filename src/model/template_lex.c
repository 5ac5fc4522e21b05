/* model/template_lex.c - the source of a chat template as tokens.
 *
 * Around tags white space goes as Jinja does it with trim_blocks and lstrip_blocks: the newline after a block
 * or comment is dropped, blanks before one at the start of a line too; "-" strips all white space on its
 * side, "+" keeps it. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "model/template_ast.h"

typedef struct lexer {
    token_list *out;
    const char *source;
    size_t size, at, line;
    bool at_line_start; /* the text that follows begins a line */
    rt_arena *arena;
    rt_error *err;
} lexer;

static rt_status fail(lexer *l, const char *what)
{
    return rt_error_set(l->err, RT_INVALID, "chat template, line %zu: %s", l->line, what);
}

static rt_status push(lexer *l, token_kind kind, const char *data, size_t size)
{
    token_list *list = l->out;
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity * 2 + 256;
        token *grown = realloc(list->items, capacity * sizeof *grown);
        if (!grown)
            return rt_error_set(l->err, RT_NO_MEMORY, "no memory for the chat template");
        list->items = grown;
        list->capacity = capacity;
    }
    list->items[list->count++] = (token){kind, data, size, l->line};
    return RT_OK;
}

static void advance(lexer *l, size_t to)
{
    for (; l->at < to; l->at++)
        l->line += l->source[l->at] == '\n';
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool starts(const lexer *l, size_t at, const char *what)
{
    const size_t n = strlen(what);
    return at + n <= l->size && memcmp(l->source + at, what, n) == 0;
}

/* The position of the next "{{", "{%" or "{#", or the end. */
static size_t next_tag(const lexer *l)
{
    for (size_t i = l->at; i + 1 < l->size; i++)
        if (l->source[i] == '{' &&
            (l->source[i + 1] == '{' || l->source[i + 1] == '%' || l->source[i + 1] == '#'))
            return i;
    return l->size;
}

/* The text before a tag that opens at `tag`, without what the tag strips. */
static size_t text_end(const lexer *l, size_t tag)
{
    if (tag >= l->size)
        return l->size;
    size_t end = tag;
    const char sign = tag + 2 < l->size ? l->source[tag + 2] : 0;
    if (sign == '-') {
        while (end > l->at && is_space(l->source[end - 1]))
            end--;
    } else if (sign != '+' && l->source[tag + 1] != '{') {
        size_t line = end;
        while (line > l->at && (l->source[line - 1] == ' ' || l->source[line - 1] == '\t'))
            line--;
        if (line > l->at ? l->source[line - 1] == '\n' : l->at_line_start)
            end = line;
    }
    return end;
}

/* After a closing tag that ends at `to`; strip: "-" stood in it, trim: a newline after it goes. */
static void close_tag(lexer *l, size_t to, bool strip, bool trim)
{
    size_t end = to;
    if (strip) {
        while (end < l->size && is_space(l->source[end]))
            end++;
    } else if (trim && end < l->size && l->source[end] == '\n') {
        end++;
    }
    l->at_line_start = end > to && l->source[end - 1] == '\n';
    advance(l, end);
}

static rt_status lex_comment(lexer *l)
{
    for (size_t i = l->at + 2; i + 1 < l->size; i++) {
        if (l->source[i] == '#' && l->source[i + 1] == '}') {
            const char sign = i > l->at + 2 ? l->source[i - 1] : 0;
            close_tag(l, i + 2, sign == '-', sign != '+');
            return RT_OK;
        }
    }
    return fail(l, "a comment is not closed");
}

/* \xHH, \uHHHH, \UHHHHHHHH whose letter is source[at]: its bytes into `to`; 0 when it is none of these. */
static size_t lex_code_escape(const lexer *l, size_t at, size_t end, char to[4], size_t *used)
{
    const char kind = l->source[at];
    const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    uint32_t code = 0;
    if (digits == 0 || end - at - 1 < digits)
        return 0;
    for (size_t i = 1; i <= digits; i++) {
        const char c = l->source[at + i];
        if (!isxdigit((unsigned char)c))
            return 0;
        code = code << 4 | (uint32_t)(isdigit((unsigned char)c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    *used = digits + 1;
    return rt_utf8_encode(code, to);
}

static rt_status lex_string(lexer *l)
{
    const char quote = l->source[l->at];
    size_t end = l->at + 1;
    while (end < l->size && l->source[end] != quote)
        end += l->source[end] == '\\' ? 2 : 1;
    if (end >= l->size)
        return fail(l, "a string is not closed");
    char *data = rt_arena_push_raw(l->arena, end - l->at, 1);
    if (!data)
        return rt_error_set(l->err, RT_NO_MEMORY, "the chat template is too large");
    size_t n = 0;
    for (size_t i = l->at + 1; i < end; i++) {
        char c = l->source[i];
        if (c == '\\') {
            static const char from[] = "ntrbf", to[] = "\n\t\r\b\f";
            size_t used;
            const size_t size =
                lex_code_escape(l, ++i, end, data + n, &used); /* never longer than its spelling */
            if (size) {
                n += size;
                i += used - 1;
                continue;
            }
            const char *known = strchr(from, l->source[i]);
            c = known && *known ? to[known - from] : l->source[i];
            if (!(known && *known) && c != '\\' && c != '\'' && c != '"')
                data[n++] = '\\'; /* Python keeps an unknown escape as it stands */
        }
        data[n++] = c;
    }
    const rt_status status = push(l, TOKEN_STRING, data, n);
    advance(l, end + 1);
    return status;
}

static rt_status lex_number(lexer *l)
{
    size_t end = l->at;
    bool real = false;
    while (end < l->size && (isdigit((unsigned char)l->source[end]) || l->source[end] == '_'))
        end++;
    if (end + 1 < l->size && l->source[end] == '.' && isdigit((unsigned char)l->source[end + 1])) {
        real = true;
        for (end++; end < l->size && isdigit((unsigned char)l->source[end]);)
            end++;
    }
    const size_t sign = end + (end + 1 < l->size && (l->source[end + 1] == '+' || l->source[end + 1] == '-'));
    if (end < l->size && (l->source[end] | 0x20) == 'e' && sign + 1 < l->size &&
        isdigit((unsigned char)l->source[sign + 1])) {
        real = true;
        for (end = sign + 1; end < l->size && isdigit((unsigned char)l->source[end]);)
            end++;
    }
    if (end - l->at > (real ? 30 : 18))
        return fail(l, "a number is too long");
    const rt_status status = push(l, real ? TOKEN_FLOAT : TOKEN_INT, l->source + l->at, end - l->at);
    l->at = end;
    return status;
}

static rt_status lex_operator(lexer *l)
{
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
    for (size_t i = 0; i < sizeof two / sizeof two[0]; i++) {
        if (starts(l, l->at, two[i])) {
            l->at += 2;
            return push(l, TOKEN_OP, two[i], 2);
        }
    }
    if (!strchr("+-*/%~<>=()[]{},.:|", l->source[l->at]) || l->source[l->at] == '\0')
        return fail(l, "there is a character that has no meaning in an expression");
    l->at++;
    return push(l, TOKEN_OP, l->source + l->at - 1, 1);
}

/* One tag from its opening to its close. */
static rt_status lex_tag(lexer *l)
{
    const bool block = l->source[l->at + 1] == '%';
    const char *close = block ? "%}" : "}}";
    if (push(l, block ? TOKEN_BLOCK_BEGIN : TOKEN_OUTPUT_BEGIN, l->source + l->at, 2) != RT_OK)
        return l->err->status;
    l->at += 2;
    if (l->at < l->size && (l->source[l->at] == '-' || l->source[l->at] == '+'))
        l->at++;
    for (size_t depth = 0;;) {
        while (l->at < l->size && is_space(l->source[l->at]))
            advance(l, l->at + 1);
        if (l->at >= l->size)
            return fail(l, "a tag is not closed");
        const char c = l->source[l->at];
        const bool sign = (c == '-' || c == '+') && starts(l, l->at + 1, close);
        if (depth == 0 && (sign || starts(l, l->at, close))) {
            const size_t end = l->at + (sign ? 3 : 2);
            if (push(l, block ? TOKEN_BLOCK_END : TOKEN_OUTPUT_END, close, 2) != RT_OK)
                return l->err->status;
            close_tag(l, end, sign && c == '-', block && !(sign && c == '+'));
            return RT_OK;
        }
        rt_status status;
        if (isalpha((unsigned char)c) || c == '_') {
            size_t end = l->at;
            while (end < l->size && (isalnum((unsigned char)l->source[end]) || l->source[end] == '_'))
                end++;
            status = push(l, TOKEN_NAME, l->source + l->at, end - l->at);
            l->at = end;
        } else if (isdigit((unsigned char)c)) {
            status = lex_number(l);
        } else if (c == '\'' || c == '"') {
            status = lex_string(l);
        } else {
            depth += c == '{' || c == '[' || c == '(';
            depth -= depth > 0 && (c == '}' || c == ']' || c == ')');
            status = lex_operator(l);
        }
        if (status != RT_OK)
            return status;
    }
}

/* {% raw %} ... {% endraw %}: the text between as it stands.  Returns false when there is no such tag here.
 */
static bool lex_raw(lexer *l, rt_status *status)
{
    const size_t count = l->out->count;
    if (count < 3 || l->out->items[count - 1].kind != TOKEN_BLOCK_END ||
        l->out->items[count - 2].kind != TOKEN_NAME || l->out->items[count - 2].size != 3 ||
        memcmp(l->out->items[count - 2].data, "raw", 3) != 0)
        return false;
    l->out->count -= 3;
    for (size_t i = l->at; i < l->size; i++) {
        if (!starts(l, i, "{%"))
            continue;
        size_t name = i + 2;
        while (name < l->size && (is_space(l->source[name]) || l->source[name] == '-'))
            name++;
        if (!starts(l, name, "endraw"))
            continue;
        const size_t end = text_end(l, i);
        *status = push(l, TOKEN_TEXT, l->source + l->at, end - l->at);
        size_t close = name + 6;
        while (close < l->size && is_space(l->source[close]))
            close++;
        const bool strip = close < l->size && l->source[close] == '-';
        close_tag(l, close + strip + 2 < l->size ? close + strip + 2 : l->size, strip, true);
        return true;
    }
    *status = fail(l, "{% raw %} is not closed");
    return true;
}

rt_status rt_template_lex(token_list *out, const char *source, size_t size, rt_arena *arena, rt_error *err)
{
    if (size && source[size - 1] == '\n')
        size--;
    lexer l = {.out = out,
               .source = source,
               .size = size,
               .line = 1,
               .at_line_start = true,
               .arena = arena,
               .err = err};
    while (l.at < l.size) {
        const size_t tag = next_tag(&l), end = text_end(&l, tag);
        if (end > l.at && push(&l, TOKEN_TEXT, l.source + l.at, end - l.at) != RT_OK)
            return err->status;
        advance(&l, tag);
        if (l.at >= l.size)
            break;
        rt_status status = l.source[l.at + 1] == '#' ? lex_comment(&l) : lex_tag(&l);
        if (status == RT_OK)
            (void)lex_raw(&l, &status);
        if (status != RT_OK)
            return status;
    }
    return push(&l, TOKEN_END, "", 0);
}
