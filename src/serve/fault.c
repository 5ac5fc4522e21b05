/* serve/fault.c - see fault.h. */
#include "serve/fault.h"

#include <stdarg.h>
#include <stdio.h>

bool rt_fault_invalid(rt_fault *fault, const char *code, const char *param, const char *fmt, ...)
{
    *fault = (rt_fault){.status = 400, .type = "invalid_request_error", .code = code};
    (void)snprintf(fault->param, sizeof fault->param, "%s", param ? param : "");
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(fault->message, sizeof fault->message, fmt, args);
    va_end(args);
    return false;
}

bool rt_fault_set(rt_fault *fault, int status, const char *type, const char *code, const char *fmt, ...)
{
    *fault = (rt_fault){.status = status, .type = type, .code = code};
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(fault->message, sizeof fault->message, fmt, args);
    va_end(args);
    return false;
}
