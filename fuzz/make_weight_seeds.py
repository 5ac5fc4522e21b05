"""Writes the seeds of fuzz/corpus/gguf and fuzz/corpus/safetensors: small files of each shape that the
readers know.  python3 make_weight_seeds.py (in this folder; the standard library is enough)."""
import json
import struct
from pathlib import Path

HERE = Path(__file__).parent / "corpus"
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 24: (1, 1), 26: (1, 4), 28: (1, 8), 30: (1, 2)}


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def array(kind, items):
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def gguf(meta, tensors, version=3, align=32):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(meta))
    for key, kind, value in meta:
        head += string(key) + struct.pack("<I", kind) + value
    data = b""
    for i, (kind, dims) in enumerate(tensors):
        elements = 1
        for d in dims:
            elements *= d
        block, size = BLOCKS[kind]
        head += string(f"t{i}") + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        data += bytes(j * 7 % 251 for j in range(elements // block * size))
        data += bytes(-len(data) % align)
    return head + bytes(-len(head) % align) + data


def save(folder, name, data):
    (HERE / folder).mkdir(parents=True, exist_ok=True)
    (HERE / folder / name).write_bytes(data)


save("gguf", "empty", gguf([], []))
save("gguf", "scalars", gguf([(f"k{k}", k, struct.pack(f, 1)) for k, f in SCALARS.items()] + [("s", 8, string("text"))], []))
save("gguf", "arrays", gguf([(f"a{k}", 9, array(k, [struct.pack(f, 1)] * 3)) for k, f in SCALARS.items()], []))
save("gguf", "strings", gguf([("words", 9, array(8, [string(f"w{i}") for i in range(40)]))], []))
save("gguf", "nested", gguf([("n", 9, array(9, [array(8, [string("a")]), array(9, [array(0, [b"x"])]), array(7, [b"\1"])]))], []))
save("gguf", "version2", gguf([("general.alignment", 4, struct.pack("<I", 8))], [(0, [2])], version=2, align=8))
save("gguf", "shapes", gguf([], [(0, []), (0, [3]), (0, [2, 2]), (1, [1, 2, 3]), (30, [2, 1, 2, 1]), (0, [0])]))
for kind, (block, _) in BLOCKS.items():
    save("gguf", f"type{kind}", gguf([], [(kind, [block, 2])]))


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def header(fields, data_size):  # fuzz_safetensors.c puts the size before and the data behind
    return bytes([data_size]) + json.dumps(fields, separators=(",", ":")).encode()


save("safetensors", "empty", header({}, 0))
save("safetensors", "meta", header({"__metadata__": {"format": "pt"}}, 0))
for dtype, size in {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}.items():
    save("safetensors", dtype, header({"w": tensor(dtype, [2, 3], 0, 6 * size)}, 6 * size))
save("safetensors", "several", header({"__metadata__": {"format": "pt"}, "a": tensor("F32", [], 0, 4),
                                       "b": tensor("BF16", [1, 2, 1, 3], 4, 16), "c": tensor("I8", [0], 16, 16)}, 16))
save("safetensors", "escapes", header({"\u00e4\"\\/\n": tensor("U8", [1], 0, 1)}, 1))
body = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
save("safetensors", "whole", struct.pack("<Q", len(body)) + body + b"\1")
