"""Prefill and decoding as llama.cpp does them, through llama-cpp-python's low-level interface.

Measures on one GGUF file: prefill of 2,048 tokens; greedy decoding after a prompt of 16 tokens; greedy decoding after 2,048.
Each figure is the median of several rounds.  Prints one JSON object.
"""

import argparse
import ctypes
import json
import statistics
import time

import llama_cpp
import numpy


class Session:
    """A model and one context; every call goes straight to llama.cpp."""

    def __init__(self, path, threads, context_tokens, batch):
        self.quiet = llama_cpp.llama_log_callback(lambda level, text, user: None)
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context_tokens
        params.n_batch = batch
        params.n_ubatch = min(batch, 512)
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"{path}: llama.cpp cannot make a context")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = batch

    def reset(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def feed(self, tokens):
        """Runs tokens through the model; the last one's logits can be asked for afterwards."""
        for at in range(0, len(tokens), self.batch):
            part = tokens[at:at + self.batch]
            array = (llama_cpp.llama_token * len(part))(*part)
            status = llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(array, len(part)))
            if status != 0:
                raise SystemExit(f"llama_decode failed with {status}")

    def likeliest(self):
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        return int(numpy.ctypeslib.as_array(logits, shape=(self.vocabulary,)).argmax())


def prefill_rate(session, tokens):
    session.reset()
    start = time.perf_counter()
    session.feed(tokens)
    session.likeliest()
    return len(tokens) / (time.perf_counter() - start)


def decode_rate(session, tokens, count):
    session.reset()
    session.feed(tokens)
    token = session.likeliest()
    start = time.perf_counter()
    for _ in range(count):
        session.feed([token])
        token = session.likeliest()
    return count / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=2048, help="tokens of the long prompt")
    parser.add_argument("--decode", type=int, default=64, help="tokens decoded in a round")
    parser.add_argument("--batch", type=int, default=2048, help="n_batch; n_ubatch is at most 512, its default")
    options = parser.parse_args()
    context_tokens = options.prefill + options.decode + 16
    session = Session(options.model, options.threads, context_tokens, options.batch)
    # Which tokens they are does not matter for the speed; a fixed spread over the vocabulary.
    long_prompt = [(i * 7919 + 11) % session.vocabulary for i in range(options.prefill)]
    decode_rate(session, long_prompt[:16], 8)  # pages in the weights
    prefill = [prefill_rate(session, long_prompt) for _ in range(options.rounds)]
    short = [decode_rate(session, long_prompt[:16], options.decode) for _ in range(options.rounds)]
    after_long = [decode_rate(session, long_prompt, options.decode) for _ in range(options.rounds)]
    print(json.dumps({
        "what": "inference",
        "peer": f"llama-cpp-python {llama_cpp.__version__}",
        "threads": options.threads,
        "prefill_tokens": options.prefill,
        "prefill_tokens_per_s": statistics.median(prefill),
        "decode_short_tokens_per_s": statistics.median(short),
        "decode_after_prefill_tokens_per_s": statistics.median(after_long),
        "rounds": {"prefill": prefill, "decode_short": short, "decode_after_prefill": after_long},
    }))


if __name__ == "__main__":
    main()
