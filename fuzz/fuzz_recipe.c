/* fuzz/fuzz_recipe.c - recipes: any text gives settings or one sentence, and what was accepted prints to a
 * text that reads back. */
#include <stdlib.h>
#include <string.h>

#include "student/recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static rt_settings *read_text(const char *text, size_t size, rt_recipe *recipe, bool *filled)
{
    rt_error err = {0};
    rt_settings *settings = NULL;
    if (rt_settings_open(&settings, rt_recipe_fields, rt_recipe_field_count, &err) != RT_OK)
        abort();
    *filled = rt_settings_read_text(settings, text, size, "fuzz", &err) == RT_OK &&
              rt_settings_fill(settings, recipe, &err) == RT_OK;
    if (!*filled && err.text[0] == '\0')
        abort();
    return settings;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rt_recipe recipe;
    rt_objective objective;
    rt_error err = {0};
    bool filled, again;
    rt_settings *settings = read_text((const char *)data, size, &recipe, &filled);
    if (filled) {
        (void)rt_recipe_check(&recipe, &err);
        for (int kept = 0; kept < 2; kept++)
            (void)rt_recipe_loss(&objective, &recipe.loss, kept, rt_recipe_steps(&recipe), &err);
        rt_text printed = {0};
        rt_settings_print(settings, &printed);
        rt_settings_close(read_text(printed.data, printed.size, &recipe, &again));
        if (!again)
            abort();
        rt_text_deinit(&printed);
    }
    rt_settings_close(settings);
    return 0;
}
