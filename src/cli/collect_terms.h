/* cli/collect_terms.h - on which terms a teacher answers: said once, and heeded. */
#ifndef RT_CLI_COLLECT_TERMS_H
#define RT_CLI_COLLECT_TERMS_H

#include "teacher/teacher.h"

/* Says where the terms stand; RT_FORBIDDEN where they do not allow training on the outputs, unless the user
 * says that he has permission. */
rt_status collect_terms_check(const rt_teacher_info *info, bool permitted, rt_error *err);

#endif
