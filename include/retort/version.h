/* retort/version.h - the one place that holds the version. */
#ifndef RETORT_VERSION_H
#define RETORT_VERSION_H

#define RT_VERSION "0.1.0"

#endif
