"""llama.cpp's server, as xllamacpp brings it, on a port until it is killed.  usage: llama_server.py GGUF PORT [exact]

exact: keys and values in float32, without flash attention: log-probabilities that can be compared."""
import sys
import threading

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[2])
params.n_parallel = 4
params.n_ctx = 2048
params.cpuparams.n_threads = 1  # threads that wait for each other spin: one is faster beside neighbours
params.warmup = False
if sys.argv[3:] == ["exact"]:
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
threading.Event().wait()
