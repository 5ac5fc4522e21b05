/* base/schema.h - settings by a table: what keys a recipe may have, of which type, with which default.
 *
 * Values come from three places, the later wins: the table's defaults, YAML files, "key=value" words of
 * the command line.  All are checked in the same way; an error names file and line (or the word), the
 * key, and the nearest known key.  The result is a struct filled by offsets, and a YAML text of everything
 * that was used, which gives the same settings when it is read back. */
#ifndef RT_BASE_SCHEMA_H
#define RT_BASE_SCHEMA_H

#include <stddef.h>

#include "base/text.h"

typedef enum rt_field_type {
    RT_FIELD_STRING,  /* const char *, never NULL */
    RT_FIELD_COUNT,   /* size_t; suffixes K M G and Ki Mi Gi */
    RT_FIELD_REAL,    /* double, finite */
    RT_FIELD_BOOL,    /* bool; true, false, yes, no */
    RT_FIELD_CHOICE,  /* int: the index in `choices` */
    RT_FIELD_STRINGS, /* rt_strings; one scalar stands for a list of one */
    RT_FIELD_COUNTS,  /* rt_counts; the same */
} rt_field_type;

typedef struct rt_strings {
    const char *const *items;
    size_t count;
} rt_strings;

typedef struct rt_counts {
    const size_t *items;
    size_t count;
} rt_counts;

/* One key.  Keys of one section ("student.layers", "student.width") stand together in the table. */
typedef struct rt_field {
    const char *path; /* dots separate the levels */
    rt_field_type type;
    size_t offset; /* in the struct to fill */
    const char
        *fallback;    /* as it would stand in the file, "''" for no text, "[]" for no item; NULL: required */
    const char *help; /* one line, printed as a comment */
    const char *choices; /* "adamw|sgd", for RT_FIELD_CHOICE */
    double min, max;     /* of counts and reals, both inclusive; 0 and 0: any */
} rt_field;

typedef struct rt_settings rt_settings;

/* The table is borrowed for the life of the settings. */
rt_status rt_settings_open(rt_settings **out, const rt_field *fields, size_t n_fields, rt_error *err);
rt_status rt_settings_read(rt_settings *settings, const char *path, rt_error *err);
/* `where` names the text in errors. */
rt_status rt_settings_read_text(rt_settings *settings, const char *data, size_t size, const char *where,
                                rt_error *err);
/* "key=value" with the whole path as key; the value is read as YAML ("layers=[0, 3]"). */
rt_status rt_settings_override(rt_settings *settings, const char *word, rt_error *err);
/* Fills the struct: checks that required keys are there, types and ranges.  Texts and lists in it belong
 * to the settings. */
rt_status rt_settings_fill(rt_settings *settings, void *target, rt_error *err);
/* Appends the resolved recipe as YAML with comments. */
void rt_settings_print(const rt_settings *settings, rt_text *out);
void rt_settings_close(rt_settings *settings);

#endif
