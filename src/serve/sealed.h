/* serve/sealed.h - what twins.c and canaries.c share: the files of a sealed folder, and what a request asks.
 *
 * A row is one line in one write, so a killed server leaves whole lines; lines are not forced to the disk. */
#ifndef RT_SERVE_SEALED_H
#define RT_SERVE_SEALED_H

#include <jansson.h>
#include <stdbool.h>

#include "retort/error.h"
#include "serve/fields.h"
#include "serve/service.h"

/* Makes the folder (0700) where it is not there, opens folder/name to append to (0600; others may not read
 * it). */
rt_status rt_sealed_open(int *out, const char *folder, const char *name, rt_error *err);
bool rt_sealed_append(int fd, const json_t *row);
/* What the answer follows, as text: the last message when it is a user's, or the one prompt; else NULL. */
const char *rt_sealed_prompt(const rt_call *call);
/* Whether a request may be treated at all: one choice, drawn at a temperature, by an account, no seed. */
bool rt_sealed_suits(const rt_call *call);
/* A coin that is true with the probability `share`, from libsodium. */
bool rt_sealed_coin(double share);

#endif
