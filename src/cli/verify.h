/* cli/verify.h - the kinds of `retort verify KIND ...`; argv[0] is the kind. */
#ifndef RT_CLI_VERIFY_H
#define RT_CLI_VERIFY_H

int verify_losses(int argc, char **argv);

#endif
