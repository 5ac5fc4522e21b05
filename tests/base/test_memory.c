/* tests/base/test_memory.c - arenas and checked sizes: full is NULL, never a wrap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/size.h"

static void what_an_arena_hands_out_is_aligned_zeroed_and_apart(void **state)
{
    (void)state;
    rt_arena arena;
    rt_error err = {0};
    assert_int_equal(rt_arena_init(&arena, 1 << 16, &err), RT_OK);
    unsigned char *before = NULL;
    for (size_t size = 1; size < 300; size += 7) {
        unsigned char *p = rt_arena_push(&arena, size, 1);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xAA, size);
        assert_true(!before || p > before);
        before = p;
    }
    rt_arena_reset(&arena);
    unsigned char *again = rt_arena_push(&arena, 300, 1);
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(again[i], 0);
    rt_arena_deinit(&arena);
    rt_arena_deinit(&arena); /* a second time is harmless */
}

static void a_full_arena_and_an_overflowing_product_give_null_and_change_nothing(void **state)
{
    (void)state;
    rt_arena arena;
    rt_error err = {0};
    assert_int_equal(rt_arena_init(&arena, 4096, &err), RT_OK);
    assert_null(rt_arena_push(&arena, 4097, 1));
    assert_null(rt_arena_push(&arena, SIZE_MAX, 2));
    assert_null(rt_arena_push(&arena, SIZE_MAX / 2 + 2, 2)); /* 2 modulo 2^64 */
    assert_int_equal(arena.used, 0);
    assert_non_null(rt_arena_push(&arena, 4096, 1));
    assert_null(rt_arena_push(&arena, 1, 1));
    assert_non_null(rt_arena_push(&arena, 0, 8));
    rt_arena_deinit(&arena);
    assert_null(rt_arena_push(&arena, 1, 1));
    assert_int_equal(rt_arena_init(&arena, SIZE_MAX, &err), RT_NO_MEMORY);
    assert_non_null(strstr(err.text, "absurd"));
}

static void rewinding_to_a_mark_drops_what_came_after_and_the_peak_stays(void **state)
{
    (void)state;
    rt_arena arena;
    rt_error err = {0};
    assert_int_equal(rt_arena_init(&arena, 1 << 16, &err), RT_OK);
    (void)rt_arena_push(&arena, 100, 1);
    const size_t mark = rt_arena_mark(&arena);
    const void *first = rt_arena_push_raw(&arena, 1000, 1);
    const size_t peak = arena.peak;
    rt_arena_rewind(&arena, mark);
    assert_ptr_equal(rt_arena_push_raw(&arena, 10, 1), first);
    assert_int_equal(arena.peak, peak);
    rt_arena_deinit(&arena);
}

static void sizes_that_do_not_fit_are_false(void **state)
{
    (void)state;
    size_t out;
    assert_true(rt_size_mul(SIZE_MAX, 1, &out));
    assert_false(rt_size_mul(SIZE_MAX, 2, &out));
    assert_false(rt_size_mul((size_t)1 << 32, (size_t)1 << 32, &out));
    assert_true(rt_size_add(SIZE_MAX - 1, 1, &out));
    assert_false(rt_size_add(SIZE_MAX, 1, &out));
    assert_int_equal(rt_size_ceil_div(0, 5), 0);
    assert_int_equal(rt_size_ceil_div(11, 5), 3);
    assert_int_equal(rt_size_ceil_div(SIZE_MAX, 1), SIZE_MAX);
    assert_int_equal(rt_size_round_up(65, 64), 128);
    assert_int_equal(rt_size_round_up(64, 64), 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_an_arena_hands_out_is_aligned_zeroed_and_apart),
        cmocka_unit_test(a_full_arena_and_an_overflowing_product_give_null_and_change_nothing),
        cmocka_unit_test(rewinding_to_a_mark_drops_what_came_after_and_the_peak_stays),
        cmocka_unit_test(sizes_that_do_not_fit_are_false),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
