#!/usr/bin/env bash
# Accounts, keys, usage, appeals and the audit trail from the command line; a gateway in front of nothing.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

field() { jq -r "$1" <<<"$out"; }

use_database() {
    export RETORT_DB=$PWD/accounts.db
    unset RETORT_SECRETS
}

an_account_and_its_key_are_made_and_the_secret_is_shown_once() {
    use_database
    expect_status 0 retort account create "O'Brien; DROP TABLE keys --" --rpm 60 --budget-tokens 5M \
        --budget-period month --json
    account=$(field .id)
    expect_equal 60 "$(field .limits.rpm)"
    expect_equal '{"amount":5000000,"unit":"tokens","period":"month"}' "$(jq -c .limits.budget <<<"$out")"
    expect_status 0 retort key create "O'Brien; DROP TABLE keys --" --name laptop --json
    secret=$(field .secret)
    [[ $secret =~ ^sk-rt-[a-z0-9]{8}-[A-Za-z0-9_-]{43}$ ]]
    expect_status 0 retort key list "$account" --json
    expect_equal 1 "$(field '.data | length')"
    expect_equal null "$(field '.data[0].secret')"
    expect_equal "sk-rt-$(field '.data[0].id')-…${secret: -4}" "$(field '.data[0].key')"
    ! grep -q "${secret:15}" accounts.db*
    expect_equal 600 "$(stat -c %a accounts.db)"
    expect_equal 600 "$(stat -c %a accounts.db.secrets)"
}

limits_that_make_no_sense_are_usage_errors() {
    use_database
    expect_status 0 retort account create a
    for bad in '--rpm -1' '--rpm 1.5' '--rpm nan' '--budget-usd -3' '--budget-usd nan' '--budget-usd 1e999' \
        '--top-logprobs 21' '--max-tokens 0' '--tpm 99999999999999999999'; do
        # shellcheck disable=SC2086 # an option and its value
        expect_status 2 retort account limit a $bad
        [ -n "$err" ]
    done
    expect_status 2 retort account limit a --limits '{"rpm": 1, "speed": 2}'
    expect_text "unknown key 'speed'" "$err"
    expect_status 2 retort account limit a --limits '{"rpm": -1}'
    expect_status 2 retort account limit a
    expect_status 0 retort account limit a --rpm 5
    expect_status 0 retort account limit a --rpm none --json
    expect_equal null "$(field .limits.rpm)"
    expect_status 2 retort account create "$(printf 'two\nlines')"
    expect_status 2 retort account create "$(head -c 300 /dev/zero | tr '\0' n)"
    expect_status 1 retort account show nobody
    expect_text "there is no account 'nobody'" "$err"
}

a_suspension_opens_a_case_that_is_decided_and_all_is_in_the_trail() {
    use_database
    expect_status 0 retort account create a
    expect_status 0 retort account suspend a --reason r --public-reason p --json
    case_id=$(field .case)
    expect_equal suspended "$(field .state)"
    expect_status 0 retort appeal list --json
    expect_equal 0 "$(field '.data | length')"
    expect_status 0 retort appeal decide "$case_id" reduce --note n --json
    expect_equal reduce "$(field .outcome)"
    expect_status 0 retort account show a --json
    expect_equal throttled "$(field .state)"
    expect_status 0 retort account reinstate a --note n
    expect_status 0 retort account close a
    expect_status 1 retort key create a
    expect_status 0 retort account list --state closed --json
    expect_equal 1 "$(field '.data | length')"
    expect_status 0 retort audit show --json
    expect_equal "account.create account.suspend case.decide account.reinstate account.close" \
        "$(field '[.data[].action] | join(" ")')"
    expect_status 0 retort audit verify --json
    expect_equal true "$(field .valid)"
    expect_equal 5 "$(field .rows)"
}

a_changed_a_removed_and_a_forged_row_of_the_trail_are_found() {
    command -v sqlite3 >/dev/null || skip "sqlite3 is not installed"
    use_database
    for name in a b c; do expect_status 0 retort account create $name; done
    expect_status 0 retort audit verify --json
    head=$(field .head) public_key=$(field .public_key)
    cp accounts.db good.db
    expect_status 0 retort audit verify --public-key "$public_key" --expect "$head"
    sqlite3 accounts.db "UPDATE audit SET actor = 'somebody' WHERE id = 2"
    expect_status 3 retort audit verify --json
    expect_text "row 2 was changed" "$(field .fault)"
    cp good.db accounts.db && sqlite3 accounts.db "DELETE FROM audit WHERE id = 2"
    expect_status 3 retort audit verify
    expect_text "row 2 is missing" "$out"
    cp good.db accounts.db && sqlite3 accounts.db "DELETE FROM audit WHERE id = 3"
    expect_status 3 retort audit verify
    cp good.db accounts.db
    expect_status 3 retort audit verify --expect "${head//[0-9]/0}"
    expect_status 3 retort audit verify --public-key "$(printf '%064d' 1)"
    expect_status 2 retort audit verify --public-key xyz
}

keys_are_rotated_and_revoked_and_an_operators_key_has_a_role() {
    use_database
    expect_status 0 retort account create a
    expect_status 0 retort key create a --json
    key=$(field .id)
    expect_status 0 retort key rotate "$key" --overlap 60 --json
    new=$(field .id)
    [ "$new" != "$key" ]
    expect_status 0 retort key revoke "sk-rt-$new" --json
    [ "$(field .revoked)" != null ]
    expect_status 1 retort key rotate "$new"
    expect_status 1 retort key revoke aaaaaaaa
    expect_status 2 retort key revoke "x' OR '1'='1"
    expect_status 0 retort key create --admin read --name ops --json
    [[ $(field .secret) == sk-rt-admin-* ]]
    expect_equal read "$(field .role)"
    expect_status 2 retort key create a --admin full
    expect_status 2 retort key create
}

usage_is_empty_at_first_and_its_options_are_checked() {
    use_database
    expect_status 0 retort account create a
    expect_status 0 retort usage --account a --bucket 1h --group-by account,model --json
    expect_equal 0 "$(field '.data | length')"
    expect_status 2 retort usage --group-by weather
    expect_status 2 retort usage --from yesterday
    expect_status 2 retort usage --bucket 1y
}

a_newer_database_and_foreign_secrets_are_refused() {
    command -v sqlite3 >/dev/null || skip "sqlite3 is not installed"
    use_database
    expect_status 0 retort account create a
    rm accounts.db.secrets
    expect_status 1 retort account create b
    expect_status 0 retort account list
    sqlite3 accounts.db "INSERT INTO schema_versions VALUES (999)"
    expect_status 1 retort account list
    expect_text "use a newer retort" "$err"
    printf 'not a database, and long enough to look like one %0600d' 0 >accounts.db
    expect_status 1 retort account list
}

run_tests an_account_and_its_key_are_made_and_the_secret_is_shown_once limits_that_make_no_sense_are_usage_errors \
    a_suspension_opens_a_case_that_is_decided_and_all_is_in_the_trail \
    a_changed_a_removed_and_a_forged_row_of_the_trail_are_found \
    keys_are_rotated_and_revoked_and_an_operators_key_has_a_role usage_is_empty_at_first_and_its_options_are_checked \
    a_newer_database_and_foreign_secrets_are_refused
