/* cli/cmd_watermark.c - `retort watermark key|detect`: keys of watermarks, and marks in text. */
#include "cli/commands.h"
#include "cli/sub.h"
#include "cli/watermark.h"

int cmd_watermark(int argc, char **argv)
{
    const cli_sub subs[] = {
        {"key", (char[]){"watermark key"}, "make, list and show keys", watermark_key},
        {"detect", (char[]){"watermark detect"}, "is this text marked with one of these keys?",
         watermark_detect},
    };
    return cli_run_sub(subs, sizeof subs / sizeof *subs,
                       "  retort watermark key new served-2026\n"
                       "  retort generate smollm2-135m-instruct --prompt 'Tell a story' --temperature 1 "
                       "--watermark served-2026\n"
                       "  retort watermark detect answers.jsonl --key served-2026 --model "
                       "smollm2-135m-instruct",
                       argc, argv);
}
