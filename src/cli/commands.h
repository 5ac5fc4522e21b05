/* cli/commands.h - the one list of commands: X(name, summary) stands for cmd_<name> in cmd_<name>.c.
 *
 * The order is that of `retort help`. */
#ifndef RT_CLI_COMMANDS_H
#define RT_CLI_COMMANDS_H

#define CLI_COMMAND_MAP(X)                                                                                   \
    X(pull, "bring a known model into the cache, checksum verified")                                         \
    X(inspect, "what a model file holds: family, sizes, types, tokenizer, licence")                          \
    X(plan, "what a run takes before it is started: arithmetic, time, memory, disk, money")                  \
    X(outputs, "stores of what teachers said: record, look at, verify, repair, merge")                       \
    X(collect, "ask a teacher, keep what it said; stopped or killed, it goes on")                            \
    X(distill, "train a student from a recipe; stopped, it goes on where it was")                            \
    X(tokenizer, "a vocabulary of one's own: train it, look at it, encode, decode")                          \
    X(generate, "an answer to a prompt, or answers to a file of them")                                       \
    X(chat, "a conversation with a model")                                                                   \
    X(serve, "models behind an OpenAI-compatible HTTP API")                                                  \
    X(shortlist, "the ids that a draft may say, so that it runs ahead sooner")                               \
    X(export, "between Hugging Face folders and GGUF, with quantisation")                                    \
    X(watermark, "keys of watermarks, and marks in text")                                                    \
    X(evidence, "was this model trained on that one's outputs? plan, run, calibrate, report")                \
    X(bench, "speed beside the machine's limits")                                                            \
    X(verify, "this build against reference vectors")                                                        \
    X(eval, "how near students are to their teacher, on held-out text")                                      \
    X(task, "problems whose answers can be checked: accuracy, and right answers as training text")           \
    X(guard, "accounts that collect training data: found, linked, explained")                                \
    X(report, "a run as one HTML page with plots")                                                           \
    X(account, "accounts of the server: make, limit, suspend, reinstate")                                    \
    X(key, "API keys of accounts and operators")                                                             \
    X(usage, "what accounts have used, by time, key and model")                                              \
    X(appeal, "objections against suspensions, and decisions on them")                                       \
    X(audit, "the signed trail of changes to accounts")                                                      \
    X(doctor, "this machine: cores, instruction sets, memory, rates, libraries")                             \
    X(completion, "a completion script for bash or zsh, or the man page's commands")                         \
    X(help, "show the commands, or how one is used")                                                         \
    X(version, "print the version")

#define CLI_COMMAND_PROTOTYPE(name, summary) int cmd_##name(int argc, char **argv);
CLI_COMMAND_MAP(CLI_COMMAND_PROTOTYPE)
#undef CLI_COMMAND_PROTOTYPE

#endif
