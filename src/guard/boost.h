/* guard/boost.h - small boosted trees whose every step can be told.
 *
 * Trees of depth three on features, fitted to what a fixed additive part leaves (Friedman 2001, second-order
 * steps as in Chen and Guestrin 2016), monotone where a direction is known: more of a collector's mark never
 * lowers a score.  A path's steps from node to node are the contributions of the features that it asks, so
 * contributions sum up to the score. */
#ifndef RT_GUARD_BOOST_H
#define RT_GUARD_BOOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

enum { RT_BOOST_DEPTH = 3, RT_BOOST_SPLITS = 7, RT_BOOST_NODES = 15, RT_BOOST_TREES_MAX = 400 };

/* A complete tree: node i has the children 2i + 1 (value < threshold) and 2i + 2.  A node that was not worth
 * splitting has the threshold of infinity and its children its own value. */
typedef struct rt_boost_tree {
    uint8_t feature[RT_BOOST_SPLITS];
    float threshold[RT_BOOST_SPLITS];
    float value[RT_BOOST_NODES];
} rt_boost_tree;

/* The leaf's value for the features; with `contributions` (by feature, may be NULL) the steps are added
 * there, the root's value excepted. */
float rt_boost_value(const rt_boost_tree *tree, const float *features, float *contributions);

typedef struct rt_boost_data {
    const float *rows; /* [n_rows, n_features] */
    size_t n_rows, n_features;
    const uint8_t *truth;    /* [n_rows] 0 or 1 */
    const double *weight;    /* [n_rows], 0: left out; they sum to 1 */
    const float *start;      /* [n_rows] the additive part, in nats */
    const uint32_t *group;   /* [n_rows] rows of one account are drawn together */
    const int8_t *direction; /* [n_features] 1: never falls, -1: never rises, 0: free, 2: not to be asked */
} rt_boost_data;

typedef struct rt_boost_options {
    size_t trees;
    double rate, ridge, least_weight;  /* step, pull of leaves to 0, least share of the weight in a leaf */
    double rows_share, features_share; /* drawn for each tree */
    uint64_t seed;
} rt_boost_options;

/* Fits options->trees trees into `trees`. */
rt_status rt_boost_fit(rt_boost_tree *trees, const rt_boost_data *data, const rt_boost_options *options,
                       rt_error *err);

#endif
