/* account/audit.h - the append-only trail: who changed what, each row chained to the one before and signed.
 *
 * hash_i = BLAKE2b-256(hash_{i-1} || canonical JSON of [id, at, actor, action, subject, detail]), in hex;
 * signature = Ed25519 over "retort-audit" || id || hash.  The head (count, last hash) is signed as well, so
 * that rows cut off at the end show.  What no trail in a database can show is that all of it, head included,
 * was set back to an older state: keep the hash that `retort audit verify` prints elsewhere and hand it back
 * to it. */
#ifndef RT_ACCOUNT_AUDIT_H
#define RT_ACCOUNT_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "account/db.h"
#include "account/secrets.h"
#include "base/json.h"

/* Inside the transaction of the change itself.  Takes the reference to detail. */
rt_status rt_audit_append(rt_db *db, const rt_secrets *secrets, int64_t at_ms, const char *actor,
                          const char *action, const char *subject, json_t *detail, rt_error *err);

typedef struct rt_audit_report {
    int64_t rows;
    char head[65]; /* hash of the last row; zeros when there is none */
    char public_key[65];
} rt_audit_report;
/* Walks the whole trail.  public_key (hex): what must have signed it, NULL: the one in the database, which
 * proves less.  expect (hex): a hash that must occur in the chain; NULL: none.  RT_CHECK_FAILED names the
 * first bad row. */
rt_status rt_audit_verify(rt_db *db, const char *public_key, const char *expect, rt_audit_report *report,
                          rt_error *err);

#endif
