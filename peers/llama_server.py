"""llama.cpp's server, as xllamacpp brings it, on a port until it is killed.  usage: llama_server.py GGUF PORT"""
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
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
threading.Event().wait()
