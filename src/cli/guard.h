/* cli/guard.h - the words of `retort guard`, one function each, and what they share. */
#ifndef RT_CLI_GUARD_H
#define RT_CLI_GUARD_H

#include "cli/cli.h"
#include "guard/replay.h"

int guard_replay(int argc, char **argv);
int guard_train(int argc, char **argv);
int guard_train_elicit(int argc, char **argv);
int guard_calibrate(int argc, char **argv);

#endif
