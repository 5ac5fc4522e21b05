/* tests/outputs/test_sparse.c - a row from logits: the k largest, draws without bias, the mass off the top-k.
 */
#include "outputs/store_help.h"

#include "outputs/sparse.h"

typedef struct made { /* a row with room of its own */
    rt_sparse_out out;
    void *work;
    rt_sparse_settings s;
} made;

static void made_init(made *m, rt_sparse_settings s)
{
    const size_t most = rt_sparse_entries_max(&s) + 1;
    *m = (made){.s = s};
    m->out = (rt_sparse_out){malloc(most * 4), malloc(most * 4), malloc(most * 2), {0}};
    m->work = aligned_alloc(64, (rt_sparse_work_bytes(&s) + 63) / 64 * 64);
    assert_true(m->out.ids && m->out.logq && m->out.counts && m->work);
}

static void made_deinit(made *m)
{
    free(m->out.ids);
    free(m->out.logq);
    free(m->out.counts);
    free(m->work);
}

static rt_status make(made *m, const float *z, uint64_t document, uint64_t position)
{
    rt_error err;
    return rt_sparse_make(&m->out, z, &m->s, document, position, m->work, &err);
}

static double reference_log_z(const float *z, size_t n)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)z[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)z[i] - max);
    return max + log(sum);
}

/* Does an id with a larger logit, or an equal one and a lower id, stand before? */
static size_t rank_of(const float *z, size_t n, uint32_t id)
{
    size_t rank = 0;
    for (size_t i = 0; i < n; i++)
        rank += z[i] > z[id] || (z[i] == z[id] && i < id);
    return rank;
}

static void the_top_k_are_the_k_largest(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 7, 63, 64, 65, 1000, 5000}, ks[] = {1, 2, 8, 50, 64, 500};
    for (size_t a = 0; a < sizeof sizes / sizeof sizes[0]; a++)
        for (size_t b = 0; b < sizeof ks / sizeof ks[0]; b++) {
            const size_t n = sizes[a], k = ks[b] < n ? ks[b] : n;
            float *z = malloc(n * sizeof *z);
            assert_non_null(z);
            made m;
            made_init(&m, (rt_sparse_settings){.n_vocab = n, .topk = ks[b], .proposal = 1});
            for (uint64_t kind = 0; kind < 3; kind++) {
                make_logits(z, n, n + b, kind);
                for (size_t i = 0; kind == 2 && i < n; i++)
                    z[i] = floorf(z[i]); /* many ties */
                assert_int_equal(make(&m, z, 0, 0), RT_OK);
                assert_int_equal(m.out.head.n, k);
                assert_int_equal(m.out.head.n_topk, k);
                const double log_z = reference_log_z(z, n);
                assert_true(fabs((double)m.out.head.log_z - log_z) < 1e-5 * (1 + fabs(log_z)));
                double kept = 0, rest = 0;
                for (size_t i = 0; i < k; i++) {
                    assert_true(i == 0 || m.out.ids[i] > m.out.ids[i - 1]);
                    assert_true(rank_of(z, n, m.out.ids[i]) < k);
                    assert_true(fabs((double)m.out.logq[i] - ((double)z[m.out.ids[i]] - log_z)) < 1e-4);
                    kept += exp((double)z[m.out.ids[i]] - log_z);
                }
                for (size_t i = 0; i < n; i++)
                    if (rank_of(z, n, (uint32_t)i) >= k)
                        rest += exp((double)z[i] - log_z);
                if (rest > 0)
                    assert_true(fabs((double)m.out.head.tail_logprob - log(rest)) < 1e-4);
                else
                    assert_true(m.out.head.tail_logprob == -INFINITY);
                assert_true(fabs(kept + rest - 1) < 1e-9);
            }
            made_deinit(&m);
            free(z);
        }
}

static void a_tail_of_tiny_mass_keeps_its_digits(void **state)
{
    (void)state;
    enum { N = 2000 };
    float z[N];
    for (size_t i = 0; i < N; i++)
        z[i] = i == 700 ? 60.0f : 0.0f; /* 1 - q rounds to nothing: 1999 e^-60 */
    made m;
    made_init(&m, (rt_sparse_settings){.n_vocab = N, .topk = 1, .proposal = 1});
    assert_int_equal(make(&m, z, 0, 0), RT_OK);
    assert_int_equal(m.out.ids[0], 700);
    assert_true(fabs((double)m.out.head.tail_logprob - (log(1999.0) - 60)) < 1e-5);
    made_deinit(&m);
}

/* Over many documents the weights' mean is q, with the variance that METHODS 6 gives. */
static void check_moments(double t)
{
    enum { N = 40, DRAWS = 12, REPEATS = 20000 };
    float z[N];
    double q[N], s[N], sum[N] = {0}, sum_of_s = 0;
    make_logits(z, N, 3, 0);
    z[5] = -INFINITY;
    z[11] = 4;
    const double log_z = reference_log_z(z, N);
    for (size_t i = 0; i < N; i++) {
        q[i] = exp((double)z[i] - log_z);
        s[i] = q[i] > 0 ? pow(q[i], t) : 0;
        sum_of_s += s[i];
    }
    made m;
    made_init(&m, (rt_sparse_settings){.n_vocab = N, .draws = DRAWS, .proposal = t, .seed = 99});
    double square = 0;
    for (uint64_t r = 0; r < REPEATS; r++) {
        assert_int_equal(make(&m, z, r, 1), RT_OK);
        const rt_sparse_row row = {m.out.ids, m.out.logq, m.out.counts,    m.out.head.n, 0, DRAWS,
                                   0,         0,          m.out.head.log_s};
        uint32_t counted = 0;
        for (size_t i = 0; i < row.n; i++) {
            const double w = (double)rt_sparse_weight(&row, i, t);
            sum[row.ids[i]] += w;
            square += row.ids[i] == 11 ? w * w : 0;
            counted += row.counts[i];
            assert_true(row.ids[i] != 5);
        }
        assert_int_equal(counted, DRAWS);
    }
    for (size_t i = 0; i < N; i++) {
        const double p = s[i] / sum_of_s, scale = p > 0 ? q[i] / p : 0,
                     variance = scale * scale * p * (1 - p) / DRAWS; /* of (c/N)(q/s) */
        assert_true(fabs(sum[i] / REPEATS - q[i]) <= 5 * sqrt(variance / REPEATS) + 1e-7);
        if (i == 11) {
            const double seen = square / REPEATS - (sum[i] / REPEATS) * (sum[i] / REPEATS);
            assert_true(fabs(seen / variance - 1) < 0.1);
        }
    }
    made_deinit(&m);
}

static void draws_are_an_unbiased_estimate(void **state)
{
    (void)state;
    static const double exponents[] = {1, 0.8, 0.5, 1.5, 0};
    for (size_t i = 0; i < sizeof exponents / sizeof exponents[0]; i++)
        check_moments(exponents[i]);
}

static void draws_depend_on_seed_document_and_position_alone(void **state)
{
    (void)state;
    enum { N = 3000 };
    float *z = malloc(N * sizeof *z), *other = malloc(N * sizeof *other);
    assert_true(z && other);
    make_logits(z, N, 1, 0);
    make_logits(other, N, 2, 0);
    made a, b;
    const rt_sparse_settings s = {.n_vocab = N, .draws = 12, .proposal = 1, .seed = 5};
    made_init(&a, s);
    made_init(&b, s);
    assert_int_equal(make(&a, z, 3, 17), RT_OK);
    assert_int_equal(make(&b, other, 8, 1), RT_OK);
    assert_int_equal(make(&b, z, 3, 17), RT_OK); /* what was drawn before does not matter */
    assert_int_equal(a.out.head.n, b.out.head.n);
    assert_memory_equal(a.out.ids, b.out.ids, a.out.head.n * 4);
    assert_memory_equal(a.out.counts, b.out.counts, a.out.head.n * 2);
    static const uint64_t places[][3] = {{5, 3, 18}, {5, 4, 17}, {6, 3, 17}, {5, 3ull << 32, 17}};
    for (size_t i = 0; i < 4; i++) {
        b.s.seed = places[i][0];
        assert_int_equal(make(&b, z, places[i][1], places[i][2]), RT_OK);
        assert_true(a.out.head.n != b.out.head.n || memcmp(a.out.ids, b.out.ids, a.out.head.n * 4) != 0 ||
                    memcmp(a.out.counts, b.out.counts, a.out.head.n * 2) != 0);
    }
    made_deinit(&a);
    made_deinit(&b);
    free(z);
    free(other);
}

static void top_k_and_draws_share_their_entries(void **state)
{
    (void)state;
    enum { N = 500 };
    float z[N];
    made both, draws;
    made_init(&both, (rt_sparse_settings){.n_vocab = N, .topk = 20, .draws = 30, .proposal = 1, .seed = 1});
    made_init(&draws, (rt_sparse_settings){.n_vocab = N, .draws = 30, .proposal = 1, .seed = 1});
    for (uint64_t position = 0; position < 50; position++) {
        make_logits(z, N, 8, position);
        assert_int_equal(make(&both, z, 0, position), RT_OK);
        assert_int_equal(make(&draws, z, 0, position), RT_OK);
        assert_int_equal(both.out.head.n_topk, 20);
        assert_true(draws.out.head.tail_logprob == 0);
        size_t counted = 0;
        for (size_t i = 0; i < both.out.head.n; i++) {
            assert_true(i < 20 || both.out.counts[i] > 0);
            for (size_t k = 0; k < draws.out.head.n; k++)
                if (draws.out.ids[k] == both.out.ids[i]) {
                    assert_int_equal(draws.out.counts[k], both.out.counts[i]);
                    counted += both.out.counts[i];
                }
        }
        assert_int_equal(counted, 30);
    }
    made_deinit(&both);
    made_deinit(&draws);
}

static void logits_that_are_not_numbers_are_refused(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY};
    float z[100];
    made m;
    made_init(&m, (rt_sparse_settings){.n_vocab = 100, .topk = 5, .draws = 4, .proposal = 1});
    for (size_t i = 0; i < 2; i++) {
        make_logits(z, 100, 1, 1);
        z[37] = bad[i];
        assert_int_equal(make(&m, z, 0, 0), RT_NOT_FINITE);
    }
    for (size_t i = 0; i < 100; i++)
        z[i] = -INFINITY;
    assert_int_equal(make(&m, z, 0, 0), RT_NOT_FINITE);
    z[3] = 1; /* one id is all there is */
    assert_int_equal(make(&m, z, 0, 0), RT_OK);
    assert_int_equal(m.out.head.n, 1);
    assert_int_equal(m.out.ids[0], 3);
    assert_int_equal(m.out.counts[0], 4);
    assert_true(m.out.logq[0] == 0 && m.out.head.tail_logprob == -INFINITY);
    made_deinit(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_top_k_are_the_k_largest),
        cmocka_unit_test(a_tail_of_tiny_mass_keeps_its_digits),
        cmocka_unit_test(draws_are_an_unbiased_estimate),
        cmocka_unit_test(draws_depend_on_seed_document_and_position_alone),
        cmocka_unit_test(top_k_and_draws_share_their_entries),
        cmocka_unit_test(logits_that_are_not_numbers_are_refused),
    };
    return cmocka_run_group_tests_name("sparse", tests, NULL, NULL);
}
