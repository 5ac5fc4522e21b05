/* cli/watermark_weigh.h - `retort watermark detect --weigh`; see evidence/weigh.h. */
#ifndef RT_CLI_WATERMARK_WEIGH_H
#define RT_CLI_WATERMARK_WEIGH_H

#include "evidence/keys.h"
#include "evidence/texts.h"

typedef struct cli_weights {
    const rt_texts *texts; /* borrowed */
    float **list;          /* [texts->count][its ids] */
} cli_weights;

/* Reads every text once with the model; what was opened is closed with cli_weights_close, after a failure
 * too. */
rt_status cli_weights_open(cli_weights *out, const char *model_name, const rt_texts *texts, rt_pool *pool,
                           rt_error *err);
void cli_weights_close(cli_weights *weights);
/* {n, z, log10_p, key_check} of texts [from, to); NULL with *err set when it fails: hf schemes have no such
 * test.  random_keys 0: no check. */
json_t *cli_weighed_json(const cli_weights *weights, size_t from, size_t to, const rt_watermark *mark,
                         size_t random_keys, uint64_t seed, rt_error *err);

#endif
