/* outputs/price.c - price tables and limits of spending; see price.h. */
#include "outputs/price.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "base/yaml.h"

enum { MODELS_MAX = 4096 };

static rt_status read_number(double *out, const rt_yaml_node *entry, const char *key, const char *where,
                             rt_error *err)
{
    const rt_yaml_node *node = rt_yaml_find(entry, key);
    if (!node)
        return RT_OK;
    if (node->kind != RT_YAML_SCALAR || !rt_parse_real(out, node->text) || *out < 0)
        return rt_error_set(err, RT_INVALID, "%.300s:%zu: %s is a price per million tokens, 0 or more", where,
                            node->line, key);
    return RT_OK;
}

static rt_status unknown_model(const rt_yaml_node *models, const char *model, const char *path, rt_error *err)
{
    static const size_t max = MODELS_MAX;
    const char **names = calloc(max, sizeof *names);
    size_t n = 0;
    for (const rt_yaml_node *node = models->first; names && node && n < max; node = node->next)
        names[n++] = node->key;
    const char *near = names ? rt_nearest_word(model, names, n) : NULL;
    rt_error_set(err, RT_NOT_FOUND, "%.200s has no price of '%.80s'%s%.80s%s", path, model,
                 near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    free(names);
    return err->status;
}

rt_status rt_price_read(rt_price *out, const char *path, const char *model, rt_error *err)
{
    rt_yaml *yaml = NULL;
    *out = (rt_price){.currency = "usd"};
    if (rt_yaml_read(&yaml, path, err) != RT_OK)
        return err->status;
    const rt_yaml_node *root = rt_yaml_root(yaml);
    const rt_yaml_node *models = rt_yaml_find(root, "models"), *currency = rt_yaml_find(root, "currency");
    models = models && models->kind == RT_YAML_MAPPING ? models : root;
    if (currency && currency->kind == RT_YAML_SCALAR)
        (void)snprintf(out->currency, sizeof out->currency, "%s", currency->text);
    const rt_yaml_node *entry = rt_yaml_find(models, model);
    rt_status status = RT_OK;
    if (!entry)
        status = unknown_model(models, model, path, err);
    else if (entry->kind != RT_YAML_MAPPING || !rt_yaml_find(entry, "input") ||
             !rt_yaml_find(entry, "output"))
        status =
            rt_error_set(err, RT_INVALID, "%.300s:%zu: a price is {input: X, output: Y}, per million tokens",
                         path, entry->line);
    if (status == RT_OK)
        status = read_number(&out->input, entry, "input", path, err);
    out->cached = out->input;
    if (status == RT_OK)
        status = read_number(&out->cached, entry, "cached", path, err);
    if (status == RT_OK)
        status = read_number(&out->output, entry, "output", path, err);
    out->known = status == RT_OK;
    rt_yaml_free(yaml);
    return status;
}

rt_status rt_spend_max_parse(rt_spend_max *out, const char *text, rt_error *err)
{
    *out = (rt_spend_max){0};
    char *end = NULL;
    const bool dollar = text[0] == '$';
    double x = strtod(text + dollar, &end), factor = 1;
    const bool number = end != text + dollar && isfinite(x) && x > 0;
    if (number && (*end == 'K' || *end == 'k'))
        factor = 1e3;
    else if (number && *end == 'M')
        factor = 1e6;
    else if (number && *end == 'G')
        factor = 1e9;
    end += number && factor > 1;
    while (number && *end == ' ')
        end++;
    const bool tokens =
        number && (strcmp(end, "tok") == 0 || strcmp(end, "token") == 0 || strcmp(end, "tokens") == 0);
    const bool letters = number && strlen(end) == 3 &&
                         strspn(end, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == 3;
    x *= factor;
    if (tokens && x < 1e18) {
        out->tokens = (uint64_t)x;
    } else if (number && (letters || (dollar && *end == '\0'))) {
        out->money = x;
        for (size_t i = 0; i < 3; i++)
            out->currency[i] = (char)(dollar ? "usd"[i] : end[i] | 0x20);
    } else {
        return rt_error_set(err, RT_INVALID, "'%.60s' is no limit of spending: 25usd or 2Mtok is", text);
    }
    return RT_OK;
}

double rt_price_of(const rt_price *price, uint64_t prompt, uint64_t cached, uint64_t completion)
{
    if (!price->known)
        return 0;
    const uint64_t fresh = prompt > cached ? prompt - cached : 0;
    return 1e-6 * ((double)fresh * price->input + (double)cached * price->cached +
                   (double)completion * price->output);
}
