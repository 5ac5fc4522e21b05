/* cli/rows.h - a JSONL file, packed or not, as an array that the caller owns. */
#ifndef RT_CLI_ROWS_H
#define RT_CLI_ROWS_H

#include <jansson.h>

#include "retort/error.h"

rt_status cli_rows_read(json_t **out, const char *path, rt_error *err);

#endif
