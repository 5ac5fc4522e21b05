/* cli/outputs.h - the words of `retort outputs`, one file each or a few together. */
#ifndef RT_CLI_OUTPUTS_H
#define RT_CLI_OUTPUTS_H

int cli_outputs_record(int argc, char **argv);
int cli_outputs_score(int argc, char **argv);
int cli_outputs_audit(int argc, char **argv);
int cli_outputs_verify(int argc, char **argv);
int cli_outputs_repair(int argc, char **argv);
int cli_outputs_stat(int argc, char **argv);
int cli_outputs_merge(int argc, char **argv);
int cli_outputs_head(int argc, char **argv);

#endif
