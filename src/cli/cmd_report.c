/* cli/cmd_report.c - `retort report RUN_DIR`: a run as one HTML page. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "report/report.h"
#include "report/story_page.h"

static json_t *parts_json(const char *path, const rt_report_parts *parts)
{
    json_t *list = json_object();
#define PART_SET(part) (void)json_object_set_new(list, #part, json_boolean(parts->part));
    RT_REPORT_PART_MAP(PART_SET)
#undef PART_SET
    return json_pack("{s:o,s:I,s:o}", "out", rt_json_text(path, strlen(path)), "bytes",
                     (json_int_t)parts->bytes, "parts", list);
}

static void print_parts(const char *path, const rt_report_parts *parts)
{
    (void)printf("%s\t%zu bytes\n", path, parts->bytes);
    const char *separator = "left out, for want of data: ";
#define PART_PRINT(part)                                                                                     \
    if (!parts->part) {                                                                                      \
        (void)fprintf(stderr, "%s" #part, separator);                                                        \
        separator = ", ";                                                                                    \
    }
    RT_REPORT_PART_MAP(PART_PRINT)
#undef PART_PRINT
    if (separator[0] == ',')
        (void)fputc('\n', stderr);
}

enum { STORY_BYTES_MAX = 64 << 20 };

/* A folder that holds a story (scripts/story) is told as one. */
static rt_status write_story(const char *story_path, const char *path, size_t *bytes, rt_error *err)
{
    json_t *story = NULL;
    rt_text page = {0};
    rt_status status = rt_json_read(&story, story_path, STORY_BYTES_MAX, err);
    if (status == RT_OK) {
        rt_report_story(&page, story);
        status = page.failed ? rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for the page", path)
                             : rt_file_write(path, page.data, page.size, err);
    }
    *bytes = page.size;
    rt_text_deinit(&page);
    json_decref(story);
    return status;
}

int cmd_report(int argc, char **argv)
{
    const char *run_dir = NULL, *out = NULL;
    bool json_wanted = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "The page is one file without anything to fetch: curves, figures with intervals, answers side by "
         "side. What "
         "a run\nhas not measured is left out. A folder with story.json (make story) is told as a story.\n"
         "docs/report-format.md says which files are read.\n\n"
         "Examples:\n  retort report runs/demo\n  retort report runs/demo --out page.html --json"},
        {CLI_STRING | CLI_REQUIRED, "RUN_DIR", &run_dir, "directory of a run"},
        {CLI_STRING, "--out FILE", &out, "where to write (default: RUN_DIR/report.html)"},
        {CLI_FLAG, "--json", &json_wanted, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_report_parts parts;
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    char *path = out ? strdup(out) : rt_path_join(run_dir, "report.html");
    char *story = rt_path_join(run_dir, "story.json");
    const bool is_story = story && rt_path_exists(story);
    size_t bytes = 0;
    rt_status status = !path || !story
                           ? rt_error_set(&err, RT_NO_MEMORY, "%.300s: no memory for a path", run_dir)
                       : is_story ? write_story(story, path, &bytes, &err)
                                  : rt_report_write(run_dir, path, &parts, &err);
    int exit_status = 0;
    if (status != RT_OK)
        exit_status = cli_fail(&err);
    else if (is_story && json_wanted)
        exit_status = cli_print_json(json_pack("{s:s,s:I}", "out", path, "bytes", (json_int_t)bytes));
    else if (is_story)
        (void)printf("%s\t%zu bytes\n", path, bytes);
    else if (json_wanted)
        exit_status = cli_print_json(parts_json(path, &parts));
    else
        print_parts(path, &parts);
    free(story);
    free(path);
    return exit_status;
}
