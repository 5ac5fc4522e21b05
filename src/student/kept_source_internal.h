/* student/kept_source_internal.h - what the files of kept_source.h share. */
#ifndef RT_STUDENT_KEPT_SOURCE_INTERNAL_H
#define RT_STUDENT_KEPT_SOURCE_INTERNAL_H

#include "student/kept_source.h"

/* The next document's rows begin at `first`. */
rt_status kept_source_note(rt_kept_source *source, size_t first, rt_error *err);

#endif
