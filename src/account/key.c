/* account/key.c - see key.h. */
#include "account/key.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define PREFIX "sk-rt-"
#define ADMIN "admin-"
enum { ID = RT_KEY_ID_SIZE - 1, SECRET = 43, SECRET_BYTES = 32 };

static bool is_id_char(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

static bool is_secret_char(char c) { return is_id_char(c) || (c >= 'A' && c <= 'Z') || c == '-' || c == '_'; }

bool rt_key_parse(rt_key_text *out, const char *key)
{
    *out = (rt_key_text){0};
    if (!key || strncmp(key, PREFIX, strlen(PREFIX)) != 0)
        return false;
    key += strlen(PREFIX);
    out->is_admin = strncmp(key, ADMIN, strlen(ADMIN)) == 0;
    if (out->is_admin)
        key += strlen(ADMIN);
    if (strnlen(key, ID + 1 + SECRET + 1) != ID + 1 + SECRET || key[ID] != '-')
        return false;
    for (size_t i = 0; i < ID; i++)
        if (!is_id_char(key[i]))
            return false;
    for (size_t i = ID + 1; key[i]; i++)
        if (!is_secret_char(key[i]))
            return false;
    memcpy(out->id, key, ID);
    return true;
}

void rt_id_make(char *out, const char *prefix, size_t count)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const size_t start = strlen(prefix);
    memcpy(out, prefix, start);
    for (size_t i = 0; i < count; i++)
        out[start + i] = alphabet[randombytes_uniform(sizeof alphabet - 1)];
    out[start + count] = '\0';
}

void rt_key_make(char out[RT_KEY_TEXT_MAX], rt_key_text *text, bool is_admin)
{
    unsigned char random[SECRET_BYTES];
    char secret[SECRET + 1];
    *text = (rt_key_text){.is_admin = is_admin};
    rt_id_make(text->id, "", ID);
    randombytes_buf(random, sizeof random);
    (void)sodium_bin2base64(secret, sizeof secret, random, sizeof random,
                            sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    (void)snprintf(out, RT_KEY_TEXT_MAX, PREFIX "%s%s-%s", is_admin ? ADMIN : "", text->id, secret);
    sodium_memzero(random, sizeof random);
    sodium_memzero(secret, sizeof secret);
}

void rt_key_redacted(char out[RT_KEY_TEXT_MAX], const char *id, bool is_admin, const char *tail)
{
    (void)snprintf(out, RT_KEY_TEXT_MAX, PREFIX "%s%s-\u2026%s", is_admin ? ADMIN : "", id, tail);
}
