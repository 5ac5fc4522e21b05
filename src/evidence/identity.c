/* evidence/identity.c - "it said it was X": the probes, and shares of answers that claim a name with their
 * intervals (METHODS-evidence 5.4).  Weak by nature: it lifts no verdict.
 *
 * A prompt is the unit: answers to one prompt are not independent.  Text and names are compared after Unicode
 * normalisation and case folding; a name stands between word borders, and scripts that write without blanks
 * have one everywhere. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/rng.h"
#include "base/size.h"
#include "evidence/battery.h"
#include "evidence/tails.h"

enum { RESAMPLES = 1000, SPELLINGS_MAX = 16, NAME_MAX_BYTES = 200 };

static char *fold(const char *text, size_t size)
{
    utf8proc_uint8_t *out = NULL;
    const utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &out,
                     UTF8PROC_COMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD | UTF8PROC_STABLE);
    if (n >= 0)
        return (char *)out;
    char *plain = malloc(size + 1); /* ill-formed: as it is, but for ASCII capitals */
    for (size_t i = 0; plain && i < size; i++)
        plain[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 32 : text[i] ? text[i] : ' ');
    if (plain)
        plain[size] = '\0';
    return plain;
}

/* Does this code point make a longer word of the one beside it?  Not in scripts without blanks, and not a
 * particle that is written on to a Latin name. */
static bool word_char(uint32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if ((c >= 0x0E00 && c <= 0x0EFF) || (c >= 0x1000 && c <= 0x109F) || (c >= 0x1780 && c <= 0x17FF) ||
        (c >= 0x3040 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) || (c >= 0xAC00 && c <= 0xD7AF))
        return false;
    const utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO;
}

static bool border_before(const char *text, size_t at)
{
    size_t from = at, length;
    while (from > 0 && at - from < 4 && ((unsigned char)text[--from] & 0xC0) == 0x80)
        ;
    return at == 0 || !word_char(rt_utf8_decode(text + from, at - from, &length));
}

static bool border_after(const char *text, size_t at, size_t size)
{
    size_t length;
    return at >= size || !word_char(rt_utf8_decode(text + at, size - at, &length));
}

/* Does a sign or word in between begin another clause? */
static bool joined(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strchr(",.;:!?", text[i]) || (i + 4 <= n && memcmp(text + i, "but ", 4) == 0) ||
            (i + 3 <= n && memcmp(text + i, "\xE3\x80\x82", 3) == 0) ||
            (i + 3 <= n && memcmp(text + i, "\xEF\xBC\x8C", 3) == 0))
            return true;
    return false;
}

/* "not made by X", but not "not X but Y": a negation shortly before, and no other clause between. */
static bool denied(const char *text, size_t at)
{
    static const char *const negations[] = {"not ",
                                            "n't ",
                                            "n\xE2\x80\x99t ",
                                            "never ",
                                            "nicht ",
                                            "kein ",
                                            "keine ",
                                            "pas ",
                                            "no soy ",
                                            "no fui ",
                                            "nunca ",
                                            "n\xC3\xA3o ",
                                            "non ",
                                            "\xD0\xBD\xD0\xB5 ",
                                            "\xE4\xB8\x8D\xE6\x98\xAF",
                                            "\xE5\xB9\xB6\xE9\x9D\x9E",
                                            "\xE6\xB2\xA1\xE6\x9C\x89"};
    const size_t from = at > 40 ? at - 40 : 0;
    for (size_t k = 0; k < sizeof negations / sizeof *negations; k++) {
        const size_t m = strlen(negations[k]);
        for (size_t j = from; j + m <= at; j++)
            if (memcmp(text + j, negations[k], m) == 0 && at - (j + m) <= 24 &&
                !joined(text + j + m, at - (j + m)))
                return true;
    }
    return false;
}

/* A denial after the name, in languages that end with it: "X ではありません", "X가 아닙니다". */
static bool denied_after(const char *text, size_t end, size_t size)
{
    static const char *const negations[] = {
        "\xE3\x81\xA7\xE3\x81\xAF\xE3\x81\x82\xE3\x82\x8A\xE3\x81\xBE\xE3\x81\x9B\xE3\x82\x93",
        "\xE3\x81\xA7\xE3\x81\xAF\xE3\x81\xAA\xE3\x81\x84", "\xEC\x95\x84\xEB\x8B\x99\xEB\x8B\x88"};
    for (size_t k = 0; k < sizeof negations / sizeof *negations; k++) {
        const char *found =
            memmem(text + end, rt_size_min(size - end, 24), negations[k], strlen(negations[k]));
        if (found)
            return true;
    }
    return false;
}

static bool claims(const char *text, size_t size, const char *spelling)
{
    const size_t n = strlen(spelling);
    for (size_t at = 0; n > 0 && at + n <= size; at++)
        if (memcmp(text + at, spelling, n) == 0 && border_before(text, at) &&
            border_after(text, at + n, size) && !denied(text, at) && !denied_after(text, at + n, size))
            return true;
    return false;
}

typedef struct unit { /* a prompt */
    uint64_t id;
    size_t k, n;
} unit;

typedef struct tally {
    unit *units;
    size_t count, k, n, claiming;
} tally;

static int by_id(const void *a, const void *b)
{
    const unit *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static bool count_names(tally *t, const rt_texts *answers, char *const *spellings, size_t n_spellings)
{
    *t = (tally){.units = calloc(answers->count + 1, sizeof *t->units)};
    for (size_t j = 0; t->units && j < answers->count; j++) {
        const rt_text_item *item = &answers->list[j];
        char *text = item->text ? fold(item->text, item->size) : NULL;
        bool said = false;
        if (!text)
            continue;
        for (size_t s = 0; s < n_spellings; s++)
            said |= claims(text, strlen(text), spellings[s]);
        free(text);
        t->units[t->n++] = (unit){item->unit ? item->unit : j + 1, said, 1};
        t->k += said;
    }
    if (!t->units)
        return false;
    qsort(t->units, t->n, sizeof *t->units, by_id);
    for (size_t i = 0; i < t->n; i++) {
        if (t->count > 0 && t->units[t->count - 1].id == t->units[i].id) {
            t->units[t->count - 1].k += t->units[i].k;
            t->units[t->count - 1].n++;
        } else {
            t->units[t->count++] = t->units[i];
        }
    }
    for (size_t i = 0; i < t->count; i++)
        t->claiming += t->units[i].k > 0;
    return true;
}

static int by_double(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Mean over prompts of the share that claims, and its interval by resampling prompts. */
static double prompt_mean(const tally *t, uint64_t seed, rt_range *range)
{
    double mean = 0, drawn[RESAMPLES];
    rt_rng rng = rt_rng_make(seed, 0x1DE17);
    *range = (rt_range){0, 1};
    for (size_t i = 0; i < t->count; i++)
        mean += (double)t->units[i].k / (double)t->units[i].n / (double)t->count;
    for (size_t b = 0; t->count > 0 && b < RESAMPLES; b++) {
        drawn[b] = 0;
        for (size_t i = 0; i < t->count; i++) {
            const unit *u = &t->units[rt_rng_below(&rng, t->count)];
            drawn[b] += (double)u->k / (double)u->n / (double)t->count;
        }
    }
    if (t->count > 0) {
        qsort(drawn, RESAMPLES, sizeof *drawn, by_double);
        *range = (rt_range){drawn[RESAMPLES / 40], drawn[RESAMPLES - 1 - RESAMPLES / 40]};
    }
    return mean;
}

static size_t split_name(char *spellings[SPELLINGS_MAX], const char *name)
{
    size_t n = 0;
    for (const char *at = name; *at && n < SPELLINGS_MAX;) {
        const size_t length = strcspn(at, "|");
        if (length > 0 && length < NAME_MAX_BYTES && (spellings[n] = fold(at, length)))
            n++;
        at += length + (at[length] == '|');
    }
    return n;
}

static json_t *name_json(const char *name, const rt_texts *answers, const rt_texts *controls,
                         size_t n_controls, uint64_t seed)
{
    char *spellings[SPELLINGS_MAX];
    const size_t n = split_name(spellings, name);
    tally s = {0};
    json_t *o = NULL;
    if (count_names(&s, answers, spellings, n)) {
        rt_range by_prompt, range = rt_clopper_pearson(s.k, s.n, 0.95),
                            prompts = rt_clopper_pearson(s.claiming, s.count, 0.95);
        const double mean = prompt_mean(&s, seed, &by_prompt);
        o = json_pack("{s:s,s:I,s:I,s:f,s:f,s:I,s:I,s:f,s:f,s:f,s:f,s:f,s:s}", "name", name, "k",
                      (json_int_t)s.k, "n", (json_int_t)s.n, "lo", range.lo, "hi", range.hi, "prompts",
                      (json_int_t)s.count, "prompts_claiming", (json_int_t)s.claiming, "prompts_lo",
                      prompts.lo, "prompts_hi", prompts.hi, "prompt_mean", mean, "prompt_lo", by_prompt.lo,
                      "prompt_hi", by_prompt.hi, "cannot_say", rt_test_cannot_say(RT_TEST_IDENTITY));
    }
    tally all = {0};
    bool told = n_controls > 0;
    for (size_t c = 0; o && c < n_controls; c++) {
        tally t = {0};
        told &= count_names(&t, &controls[c], spellings, n);
        all.count += t.count;
        all.claiming += t.claiming;
        free(t.units);
    }
    if (o && told)
        (void)json_object_set_new(
            o, "controls",
            json_pack("{s:I,s:I,s:f}", "prompts", (json_int_t)all.count, "prompts_claiming",
                      (json_int_t)all.claiming, "log10_p",
                      rt_log10_hypergeometric(s.claiming, s.count, all.claiming, all.count)));
    free(s.units);
    for (size_t i = 0; i < n; i++)
        free(spellings[i]);
    return o;
}

json_t *rt_battery_identity(const rt_texts *answers, const rt_texts *controls, size_t n_controls,
                            const json_t *names, uint64_t seed)
{
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        json_t *o = name ? name_json(name, answers, controls, n_controls, seed) : NULL;
        if (o)
            (void)json_array_append_new(out, o);
    }
    return out;
}

/* ---- the probes ---- */

enum { LANGUAGES = 6, QUESTIONS = 5 };

static const char *const languages[LANGUAGES] = {"en", "zh", "es", "de", "ja", "ru"};
static const char *const questions[LANGUAGES][QUESTIONS] = {
    {"Who made you?", "What is the name of the model that I am talking to?",
     "Which company do you belong to?", "Which company's usage policy do you follow?",
     "Where do I find the documentation of your API?"},
    {"\u4f60\u662f\u8c01\u5f00\u53d1\u7684\uff1f",
     "\u6211\u6b63\u5728\u548c\u54ea\u4e2a\u6a21\u578b\u5bf9\u8bdd\uff1f",
     "\u4f60\u5c5e\u4e8e\u54ea\u5bb6\u516c\u53f8\uff1f",
     "\u4f60\u9075\u5b88\u54ea\u5bb6\u516c\u53f8\u7684\u4f7f\u7528\u653f\u7b56\uff1f",
     "\u5728\u54ea\u91cc\u53ef\u4ee5\u627e\u5230\u4f60\u7684 API \u6587\u6863\uff1f"},
    {"\u00bfQui\u00e9n te cre\u00f3?", "\u00bfC\u00f3mo se llama el modelo con el que hablo?",
     "\u00bfA qu\u00e9 empresa perteneces?", "\u00bfLa pol\u00edtica de uso de qu\u00e9 empresa sigues?",
     "\u00bfD\u00f3nde est\u00e1 la documentaci\u00f3n de tu API?"},
    {"Wer hat dich entwickelt?", "Wie hei\u00dft das Modell, mit dem ich spreche?",
     "Zu welcher Firma geh\u00f6rst du?", "Welcher Firma Nutzungsrichtlinien befolgst du?",
     "Wo finde ich die Dokumentation deiner API?"},
    {"\u3042\u306a\u305f\u306f\u8ab0\u304c\u4f5c\u308a\u307e\u3057\u305f\u304b\u3002",
     "\u79c1\u304c\u8a71\u3057\u3066\u3044\u308b\u30e2\u30c7\u30eb\u306e\u540d\u524d\u306f\u4f55\u3067\u3059"
     "\u304b\u3002",
     "\u3042\u306a\u305f\u306f\u3069\u306e\u4f1a\u793e\u306e\u3082\u306e\u3067\u3059\u304b\u3002",
     "\u3069\u306e\u4f1a\u793e\u306e\u5229\u7528\u898f\u7d04\u306b\u5f93\u3063\u3066\u3044\u307e\u3059\u304b"
     "\u3002",
     "\u3042\u306a\u305f\u306e API "
     "\u306e\u6587\u66f8\u306f\u3069\u3053\u306b\u3042\u308a\u307e\u3059\u304b\u3002"},
    {"\u041a\u0442\u043e \u0442\u0435\u0431\u044f \u0441\u043e\u0437\u0434\u0430\u043b?",
     "\u041a\u0430\u043a \u043d\u0430\u0437\u044b\u0432\u0430\u0435\u0442\u0441\u044f "
     "\u043c\u043e\u0434\u0435\u043b\u044c, \u0441 "
     "\u043a\u043e\u0442\u043e\u0440\u043e\u0439 \u044f \u0433\u043e\u0432\u043e\u0440\u044e?",
     "\u041a\u0430\u043a\u043e\u0439 \u043a\u043e\u043c\u043f\u0430\u043d\u0438\u0438 \u0442\u044b "
     "\u043f\u0440\u0438\u043d\u0430\u0434\u043b\u0435\u0436\u0438\u0448\u044c?",
     "\u041f\u0440\u0430\u0432\u0438\u043b\u0430\u043c \u043a\u0430\u043a\u043e\u0439 "
     "\u043a\u043e\u043c\u043f\u0430\u043d\u0438\u0438 "
     "\u0442\u044b \u0441\u043b\u0435\u0434\u0443\u0435\u0448\u044c?",
     "\u0413\u0434\u0435 \u043d\u0430\u0439\u0442\u0438 "
     "\u0434\u043e\u043a\u0443\u043c\u0435\u043d\u0442\u0430\u0446\u0438\u044e "
     "\u0442\u0432\u043e\u0435\u0433\u043e API?"}};

json_t *rt_identity_probes(void)
{
    static const char *const systems[] = {NULL, "", "You are Robin, a librarian. Help the reader."};
    json_t *out = json_array();
    for (size_t l = 0; l < LANGUAGES; l++)
        for (size_t q = 0; q < QUESTIONS; q++)
            for (size_t s = 0; s < sizeof systems / sizeof *systems; s++) {
                json_t *messages = json_array();
                if (systems[s])
                    (void)json_array_append_new(
                        messages, json_pack("{s:s,s:s}", "role", "system", "content", systems[s]));
                (void)json_array_append_new(
                    messages, json_pack("{s:s,s:s}", "role", "user", "content", questions[l][q]));
                (void)json_array_append_new(
                    out, json_pack("{s:s,s:o}", "language", languages[l], "messages", messages));
            }
    return out;
}
