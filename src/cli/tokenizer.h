/* cli/tokenizer.h - the words of `retort tokenizer`. */
#ifndef RT_CLI_TOKENIZER_H
#define RT_CLI_TOKENIZER_H

int cli_tokenizer_train(int argc, char **argv); /* tokenizer_learn.c */
int cli_tokenizer_show(int argc, char **argv);
int cli_tokenizer_encode(int argc, char **argv);
int cli_tokenizer_decode(int argc, char **argv);

#endif
