/* guard/frame.h - what an account wraps round its tasks: words that many of its prompts begin or end with.
 *
 * The first three words of a prompt name a beginning, the last three an ending.  For each of the most
 * frequent few the common run of words is kept, which shrinks to what all prompts with it share.  What lies
 * between is the task: collectors put tasks of all types there, honest programs their users' texts. */
#ifndef RT_GUARD_FRAME_H
#define RT_GUARD_FRAME_H

#include "guard/elicit.h"

enum { RT_GUARD_FRAMES = 4, RT_GUARD_FRAME_WORDS = 16, RT_GUARD_FRAME_KEY = 3 };

typedef struct rt_guard_frame_side {
    uint16_t words[RT_GUARD_FRAMES]
                  [RT_GUARD_FRAME_WORDS]; /* parts of their hashes, from the outside inwards */
    uint16_t hits[RT_GUARD_FRAMES];
    uint8_t length[RT_GUARD_FRAMES];
} rt_guard_frame_side;

typedef struct rt_guard_frames {
    rt_guard_frame_side front, back;
    uint32_t n; /* prompts looked at */
} rt_guard_frames;

/* Learns from the prompt, and returns the words that are the task; all of them where no frame is known. */
rt_guard_range rt_guard_frames_find(rt_guard_frames *frames, const rt_guard_digest *digest);

#endif
