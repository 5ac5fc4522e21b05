/* cli/open_model.h - a MODEL argument opened: weights, decoder, tokenizer, chat template.
 *
 * MODEL is a GGUF file, a folder with config.json and safetensors, or the name of a known model that was
 * pulled before. */
#ifndef RT_CLI_OPEN_MODEL_H
#define RT_CLI_OPEN_MODEL_H

#include <jansson.h>

#include "cli/model_arg.h"
#include "model/chat_template.h"
#include "model/decoder.h"
#include "model/tokenizer.h"

/* The values of every --precision option, for an option table. */
#define CLI_PRECISIONS "f32|bf16|int8"

enum {
    CLI_MODEL_NO_TOKENIZER = 1, /* the command works on ids alone */
    CLI_MODEL_STREAM = 4,       /* its layers are read from disk as they are needed (model/stream.h) */
    CLI_MODEL_NO_TEMPLATE = 2   /* prompts are used as they are: a template is not even parsed */
};

typedef struct cli_model {
    char *path; /* of the file or folder */
    rt_weights *weights;
    rt_model *model;
    rt_tokenizer *tokenizer;         /* NULL with CLI_MODEL_NO_TOKENIZER */
    rt_chat_template *chat_template; /* NULL: not wanted, or the model has none */
    uint64_t weight_file_bytes;      /* the tensors' data as they lie on disk */
} cli_model;

/* One of CLI_PRECISIONS, as cli_parse has checked it. */
rt_precision cli_precision(const char *word);

/* flags: CLI_MODEL_*.  On failure *out is empty.  The pool must outlive the model. */
rt_status cli_model_open(cli_model *out, const char *name, rt_precision precision, unsigned flags,
                         rt_pool *pool, rt_error *err);
void cli_model_close(cli_model *model); /* an empty one is fine */

/* What the file, the folder's card or the list of known models says of the licence; JSON null: nothing does.
 */
json_t *cli_model_licence(const rt_weights *weights, const char *path);

/* RT_MISMATCH that names both tokenizers when two models do not read the same ids; embeddings that are
 * padded to different sizes are fine. */
rt_status cli_models_match(const cli_model *teacher, const cli_model *student, rt_error *err);

#endif
