/* fuzz/fuzz_answer.c - what servers answer: any bytes end in a reply that can be written as a row, or a
 * sentence.
 *
 * The first byte chooses: whole or streamed, a refusal's body, or header lines. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "outputs/collect_row.h"
#include "teacher/answer.h"
#include "teacher/flow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        __builtin_trap();
}

/* A row of it is one line of JSON. */
static void check_row(const rt_answered *reply)
{
    rt_text line = {0};
    json_t *request = json_pack("{s:s}", "prompt", "x");
    const rt_row_facts facts = {.id = "id", .request = request, .cost = -1};
    rt_row_write(&line, &facts, reply);
    check(!line.failed && memchr(line.data, '\n', line.size) == line.data + line.size - 1);
    json_t *row = json_loadb(line.data, line.size, JSON_ALLOW_NUL, NULL);
    check(row != NULL);
    json_decref(row);
    json_decref(request);
    rt_text_deinit(&line);
}

static void check_reply(const rt_answered *reply, const rt_answer_wish *wish)
{
    for (size_t i = 0; i < reply->n_tokens; i++) {
        const rt_answered_token *token = &reply->tokens[i];
        check((size_t)token->chosen.bytes + token->chosen.n_bytes <= reply->pool.size);
        check((size_t)token->top + token->n_top <= reply->n_alternatives);
        check(token->chosen.id < (int32_t)wish->n_vocab);
    }
    for (size_t i = 0; i < reply->n_ids; i++)
        check(reply->ids[i] >= 0 && (size_t)reply->ids[i] < wish->n_vocab);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    const rt_answer_wish wish = {
        .chat = true, .logprobs = true, .keep_raw = true, .model = "m", .n_vocab = 1000};
    rt_answered reply;
    rt_error err = {0};
    rt_answered_init(&reply);
    rt_status status = RT_OK;
    size--;
    switch (data[0] % 4) {
    case 0:
    case 1:
        status = (data[0] % 4 ? rt_answer_read_stream : rt_answer_read)(&reply, &wish, text, size, &err);
        check(status == RT_OK || err.text[0]);
        if (status == RT_OK) {
            check_reply(&reply, &wish);
            check_row(&reply);
        }
        break;
    case 2:
        rt_answer_read_error(&reply, text, size);
        break;
    default: {
        rt_flow_headers headers;
        rt_flow_headers_clear(&headers);
        rt_flow_headers_read(&headers, text, size, 1700000000);
        check(headers.retry_after_s <= 3600);
    }
    }
    rt_answered_deinit(&reply);
    return 0;
}
