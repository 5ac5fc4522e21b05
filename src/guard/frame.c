/* guard/frame.c - see frame.h. */
#include "guard/frame.h"

enum { KNOWN_HITS = 3, KNOWN_SHARE = 10, FRAMES_AGE = 40000 }; /* so often, and a tenth of the prompts */

static uint16_t word_at(const rt_guard_digest *digest, uint32_t i, bool back)
{
    return (uint16_t)(digest->words[back ? digest->n_words - 1 - i : i] >> 8);
}

/* Words at this side that are a known frame's. */
static uint32_t side_find(rt_guard_frame_side *side, const rt_guard_digest *digest, uint32_t n, bool back)
{
    size_t least = 0;
    for (size_t f = 0; f < RT_GUARD_FRAMES; f++) {
        uint32_t same = 0;
        while (same < side->length[f] && same < digest->n_words &&
               side->words[f][same] == word_at(digest, same, back))
            same++;
        if (same >= RT_GUARD_FRAME_KEY) {
            side->length[f] = (uint8_t)same;
            side->hits[f] = (uint16_t)(side->hits[f] + 1);
            return side->hits[f] > KNOWN_HITS && side->hits[f] * (uint32_t)KNOWN_SHARE >= n ? same : 0;
        }
        if (side->hits[f] < side->hits[least])
            least = f;
    }
    if (digest->n_words < RT_GUARD_FRAME_KEY)
        return 0;
    if (side->hits[least] > 1) { /* the rarest gives way slowly */
        side->hits[least]--;
        return 0;
    }
    side->hits[least] = 1;
    side->length[least] = 0;
    for (uint32_t i = 0; i < RT_GUARD_FRAME_WORDS && i < digest->n_words; i++)
        side->words[least][side->length[least]++] = word_at(digest, i, back);
    return 0;
}

rt_guard_range rt_guard_frames_find(rt_guard_frames *frames, const rt_guard_digest *digest)
{
    if (++frames->n > FRAMES_AGE) { /* shares are of the last tens of thousands */
        frames->n /= 2;
        for (size_t f = 0; f < RT_GUARD_FRAMES; f++) {
            frames->front.hits[f] /= 2;
            frames->back.hits[f] /= 2;
        }
    }
    const uint32_t front = side_find(&frames->front, digest, frames->n, false),
                   back = side_find(&frames->back, digest, frames->n, true);
    if (front + back >= digest->n_words)
        return (rt_guard_range){0, digest->n_words};
    return (rt_guard_range){front, digest->n_words - back};
}
