/* account/secrets.h - the two keys that never enter the database: one signs the audit trail (Ed25519), one
 * seals prompts (XChaCha20-Poly1305).  A file of 64 bytes, 0600, made at first use.
 *
 * Who can write the database but not read this file can neither forge the trail nor read a prompt. */
#ifndef RT_ACCOUNT_SECRETS_H
#define RT_ACCOUNT_SECRETS_H

#include <stddef.h>

#include "retort/error.h"

enum { RT_SIGN_HEX = 65, RT_SIGNATURE_HEX = 129, RT_SEAL_OVERHEAD = 24 + 16 };

typedef struct rt_secrets {
    unsigned char sign[64], sign_public[32], seal[32];
} rt_secrets;

/* path NULL: "<db>.secrets" beside a SQLite file; PostgreSQL needs a path, the same file for every server. */
rt_status rt_secrets_open(rt_secrets *out, const char *path, const char *db, rt_error *err);
void rt_secrets_wipe(rt_secrets *secrets);

/* out has room for size + RT_SEAL_OVERHEAD; bound: text that must be the same when it is opened. */
void rt_secrets_seal(const rt_secrets *secrets, unsigned char *out, const void *data, size_t size,
                     const char *bound);
/* out has room for size - RT_SEAL_OVERHEAD.  RT_CORRUPT when the bytes are not what was sealed. */
rt_status rt_secrets_unseal(const rt_secrets *secrets, unsigned char *out, const void *sealed, size_t size,
                            const char *bound, rt_error *err);

#endif
