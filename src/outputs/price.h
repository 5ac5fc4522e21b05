/* outputs/price.h - what tokens cost, and how much may be spent. */
#ifndef RT_OUTPUTS_PRICE_H
#define RT_OUTPUTS_PRICE_H

#include <stdbool.h>
#include <stdint.h>

#include "retort/error.h"

typedef struct rt_price { /* money per million tokens */
    double input, cached, output;
    char currency[8]; /* "usd" */
    bool known;
} rt_price;

/* The entry of a model in a price table: a YAML file of
 *
 *   currency: usd
 *   models:
 *     some-model: {input: 0.15, cached: 0.075, output: 0.60}
 *
 * cached is input's price where it is left out.  RT_NOT_FOUND names the nearest model. */
rt_status rt_price_read(rt_price *out, const char *path, const char *model, rt_error *err);

/* "25usd", "$25", "2.5 eur" is money; "2Mtok", "500K tokens" is tokens. */
typedef struct rt_spend_max {
    double money;    /* 0: no such limit */
    uint64_t tokens; /* 0: no such limit */
    char currency[8];
} rt_spend_max;
rt_status rt_spend_max_parse(rt_spend_max *out, const char *text, rt_error *err);

double rt_price_of(const rt_price *price, uint64_t prompt, uint64_t cached, uint64_t completion);

#endif
