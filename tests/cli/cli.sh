#!/usr/bin/env bash
# The command line: help of every command, wrong words, exit statuses.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

commands() { retort help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'; }

every_command_explains_itself_and_its_usage_line_names_it() {
    expect_status 0 retort help
    [ -n "$(commands)" ]
    for command in $(commands); do
        expect_status 0 retort "$command" --help
        expect_text "retort $command - " "$out"
        expect_text "Usage: retort $command" "$out"
        expect_text "--help" "$out"
        expect_equal "" "$err"
        by_option=$out
        expect_status 0 retort help "$command"
        expect_equal "$by_option" "$out"
    done
}

help_lines_fit_a_terminal_of_120_columns() {
    for command in $(commands); do
        retort help "$command" | awk -v command="$command" \
            'length($0) > 120 { print command ": " $0; wide = 1 } END { exit wide }'
    done
}

no_command_shows_the_list_and_is_a_usage_error() {
    expect_status 2 retort
    expect_text "Commands:" "$out"
}

an_unknown_command_names_the_nearest_one() {
    expect_status 2 retort doctr
    expect_equal "retort: unknown command 'doctr'; did you mean 'doctor'?" "$err"
    expect_equal "" "$out"
}

an_unknown_command_far_from_all_points_to_the_list() {
    expect_status 2 retort xyzzyxyzzy
    expect_text "'retort help' lists the commands" "$err"
}

an_unknown_option_names_the_nearest_one_for_every_command() {
    for command in $(commands); do
        expect_status 2 retort "$command" --hepl
        expect_text "unknown option '--hepl'; did you mean '--help'?" "$err"
    done
}

a_value_that_is_missing_or_wrong_is_a_usage_error() {
    expect_status 2 retort doctor --threads
    expect_text "--threads needs a value" "$err"
    expect_status 2 retort doctor --threads=many
    expect_text "'many' is not a whole number" "$err"
    expect_status 2 retort doctor --threads -1
    expect_status 2 retort doctor --threads 99999999999999999999999
    expect_status 2 retort doctor --threads 18446744073709551615K
    expect_status 2 retort doctor --json=yes
    expect_text "takes no value" "$err"
}

an_argument_too_many_or_one_too_few_is_a_usage_error() {
    expect_status 2 retort doctor here
    expect_text "one argument too many: 'here'" "$err"
    expect_status 2 retort completion
    expect_text "is missing" "$err"
}

a_word_that_is_no_choice_lists_the_choices() {
    expect_status 2 retort completion bsh
    expect_text "did you mean 'bash'? (bash|zsh|man)" "$err"
}

an_error_with_json_is_one_object_on_stdout_and_the_sentence_on_stderr() {
    expect_status 2 retort doctor --json --threads x
    expect_text '"status": "INVALID"' "$out"
    expect_text "retort: --threads: 'x'" "$err"
}

an_error_about_bytes_that_are_not_utf8_still_gives_json() {
    expect_status 2 retort doctor --json --threads "$(printf '\377')"
    expect_text '"message": "--threads: '"'"$'\uFFFD' "$out"
}

the_version_is_that_of_the_header() {
    version=$(sed -n 's/.*RT_VERSION "\(.*\)"/\1/p' "$source_dir/include/retort/version.h")
    expect_status 0 retort --version
    expect_equal "retort $version" "$out"
    expect_status 0 retort version --json
    expect_text "\"version\": \"$version\"" "$out"
}

results_that_cannot_be_written_are_a_failure() {
    [ -w /dev/full ] || skip "there is no /dev/full here"
    status=0
    retort help >/dev/full 2>err.txt || status=$?
    expect_equal 1 "$status"
    expect_text "cannot write" "$(cat err.txt)"
}

a_wrong_cpu_level_is_refused_and_every_level_runs() {
    RETORT_CPU=mmx expect_status 2 retort doctor
    expect_text "mmx" "$err"
    for level in ref avx2 avx512 avx512bf16; do
        RETORT_CPU=$level expect_status 0 retort version
    done
}

doctor_gives_rates_and_limits_as_json() {
    HOME=$PWD RETORT_HOME=$PWD/none expect_status 0 retort doctor --json
    for key in level gemm_bf16_gflops read_gb_per_s distil_tokens_per_s libraries; do
        expect_text "\"$key\"" "$out"
    done
}

completion_for_bash_parses_and_offers_commands_options_and_choices() {
    retort completion bash >completion.bash
    bash -n completion.bash
    offered=$(bash -c '. ./completion.bash; COMP_WORDS=(retort doc); COMP_CWORD=1; _retort; echo "${COMPREPLY[@]}"')
    expect_equal "doctor" "$offered"
    offered=$(bash -c '. ./completion.bash; COMP_WORDS=(retort doctor --j); COMP_CWORD=2; _retort; echo "${COMPREPLY[@]}"')
    expect_equal "--json" "$offered"
    offered=$(bash -c '. ./completion.bash; COMP_WORDS=(retort completion z); COMP_CWORD=2; _retort; echo "${COMPREPLY[@]}"')
    expect_equal "zsh" "$offered"
}

completion_for_zsh_names_every_command() {
    retort completion zsh >_retort
    for command in $(commands); do
        grep -q "^    $command) _arguments" _retort
    done
    if command -v zsh >/dev/null; then
        zsh -n _retort
    fi
}

the_man_page_has_every_command_and_option_and_no_warning() {
    "$source_dir/scripts/man-page" "$build_dir/retort" >retort.1
    for command in $(commands); do
        grep -q "^\.SS $command\$" retort.1
        for option in $(retort help "$command" | sed -n '/^Options:/,/^$/s/^  --\([a-z0-9-]*\).*/\1/p'); do
            [ "$option" = help ] || grep -qF -- "\\-\\-${option//-/\\-}" retort.1 || {
                echo "$command: --$option is not in the man page"
                exit 1
            }
        done
    done
    command -v man >/dev/null || skip "there is no man here"
    expect_equal "" "$(LC_ALL=C.UTF-8 MANWIDTH=100 man --warnings -E UTF-8 -l -Tutf8 -Z retort.1 2>&1 >/dev/null)"
}

run_tests every_command_explains_itself_and_its_usage_line_names_it \
    help_lines_fit_a_terminal_of_120_columns \
    no_command_shows_the_list_and_is_a_usage_error \
    an_unknown_command_names_the_nearest_one \
    an_unknown_command_far_from_all_points_to_the_list \
    an_unknown_option_names_the_nearest_one_for_every_command \
    a_value_that_is_missing_or_wrong_is_a_usage_error \
    an_argument_too_many_or_one_too_few_is_a_usage_error \
    a_word_that_is_no_choice_lists_the_choices \
    an_error_with_json_is_one_object_on_stdout_and_the_sentence_on_stderr \
    an_error_about_bytes_that_are_not_utf8_still_gives_json \
    the_version_is_that_of_the_header \
    results_that_cannot_be_written_are_a_failure \
    a_wrong_cpu_level_is_refused_and_every_level_runs \
    doctor_gives_rates_and_limits_as_json \
    completion_for_bash_parses_and_offers_commands_options_and_choices \
    completion_for_zsh_names_every_command \
    the_man_page_has_every_command_and_option_and_no_warning
