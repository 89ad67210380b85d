"""What the Triton kernels compile to, without a GPU: registers, spills, width of access.

    python -m benchmarks.kernel_registers [--capability 80,90,100] [--out TABLE.md]

Triton compiles ahead of time for any NVIDIA target and brings the disassembler. A kernel that
spills, or reads its tensors in pieces of less than 128 bits, is slow on every device: this is
what can be known of speed where there is no device.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bnfold.train.kernels import backward, forward
from bnfold.train.kernels.layout import Layout, Planes, Rows
from bnfold.train.kernels.tiles import Kernel, Launch, Tile, lines_of, table, tile_of

DISASSEMBLER = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
CAPABILITIES = (80, 90, 100)
ITEMSIZE = {"fp16": 2, "bf16": 2, "fp32": 4}
NUMBERS = ("negative_slope", "share", "eps", "momentum", "unbias")
RUNNING = ("running_mean_ptr", "running_var_ptr")
# An H100: 132 multiprocessors start 4 instructions per clock, of 32 values each, at 1.755 GHz;
# memory moves 3.35e12 bytes per second.
INSTRUCTIONS_PER_BYTE = 132 * 4 * 32 * 1.755e9 / 3.35e12
VECTORS = dict.fromkeys(("mean_ptr", "rstd_ptr", "weight_ptr", "bias_ptr"), "*fp32")


@dataclass(frozen=True)
class Variant:
    """One kernel with one choice of types, activation and absent buffers."""

    function: Any
    kernel: Kernel
    storage: str
    tensors: tuple[str, ...]  # pointers of the storage type that are there
    reads: int  # how many of them are read
    writes: int  # and written
    activation: str | None = None
    has_bits: bool = False

    @property
    def by_rows(self) -> bool:
        """It reads channels_last, or planes."""
        return self.function.__name__.startswith("rows")

    @property
    def is_alone(self) -> bool:
        """It is a whole forward."""
        return self.kernel == "forward_alone"

    @property
    def title(self) -> str:
        """What it is, in one line."""
        extras = [self.storage, self.activation or "no activation"]
        extras += ["residual"] if "residual_ptr" in self.tensors else []
        extras += ["bits"] if self.has_bits else []
        extras += ["frozen"] if self.kernel == "sums" and "dx_ptr" in self.tensors else []
        return f"{self.function.__name__} ({', '.join(extras)})"

    @property
    def layout(self) -> Layout:
        """A tensor of many lines."""
        return Rows(2**20, 256) if self.by_rows else Planes(64, 256, 112 * 112)

    def launch(self, capability: int) -> Launch:
        """What the table says for such a tensor."""
        itemsize = ITEMSIZE[self.storage]
        return table().launch_of(self.kernel, capability, self.layout, itemsize)

    def tile(self, capability: int) -> Tile:
        """The tile that such a tensor gets."""
        lines = lines_of(self.layout, self.kernel)
        launch = self.launch(capability)
        return tile_of(launch, self.layout, ITEMSIZE[self.storage], lines)

    def wide(self, capability: int) -> tuple[int, int]:
        """128-bit loads and stores that its tensors need per thread and tile."""
        tile = self.tile(capability)
        elements = tile.lines * tile.length
        bytes_per_thread = elements * ITEMSIZE[self.storage] // (32 * tile.warps)
        pieces = bytes_per_thread // 16
        return self.reads * pieces, self.writes * pieces

    def per_value(self, used: Usage, capability: int) -> float:
        """Instructions that a thread takes for one value."""
        tile = self.tile(capability)
        return used.instructions * 32 * tile.warps / (tile.lines * tile.length)

    @property
    def affordable(self) -> float:
        """Instructions per value in the time that memory takes, on an H100."""
        reads, writes = self.reads, self.writes
        if self.is_alone or self.kernel == "backward_alone":  # two loops, one of two reads
            reads, writes = 2, 1
        bits = 0.125 if self.has_bits else 0.0
        return ((reads + writes) * ITEMSIZE[self.storage] + bits) * INSTRUCTIONS_PER_BYTE

    def arguments(self, capability: int) -> dict[str, Any]:
        """Types of what is passed, and values of what is a constant."""
        tile = self.tile(capability)
        lines, length = tile.lines, tile.length
        constants = {
            "ACTIVATION": self.activation, "BLOCK_R": lines, "BLOCK_N": lines,
            "BLOCK_P": lines, "BLOCK_C": length, "BLOCK_S": length,
        }  # fmt: skip
        known = VECTORS | {"parts_ptr": "*fp32", "dweight_ptr": "*fp32", "dbias_ptr": "*fp32"}
        known |= dict.fromkeys(RUNNING, "*fp32") if self.is_alone else {}
        known |= {"counter_ptr": "*i64"} if self.is_alone else {}
        known |= dict.fromkeys(self.tensors, f"*{self.storage}")
        known |= {"bits_ptr": "*u8"} if self.has_bits else {}
        known |= dict.fromkeys(NUMBERS, "fp32")
        return {
            name: constants.get(name)
            if name in constants or (name.endswith("_ptr") and name not in known)
            else known.get(name, "i32")
            for name in self.function.arg_names
        }


def variants() -> Iterator[Variant]:
    """Yield what a ResNet and its likes run: both layouts, with and without a residual."""
    for storage in ("bf16", "fp32"):
        for layout in ("rows", "planes"):
            statistics = getattr(forward, f"{layout}_statistics")
            normalise = getattr(forward, f"{layout}_normalise")
            sums = getattr(backward, f"{layout}_sums")
            gradient = getattr(backward, f"{layout}_gradient")
            xy, grads = ("x_ptr", "y_ptr"), ("dy_ptr", "x_ptr")
            with_residual = (*xy, "residual_ptr")
            of_x = ("inner_ptr", "x_ptr", "dx_ptr")
            yield Variant(statistics, "statistics", storage, ("x_ptr",), 1, 0)
            in_one = getattr(forward, f"{layout}_alone")
            back_in_one = getattr(backward, f"{layout}_backward_alone")
            yield Variant(
                in_one, "forward_alone", storage, with_residual, 3, 1, "relu", has_bits=True
            )
            all_of_x = (*grads, "inner_ptr", "dx_ptr")
            yield Variant(
                back_in_one, "backward_alone", storage, all_of_x, 4, 2, "relu", has_bits=True
            )
            yield Variant(sums, "sums", storage, (*grads, "dx_ptr"), 2, 1, "relu")
            yield Variant(
                normalise, "normalise", storage, with_residual, 2, 1, "relu", has_bits=True
            )
            yield Variant(
                sums, "sums", storage, (*grads, "inner_ptr"), 2, 1, "relu", has_bits=True
            )
            yield Variant(gradient, "gradient", storage, of_x, 2, 1, "relu")
            if storage == "bf16":
                yield Variant(sums, "sums", storage, grads, 2, 0, "relu")
                yield Variant(gradient, "gradient", storage, of_x, 2, 1)
                yield Variant(normalise, "normalise", storage, xy, 1, 1, "relu")
                silu = (*grads, "inner_ptr", "residual_ptr")
                yield Variant(normalise, "normalise", storage, with_residual, 2, 1, "silu")
                yield Variant(sums, "sums", storage, silu, 3, 1, "silu")
                yield Variant(sums, "sums", storage, grads, 2, 0, "gelu")


@dataclass(frozen=True)
class Usage:
    """What one compiled kernel needs."""

    registers: int
    stack_bytes: int
    spills: int  # loads and stores of local memory
    wide_loads: int
    wide_stores: int
    shared_bytes: int
    instructions: int  # of the longest loop, or of all where there is none


def compile_ahead(variant: Variant, capability: int) -> Usage:
    """Compile for a compute capability and read what came out."""
    arguments = variant.arguments(capability)
    signature = {
        name: value if is_type(value) else "constexpr" for name, value in arguments.items()
    }
    names = list(arguments)
    divisible = [n for n, kind in signature.items() if kind[0] == "*" or n in aligned(variant)]
    source = ASTSource(
        fn=variant.function,
        signature=signature,
        constexprs={n: v for n, v in arguments.items() if not is_type(v)},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in divisible},
    )
    options = {"num_warps": variant.launch(capability).warps}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of defaults that change with triton's versions
        compiled = triton.compile(
            source,
            target=GPUTarget("cuda", capability, 32),
            options={**options, "enable_fp_fusion": False},
        )
    return usage_of(compiled.asm["cubin"], compiled.metadata.shared)


def is_type(value: object) -> bool:
    """True for the name of a type; constants are numbers, None and names of activations."""
    return isinstance(value, str) and (value[0] == "*" or value in ("i32", "fp32"))


def aligned(variant: Variant) -> tuple[str, ...]:
    """The size that decides whether lines of a tensor start at multiples of 16 values."""
    return ("channels",) if variant.by_rows else ("size",)


def usage_of(cubin: bytes, shared_bytes: int) -> Usage:
    """Read a compiled kernel with the disassembler that triton brings."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text, resources = (
            subprocess.run(
                [str(DISASSEMBLER), flag, file.name],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for flag in ("-sass", "-res-usage")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", resources)
    if found is None:
        raise RuntimeError(f"cuobjdump shows no registers: {resources!r}")
    return Usage(
        registers=int(found[1]),
        stack_bytes=int(found[2]),
        spills=len(re.findall(r"\b(?:LDL|STL)\b", text)),
        wide_loads=len(re.findall(r"LDG\S*\.128", text)),
        wide_stores=len(re.findall(r"STG\S*\.128", text)),
        shared_bytes=shared_bytes,
        instructions=longest_loop(text),
    )


def longest_loop(text: str) -> int:
    """Count the instructions between a branch backwards and its target, or all of them."""
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+([^;/]+);", text)
    addresses = [int(address, 16) for address, _ in found]
    lengths = []
    for at, (_, instruction) in zip(addresses, found, strict=True):
        branch = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", instruction)
        # A program ends in a branch to itself.
        if branch is not None and int(branch[1], 16) < at:
            lengths.append(sum(int(branch[1], 16) <= other <= at for other in addresses))
    return max(lengths, default=len(found))


def markdown(capabilities: tuple[int, ...]) -> str:
    """Return a Markdown table: registers of each kernel for each capability."""
    head = ["kernel", *(f"sm_{c} registers" for c in capabilities), "spills", "128-bit"]
    head += ["instructions per value", "of what memory leaves time for"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for variant in variants():
        used = [compile_ahead(variant, c) for c in capabilities]
        spills = sum(u.spills + u.stack_bytes for u in used)
        wide = f"{used[0].wide_loads} loads, {used[0].wide_stores} stores"
        cells = [variant.title, *(str(u.registers) for u in used), str(spills), wide]
        per_value = variant.per_value(used[0], capabilities[0])
        cells += [f"{per_value:.1f}", f"{per_value / variant.affordable:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capability", default=",".join(map(str, CAPABILITIES)))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    capabilities = tuple(int(c) for c in options.capability.split(","))
    text = f"Triton {triton.__version__}, compiled ahead of time; no GPU was used.\n\n"
    text += markdown(capabilities)
    if options.out:
        options.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
