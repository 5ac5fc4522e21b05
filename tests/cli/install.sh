#!/usr/bin/env bash
# What `make install` puts in place: a program that is not ours compiles and links with what pkg-config says.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

a_program_compiles_and_links_with_the_installed_library() {
    command -v pkg-config >/dev/null || skip "pkg-config is not installed"
    [ -f "$build_dir/retort.1" ] || skip "this build has no man page to install"
    cmake --install "$build_dir" --prefix "$PWD/there" >install.txt 2>&1 || { cat install.txt; exit 1; }
    cat >user.c <<'C'
#include <retort/retort.h>
#include <stdio.h>

int main(void)
{
    rt_error err = {0};
    rt_weights *weights;
    if (rt_weights_open(&weights, "missing.gguf", &err) != RT_OK)
        return puts(err.text) < 0;
    rt_weights_close(weights);
    return 1;
}
C
    PKG_CONFIG_PATH=$(dirname "$(find there -name retort.pc)")
    export PKG_CONFIG_PATH
    # shellcheck disable=SC2046 # the flags are words
    cc -o user user.c $(pkg-config --cflags --libs retort)
    expect_status 0 ./user
    expect_text "missing.gguf" "$out"
}

run_tests a_program_compiles_and_links_with_the_installed_library
