/* retort/error.h - the one error type: a status to branch on, a sentence to show.
 *
 * Every function that can fail returns rt_status and takes an rt_error last.  On failure the
 * sentence says what was tried, on what (file, offset, key, tensor), and what helps. */
#ifndef RETORT_ERROR_H
#define RETORT_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RT_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))
#else
#define RT_PRINTF(fmt_index, first_arg)
#endif

/* One list: status, HTTP status, exit status of the program, text.  Part of the ABI: append only. */
#define RT_STATUS_MAP(X)                                                                                     \
    /* name         value http exit text */                                                                  \
    X(OK, 0, 200, 0, "success")                                                                              \
    X(INVALID, 1, 400, 2, "the request or option is not valid")                                              \
    X(CORRUPT, 2, 422, 1, "the file or message is malformed")                                                \
    X(NOT_FOUND, 3, 404, 1, "not found")                                                                     \
    X(UNSUPPORTED, 4, 422, 1, "not supported by this build")                                                 \
    X(IO, 5, 500, 1, "reading or writing failed")                                                            \
    X(NO_MEMORY, 6, 503, 1, "out of memory")                                                                 \
    X(MISMATCH, 7, 409, 1, "two things that must agree do not")                                              \
    X(NOT_FINITE, 8, 500, 1, "a number is not finite")                                                       \
    X(BUSY, 9, 409, 1, "in use by another process")                                                          \
    X(CHECK_FAILED, 10, 500, 3, "a check was not met")                                                       \
    X(STOPPED, 11, 503, 4, "stopped on request; it can go on")                                               \
    X(FORBIDDEN, 12, 403, 1, "not allowed")                                                                  \
    X(INTERNAL, 13, 500, 1, "a fault of this program")

typedef enum rt_status {
#define RT_STATUS_ENUM(name, value, http, exit_code, text) RT_##name = (value),
    RT_STATUS_MAP(RT_STATUS_ENUM)
#undef RT_STATUS_ENUM
} rt_status;

typedef struct rt_error {
    rt_status status;
    char text[512]; /* never empty after a failure */
} rt_error;

/* Sets the sentence (truncated to fit) and returns `status`.  `err` may be NULL. */
rt_status rt_error_set(rt_error *err, rt_status status, const char *fmt, ...) RT_PRINTF(3, 4);
/* Puts "what: " before the sentence; returns err->status. */
rt_status rt_error_within(rt_error *err, const char *what);

const char *rt_status_name(rt_status status); /* "INVALID", ... */
const char *rt_status_text(rt_status status); /* the general sentence */
int rt_status_exit_code(rt_status status);    /* 0..4, see the man page */
int rt_status_http(rt_status status);

#ifdef __cplusplus
}
#endif
#endif
