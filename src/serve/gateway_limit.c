/* serve/gateway_limit.c - an answer takes no more than is reserved for it, whatever the upstream does.
 *
 * What streams past is counted: by the tokenizer where there is one, else as the larger of bytes/4 and the
 * events with text.  Where that passes what is reserved, more is reserved in steps; where there is no room
 * for more, the stream ends before that event, as if its length had been bounded.  So an honest answer whose
 * count is a poor estimate is not cut while the account has room.  Of the event at which it ends goes down
 * what still has room, where it is one text that can be shortened. */
#include <stdlib.h>
#include <string.h>

#include "serve/gateway_count.h"
#include "serve/gateway_internal.h"

enum { BYTES_PER_TOKEN = 4, STEP_TOKENS = 1024, CHOICES_CLOSED_MAX = 64 };

/* ---- before ---- */

const char *rt_limit_field(const rt_relay *relay, size_t *tokens)
{
    static const char *const lengths[] = {"max_completion_tokens", "max_tokens", "max_output_tokens"};
    const rt_call *call = relay->call;
    const char *endpoint = call->route->endpoint;
    if (!call->ticket || !call->caller->bounded || call->assumed_tokens == 0 || !relay->upstream->limit[0])
        return NULL;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        if (json_is_integer(json_object_get(call->body, lengths[i])))
            return NULL; /* zero: the upstream knows what it means */
    *tokens = call->assumed_tokens;
    if (strcmp(endpoint, "responses") == 0)
        return "max_output_tokens";
    return strcmp(endpoint, "completions") == 0 ? "max_tokens" : relay->upstream->limit;
}

/* ---- while it streams ---- */

static size_t tokens_so_far(rt_relay *relay, bool exactly)
{
    const rt_tokenizer *counter = relay->gateway->serve->options.counter;
    const size_t by_bytes = (relay->text_bytes + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN;
    if (!counter)
        return by_bytes > relay->text_events ? by_bytes : relay->text_events;
    const rt_text *said = &relay->said;
    if (exactly)
        relay->counted = relay->counted_bytes = 0;
    if (said->size > relay->counted_bytes) /* in pieces: never fewer than in one, but for few */
        relay->counted +=
            rt_count_text(counter, said->data + relay->counted_bytes, said->size - relay->counted_bytes);
    relay->counted_bytes = said->size;
    return relay->counted;
}

/* A large step, or a smaller one where the room ends; below `missing`: that is all there is.  Perhaps in
 * another thread. */
static size_t reserve_more(const rt_relay *relay, size_t missing)
{
    rt_gate *gate = relay->gateway->serve->options.gate;
    rt_ticket *ticket = relay->call->ticket;
    rt_refusal why = {0};
    size_t got = 0, part = 1;
    for (size_t step = STEP_TOKENS, more = 0; more != missing && why.http != 503; step /= 8) {
        more = step > missing ? step : missing;
        if (rt_gate_raise(gate, ticket, (int64_t)more, &why))
            return more;
    }
    while (part < missing / 2)
        part *= 2;
    for (; part > 0 && why.http != 503; part /= 2)
        if (got + part < missing && rt_gate_raise(gate, ticket, (int64_t)part, &why))
            got += part;
    return got;
}

static rt_desk_reply raise_work(rt_errand *errand, rt_desk *desk)
{
    (void)desk;
    struct rt_raise *raise = (struct rt_raise *)errand;
    raise->got = reserve_more(raise->relay, raise->missing);
    return (rt_desk_reply){.http = 200};
}

static void raised(rt_relay *relay, size_t missing, size_t got)
{
    relay->call->reserved_tokens += got;
    relay->no_room = got < missing;
}

static void raise_done(rt_errand *errand)
{
    struct rt_raise *raise = (struct rt_raise *)errand;
    rt_relay *relay = raise->relay;
    relay->raising = false;
    raised(relay, raise->missing, raise->got);
    rt_relay_go_on(relay);
}

/* RT_COVER_WAITS only with a database that may take long. */
static rt_cover more_room(rt_relay *relay, size_t missing)
{
    rt_serve *serve = relay->gateway->serve;
    if (relay->no_room)
        return RT_COVER_FULL;
    if (rt_gate_is_shared(serve->options.gate)) {
        relay->raise = (struct rt_raise){
            .errand = {.work = raise_work, .done = raise_done}, .relay = relay, .missing = missing};
        relay->raising = rt_clerks_send(serve->clerks, RT_CLERK_DOOR, &relay->raise.errand);
        return relay->raising ? RT_COVER_WAITS : RT_COVER_FULL;
    }
    raised(relay, missing, reserve_more(relay, missing));
    const bool full = relay->no_room;
    relay->no_room = false; /* to ask again costs nothing */
    return full ? RT_COVER_FULL : RT_COVERED;
}

static void note_finished(rt_relay *relay, const char *data, size_t size)
{
    rt_error err = {0};
    json_t *json = NULL, *choice;
    size_t i;
    if (relay->call->choices < 2 || !memmem(data, size, "\"finish_reason\"", 15) ||
        rt_json_parse(&json, data, size, "event", &err) != RT_OK)
        return;
    json_array_foreach(json_object_get(json, "choices"), i, choice)
    {
        const json_int_t index = json_integer_value(json_object_get(choice, "index"));
        if (json_is_string(json_object_get(choice, "finish_reason")) && index >= 0 &&
            index < CHOICES_CLOSED_MAX)
            relay->finished |= UINT64_C(1) << index;
    }
    json_decref(json);
}

rt_cover rt_limit_covers(rt_relay *relay, const char *data, size_t size, size_t text_bytes)
{
    const rt_call *call = relay->call;
    if (!call->ticket)
        return RT_COVERED;
    rt_cover cover = RT_COVERED;
    if (text_bytes > 0) {
        relay->text_events++;
        size_t tokens = tokens_so_far(relay, false);
        if (tokens > call->reserved_tokens && relay->gateway->serve->options.counter)
            tokens = tokens_so_far(relay, true);
        if (tokens > call->reserved_tokens)
            cover = more_room(relay, tokens - call->reserved_tokens);
    }
    if (cover == RT_COVERED)
        note_finished(relay, data, size);
    return cover;
}

/* ---- the event at which it ends ---- */

/* Steals the JSON, which may hold the name; NULL, or one that is more than a line: none is sent. */
static void append_event(rt_text *out, const char *name, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    if (text && name && !strpbrk(name, "\r\n"))
        rt_text_printf(out, "event: %s\n", name);
    if (text)
        rt_text_printf(out, "data: %s\n\n", text);
    free(text);
    json_decref(json);
}

/* The one member that holds the event's text; NULL: there are several, or what goes with each of its tokens.
 */
static json_t *only_text(json_t *event, json_t **holder, const char **key)
{
    static const char *const members[] = {"content", "reasoning_content", "text"};
    json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    json_t *delta = json_object_get(choice, "delta"), *found = NULL;
    if (!json_object_get(event, "choices")) {
        *holder = event;
        *key = "delta";
        return json_object_get(event, "delta");
    }
    if (json_array_size(json_object_get(event, "choices")) != 1 || json_object_get(delta, "tool_calls") ||
        json_is_object(json_object_get(choice, "logprobs")) ||
        json_array_size(json_object_get(choice, "token_ids")) > 0)
        return NULL;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        json_t *in = i < 2 ? delta : choice, *text = json_object_get(in, members[i]);
        if (json_string_length(text) == 0)
            continue;
        if (found)
            return NULL;
        found = text;
        *holder = in;
        *key = members[i];
    }
    return found;
}

/* How many bytes of a text there is room for, at most; whole characters. */
static size_t bytes_with_room(rt_relay *relay, const char *text, size_t size)
{
    const rt_tokenizer *counter = relay->gateway->serve->options.counter;
    const size_t reserved = relay->call->reserved_tokens;
    size_t kept = 0;
    if (counter) {
        const size_t before = tokens_so_far(relay, true), room = before < reserved ? reserved - before : 0;
        rt_token_list ids = {0};
        rt_error err = {0};
        if (room > 0 && rt_tokenizer_encode(counter, text, size, false, &ids, &err) == RT_OK)
            for (size_t i = 0, bytes; i < room && i < ids.count; i++, kept += bytes)
                (void)rt_tokenizer_token_bytes(counter, ids.ids[i], &bytes);
        rt_token_list_deinit(&ids);
    } else if (relay->text_events <= reserved && relay->text_bytes < reserved * BYTES_PER_TOKEN) {
        kept = reserved * BYTES_PER_TOKEN - relay->text_bytes;
    }
    if (kept > size)
        kept = size;
    while (kept > 0 && kept < size && ((unsigned char)text[kept] & 0xC0) == 0x80)
        kept--;
    return kept;
}

bool rt_limit_shorten(rt_relay *relay, const char *data, size_t size, rt_text *out)
{
    rt_error err = {0};
    json_t *event = NULL, *holder = NULL;
    const char *key = NULL;
    size_t kept = 0;
    if (rt_json_parse(&event, data, size, "event", &err) != RT_OK)
        return false;
    const json_t *text = only_text(event, &holder, &key);
    if (json_is_string(text))
        kept = bytes_with_room(relay, json_string_value(text), json_string_length(text));
    if (kept > 0) {
        json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
        (void)json_object_set_new(holder, key, json_stringn(json_string_value(text), kept));
        if (json_object_get(choice, "finish_reason"))
            (void)json_object_set_new(choice, "finish_reason", json_null());
        if (json_object_get(event, "usage")) /* of the whole */
            (void)json_object_set_new(event, "usage", json_null());
        append_event(
            out, json_object_get(event, "choices") ? NULL : json_string_value(json_object_get(event, "type")),
            event);
        return !out->failed;
    }
    json_decref(event);
    return false;
}

/* ---- at the end ---- */

bool rt_limit_cover_used(rt_relay *relay)
{
    const rt_call *call = relay->call;
    const size_t reserved = relay->reserved_prompt + call->reserved_tokens,
                 used = call->prompt_tokens + call->output_tokens;
    if (!call->ticket || relay->cut)
        return true;
    size_t missing = used > reserved ? used - reserved : 0;
    if (call->output_tokens > call->reserved_tokens + missing) /* dearer ones than were reserved */
        missing = call->output_tokens - call->reserved_tokens;
    /* where there is no room the ledger holds the row to what is reserved */
    return missing == 0 || more_room(relay, missing) != RT_COVER_WAITS;
}

static json_t *head_of(const json_t *event)
{
    static const char *const kept[] = {"id", "object", "created", "model", "system_fingerprint"};
    json_t *head = json_object();
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        if (json_object_get(event, kept[i]))
            (void)json_object_set(head, kept[i], json_object_get(event, kept[i]));
    return head;
}

static void close_choices(rt_relay *relay, const json_t *event)
{
    const rt_call *call = relay->call;
    const bool chat = strcmp(call->route->endpoint, "chat/completions") == 0;
    json_t *last = head_of(event), *choices = json_array();
    for (size_t i = 0; i < call->choices && i < CHOICES_CLOSED_MAX; i++)
        if (!(relay->finished >> i & 1))
            (void)json_array_append_new(choices, chat ? json_pack("{s:I, s:{}, s:s}", "index", (json_int_t)i,
                                                                  "delta", "finish_reason", "length")
                                                      : json_pack("{s:I, s:s, s:s}", "index", (json_int_t)i,
                                                                  "text", "", "finish_reason", "length"));
    (void)json_object_set_new(last, "choices", choices);
    append_event(&relay->tail, NULL, last);
    if (json_is_true(json_object_get(json_object_get(call->body, "stream_options"), "include_usage"))) {
        const json_int_t input = (json_int_t)call->prompt_tokens, output = (json_int_t)call->output_tokens;
        json_t *usage = head_of(event);
        (void)json_object_set_new(usage, "choices", json_array());
        (void)json_object_set_new(usage, "usage",
                                  json_pack("{s:I, s:I, s:I}", "prompt_tokens", input, "completion_tokens",
                                            output, "total_tokens", input + output));
        append_event(&relay->tail, NULL, usage);
    }
    rt_text_puts(&relay->tail, "data: [DONE]\n\n");
}

static void close_response(rt_relay *relay, const json_t *event)
{
    const rt_call *call = relay->call;
    const json_int_t input = (json_int_t)call->prompt_tokens, output = (json_int_t)call->output_tokens;
    json_t *last =
        json_pack("{s:s, s:{s:s, s:s, s:{s:s}, s:s, s:{s:I, s:I, s:I}}}", "type", "response.incomplete",
                  "response", "object", "response", "status", "incomplete", "incomplete_details", "reason",
                  "max_output_tokens", "model", call->model_name, "usage", "input_tokens", input,
                  "output_tokens", output, "total_tokens", input + output);
    if (json_object_get(event, "sequence_number"))
        (void)json_object_set(last, "sequence_number", json_object_get(event, "sequence_number"));
    append_event(&relay->tail, "response.incomplete", last);
}

void rt_limit_close(rt_relay *relay)
{
    rt_call *call = relay->call;
    rt_error err = {0};
    json_t *event = NULL;
    if (call->output_tokens > call->reserved_tokens) /* an upstream that tells with each event, or bytes */
        call->output_tokens = call->reserved_tokens;
    if (call->prompt_tokens > relay->reserved_prompt)
        call->prompt_tokens = relay->reserved_prompt;
    if (call->cached_tokens > call->prompt_tokens)
        call->cached_tokens = call->prompt_tokens;
    if (relay->last.size > 0)
        (void)rt_json_parse(&event, relay->last.data, relay->last.size, "event", &err);
    rt_text_clear(&relay->tail);
    if (relay->mid_event)
        rt_text_puts(&relay->tail, "\n\n");
    if (strcmp(call->route->endpoint, "responses") == 0)
        close_response(relay, event);
    else
        close_choices(relay, event);
    json_decref(event);
}
