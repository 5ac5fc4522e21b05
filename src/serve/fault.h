/* serve/fault.h - why a request is refused: status and error body of API.md section 2. */
#ifndef RT_SERVE_FAULT_H
#define RT_SERVE_FAULT_H

#include <stdbool.h>

#include "retort/error.h"

typedef struct rt_fault {
    int status;              /* HTTP; 0: none */
    const char *type, *code; /* constants; code NULL for null */
    char param[96];          /* JSON path, "" for null */
    char message[512];
    double retry_after_s; /* < 0 or 0: no Retry-After */
    bool no_retry;        /* x-should-retry: false */
    bool authenticate;    /* WWW-Authenticate: Bearer */
} rt_fault;

/* Fills in a 400 invalid_request_error and returns false. */
bool rt_fault_invalid(rt_fault *fault, const char *code, const char *param, const char *fmt, ...)
    RT_PRINTF(4, 5);
bool rt_fault_set(rt_fault *fault, int status, const char *type, const char *code, const char *fmt, ...)
    RT_PRINTF(5, 6);

#endif
