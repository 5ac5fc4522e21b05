/* tests/serve/test_score_route.c - POST /v1/retort/score: its two forms say the same, and the binary one is a
 * .rls file. */
#include "serve_help.h"

#include <math.h>

#include "outputs/rls_file.h"

#define SCORE "/v1/retort/score"

static char *post_bytes(const char *body, const char **data, size_t *size, int *status)
{
    rt_text text = {0}, out = {0};
    char buffer[4096];
    ssize_t n;
    rt_text_printf(&text,
                   "POST " SCORE
                   " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                   "Content-Length: %zu\r\n\r\n%s",
                   strlen(body), body);
    const int fd = dial(&shared);
    assert_int_equal(send(fd, text.data, text.size, MSG_NOSIGNAL), text.size);
    rt_text_deinit(&text);
    while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
        rt_text_append(&out, buffer, (size_t)n);
    (void)close(fd);
    assert_non_null(out.data);
    *status = status_in(out.data);
    char *blank = memmem(out.data, out.size, "\r\n\r\n", 4);
    assert_non_null(blank);
    *data = blank + 4;
    *size = out.size - (size_t)(blank + 4 - out.data);
    return out.data;
}

static const char body_of[] = "{\"tokens\":[[1,5,9,2,7,30],[3,3,3],[8]],\"top_k\":%d,\"format\":\"%s\"}";

/* Entry of the JSON's list that has the id; NAN: not there. */
static double logprob_of(const json_t *position, uint32_t id)
{
    size_t i;
    const json_t *one;
    json_array_foreach(
        json_object_get(position, "ids"), i,
        one) if ((uint32_t)json_integer_value(one) ==
                 id) return json_number_value(json_array_get(json_object_get(position, "logprobs"), i));
    return NAN;
}

static void compare_document(const rt_store_document *doc, const rt_rls_header *header, const json_t *one)
{
    const json_t *tokens = json_object_get(one, "token_logprobs"),
                 *positions = json_object_get(one, "positions");
    assert_int_equal(doc->n_tokens, json_array_size(tokens));
    assert_int_equal(doc->rows.n_rows, doc->n_tokens - 1);
    for (size_t at = 1; at < doc->n_tokens; at++) {
        const rt_sparse_row row = rt_sparse_rows_at(&doc->rows, at - 1);
        const json_t *position = json_array_get(positions, at - 1);
        bool has_token = false;
        assert_int_equal(doc->mask[at], 1);
        assert_int_equal(row.n_topk, header->topk);
        for (uint32_t i = 0; i < row.n; i++) {
            const double told = i < row.n_topk ? logprob_of(position, row.ids[i])
                                               : json_number_value(json_array_get(tokens, at));
            assert_true(fabs(told - (double)row.logq[i]) <= rt_rls_code_error(16, told) + 1e-6);
            if (row.ids[i] == (uint32_t)doc->ids[at]) {
                has_token = true;
                assert_true(fabs(json_number_value(json_array_get(tokens, at)) - (double)row.logq[i]) < 2e-3);
            }
        }
        assert_true(has_token);
        if (header->topk)
            assert_true(fabs(json_number_value(json_object_get(position, "tail_logprob")) -
                             (double)row.tail_logprob) < 0.02);
    }
}

static void the_binary_form_is_a_file_of_the_same_figures(void **state)
{
    (void)state;
    for (int k = 0; k <= 8; k += 4) {
        char body[200];
        const char *data;
        size_t size;
        int status;
        rt_error err = {0};
        rls_index index = {0};
        rt_rls_header header;
        (void)snprintf(body, sizeof body, body_of, k, "json");
        json_t *json = post(&shared, SCORE, body, &status);
        assert_int_equal(status, 200);
        (void)snprintf(body, sizeof body, body_of, k, "binary");
        char *answer = post_bytes(body, &data, &size, &status);
        assert_int_equal(status, 200);
        assert_non_null(strstr(answer, "Content-Type: application/octet-stream"));
        assert_int_equal(rls_header_read(&header, (const unsigned char *)data, size, &err), RT_OK);
        assert_int_equal(header.topk, k);
        assert_int_equal(rls_index_load(&index, (const unsigned char *)data, size, true, NULL, NULL, &err),
                         RT_OK);
        assert_true(index.complete && index.n_damaged == 0);
        assert_int_equal(index.n, 3);
        for (size_t i = 0; i < index.n; i++) {
            rls_record record;
            rt_store_document doc = {0};
            const size_t at = (size_t)index.entries[i].offset;
            assert_true(rls_record_find(&record, (const unsigned char *)data + at, size - at));
            assert_int_equal(rls_record_read(&doc, &record, &header, true, &err), RT_OK);
            assert_int_equal(doc.number, i);
            compare_document(&doc, &header, json_array_get(json_object_get(json, "data"), i));
            rt_store_document_deinit(&doc);
        }
        rls_index_deinit(&index);
        free(answer);
        json_decref(json);
    }
}

static void wrong_requests_are_told_where(void **state)
{
    (void)state;
    expect_fault(SCORE, "{}", 400, "missing_required_parameter", "tokens");
    expect_fault(SCORE, "{\"tokens\":[]}", 400, "invalid_value", "tokens");
    expect_fault(SCORE, "{\"tokens\":[[]]}", 400, "invalid_value", "tokens[0]");
    expect_fault(SCORE, "{\"tokens\":[[1],[2,-1]]}", 400, "invalid_value", "tokens[1][1]");
    expect_fault(SCORE, "{\"tokens\":[[1,4000000000]]}", 400, "invalid_value", "tokens[0][1]");
    expect_fault(SCORE, "{\"tokens\":[[1]],\"top_k\":513}", 400, "invalid_value", "top_k");
    expect_fault(SCORE, "{\"tokens\":[[1]],\"top_k\":-1}", 400, "invalid_value", "top_k");
    expect_fault(SCORE, "{\"tokens\":[[1]],\"format\":\"xml\"}", 400, "invalid_value", "format");
    expect_fault(SCORE, "{\"tokens\":[[1]],\"model\":\"x\"}", 404, "model_not_found", "model");
}

static void one_sequence_scores_as_it_does_in_a_batch(void **state)
{
    (void)state;
    int status;
    json_t *both = post(&shared, SCORE, "{\"tokens\":[[1,5,9,2],[3,4,5,6,7,8,9]],\"top_k\":4}", &status),
           *alone = post(&shared, SCORE, "{\"tokens\":[[3,4,5,6,7,8,9]],\"top_k\":4}", &status);
    json_t *second = json_array_get(json_object_get(both, "data"), 1),
           *first = json_array_get(json_object_get(alone, "data"), 0);
    assert_true(json_equal(json_object_get(second, "positions"), json_object_get(first, "positions")));
    assert_true(
        json_equal(json_object_get(second, "token_logprobs"), json_object_get(first, "token_logprobs")));
    assert_int_equal(json_integer_value(json_object_get(json_object_get(both, "usage"), "prompt_tokens")),
                     11);
    json_decref(both);
    json_decref(alone);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_binary_form_is_a_file_of_the_same_figures),
        cmocka_unit_test(wrong_requests_are_told_where),
        cmocka_unit_test(one_sequence_scores_as_it_does_in_a_batch),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, open_all, close_all);
}
