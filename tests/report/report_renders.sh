#!/usr/bin/env bash
# The report in a real browser: no console errors, nothing wider than the screen, hostile text inert, prints.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

made_up=$source_dir/tests/report/made_up

# usage: training_log STEPS FIRST LAST SEED: a made-up loss that falls from FIRST to LAST
training_log() {
    awk -v n="$1" -v first="$2" -v last="$3" -v seed="$4" 'BEGIN {
        srand(seed)
        for (i = 1; i <= n; i++)
            printf "{\"step\": %d, \"tokens\": %d, \"loss\": %.4f}\n", i, i * 2048,
                last + (first - last) * exp(-i / (n * 0.11)) + (rand() - 0.5) * 0.5
    }'
}

# A run directory "run" with made-up figures, and its page run/report.html.
made_up_run() {
    command -v chromium >/dev/null || skip "chromium is not installed"
    mkdir -p run/ce
    cp "$made_up"/*.json run/
    training_log 100 11.5 1.7 1 >run/log.jsonl
    training_log 100 10.9 2.9 2 >run/ce/log.jsonl
    expect_status 0 retort report run
}

# usage: browse FILE [OPTION ...]: the browser's console in console.txt, what --dump-dom prints in dom.txt
browse() {
    local file=$1
    shift
    timeout 120 chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --enable-logging=stderr --v=0 \
        --user-data-dir="$PWD/profile" "$@" "file://$PWD/$file" >dom.txt 2>browser.txt
    grep 'CONSOLE' browser.txt >console.txt || true
}

the_console_of_a_broken_page_is_seen_here() {
    command -v chromium >/dev/null || skip "chromium is not installed"
    echo '<script>nothing_of_that_name()</script>' >broken.html
    browse broken.html --dump-dom
    expect_text "nothing_of_that_name" "$(cat console.txt)"
}

the_page_renders_without_console_errors_and_its_script_runs() {
    made_up_run
    browse run/report.html --dump-dom --window-size=1280,900
    expect_equal "" "$(cat console.txt)"
    expect_text 'class="tip"' "$(cat dom.txt)"
}

# usage: widest PAGE WIDTH: shows the page in a frame of that width and prints "frame's width, content's width"
widest() {
    cat >frame.html <<END
<body><iframe id="frame" src="$1" style="width:$2px;height:3000px;border:0"></iframe><script>
onload = function () {
    var page = document.getElementById('frame').contentDocument, widest = 0
    page.querySelectorAll('body *').forEach(function (e) {
        widest = Math.max(widest, Math.ceil(e.getBoundingClientRect().right))
    })
    document.title = 'width ' + page.documentElement.clientWidth + ' ' +
        Math.max(page.documentElement.scrollWidth, widest)
}
</script></body>
END
    browse frame.html --dump-dom --window-size=1400,900 --allow-file-access-from-files
    sed -n 's/.*<title>width \([0-9 ]*\)<.*/\1/p' dom.txt
}

nothing_is_wider_than_the_screen() {
    made_up_run
    for width in 320 390 700 1000 1280; do
        read -r frame content < <(widest run/report.html "$width")
        expect_equal "$width" "$frame"
        if [ "$content" -gt "$width" ]; then
            echo "at $width px the page reaches to $content px"
            return 1
        fi
    done
}

long_words_and_names_do_not_widen_the_page() {
    made_up_run
    long=$(printf 'x%.0s' $(seq 3000))
    printf '[{"prompt": "%s", "teacher": "%s", "student": "%s"}]' "$long" "$long" "$long" >run/samples.json
    printf '{"title": "%s", "teacher": {"name": "%s", "hash": "%s"}, "recipe": {"%s": "%s"}, "lineage": ["%s"]}' \
        "$long" "$long" "$long" "$long" "$long" "$long" >run/run.json
    expect_status 0 retort report run
    read -r frame content < <(widest run/report.html 390)
    expect_equal "390" "$frame"
    [ "$content" -le 390 ] || { echo "the page reaches to $content px"; return 1; }
}

hostile_answers_run_nothing() {
    made_up_run
    evil="</p><script>document.documentElement.id='pwned'</script><img src=x onerror=\\\"document.documentElement.id='pwned'\\\">"
    printf '[{"prompt": "%s", "teacher": "%s", "student": "%s"}]' "$evil" "$evil" "$evil" >run/samples.json
    expect_status 0 retort report run
    browse run/report.html --dump-dom
    expect_equal "" "$(cat console.txt)"
    expect_text "&lt;script&gt;" "$(cat dom.txt)"
    if grep -q '<html[^>]*pwned' dom.txt; then
        echo "an answer ran as a script"
        return 1
    fi
}

a_script_that_slipped_in_would_be_refused() {
    made_up_run
    sed -i "s,</footer>,</footer><script>document.documentElement.id='pwned'</script>," run/report.html
    browse run/report.html --dump-dom
    expect_text "Content Security Policy" "$(cat console.txt)"
    if grep -q '<html[^>]*pwned' dom.txt; then
        echo "a foreign script ran"
        return 1
    fi
}

# usage: sentence_color PAGE WORDS: the colour in which the browser shows the paragraph that holds the words
sentence_color() {
    grep -v 'Content-Security-Policy' "$1" >looked.html
    cat >>looked.html <<END
<script>
document.querySelectorAll('p').forEach(function (p) {
    if (p.textContent.includes('$2')) document.title = 'color ' + getComputedStyle(p).color
})
</script>
END
    browse looked.html --dump-dom
    sed -n 's/.*<title>color \([^<]*\)<.*/\1/p' dom.txt
}

a_plan_that_was_altered_is_told_in_red() {
    command -v chromium >/dev/null || skip "chromium is not installed"
    local model=$source_dir/data/teacher-small.gguf
    head -n 12 "$source_dir/data/prompts.jsonl" | jq -c '{prompt, answer: "It is so.", position: input_line_number}' >order.jsonl
    expect_status 0 retort evidence plan --suspect "$model" --order order.jsonl --flips 99 --out plan.json
    expect_status 0 retort evidence run plan.json --out record.json
    expect_status 0 retort evidence report record.json --out page.html
    expect_equal "" "$(sentence_color page.html 'altered after it was hashed')"
    jq '.flips = 98' plan.json >altered.json
    expect_status 0 retort evidence run altered.json --out record.json
    expect_status 0 retort evidence report record.json --out page.html
    expect_equal "rgb(176, 0, 32)" "$(sentence_color page.html 'altered after it was hashed')"
}

it_prints_and_photographs() {
    made_up_run
    browse run/report.html --screenshot="$PWD/page.png" --window-size=1280,4000
    browse run/report.html --no-pdf-header-footer --print-to-pdf="$PWD/page.pdf"
    [ "$(stat -c %s page.png)" -gt 50000 ]
    [ "$(head -c 5 page.pdf)" = "%PDF-" ]
}

the_command_says_what_it_left_out() {
    mkdir empty
    expect_status 0 retort report empty --out page.html
    expect_text "left out, for want of data: facts, loss" "$err"
    [ -s page.html ]
    expect_status 0 retort report empty --json
    expect_text '"loss": false' "$out"
    [ -s empty/report.html ]
    expect_status 1 retort report missing
    expect_text "missing: is not a directory" "$err"
    echo '{"a":' >empty/run.json
    expect_status 1 retort report empty
    expect_text "run.json" "$err"
}

run_tests the_console_of_a_broken_page_is_seen_here the_page_renders_without_console_errors_and_its_script_runs \
    nothing_is_wider_than_the_screen long_words_and_names_do_not_widen_the_page hostile_answers_run_nothing \
    a_script_that_slipped_in_would_be_refused a_plan_that_was_altered_is_told_in_red it_prints_and_photographs the_command_says_what_it_left_out
