/* outputs/answer_cache.h - answers of earlier runs, by request: what was paid for once is not asked again.
 *
 * One SQLite file that any number of runs share.  Only requests whose answer is determined (temperature 0, or
 * a seed) belong in it; the key is that of the canonical body, model and address. */
#ifndef RT_OUTPUTS_ANSWER_CACHE_H
#define RT_OUTPUTS_ANSWER_CACHE_H

#include "base/text.h"

typedef struct rt_answer_cache rt_answer_cache;
rt_status rt_answer_cache_open(rt_answer_cache **out, const char *path, rt_error *err);
/* Appends the row that was kept under the key; *found says whether there is one. */
rt_status rt_answer_cache_get(rt_answer_cache *cache, const char *key, rt_text *row, bool *found,
                              rt_error *err);
/* Kept with the next commit. */
rt_status rt_answer_cache_put(rt_answer_cache *cache, const char *key, const char *row, size_t size,
                              rt_error *err);
rt_status rt_answer_cache_commit(rt_answer_cache *cache, rt_error *err);
void rt_answer_cache_close(rt_answer_cache *cache); /* commits; NULL is fine */

#endif
