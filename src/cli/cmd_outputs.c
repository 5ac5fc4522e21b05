/* cli/cmd_outputs.c - `retort outputs WORD`: stores of what teachers said. */
#include "cli/commands.h"
#include "cli/outputs.h"
#include "cli/sub.h"

int cmd_outputs(int argc, char **argv)
{
    const cli_sub subs[] = {
        {"record", (char[]){"outputs record"}, "a local model's log-probabilities over a text, into a store",
         cli_outputs_record},
        {"score", (char[]){"outputs score"}, "a server's log-probabilities over a text, into a store",
         cli_outputs_score},
        {"stat", (char[]){"outputs stat"}, "what a store holds, in figures", cli_outputs_stat},
        {"head", (char[]){"outputs head"}, "its first rows", cli_outputs_head},
        {"verify", (char[]){"outputs verify"}, "read every byte and say what is damaged", cli_outputs_verify},
        {"repair", (char[]){"outputs repair"}, "write damaged files again with all that is whole in them",
         cli_outputs_repair},
        {"audit", (char[]){"outputs audit"}, "are its log-probabilities those of the model at hand?",
         cli_outputs_audit},
        {"merge", (char[]){"outputs merge"}, "the rows of several stores in one, none twice",
         cli_outputs_merge},
    };
    return cli_run_sub(
        subs, sizeof subs / sizeof subs[0],
        "  retort outputs record --model smollm2-135m-instruct --data train.jsonl --out store --draws 12\n"
        "  retort outputs stat store\n"
        "  retort outputs verify store --json",
        argc, argv);
}
