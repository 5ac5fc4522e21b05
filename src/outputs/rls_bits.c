/* outputs/rls_bits.c - many numbers in Exp-Golomb code at once: what reading a store spends its time on.
 *
 * A window of at least 56 bits is kept in a register and topped up before each number by a load whose address
 * is known one number before, so that a number costs the latency of counting zeros and two shifts.  The same
 * text is compiled twice: machines with BMI2 have shifts by a register in one operation. */
#include "outputs/rls_bits.h"

#include "tensor/cpu.h"

enum { BYTES_A_NUMBER = 7, BITS_A_NUMBER = 2 * RLS_GOLOMB_MAX + 1 };

/* What becomes of a number: itself, an id (the sum of gaps so far), or the value of the code `base` less it.
 */
typedef enum run_kind { RUN_NUMBERS, RUN_IDS, RUN_VALUES } run_kind;

typedef struct run {
    uint32_t *numbers; /* of the first two kinds */
    float *values;
    const float *table; /* [256] */
    uint32_t base;
    uint64_t next;  /* the id after the last one */
    uint32_t above; /* not 0: a number was above base */
} run;

static inline __attribute__((always_inline)) void put(run *r, run_kind kind, size_t i, uint32_t number)
{
    if (kind == RUN_NUMBERS) {
        r->numbers[i] = number;
    } else if (kind == RUN_IDS) {
        r->next += number;
        r->numbers[i] = (uint32_t)r->next++;
    } else {
        r->above |= number > r->base;
        r->values[i] = r->table[(r->base - number) & 255];
    }
}

static inline __attribute__((always_inline)) void get_run(rls_bits_in *b, unsigned p, size_t n, run *to,
                                                          run_kind kind)
{
    const unsigned char *at = b->data + b->at / 8;
    uint64_t window, next;
    run r = *to;
    memcpy(&window, at, 8);
    at += 7;
    unsigned have = 56 - (unsigned)(b->at % 8);
    window = (window & (((uint64_t)1 << 56) - 1)) >> b->at % 8;
    for (size_t i = 0; i < n; i++) {
        memcpy(&next, at, 8);
        window |= next << have;
        at += (63 - have) >> 3;
        have |= 56;
        const unsigned zeros = (unsigned)__builtin_ctzll(window | (uint64_t)1 << (RLS_GOLOMB_MAX + 1));
        const unsigned length = zeros + p, used = zeros + 1 + length;
        const uint64_t top = (uint64_t)1 << (length & 63);
        put(&r, kind, i, (uint32_t)(((window >> (zeros + 1)) & (top - 1)) + top - ((uint64_t)1 << p)));
        if (__builtin_expect(used > BITS_A_NUMBER,
                             0)) { /* more zeros than a number has, or a larger number */
            b->bad = true;
            break;
        }
        window >>= used;
        have -= used;
    }
    b->at = (size_t)(at - b->data) * 8 - have;
    *to = r;
}

/* Near the end of the data every load is checked. */
static void get_run_checked(rls_bits_in *b, unsigned p, size_t n, run *to, run_kind kind)
{
    for (size_t i = 0; i < n; i++)
        put(to, kind, i, rls_get_golomb(b, p));
}

typedef void (*run_fn)(rls_bits_in *b, unsigned p, size_t n, run *to);

static void numbers_plain(rls_bits_in *b, unsigned p, size_t n, run *to)
{
    get_run(b, p, n, to, RUN_NUMBERS);
}
static void ids_plain(rls_bits_in *b, unsigned p, size_t n, run *to) { get_run(b, p, n, to, RUN_IDS); }
static void values_plain(rls_bits_in *b, unsigned p, size_t n, run *to) { get_run(b, p, n, to, RUN_VALUES); }

#if defined(__x86_64__)
#define BMI2 __attribute__((target("bmi,bmi2")))
BMI2 static void numbers_bmi2(rls_bits_in *b, unsigned p, size_t n, run *to)
{
    get_run(b, p, n, to, RUN_NUMBERS);
}
BMI2 static void ids_bmi2(rls_bits_in *b, unsigned p, size_t n, run *to) { get_run(b, p, n, to, RUN_IDS); }
BMI2 static void values_bmi2(rls_bits_in *b, unsigned p, size_t n, run *to)
{
    get_run(b, p, n, to, RUN_VALUES);
}
static const run_fn fast[] = {numbers_bmi2, ids_bmi2, values_bmi2};
#else
static const run_fn fast[] = {numbers_plain, ids_plain, values_plain};
#endif
static const run_fn plain[] = {numbers_plain, ids_plain, values_plain};

static void get(rls_bits_in *b, unsigned p, size_t n, run *to, run_kind kind)
{
    if (b->at / 8 + n * BYTES_A_NUMBER + 16 > b->size)
        get_run_checked(b, p, n, to, kind);
    else
        (rt_cpu_level() >= RT_CPU_AVX2 ? fast : plain)[kind](b, p, n, to);
}

void rls_get_numbers(rls_bits_in *b, unsigned p, size_t n, uint32_t *out)
{
    run r = {.numbers = out};
    get(b, p, n, &r, RUN_NUMBERS);
}

uint64_t rls_get_ids(rls_bits_in *b, unsigned p, size_t n, uint32_t *out)
{
    run r = {.numbers = out};
    get(b, p, n, &r, RUN_IDS);
    return r.next;
}

bool rls_get_values(rls_bits_in *b, unsigned p, size_t n, uint32_t base, const float table[256], float *out)
{
    run r = {.values = out, .table = table, .base = base};
    get(b, p, n, &r, RUN_VALUES);
    return !r.above;
}
