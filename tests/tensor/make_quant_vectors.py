"""Writes quant_vectors.h: random blocks of each type with the float32 that they stand for, and floats
with the blocks that reference rounding makes of them.  Made with the PyPI packages gguf 0.19.0 and
numpy; python3 make_quant_vectors.py > quant_vectors.h"""
import numpy as np
from gguf import GGMLQuantizationType as T, GGML_QUANT_SIZES, quants

rng = np.random.default_rng(4)
# type: offsets of its f16 fields in a block
READ = {T.F16: [], T.BF16: [], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
        T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
WRITTEN = [T.Q4_0, T.Q4_1, T.Q8_0]


def words(name, values, kind, fmt, per_line):
    print(f"static const {kind} {name}[] = {{")
    for i in range(0, len(values), per_line):
        print("    " + " ".join(fmt % v + "," for v in values[i:i + per_line]))
    print("};")


print("/* tests/tensor/quant_vectors.h - made by make_quant_vectors.py; do not edit. */\n/* clang-format off */")
print("#ifndef RT_TESTS_QUANT_VECTORS_H\n#define RT_TESTS_QUANT_VECTORS_H\n\n#include <stdint.h>\n")
for t, fields in READ.items():
    elements, size = GGML_QUANT_SIZES[t]
    n = 64 if elements == 1 else 3 if elements == 32 else 1
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for i, field in enumerate(fields):  # a finite scale; the last block's is subnormal
        half = rng.normal(0, 1, n).astype(np.float16)
        if n > 1:
            half[-1] = np.float16(3e-6)
        raw[:, field:field + 2] = half.view(np.uint8).reshape(n, 2)
    if elements == 1:
        value = raw.view(np.uint16)
        exponent = 0x7C00 if t == T.F16 else 0x7F80
        value[(value & exponent) == exponent] = 0x3C01  # no infinities or NaNs
        value[0], value[1] = 0x0001, 0x8000
    x = quants.dequantize(raw.reshape(1, -1), t).astype(np.float32).ravel()
    words(f"{t.name.lower()}_blocks", raw.ravel(), "unsigned char", "0x%02x", 18)
    words(f"{t.name.lower()}_bits", x.view(np.uint32), "uint32_t", "0x%08x", 9)
x = rng.normal(0, 0.05, (6, 32)).astype(np.float32)
x[1] = 0
x[2, 5] = -3.0
x[3] *= 1e-6
x[4] = np.abs(x[4])
words("floats_bits", x.view(np.uint32).ravel(), "uint32_t", "0x%08x", 9)
for t in WRITTEN:
    words(f"{t.name.lower()}_rounded", quants.quantize(x, t).ravel(), "unsigned char", "0x%02x", 18)
print("\n#endif")
