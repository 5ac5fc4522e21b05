/* fuzz/fuzz_gguf.c - any bytes as a GGUF file: opened, then everything in it walked. */
#include "../tests/model/weights_help.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    rt_weights *weights;
    rt_error err = {0};
    if (rt_weights_open_memory(&weights, data, size, "fuzz", &err) == RT_OK)
        (void)walk(weights);
    else if (err.text[0] == '\0')
        __builtin_trap(); /* a failure always says why */
    rt_weights_close(weights);
    return 0;
}
