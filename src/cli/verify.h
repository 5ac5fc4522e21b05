/* cli/verify.h - the kinds of `retort verify KIND ...`; argv[0] is the kind. */
#ifndef RT_CLI_VERIFY_H
#define RT_CLI_VERIFY_H

#include "judge/verify.h"

int verify_model(int argc, char **argv);
int verify_smollm2(int argc, char **argv);
int verify_curve(int argc, char **argv);
int verify_tokenizer(int argc, char **argv);
int verify_losses(int argc, char **argv);
int verify_evidence(int argc, char **argv);

/* Prints a result, as JSON when asked; the exit status: that of RT_CHECK_FAILED when anything failed. */
int verify_print(const rt_verify *result, bool json);

#endif
