/* model/pretokenizer_table.c - what the names in GGUF's tokenizer.ggml.pre stand for.
 *
 * Each name is a list of patterns that are applied one after another, matches and gaps both kept, as
 * the models' own tokenizer.json files do.  `nfc` holds where the reference tokenizer normalises the
 * text; llama.cpp, which reads the same files, never does. */
#include <stdlib.h>
#include <string.h>

#include "model/pretokenizer.h"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" TAIL
#define QWEN2 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" TAIL
#define QWEN35                                                                                               \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|"       \
                 "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
/* words that change from lower to upper case end there (tekken, gpt-4o) */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(after)                                                                                         \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" after "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" after
#define CASED_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define NOT_HAN(class) "(?:(?!\\p{Han})" class ")"
#define DEEPSEEK3_WORDS                                                                                      \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"      \
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CJK_OLD "[一-龥ࠀ-一가-퟿]+" /* U+4E00-9FA5, U+0800-4E00, U+AC00-D7FF */
#define PORO " ?[^(\\s|.,!?…。，、।۔،)]+"
/* the cased letters of the Latin, Greek, Cyrillic, ... blocks, as DeepSeek LLM's own file lists them */
#define CASED_LETTERS                                                                                        \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"                           \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}"           \
    "\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}"                   \
    "\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}"            \
    "\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}"                           \
    "\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}"                           \
    "\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}"                   \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}"                  \
    "\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}"                           \
    "\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}"                   \
    "\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}"                             \
    "\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}"                   \
    "\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}"                            \
    "\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}"                           \
    "\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}"                           \
    "\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}"                     \
    "\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

static const rt_pre_name pre_names[] = {
    {"gpt-2", {GPT2}, false, false},
    {"gpt2", {GPT2}, false, false},
    {"phi-2", {GPT2}, false, false},
    {"jina-es", {GPT2}, false, false},
    {"jina-de", {GPT2}, false, false},
    {"jina-v1-en", {GPT2}, false, false},
    {"jina-v2-es", {GPT2}, false, false},
    {"jina-v2-de", {GPT2}, false, false},
    {"jina-v2-code", {GPT2}, false, false},
    {"roberta-bpe", {GPT2}, false, false},
    {"gigachat", {GPT2}, false, false},
    {"a.x-4.0", {GPT2}, false, false},
    {"mellum", {GPT2}, false, false},
    {"modern-bert", {GPT2}, false, true},
    {"exaone4", {GPT2}, false, false},
    {"mpt", {GPT2}, false, true},
    {"olmo", {GPT2}, false, true},
    {"jais", {GPT2}, false, false},
    {"trillion", {GPT2}, false, false},
    {"granite-docling", {GPT2}, false, false},
    {"smollm", {"\\p{N}", GPT2}, false, false},
    {"starcoder", {"\\p{N}", GPT2}, false, false},
    {"refact", {"\\p{N}", GPT2}, false, false},
    {"command-r", {"\\p{N}", GPT2}, false, true},
    {"codeshell", {"\\p{N}", GPT2}, false, false},
    {"exaone", {"\\p{N}", GPT2}, false, false},
    {"minerva-7b", {"\\p{N}", GPT2}, false, false},
    {"mellum2", {"\\p{N}", GPT2}, false, false},
    {"llama-bpe", {LLAMA3}, true, false},
    {"llama3", {LLAMA3}, true, false},
    {"llama-v3", {LLAMA3}, true, false},
    {"falcon3", {LLAMA3}, true, false},
    {"falcon-h1", {LLAMA3}, true, false},
    {"pixtral", {LLAMA3}, true, false},
    {"midm-2.0", {LLAMA3}, true, false},
    {"lfm2", {LLAMA3}, true, false},
    {"dbrx", {LLAMA3}, false, false},
    {"smaug-bpe", {LLAMA3}, false, false},
    {"chatglm-bpe", {LLAMA3}, false, false},
    {"glm4", {LLAMA3}, false, false},
    {"qwen2", {QWEN2}, false, true},
    {"deepseek-r1-qwen", {QWEN2}, false, true},
    {"megrez", {QWEN2}, false, true},
    {"kormo", {QWEN2}, false, true},
    {"stablelm2", {QWEN2}, false, true},
    {"hunyuan", {QWEN2}, false, false},
    {"solar-open", {QWEN2}, false, false},
    {"grok-2", {QWEN2}, false, false},
    {"qwen35", {QWEN35}, false, true},
    {"tekken", {CASED("") "|\\p{N}" CASED_TAIL}, true, false},
    {"gpt-4o", {CASED(CONTRACTIONS "?") "|\\p{N}{1,3}" CASED_TAIL}, false, false},
    {"llama4", {CASED(CONTRACTIONS "?") "|\\p{N}{1,3}" CASED_TAIL}, false, false},
    {"minimax-m2", {CASED(CONTRACTIONS "?") "|\\p{N}{1,3}" CASED_TAIL}, false, false},
    {"kimi-k2",
     {"\\p{Han}+|[^\\r\\n\\p{L}\\p{N}]?" NOT_HAN(UPPER) "*" NOT_HAN(
         LOWER) "+" CONTRACTIONS
                "?|[^\\r\\n\\p{L}\\p{N}]?" NOT_HAN(UPPER) "+" NOT_HAN(
                    LOWER) "*" CONTRACTIONS
                           "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
     false,
     false},
    {"seed-coder",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|"
                   "\\s+(?!\\S)|\\s+"},
     false,
     false},
    {"bailingmoe",
     {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"
      "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},
     false,
     false},
    {"deepseek-llm",
     {"[\\r\\n]", "\\s?[" CASED_LETTERS "]+", "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", CJK_OLD, "\\p{N}+"},
     false,
     false},
    {"deepseek-coder", {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK_OLD, "\\p{N}"}, false, false},
    {"deepseek-v3", {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3_WORDS}, false, false},
    {"hunyuan-dense", {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3_WORDS}, false, false},
    {"joyai-llm", {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3_WORDS}, false, false},
    {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}, false, false},
    {"poro-chat", {PORO}, false, false},
    {"bloom", {PORO}, false, false},
    {"gpt3-finnish", {PORO}, false, false},
    {"viking", {PORO, "\\p{N}"}, false, false},
    {"superbpe", {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}, false, false},
    {"default", {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}, false, false},
};

enum { PRE_COUNT = sizeof pre_names / sizeof *pre_names };

const rt_pre_name *rt_pretokenizer_find(const char *name, size_t size, rt_error *err)
{
    const char *names[PRE_COUNT];
    for (size_t i = 0; i < PRE_COUNT; i++) {
        names[i] = pre_names[i].name;
        if (strlen(names[i]) == size && memcmp(names[i], name, size) == 0)
            return &pre_names[i];
    }
    char shown[64] = {0};
    for (size_t i = 0; i < size && i < sizeof shown - 1; i++)
        shown[i] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
    const char *near = rt_nearest_word(shown, names, PRE_COUNT);
    (void)rt_error_set(err, RT_UNSUPPORTED,
                       "tokenizer.ggml.pre names the pre-tokenizer \"%s\", which is not known here%s%s%s",
                       shown, near ? " (the nearest known one is \"" : "", near ? near : "",
                       near ? "\")" : "");
    return NULL;
}

rt_status rt_pretokenizer_from_name(rt_pretokenizer *pre, const rt_pre_name *name, rt_error *err)
{
    for (size_t i = 0; i < sizeof name->patterns / sizeof *name->patterns && name->patterns[i]; i++)
        if (rt_pretokenizer_add_regex(pre, name->patterns[i], RT_SPLIT_ISOLATED, false, false, err) != RT_OK)
            return err->status;
    return RT_OK;
}

json_t *rt_pretokenizer_to_json(const rt_pretokenizer *pre)
{
    json_t *out = json_array();
    for (size_t i = 0; out && i < pre->count; i++) {
        json_t *split = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                  pre->steps[i].pattern ? pre->steps[i].pattern : "", "behavior", "Isolated",
                                  "invert", 0);
        if (!split || json_array_append_new(out, split) != 0) {
            json_decref(out);
            out = NULL;
        }
    }
    return out;
}
