/* evidence/plan.c - see plan.h. */
#include "evidence/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "evidence/detect.h"

typedef struct test_words {
    const char *word, *null, *assumes, *cannot_say;
} test_words;

static const char reading_says[] =
    "whether T's marked text was trained on directly or at second hand, by whom, or with what intent";

static const test_words tests[] = {
    [RT_TEST_POOLED] =
        {"pooled", "the suspect's probabilities do not depend on the key",
         "the key is random and was secret; terms at distinct (context, token) are independent",
         reading_says},
    [RT_TEST_SOFT] = {"soft", "the suspect's probabilities do not depend on the key",
                      "the key is random and was secret; terms at distinct (context, token) are independent",
                      reading_says},
    [RT_TEST_HARD] = {"hard", "the suspect's likeliest tokens do not depend on the key",
                      "the key is random and was secret; each context is scored once", reading_says},
    [RT_TEST_DIFFERENCE] = {"difference", "the suspect's answers do not depend on the key",
                            "the key is random and was secret; the reference's answers do not depend on it",
                            reading_says},
    [RT_TEST_CLOSED] = {"closed", "the suspect's answers do not depend on the key",
                        "the key is random and was secret; each (context, token) pair is scored once",
                        "whether the suspect was trained on marked text or shown it when it answered"},
    [RT_TEST_TWINS] = {"twins", "the suspect never saw which of two twin answers was delivered",
                       "delivery was decided by a random coin logged beforehand",
                       "how the delivered answers came to the suspect"},
    [RT_TEST_CANARIES] =
        {"canaries", "the served variant ranks uniformly among all variants",
         "the variant was drawn at random and logged before it was served; rows were never public",
         "how the rows came to the suspect"},
    [RT_TEST_ORDER] = {"order", "the suspect remembers items regardless of their position",
                       "the order is random given the items' content",
                       "anything where order and topic or date go together"},
    [RT_TEST_MEMBERSHIP] = {"membership",
                            "delivered answers and held-back ones are equally likely under the suspect",
                            "both sets are random halves of the same prompts, made in the same way",
                            "anything where the sets differ in date, topic or length"},
    [RT_TEST_PREFERENCE] = {"preference",
                            "the suspect prefers the teacher's wording no more than innocent readers do",
                            "prompts are not public; readers and control teachers are comparable",
                            "whether another model of the teacher's kind was the source"},
    [RT_TEST_MMD] =
        {"mmd", "the suspect's and the teacher's answers to each prompt have one distribution",
         "answers to a prompt are exchangeable",
         "a difference may be quantisation, a system prompt or decoding; equality says 'same model'"},
    [RT_TEST_NEARER] = {"nearer", "the suspect is no nearer to the teacher than innocent models are",
                        "the innocents are models of the suspect's kind that answered the same prompts",
                        "whether another model of the teacher's kind was the source"},
    [RT_TEST_IDENTITY] = {"identity", "none: shares of claimed names with exact intervals",
                          "models have no knowledge of themselves; web text is full of such sentences",
                          "training: a claimed name alone never lifts a verdict"},
    [RT_TEST_WEIGHTS] = {"weights", "the two models' weights come from independent initialisations",
                         "training treats hidden units alike",
                         "distillation from outputs: it speaks of shared ancestry of weights only"},
    [RT_TEST_MATCH] = {"match", "gate and up projections of the two models pair up independently",
                       "the models were trained from independent initialisations; calibrated empirically",
                       "distillation from outputs: it speaks of shared ancestry of weights only"},
    [RT_TEST_SIMILARITY] = {"similarity", "none: CKA and Procrustes distance describe",
                            "both read the same token ids",
                            "anything without controls: good models are alike"},
    [RT_TEST_DIMENSION] = {"dimension", "none: the width before the output, or that it is not determined",
                           "the log-probabilities are of full precision",
                           "distillation into another architecture"},
};

const char *rt_test_word(rt_test test) { return tests[test].word; }
const char *rt_test_null(rt_test test) { return tests[test].null; }
const char *rt_test_assumes(rt_test test) { return tests[test].assumes; }
const char *rt_test_cannot_say(rt_test test) { return tests[test].cannot_say; }

int rt_test_from_word(const char *word)
{
    for (int i = 0; i < RT_TEST_COUNT; i++)
        if (strcmp(tests[i].word, word) == 0)
            return i;
    return -1;
}

rt_status rt_evidence_plan_hash(char out[65], const json_t *plan, rt_error *err)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)plan);
    (void)json_object_del(copy, "hash");
    char *text = copy ? json_dumps(copy, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    json_decref(copy);
    if (!text)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to hash a plan");
    rt_sha256_hex(out, text, strlen(text));
    free(text);
    return RT_OK;
}

rt_status rt_evidence_plan_seal(json_t *plan, rt_error *err)
{
    char hash[65];
    if (rt_evidence_plan_hash(hash, plan, err) != RT_OK)
        return err->status;
    return json_object_set_new(plan, "hash", json_string(hash)) == 0
               ? RT_OK
               : rt_error_set(err, RT_NO_MEMORY, "no memory to seal a plan");
}

typedef struct member {
    const char *name;
    char type; /* s text, n count, r real, l list of texts, o object */
    double most;
} member;

static const member members[] = {
    {"retort_evidence_plan", 'n', 1},
    {"claim", 's', 0},
    {"created", 'n', 1e12},
    {"hash", 's', 0},
    {"suspect", 's', 0},
    {"suspect_url", 's', 0},
    {"suspect_model", 's', 0},
    {"suspect_key_env", 's', 0},
    {"top_logprobs", 'n', 20},
    {"prices", 's', 0},
    {"spend_max", 's', 0},
    {"tokenizer", 's', 0},
    {"reference", 's', 0},
    {"answers", 's', 0},
    {"reference_answers", 's', 0},
    {"teacher_answers", 's', 0},
    {"control_answers", 'l', 64},
    {"innocent_answers", 'l', 64},
    {"logged", 's', 0},
    {"key", 's', 0},
    {"key_public", 'o', 0},
    {"scheme", 's', 0},
    {"accounts", 'l', 64},
    {"read", 's', 0},
    {"prompts", 's', 0},
    {"twins", 's', 0},
    {"canaries", 's', 0},
    {"order", 's', 0},
    {"membership", 's', 0},
    {"preference", 's', 0},
    {"readers", 'l', 64},
    {"weights", 's', 0},
    {"columns", 'n', 8192},
    {"names", 'l', 64},
    {"tests", 'l', RT_TEST_COUNT},
    {"sampled_tokens", 'n', 1e8},
    {"answer_tokens", 'n', 1e5},
    {"read_tokens", 'n', 1e9},
    {"temperature", 'r', 100},
    {"random_keys", 'n', 99999},
    {"flips", 'n', 1e8},
    {"seed", 'n', 1e15},
    {"calibration", 's', 0},
    {"replicates", 's', 0},
    {"inputs", 'o', 0},
    {"version", 's', 0},
};

static bool fits(const member *m, const json_t *value)
{
    switch (m->type) {
    case 's':
        return json_is_string(value) && json_string_length(value) < 4096;
    case 'n':
        return json_is_integer(value) && json_integer_value(value) >= 0 &&
               (double)json_integer_value(value) <= m->most;
    case 'r':
        return json_is_number(value) && json_number_value(value) >= 0 && json_number_value(value) <= m->most;
    case 'l':
        if (!json_is_array(value) || (double)json_array_size(value) > m->most)
            return false;
        for (size_t i = 0; i < json_array_size(value); i++)
            if (!json_is_string(json_array_get(value, i)))
                return false;
        return true;
    default:
        return json_is_object(value);
    }
}

rt_status rt_evidence_plan_check(const json_t *plan, bool *intact, const char *where, rt_error *err)
{
    const char *name;
    json_t *value;
    *intact = false;
    if (!json_is_object(plan) || json_integer_value(json_object_get(plan, "retort_evidence_plan")) != 1)
        return rt_error_set(err, RT_CORRUPT, "%.300s: is not a plan ('retort evidence plan' writes one)",
                            where);
    json_object_foreach((json_t *)(uintptr_t)plan, name, value)
    {
        size_t i = 0;
        while (i < sizeof members / sizeof *members && strcmp(members[i].name, name) != 0)
            i++;
        if (i == sizeof members / sizeof *members)
            return rt_error_set(err, RT_CORRUPT, "%.300s: '%.60s' is no part of a plan", where, name);
        if (!fits(&members[i], value))
            return rt_error_set(err, RT_CORRUPT, "%.300s: '%s' is not of its type, or out of range", where,
                                name);
    }
    const json_t *list = json_object_get(plan, "tests");
    if (json_array_size(list) == 0)
        return rt_error_set(err, RT_CORRUPT, "%.300s: names no tests", where);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (rt_test_from_word(json_string_value(json_array_get(list, i))) < 0)
            return rt_error_set(err, RT_CORRUPT, "%.300s: there is no test '%.60s'", where,
                                json_string_value(json_array_get(list, i)));
    char hash[65];
    if (rt_evidence_plan_hash(hash, plan, err) != RT_OK)
        return err->status;
    const char *said = json_string_value(json_object_get(plan, "hash"));
    *intact = said && strcmp(said, hash) == 0;
    return RT_OK;
}

/* The levels of section 8.1, strongest last, and the first requirement that each adds. */
static size_t level_of(const rt_verdict_facts *f, const char **missing)
{
    *missing = f->none_combined ? "a test of outputs whose p counts: names and weights lift no verdict" : "";
    if (!(f->log10_p <= log10(0.05)))
        return 0;
    if (f->none_combined)
        return 1;
    if (f->log10_p > -3)
        return 1;
    if (!f->calibrated) {
        *missing = "a calibration that passed (retort evidence calibrate)";
        return 1;
    }
    if (f->log10_p > -5)
        return 2;
    if (!f->key_check || !f->second_test) {
        *missing =
            f->key_check ? "a second independent test with p <= 0.05" : "a random-key check that passed";
        return 2;
    }
    if (f->log10_p > -10)
        return 3;
    if (!f->replicated || !f->plan_first) {
        *missing = f->plan_first ? "a replication on fresh data (plan --replicates RECORD)"
                                 : "a plan that was fixed before and not altered";
        return 3;
    }
    return 4;
}

static const char *const words[] = {"no evidence found", "not excluded", "indication", "strong evidence",
                                    "very strong evidence"};

const char *rt_verdict_words(const rt_verdict_facts *f)
{
    const char *missing;
    const size_t level = level_of(f, &missing);
    return level == 0 && f->none_combined ? "not tested" : words[level];
}

json_t *rt_verdict_json(const rt_verdict_facts *f)
{
    const char *missing;
    const size_t level = level_of(f, &missing);
    char p[RT_P_TEXT];
    rt_p_text(p, f->log10_p);
    json_t *o =
        json_pack("{s:s,s:i,s:f,s:s,s:b,s:b,s:b,s:b,s:b}", "words", rt_verdict_words(f), "level", (int)level,
                  "log10_p", f->log10_p, "p", p, "calibrated", f->calibrated, "key_check", f->key_check,
                  "second_test", f->second_test, "replicated", f->replicated, "plan_first", f->plan_first);
    if (missing[0])
        (void)json_object_set_new(o, "missing_for_more", json_string(missing));
    if (f->log10_p < log10(1 / M_E)) { /* LR <= 1/(-e p ln p) */
        const double ln_p = f->log10_p * 2.302585092994045684;
        (void)json_object_set_new(o, "log10_likelihood_ratio_at_most",
                                  json_real(-log10(M_E) - f->log10_p - log10(-ln_p)));
    }
    return o;
}

json_t *rt_alternatives_json(bool marks)
{
    static const struct {
        const char *id, *what, *tested;
        bool marks;
    } list[] = {
        {"web", "T's answers lie on the web and the suspect read them there",
         "drop the contexts that carry the signal and stand in public text; keys for each account", false},
        {"second_hand",
         "a third party's data set holds T's outputs, or the suspect comes from a model that was distilled "
         "from T",
         "keys for each account, canaries and twins name whose answers were used; nothing here tells how",
         false},
        {"ancestor", "suspect and T share base weights or data",
         "the weight test; a reference in the pooled test", false},
        {"direction", "T was trained on the suspect, or both on one source", "the order in time of both",
         false},
        {"key", "the key leaked, was guessed or used twice, or somebody planted text with it",
         "public demo keys are refused; the commitment's date; who had the key file", true},
        {"same_model", "the suspect is T under another name", "the two-sample test on completions", false},
        {"fault", "a fault of de-duplication or tokenizer", "the random-key check of every test", true},
        {"many", "many tests, keys or suspects were looked at",
         "the plan's count of tests; corrected p-values", false},
        {"retrieval", "T's text reaches the suspect when it answers, by a system prompt or retrieval",
         "ask again without them, or read the weights", false},
    };
    json_t *out = json_array();
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (marks || !list[i].marks)
            (void)json_array_append_new(out, json_pack("{s:s,s:s,s:s}", "id", list[i].id, "explanation",
                                                       list[i].what, "tested_how", list[i].tested));
    return out;
}
