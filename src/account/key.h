/* account/key.h - API keys as texts: "sk-rt-" + 8 id characters + "-" + 43 base64url characters (256 bits),
 * and "sk-rt-admin-" + the same for operators.
 *
 * A secret is shown once; what is kept is the id and the SHA-256 of the whole text.  Secrets are random, so a
 * slow hash would protect nothing. */
#ifndef RT_ACCOUNT_KEY_H
#define RT_ACCOUNT_KEY_H

#include <stdbool.h>
#include <stddef.h>

enum { RT_KEY_ID_SIZE = 9, RT_KEY_TEXT_MAX = 80 }; /* with the NUL */

typedef struct rt_key_text {
    char id[RT_KEY_ID_SIZE]; /* 8 of a-z 0-9 */
    bool is_admin;
} rt_key_text;

/* Takes the id out of a key of any length; false when it has not the form.  No byte of the secret is
 * compared. */
bool rt_key_parse(rt_key_text *out, const char *key);
/* A new key from the system's random bytes. */
void rt_key_make(char out[RT_KEY_TEXT_MAX], rt_key_text *text, bool is_admin);
/* "sk-rt-ab12cd34-…wxyz" */
void rt_key_redacted(char out[RT_KEY_TEXT_MAX], const char *id, bool is_admin, const char *tail);
/* prefix ("acc_", "case_") + `count` random characters of a-z 0-9; out has room for them and the NUL. */
void rt_id_make(char *out, const char *prefix, size_t count);

#endif
