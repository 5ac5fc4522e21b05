/* serve/lane_rows.h - how many rows of logits a lane makes at a time. */
#ifndef RT_SERVE_LANE_ROWS_H
#define RT_SERVE_LANE_ROWS_H

enum { LANE_ROWS = 32 }; /* also the most sequences of one decoding pass: the engine's way for few tokens */

#endif
