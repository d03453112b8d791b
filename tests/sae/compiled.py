"""Compiles the Triton kernels for an H100 (sm_90), which needs no GPU, and prints their assembly: run in a process of
its own, without the interpreter."""

import sys

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from atomlab.sae.ops import triton_kernels
from atomlab.sae.ops.triton_kernels import TritonKernels

SELECT = {"PRECISION": "ieee", "OPERAND": tl.bfloat16, "ACC": tl.float32, "GROUP": 8}
SELECT |= dict(zip(("BLOCK_B", "BLOCK_S", "BLOCK_D"), TritonKernels().tile, strict=True))
SUM = {"ACC": tl.float32, "BLOCK_E": 16, "BLOCK_D": 256}
POINTERS = {"x": "bf16", "atoms": "bf16", "table": "bf16"} | dict.fromkeys(
    ("keys", "count", "index", "pointers", "rows", "columns"), "i64"
)  # the others point at float32
SCALARS = {"batch": "i32", "d_sae": "i32", "width": "i32", "capacity": "i32", "entries": "i32", "half_window": "fp32"}


def assembly(kernel: triton.JITFunction, constants: dict[str, object]) -> str:
    signature = {
        name: "constexpr" if name in constants else SCALARS.get(name, f"*{POINTERS.get(name, 'fp32')}")
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(name),): value for name, value in constants.items()})
    options = {
        "num_warps": 8 if kernel is triton_kernels.select_kernel else 4,
        "num_stages": 3,
        "enable_fp_fusion": True,
    }
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(assembly(triton_kernels.select_kernel, SELECT))
    sys.stdout.write(assembly(triton_kernels.bag_sum_kernel, SUM))
    sys.stdout.write(assembly(triton_kernels.sampled_dot_kernel, SUM))
