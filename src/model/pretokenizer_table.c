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
#define CASED_LETTERS                                                                                                                                                                                                     \
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-"                                                         \
    "Ἕἠ-"                                                                                                                                                                                                             \
    "ὅὈ-Ὅὐ-ὗὙὛὝ"                                                                                                                                                                                          \
    "Ὗ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-" \
    "ﬆﬓ-"                                                                                                                                                                                                             \
    "ﬗ"                                                                                                                                                                                                                 \
    "Ａ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"

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
