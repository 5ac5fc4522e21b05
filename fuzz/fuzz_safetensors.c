/* fuzz/fuzz_safetensors.c - any bytes as a safetensors header: opened, then everything in it walked.
 *
 * The header's size is put before the text here, so that mutations need not keep it right; the byte
 * before the text says how many bytes of data follow. */
#include "../tests/model/weights_help.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void open_and_walk(const void *data, size_t size)
{
    rt_weights *weights;
    rt_error err = {0};
    if (rt_weights_open_memory(&weights, data, size, "fuzz", &err) == RT_OK)
        (void)walk(weights);
    else if (err.text[0] == '\0')
        __builtin_trap(); /* a failure always says why */
    rt_weights_close(weights);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const char zeros[255];
    rt_text file = {0};
    if (size == 0)
        return 0;
    put_u64(&file, size - 1);
    rt_text_append(&file, data + 1, size - 1);
    rt_text_append(&file, zeros, data[0]);
    if (!file.failed)
        open_and_walk(file.data, file.size);
    rt_text_deinit(&file);
    open_and_walk(data, size);
    return 0;
}
