# SPDX-License-Identifier: Apache-2.0
"""The cases of attention_bench.cu that PyTorch's scaled_dot_product_attention has, timed alike."""

import statistics

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

LAUNCHES = 16

# name, heads, key heads, head size, batch, queries, keys, kind, dtype
CASES = [
    ("plain 64 x 128", 12, 12, 64, 64, 128, 128, "plain", torch.bfloat16),
    ("plain 32 x 512", 12, 12, 64, 32, 512, 512, "plain", torch.bfloat16),
    ("plain 4 x 4096", 12, 12, 64, 4, 4096, 4096, "plain", torch.bfloat16),
    ("plain f32 32 x 512", 12, 12, 64, 32, 512, 512, "plain", torch.float32),
    ("mpnet 64 x 128", 12, 12, 64, 64, 128, 128, "bias", torch.bfloat16),
    ("mpnet 32 x 512", 12, 12, 64, 32, 512, 512, "bias", torch.bfloat16),
    ("llama prefill 1 x 512", 32, 8, 64, 1, 512, 512, "causal", torch.bfloat16),
    ("llama prefill 1 x 2048", 32, 8, 64, 1, 2048, 2048, "causal", torch.bfloat16),
    ("llama prefill 8 x 2048", 32, 8, 64, 8, 2048, 2048, "causal", torch.bfloat16),
    ("llama prefill d128 4 x 2048", 32, 8, 128, 4, 2048, 2048, "causal", torch.bfloat16),
    ("llama decode 1 x 512", 32, 8, 64, 1, 1, 512, "decode", torch.bfloat16),
    ("llama decode 64 x 512", 32, 8, 64, 64, 1, 512, "decode", torch.bfloat16),
    ("llama decode 1 x 4096", 32, 8, 64, 1, 1, 4096, "decode", torch.bfloat16),
    ("llama decode 8 x 4096", 32, 8, 64, 8, 1, 4096, "decode", torch.bfloat16),
    ("llama decode 64 x 4096", 32, 8, 64, 64, 1, 4096, "decode", torch.bfloat16),
]
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


def time_of(call):
    """Microseconds a call, in a graph of LAUNCHES."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(3):
            call(i)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(LAUNCHES):
                call(i)
        times = []
        for _ in range(15):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e3 / LAUNCHES)
    return statistics.median(times[3:])


def main():
    for name, heads, kv_heads, dim, batch, queries, keys, kind, dtype in CASES:
        layers = LAUNCHES if kind == "decode" else 1
        q = torch.randn(batch, heads, queries, dim, device="cuda", dtype=dtype)
        k, v = (
            torch.randn(layers, batch, kv_heads, keys, dim, device="cuda", dtype=dtype)
            for _ in range(2)
        )
        mask = None
        if kind == "bias":
            mask = torch.randn(1, heads, queries, keys, device="cuda", dtype=dtype)
            mask = mask.expand(batch, -1, -1, -1)

        def call(i):
            return F.scaled_dot_product_attention(
                q,
                k[i % layers],
                v[i % layers],
                attn_mask=mask,
                is_causal=kind == "causal",
                enable_gqa=kv_heads != heads,
            )

        line = f"{name:30}"
        for backend in BACKENDS:
            try:
                with sdpa_kernel(backend):
                    line += f"  {backend.name.split('_')[0].lower()} {time_of(call):9.1f} us"
            except RuntimeError:
                line += f"  {backend.name.split('_')[0].lower()}      none   "
                torch.cuda.synchronize()
        print(line, flush=True)


if __name__ == "__main__":
    main()
