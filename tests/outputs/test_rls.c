/* tests/outputs/test_rls.c - .rls files: cut at every byte, every bit flipped, other versions, hostile bytes.
 */
#include "outputs/store_help.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "outputs/rls_bits.h"
#include "outputs/rls_bytes.h"

enum { DOCS = 12 };

typedef struct made_file { /* a small file in memory, and where its records are */
    unsigned char *data;
    size_t size, blocks_end; /* blocks_end: where the index begins */
    size_t ends[DOCS];
    rt_rls_header header;
} made_file;

/* Documents in blocks of three. */
static made_file make_file(const rt_rls_header *header)
{
    rt_error err = {0};
    char dir[] = "/tmp/retort-test-rls-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/a.rls", dir);
    rls_writer w;
    must(rls_writer_init(&w, path, header, &err), &err);
    rt_store_document doc = {0};
    made_file f = {.header = *header};
    for (size_t i = 0; i < DOCS; i++) {
        make_document(&doc, header, i, 1 + i * 5 % 23);
        must(rls_writer_add(&w, &doc, &err), &err);
        if (i % 3 == 2)
            must(rls_writer_flush(&w, &err), &err);
    }
    f.blocks_end = (size_t)w.file.size;
    must(rls_writer_finish(&w, &err), &err);
    for (size_t i = 0; i < DOCS; i++)
        f.ends[i] = (size_t)(i + 1 < DOCS && i % 3 != 2 ? w.index.entries[i + 1].offset
                             : i + 1 < DOCS             ? w.index.entries[i + 1].offset - RLS_BLOCK_HEADER
                                                        : f.blocks_end);
    rls_writer_deinit(&w);
    rt_store_document_deinit(&doc);
    char *data;
    must(rt_file_read(&data, &f.size, path, 1 << 24, &err), &err);
    f.data = (unsigned char *)data;
    (void)unlink(path);
    (void)rmdir(dir);
    return f;
}

/* Every document that the index names is one that was written, whole. */
static void check_entries(const made_file *f, const unsigned char *data, size_t size, const rls_index *index)
{
    rt_error err = {0};
    rt_store_document got = {0}, want = {0};
    for (size_t i = 0; i < index->n; i++) {
        rls_record record;
        const size_t at = (size_t)index->entries[i].offset;
        assert_true(rls_record_find(&record, data + at, size - at));
        must(rls_record_read(&got, &record, &f->header, true, &err), &err);
        make_document(&want, &f->header, got.number, 1 + (size_t)got.number * 5 % 23);
        assert_same_document(&got, &want, &f->header);
    }
    rt_store_document_deinit(&got);
    rt_store_document_deinit(&want);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    rt_error err = {0};
    static const struct {
        uint32_t topk, draws, code_bits;
        double proposal;
    } cases[] = {{8, 12, 8, 1},    {8, 0, 16, 1},   {0, 12, 8, 1},
                 {0, 12, 16, 0.8}, {2000, 0, 8, 1}, {5, 4096, 16, 1.2}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        rt_rls_header h = small_header();
        h.topk = cases[c].topk;
        h.draws = cases[c].draws;
        h.code_bits = cases[c].code_bits;
        h.proposal = cases[c].proposal;
        made_file f = make_file(&h);
        rt_rls_header read;
        must(rls_header_read(&read, f.data, f.size, &err), &err);
        assert_memory_equal(&read, &h, sizeof h);
        for (unsigned full = 0; full < 2; full++) {
            rls_index index;
            must(rls_index_load(&index, f.data, f.size, full, NULL, NULL, &err), &err);
            assert_int_equal(index.n, DOCS);
            assert_int_equal(index.n_damaged, 0);
            assert_true(index.complete);
            check_entries(&f, f.data, f.size, &index);
            rls_index_deinit(&index);
        }
        free(f.data);
    }
}

static void a_file_cut_at_any_byte_gives_every_whole_sequence(void **state)
{
    (void)state;
    rt_error err = {0};
    const rt_rls_header h = small_header();
    made_file f = make_file(&h);
    for (size_t cut = RT_RLS_HEADER_BYTES; cut < f.size; cut++) {
        unsigned char *data = malloc(cut); /* of the exact size: a read past it is found by ASan */
        assert_non_null(data);
        memcpy(data, f.data, cut);
        size_t whole = 0;
        while (whole < DOCS && f.ends[whole] <= cut)
            whole++;
        rls_index index;
        must(rls_index_load(&index, data, cut, false, NULL, NULL, &err), &err);
        assert_int_equal(index.n, whole);
        assert_false(index.complete);
        if (cut % 37 == 0 || whole == DOCS)
            check_entries(&f, data, cut, &index);
        rls_index_deinit(&index);
        free(data);
    }
    free(f.data);
}

static void a_flipped_bit_costs_at_most_its_own_sequence(void **state)
{
    (void)state;
    rt_error err = {0};
    const rt_rls_header h = small_header();
    made_file f = make_file(&h);
    for (size_t at = RT_RLS_HEADER_BYTES; at < f.size; at++) {
        const unsigned char bit = (unsigned char)(1u << (at % 8));
        f.data[at] ^= bit;
        rls_index index;
        must(rls_index_load(&index, f.data, f.size, true, NULL, NULL, &err), &err);
        assert_true(index.n >= DOCS - 1);
        assert_true(index.n == DOCS || at < f.blocks_end);
        assert_int_equal(index.n_damaged, 1);
        if (at % 41 == 0)
            check_entries(&f, f.data, f.size, &index);
        rls_index_deinit(&index);
        f.data[at] ^= bit;
    }
    free(f.data);
}

static void a_flipped_bit_of_the_header_is_found(void **state)
{
    (void)state;
    const rt_rls_header h = small_header();
    unsigned char bytes[RT_RLS_HEADER_BYTES];
    rt_rls_header read;
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        rt_error err = {0};
        rls_header_write(bytes, &h);
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_int_equal(rls_header_read(&read, bytes, sizeof bytes, &err), RT_CORRUPT);
        assert_true(err.text[0] != '\0');
    }
}

static void another_version_is_named(void **state)
{
    (void)state;
    rt_error err = {0};
    const rt_rls_header h = small_header();
    unsigned char bytes[RT_RLS_HEADER_BYTES];
    rt_rls_header read;
    rls_header_write(bytes, &h);
    rls_put_u32(bytes + 8, 7);
    rls_put_u64(bytes + 248, rt_hash64(bytes, 248, 0));
    assert_int_equal(rls_header_read(&read, bytes, sizeof bytes, &err), RT_UNSUPPORTED);
    assert_non_null(strstr(err.text, "version 7"));
}

static void blocks_after_a_torn_one_are_found(void **state)
{
    (void)state;
    rt_error err = {0};
    const rt_rls_header h = small_header();
    made_file f = make_file(&h);
    const size_t hole = f.ends[4] - 3; /* a second writer appended after a torn block */
    unsigned char *data = malloc(f.size);
    assert_non_null(data);
    memcpy(data, f.data, hole);
    memcpy(data + hole, f.data + f.ends[5], f.size - f.ends[5]);
    rls_index index;
    must(rls_index_load(&index, data, hole + f.size - f.ends[5], true, NULL, NULL, &err), &err);
    assert_int_equal(index.n, DOCS - 2); /* documents 4 (torn) and 5 (never written) are not there */
    check_entries(&f, data, hole + f.size - f.ends[5], &index);
    rls_index_deinit(&index);
    free(data);
    free(f.data);
}

static void records_with_right_checksums_and_wrong_content_are_refused(void **state)
{
    (void)state;
    const rt_rls_header h = small_header();
    made_file f = make_file(&h);
    rt_rng rng = rt_rng_make(4, 4);
    rt_store_document doc = {0};
    size_t refused = 0;
    for (size_t round = 0; round < 4000; round++) {
        const size_t which = (size_t)rt_rng_below(&rng, DOCS),
                     from = (which % 3 ? f.ends[which - 1]
                             : which   ? f.ends[which - 1] + RLS_BLOCK_HEADER
                                       : RT_RLS_HEADER_BYTES + RLS_BLOCK_HEADER),
                     size = f.ends[which] - from;
        unsigned char *record = malloc(size);
        assert_non_null(record);
        memcpy(record, f.data + from, size);
        for (size_t k = 0; k < 1 + round % 4; k++) {
            const size_t at = 12 + (size_t)rt_rng_below(&rng, size - 12);
            record[at] = (unsigned char)rt_rng_below(&rng, 256);
        }
        rls_put_u64(record, rt_hash64(record + 8, size - 8, 0));
        rls_record r;
        rt_error err = {0};
        if (!rls_record_find(&r, record, size) || rls_record_read(&doc, &r, &h, true, &err) != RT_OK) {
            refused++;
        } else { /* what is accepted is sound */
            for (size_t i = 0; i < doc.n_tokens; i++)
                assert_in_range(doc.ids[i], 0, h.n_vocab - 1);
            for (size_t k = 0; k < doc.rows.n_rows; k++) {
                const rt_sparse_row row = rt_sparse_rows_at(&doc.rows, k);
                for (size_t i = 0; i < row.n; i++)
                    assert_true(row.ids[i] < h.n_vocab && row.logq[i] <= 0);
            }
        }
        free(record);
    }
    assert_true(refused > 1000);
    rt_store_document_deinit(&doc);
    free(f.data);
}

static void rows_of_a_remote_teacher_are_kept_too(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_rls_header h = small_header();
    h.topk = 20;
    h.draws = 0;
    static const uint32_t ids[] = {3, 500, 999, 40};
    static const float logq[] = {-0.1f, -3, -5, -9};
    static const uint16_t counts[4] = {0};
    rt_store_document doc = {.ids = (int32_t[]){1, 500, 40}, .mask = (uint8_t[]){0, 1, 1}, .n_tokens = 3},
                      got = {0};
    const rt_sparse_row rows[] = {
        {ids, logq, counts, 3, 3, 0, -3.5f, NAN, 0}, /* fewer than asked, nothing known of z */
        {ids, logq, counts, 4, 3, 0, -3.5f, NAN, 0}, /* and the label's own, off the top-k */
    };
    for (size_t i = 0; i < 2; i++)
        must(rt_sparse_rows_add(&doc.rows, &rows[i], &err), &err);
    rt_text out = {0};
    must(rls_record_write(&out, &h, &doc, &err), &err);
    rls_record r;
    assert_true(rls_record_find(&r, (unsigned char *)out.data, out.size));
    must(rls_record_read(&got, &r, &h, true, &err), &err);
    assert_same_document(&got, &doc, &h);
    rt_text_deinit(&out);
    rt_sparse_rows_deinit(&doc.rows);
    rt_store_document_deinit(&got);
}

static void rows_that_cannot_be_kept_are_named(void **state)
{
    (void)state;
    const rt_rls_header h = small_header();
    static const uint32_t good[] = {1, 2}, big[] = {1, 1000}, twice[] = {2, 2};
    static const float fine[] = {-1, -2}, above[] = {0.5f, -2}, nan_row[] = {NAN, -1};
    static const uint16_t none[2] = {0}, some[2] = {1, 1};
    const rt_sparse_row rows[] = {
        {big, fine, none, 2, 2, 0, -1, 1, 0},   {twice, fine, none, 2, 2, 0, -1, 1, 0},
        {good, above, none, 2, 2, 0, -1, 1, 0}, {good, nan_row, none, 2, 2, 0, -1, 1, 0},
        {good, fine, some, 2, 2, 3, -1, 1, 0},  {good, fine, none, 1, 2, 0, -1, 1, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rt_error err = {0};
        rt_text out = {0};
        rt_store_document doc = {.ids = (int32_t[]){1, 5}, .mask = (uint8_t[]){0, 1}, .n_tokens = 2};
        must(rt_sparse_rows_add(&doc.rows, &rows[i], &err), &err);
        assert_int_equal(rls_record_write(&out, &h, &doc, &err), RT_INVALID);
        assert_true(err.text[0] != '\0');
        rt_text_deinit(&out);
        rt_sparse_rows_deinit(&doc.rows);
    }
}

static void codes_are_as_near_as_they_say(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_rls_header h = small_header();
    h.topk = 1;
    h.draws = 0;
    for (unsigned bits = 8; bits <= 16; bits += 8)
        for (double x = 0; x < 70; x += 0.0137) {
            h.code_bits = bits;
            const uint32_t id = 7;
            const float logq = (float)-x;
            const uint16_t count = 0;
            rt_store_document doc = {.ids = (int32_t[]){1, 5}, .mask = (uint8_t[]){0, 1}, .n_tokens = 2},
                              got = {0};
            const rt_sparse_row row = {&id, &logq, &count, 1, 1, 0, -1, 1, 0};
            must(rt_sparse_rows_add(&doc.rows, &row, &err), &err);
            rt_text out = {0};
            must(rls_record_write(&out, &h, &doc, &err), &err);
            rls_record r;
            assert_true(rls_record_find(&r, (unsigned char *)out.data, out.size));
            must(rls_record_read(&got, &r, &h, true, &err), &err);
            assert_same_document(&got, &doc, &h);
            rt_text_deinit(&out);
            rt_sparse_rows_deinit(&doc.rows);
            rt_store_document_deinit(&got);
        }
}

static void numbers_in_golomb_code_come_back(void **state)
{
    (void)state;
    for (unsigned p = 0; p < 16; p++) {
        rt_text text = {0};
        rls_bits_out out = {.out = &text};
        uint32_t want[600], got[600];
        rt_rng rng = rt_rng_make(p, 0);
        for (size_t i = 0; i < 600; i++) {
            want[i] = (uint32_t)(rt_rng_u32(&rng) >> (8 + rt_rng_u32(&rng) % 24));
            rls_put_golomb(&out, want[i], p);
        }
        rls_put_end(&out);
        for (unsigned cut = 0; cut < 2; cut++) {
            rls_bits_in in = {.data = (unsigned char *)text.data, .size = text.size - cut};
            rls_get_numbers(&in, p, 300, got);
            rls_get_numbers(&in, p, 300, got + 300);
            assert_int_equal(rls_bits_sound(&in), !cut);
            assert_memory_equal(got, want, 595 * sizeof *got);
        }
        rt_text_deinit(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_file_cut_at_any_byte_gives_every_whole_sequence),
        cmocka_unit_test(a_flipped_bit_costs_at_most_its_own_sequence),
        cmocka_unit_test(a_flipped_bit_of_the_header_is_found),
        cmocka_unit_test(another_version_is_named),
        cmocka_unit_test(blocks_after_a_torn_one_are_found),
        cmocka_unit_test(records_with_right_checksums_and_wrong_content_are_refused),
        cmocka_unit_test(rows_of_a_remote_teacher_are_kept_too),
        cmocka_unit_test(rows_that_cannot_be_kept_are_named),
        cmocka_unit_test(codes_are_as_near_as_they_say),
        cmocka_unit_test(numbers_in_golomb_code_come_back),
    };
    return cmocka_run_group_tests_name("rls", tests, NULL, NULL);
}
