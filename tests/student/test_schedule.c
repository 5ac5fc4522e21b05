/* tests/student/test_schedule.c - the shape of every schedule at its corners. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>

#include <cmocka.h>

#include "student/schedule.h"

static void assert_near(double a, double b) { assert_true(fabs(a - b) < 1e-12); }

static void warm_up_starts_at_zero_and_ends_at_one(void **state)
{
    (void)state;
    for (int kind = RT_SCHEDULE_CONSTANT; kind <= RT_SCHEDULE_WSD; kind++) {
        const rt_schedule s = {
            .kind = (rt_schedule_kind)kind, .warmup = 4, .total = 20, .decay = 6, .floor = 0.1};
        assert_near(rt_schedule_at(&s, 0), 0);
        assert_near(rt_schedule_at(&s, 1), 0.25);
        assert_near(rt_schedule_at(&s, 4), 1);
    }
}

static void decays_end_at_the_floor_and_stay_there(void **state)
{
    (void)state;
    for (int kind = RT_SCHEDULE_LINEAR; kind <= RT_SCHEDULE_WSD; kind++) {
        for (int shape = RT_DECAY_LINEAR; shape <= RT_DECAY_COSINE; shape++) {
            const rt_schedule s = {.kind = (rt_schedule_kind)kind,
                                   .shape = (rt_decay_shape)shape,
                                   .warmup = 4,
                                   .total = 20,
                                   .decay = 6,
                                   .floor = 0.1};
            assert_near(rt_schedule_at(&s, 20), 0.1);
            assert_near(rt_schedule_at(&s, 1000), 0.1);
            for (uint64_t i = 4; i < 20; i++)
                assert_true(rt_schedule_at(&s, i) >= rt_schedule_at(&s, i + 1) - 1e-12);
        }
    }
}

static void values_half_way_are_those_of_the_formulas(void **state)
{
    (void)state;
    rt_schedule s = {.kind = RT_SCHEDULE_COSINE, .warmup = 4, .total = 20};
    assert_near(rt_schedule_at(&s, 8), 0.5 * (1 + sqrt(0.5)));
    s.floor = 0.1;
    assert_near(rt_schedule_at(&s, 12), 0.55);
    s = (rt_schedule){.kind = RT_SCHEDULE_WSD, .shape = RT_DECAY_SQRT, .warmup = 2, .total = 20, .decay = 8};
    assert_near(rt_schedule_at(&s, 12), 1);
    assert_near(rt_schedule_at(&s, 14), 0.5);
    s.decay = 50; /* longer than the run: it starts at once */
    assert_near(rt_schedule_at(&s, 2), 1 - sqrt(2.0 / 50));
}

static void taid_keeps_to_its_line_or_runs_ahead_of_it(void **state)
{
    (void)state;
    rt_taid a = rt_taid_make(0.4, 1, 5e-4, 0.99, 10);
    assert_near(a.t, 0.4);
    double last = a.t;
    for (int i = 0; i < 15; i++) {
        rt_taid_observe(&a, 3.0 - 0.1 * i);
        assert_true(a.t >= last && a.t <= 1 && a.t >= fmin(1, 0.4 + 0.06 * i) - 1e-12);
        last = a.t;
    }
    assert_near(a.t, 1);
}

static void names_are_those_of_recipes(void **state)
{
    (void)state;
    rt_schedule_kind kind;
    rt_decay_shape shape;
    assert_true(rt_schedule_kind_from_name(&kind, "wsd") && kind == RT_SCHEDULE_WSD);
    assert_true(rt_decay_shape_from_name(&shape, "sqrt") && shape == RT_DECAY_SQRT);
    assert_false(rt_schedule_kind_from_name(&kind, "cosin"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_up_starts_at_zero_and_ends_at_one),
        cmocka_unit_test(decays_end_at_the_floor_and_stay_there),
        cmocka_unit_test(values_half_way_are_those_of_the_formulas),
        cmocka_unit_test(taid_keeps_to_its_line_or_runs_ahead_of_it),
        cmocka_unit_test(names_are_those_of_recipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
