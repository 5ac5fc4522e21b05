#!/usr/bin/env bash
# scripts/results-guard and results-guard-poison with --quick: the whole way from made-up traffic to figures, small.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

the_guard_is_measured_from_end_to_end() {
    [ -f "$source_dir/../shared/data/guard/dev.jsonl.zst" ] || skip "the shared folder data/guard is not there"
    [ -x "$build_dir/bench/bench_guard_rivals" ] || skip "the benches are not built"
    expect_status 0 env DIR="$PWD/measured" python3 "$source_dir/scripts/results-guard" --quick "$build_dir"
    expect_equal true "$(jq '[."held out"[], .shipped[] | ."found at 1%"] | all(. >= 0 and . <= 1)' measured/results-guard.json)"
    # few trees and little traffic, yet far better than chance
    expect_equal true "$(jq '.shipped."data/guard"."found at p < 1%" > 0.5' measured/results-guard.json)"
    expect_equal 0 "$(jq '."with links"."data/guard"."honest clusters accused"' measured/results-guard.json)"
}

collectors_hidden_in_a_calibration_are_set_aside() {
    [ -f "$source_dir/../shared/data/guard/asn.json" ] || skip "the shared folder data/guard is not there"
    DIR="$PWD/poisoned" python3 "$source_dir/scripts/results-guard-poison" --quick "$build_dir" >figures.json
    expect_equal '[0,0.1]' "$(jq -c '[.[].share]' figures.json)"
    expect_equal true "$(jq '.[1].hidden > 10 and .[1]."collectors set aside" >= 0.8 * .[1].hidden' figures.json)"
    # without the screen those hidden hide all others; with it hardly anybody is lost
    expect_equal true "$(jq '.[1]."no screen".found < 0.5 * .[0]."no screen".found' figures.json)"
    expect_equal true "$(jq '.[1].screen.found > 0.7 * .[0].screen.found and .[0].screen.found > 0.5' figures.json)"
}

run_tests collectors_hidden_in_a_calibration_are_set_aside the_guard_is_measured_from_end_to_end
