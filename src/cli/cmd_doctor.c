/* cli/cmd_doctor.c - `retort doctor`: this machine, what it can do at best, what that means for retort.
 *
 * The facts are gathered into one JSON object first; the table is printed from it, so the two forms
 * cannot disagree. */
#include <dnnl.h>
#include <curl/curl.h>
#include <dirent.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>
#include <yaml.h>
#include <zstd.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/home.h"
#include "cli/measure.h"
#include "retort/version.h"
#include "tensor/cpu.h"

/* Arithmetic of one token of the reference job: SmolLM2-135M teaches a student of 10 layers. */
static const double reference_flops_per_token = 651e6;
static const double reference_model_bytes = 98362432; /* SmolLM2-135M-Instruct.Q4_1.gguf */

/* The first line of a file of /proc that begins with `key`, without the key, colon and blanks. */
static bool proc_field(char *out, size_t size, const char *path, const char *key)
{
    FILE *stream = fopen(path, "re");
    if (!stream)
        return false;
    char line[4096];
    bool found = false;
    while (!found && fgets(line, sizeof line, stream)) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        const char *value = line + strcspn(line, ":");
        value += strspn(value, ": \t");
        (void)snprintf(out, size, "%.*s", (int)strcspn(value, "\n"), value);
        found = true;
    }
    (void)fclose(stream);
    return found;
}

static json_t *flags_that_matter(void)
{
    static const char *const wanted[] = {"sse4_2",   "avx",         "avx2",        "fma",      "f16c",
                                         "avx512f",  "avx512bw",    "avx512dq",    "avx512vl", "avx512_vnni",
                                         "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"};
    json_t *out = json_array();
    char flags[4096];
    if (!proc_field(flags, sizeof flags, "/proc/cpuinfo", "flags"))
        return out;
    char *state = NULL;
    for (char *flag = strtok_r(flags, " ", &state); flag; flag = strtok_r(NULL, " ", &state))
        for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
            if (strcmp(flag, wanted[i]) == 0)
                (void)json_array_append_new(out, json_string(flag));
    return out;
}

static double memory_gib(const char *key)
{
    char value[64];
    return proc_field(value, sizeof value, "/proc/meminfo", key) ? strtod(value, NULL) / (1 << 20) : 0;
}

static json_t *library_versions(void)
{
    char pcre2[64] = "?", onednn[32];
    (void)pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    const dnnl_version_t *dnnl = dnnl_version();
    (void)snprintf(onednn, sizeof onednn, "%d.%d.%d", dnnl->major, dnnl->minor, dnnl->patch);
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "oneDNN", onednn, "Jansson", JANSSON_VERSION,
                     "libyaml", yaml_get_version_string(), "PCRE2", pcre2, "utf8proc", utf8proc_version(),
                     "zstd", ZSTD_versionString(), "libsodium", sodium_version_string(), "curl",
                     curl_version_info(CURLVERSION_NOW)->version);
}

static json_t *cached_models(const char *dir)
{
    json_t *out = json_array();
    DIR *stream = opendir(dir);
    if (!stream)
        return out;
    for (const struct dirent *entry = readdir(stream); entry; entry = readdir(stream))
        if (entry->d_name[0] != '.' && !strstr(entry->d_name, ".tmp-"))
            (void)json_array_append_new(out, rt_json_text(entry->d_name, strlen(entry->d_name)));
    (void)closedir(stream);
    return out;
}

typedef struct rates {
    double bf16, f32, read; /* operations and bytes a second */
} rates;

static rt_status measure(rates *out, rt_pool *pool, rt_error *err)
{
    if (cli_measure_gemm(&out->bf16, pool, RT_BF16, 0.6, err) != RT_OK ||
        cli_measure_gemm(&out->f32, pool, RT_F32, 0.6, err) != RT_OK)
        return err->status;
    return cli_measure_read(&out->read, pool, 0.6, err);
}

static rt_status gather(json_t **out, size_t n_threads, rt_error *err)
{
    rt_pool *pool = NULL;
    char *models = NULL;
    rates rate;
    *out = NULL;
    if (cli_home_path(&models, "models", err) != RT_OK)
        return err->status;
    const unsigned threads =
        n_threads > UINT_MAX ? UINT_MAX : (unsigned)n_threads; /* the pool refuses too many */
    if (rt_pool_open(&pool, threads, err) != RT_OK || measure(&rate, pool, err) != RT_OK) {
        rt_pool_close(pool);
        free(models);
        return err->status;
    }
    char cpu[128] = "unknown";
    (void)proc_field(cpu, sizeof cpu, "/proc/cpuinfo", "model name");
    const double best = rate.bf16 > rate.f32 ? rate.bf16 : rate.f32;
    *out =
        json_pack("{s:s,s:{s:o,s:i,s:i,s:s,s:o,s:f,s:f},s:{s:f,s:f,s:f},s:{s:f,s:f,s:f},s:o,s:{s:o,s:o}}",
                  "version", RT_VERSION, "machine", "cpu", rt_json_text(cpu, strlen(cpu)), "processors",
                  (int)sysconf(_SC_NPROCESSORS_ONLN), "threads", (int)rt_pool_threads(pool), "level",
                  rt_cpu_name(rt_cpu_level()), "flags", flags_that_matter(), "memory_gib",
                  memory_gib("MemTotal"), "memory_free_gib", memory_gib("MemAvailable"), "rates",
                  "gemm_bf16_gflops", rate.bf16 * 1e-9, "gemm_f32_gflops", rate.f32 * 1e-9, "read_gb_per_s",
                  rate.read * 1e-9, "limits", "distil_tokens_per_s", best / reference_flops_per_token,
                  "decode_tokens_per_s", rate.read / reference_model_bytes, "distil_100k_tokens_minutes",
                  1e5 / (best / reference_flops_per_token) / 60, "libraries", library_versions(), "cache",
                  "folder", rt_json_text(models, strlen(models)), "models", cached_models(models));
    rt_pool_close(pool);
    free(models);
    return *out ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for the results");
}

static double real_at(const json_t *json, const char *group, const char *key)
{
    return json_number_value(json_object_get(json_object_get(json, group), key));
}

static const char *string_at(const json_t *json, const char *group, const char *key)
{
    return json_string_value(json_object_get(json_object_get(json, group), key));
}

static void print_list(const char *title, const json_t *list, const char *when_empty)
{
    (void)printf("%-22s", title);
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)(void) printf("%s%s", i ? " " : "", json_string_value(item));
    (void)printf("%s\n", json_array_size(list) ? "" : when_empty);
}

static void print_table(json_t *json)
{
    const json_t *machine = json_object_get(json, "machine");
    (void)printf("%-22sretort %s\n", "program", json_string_value(json_object_get(json, "version")));
    (void)printf("%-22s%s\n", "processor", string_at(json, "machine", "cpu"));
    (void)printf("%-22s%.0f, of which %.0f used\n", "processors", real_at(json, "machine", "processors"),
                 real_at(json, "machine", "threads"));
    print_list("instruction sets", json_object_get(machine, "flags"), "none that retort knows");
    (void)printf("%-22s%s (RETORT_CPU=ref|avx2|avx512|avx512bf16 forces one)\n", "kernels",
                 string_at(json, "machine", "level"));
    (void)printf("%-22s%.1f GiB, %.1f free\n", "memory", real_at(json, "machine", "memory_gib"),
                 real_at(json, "machine", "memory_free_gib"));
    (void)printf("%-22s%.0f GFLOP/s in bf16, %.0f in f32\n", "matrix products",
                 real_at(json, "rates", "gemm_bf16_gflops"), real_at(json, "rates", "gemm_f32_gflops"));
    (void)printf("%-22s%.1f GB/s\n", "reading memory", real_at(json, "rates", "read_gb_per_s"));
    (void)printf("%-22s", "libraries");
    const char *name;
    json_t *version;
    bool first = true;
    json_object_foreach(json_object_get(json, "libraries"), name, version)
    {
        (void)printf("%s%s %s", first ? "" : ", ", name, json_string_value(version));
        first = false;
    }
    (void)printf("\n%-22s%s\n", "cache", string_at(json, "cache", "folder"));
    print_list("models there", json_object_get(json_object_get(json, "cache"), "models"),
               "none; 'retort pull smollm2-135m-instruct' brings the demo's teacher");
    (void)printf("\nWith SmolLM2-135M-Instruct (Q4_1) as teacher and a student of 10 layers this machine's "
                 "limits are\n"
                 "  distilling  %7.0f tokens/s (all matrix products at the rate above): 100,000 tokens in "
                 "%.1f minutes\n"
                 "  decoding    %7.0f tokens/s (all weights read once a token), batch 1\n",
                 real_at(json, "limits", "distil_tokens_per_s"),
                 real_at(json, "limits", "distil_100k_tokens_minutes"),
                 real_at(json, "limits", "decode_tokens_per_s"));
}

int cmd_doctor(int argc, char **argv)
{
    bool json_wanted = false;
    size_t n_threads = 0;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "The rates are the best of short runs (about two seconds in all), the limits follow from them by\n"
         "arithmetic; 'retort bench' says how near this build comes to them.\n\n"
         "Examples:\n  retort doctor\n  RETORT_CPU=avx2 retort doctor --json"},
        {CLI_COUNT, "--threads N", &n_threads, "threads to measure with (default: one a processor)"},
        {CLI_FLAG, "--json", &json_wanted, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *json = NULL;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || gather(&json, n_threads, &err) != RT_OK)
        return cli_fail(&err);
    if (json_wanted)
        return cli_print_json(json);
    print_table(json);
    json_decref(json);
    return 0;
}
