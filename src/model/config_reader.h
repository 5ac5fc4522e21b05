/* model/config_reader.h - reading the keys of a config.json; for config_json.c and config_experts.c only. */
#ifndef RT_MODEL_CONFIG_READER_H
#define RT_MODEL_CONFIG_READER_H

#include "model/families.h"

/* Reads keys of one object; the first failure is kept and later reads do nothing. */
typedef struct rt_config_reader {
    const json_t *object;
    const char *where;  /* the file */
    const char *inside; /* "", or the object's path with a dot: "rope_parameters." */
    rt_error *err;
    rt_status status;
} rt_config_reader;

/* The value of a key; NULL when it is absent, null, or the key itself is NULL. */
const json_t *rt_config_look(const rt_config_reader *in, const char *key);
void rt_config_bad_type(rt_config_reader *in, const char *key, const char *wanted);
size_t rt_config_size(rt_config_reader *in, const char *key, size_t absent);
double rt_config_number(rt_config_reader *in, const char *key, double absent);
bool rt_config_bool(rt_config_reader *in, const char *key, bool absent);
const char *rt_config_string(rt_config_reader *in, const char *key, const char *absent);
/* A token id: a number, a list (the first counts: the tokenizer knows the other ends), or absent. */
int rt_config_id(rt_config_reader *in, const char *key, int absent);
/* An object under a key as a reader of its own; false when there is none. */
bool rt_config_enter(rt_config_reader *out, rt_config_reader *in, const char *key, const char *inside);

/* Latent attention and experts (config_experts.c): reading after the sizes, and writing. */
void rt_config_read_latent(rt_model_config *out, rt_config_reader *in);
void rt_config_read_experts(rt_model_config *out, rt_config_reader *in, const rt_family *family);
void rt_config_put_latent(json_t *out, const rt_model_config *config);
void rt_config_put_experts(json_t *out, const rt_model_config *config, const rt_family *family);

#endif
