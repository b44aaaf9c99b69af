"""What devices send each other in a training step, against the least there is to send.

    python experiments/scale/communication.py
    python experiments/scale/communication.py --cases vit_l-mae --meshes 2,1,4 --list

The step is compiled for eight CPU devices, and collectives are read from the program that the partitioner made: behind
it the CPU turns bfloat16 into float32, which a GPU does not. What a loop holds counts as often as it runs. Bytes are
those that each device sends in a ring of n: of an all-reduce 2 (n-1)/n of the array, of an all-gather and a
reduce-scatter (n-1)/n of the whole array. The least: of what is whole on each device one all-reduce of the gradient, of
what lies in parts two all-gathers and one reduce-scatter, in a transformer block whose products are shared four
all-reduces of its tokens (Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053, section 3).
"""

import argparse
import collections
import dataclasses
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax

from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, MeshConfig
from bie_jax.models.encoders.vit import SIZES
from bie_jax.training.sharding import Layout, training_layout
from bie_jax.training.state import TrainState
from configs import base
from experiments.scale.memory import abstract_state, lower_step, mae_config

BATCH = 64
MESHES = {
    "resnet50-vqvae": ["8,1,1", "2,4,1", "1,8,1"],
    "vit_l-mae": ["8,1,1", "2,4,1", "1,8,1", "4,1,2", "2,1,4", "2,2,2"],
}
LISTED = 2**20  # bytes; smaller entries of a list are one row
BYTES = {"pred": 1, "s32": 4, "u32": 4, "f32": 4, "bf16": 2}
_COLLECTIVE = re.compile(
    r" = (?P<made>.+?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?P<start>-start)?\("
)
_ARRAY = re.compile(r"\b(?P<dtype>pred|[a-z]+\d+)\[(?P<shape>[\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
        kind: its name in the program.
        arrays: what it makes, as the program writes it, without the order in memory.
        size: bytes of that.
        group: devices that take part.
    """

    kind: str
    arrays: str
    size: int
    group: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends."""
        rest = (self.group - 1) / self.group
        shares = {"all-reduce": 2 * rest, "all-gather": rest, "reduce-scatter": self.group * rest, "all-to-all": rest}
        return self.size * shares.get(self.kind, 1.0)


def collectives(program: str) -> collections.Counter[Collective]:
    """Each collective of a program in HLO's text form, and how often it runs.

    Raises:
        ValueError: where the text is not understood.
    """
    bodies = _computations(program)
    found: collections.Counter[Collective] = collections.Counter()

    def visit(name: str, times: int) -> None:
        for line in bodies[name]:
            collective = _collective(line)
            if collective is not None:
                found[collective] += times
            loop = re.search(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)", line)
            if loop is not None:
                visit(loop[2], times * _trips(bodies[loop[1]]) if _has_collectives(bodies, loop[2]) else 0)
            else:
                for called in _called(line):
                    visit(called, times)

    visit("ENTRY", 1)
    return +found


def _computations(program: str) -> dict[str, list[str]]:
    """Name of a computation -> its lines; the first that runs is called "ENTRY"."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in program.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if head is not None:
            name = "ENTRY" if head[1] else head[2]
            bodies[name] = []
        elif name:
            bodies[name].append(line)
    return bodies


def _called(line: str) -> list[str]:
    names = re.findall(r"(?:calls|true_computation|false_computation)=%?([\w.-]+)", line)
    names += re.findall(r" call\(.*to_apply=%?([\w.-]+)", line)
    for several in re.findall(r"branch_computations=\{([^}]*)\}", line):
        names += [name.strip(" %") for name in several.split(",")]
    return names


def _has_collectives(bodies: dict[str, list[str]], name: str) -> bool:
    inner = [*_called(" ".join(bodies[name])), *re.findall(r"body=%?([\w.-]+)", " ".join(bodies[name]))]
    return any(map(_COLLECTIVE.search, bodies[name])) or any(_has_collectives(bodies, called) for called in inner)


def _trips(condition: list[str]) -> int:
    """How often a loop over a counter from 0 runs."""
    bounds = [int(bound) for line in condition for bound in re.findall(r" = s32\[\] constant\((\d+)\)", line)]
    if len(bounds) != 1 or not any("direction=LT" in line for line in condition):
        raise ValueError(f"how often a loop with collectives runs is not known: {condition}")
    return bounds[0]


def _collective(line: str) -> Collective | None:
    match = _COLLECTIVE.search(line)
    if match is None:
        return None
    if match["start"]:
        raise ValueError(f"a collective in two parts, which the partitioner does not make: {line}")
    arrays = [(array["dtype"], array["shape"]) for array in _ARRAY.finditer(match["made"])]
    size = sum(BYTES[dtype] * math.prod(map(int, filter(None, shape.split(",")))) for dtype, shape in arrays)
    group = 2 if match["kind"] == "collective-permute" else _group(line)
    return Collective(match["kind"], " ".join(f"{dtype}[{shape}]" for dtype, shape in arrays), size, group)


def _group(line: str) -> int:
    """Devices in each group of a collective, in any of the three forms that groups are written in."""
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    if listed is not None:
        return len(listed[1].split(","))
    tiled = re.search(r"replica_groups=\[\d+,(\d+)\]<=", line)
    if tiled is not None:
        return int(tiled[1])
    named = re.search(r"replica_groups=mesh\[([^\]]*)\].*? \{('[^}]*')\}", line)
    if named is None:
        raise ValueError(f"which devices take part is not known: {line}")
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
    return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", named[2]))


def least_sent(config: Config, state: TrainState, layout: Layout) -> float:
    """Bytes that each device has to send in a step, with gradients and fetched parameters in bfloat16."""
    data, fsdp, tensor = (layout.mesh.shape[axis] for axis in layout.mesh.axis_names)
    total = 0.0
    for leaf, sharding in zip(jax.tree.leaves(state.params), jax.tree.leaves(layout.of(state.params)), strict=True):
        size = 2 * leaf.size / (tensor if "tensor" in sharding.spec else 1)
        if "fsdp" in sharding.spec:
            total += 3 * (fsdp - 1) / fsdp * size + 2 * (data - 1) / data * size / fsdp
        else:
            total += 2 * (layout.shares - 1) / layout.shares * size
    return total + 2 * (tensor - 1) / tensor * 4 * sum(_tokens_bytes(config, layout))


def _tokens_bytes(config: Config, layout: Layout) -> Iterator[float]:
    """Of the tokens of a device's images, of each block."""
    if config.model.encoder == "vit":
        vit, images = config.model.vit, config.train.batch_size / layout.shares
        patches = math.prod(config.data.crop_size) // vit.patch_size**2
        seen = round(patches * (1 - config.model.mae.mask_ratio))
        size = SIZES[vit.size]
        yield size.depth * images * (1 + seen) * size.width * 2
        yield vit.decoder_depth * images * (1 + patches) * vit.decoder_width * 2


def config_of(case: str) -> Config:
    """The checked configuration of a case, as it would run on a GPU."""
    if case == "vit_l-mae":
        return mae_config("L", BATCH)
    given = base.get_config("", "base")
    given.model.encoder, given.model.resnet.depth, given.model.cpu_kernels = "resnet", 50, False
    given.train.batch_size, given.train.compute_dtype = BATCH, "bfloat16"
    return check_config(given)


def partitioned_program(lowered: jax.stages.Lowered) -> str:
    """The program of one device, as the partitioner made it."""
    with tempfile.TemporaryDirectory() as folder:
        lowered.compile({"xla_dump_to": folder, "xla_dump_hlo_pass_re": "spmd.*", "xla_dump_hlo_as_text": True})
        (path,) = Path(folder).glob("*jit_train_step*after_spmd-partitioning*.txt")
        return path.read_text()


def main() -> None:
    """A row for each case and mesh, and with --list one for each kind of collective in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(MESHES), default=list(MESHES))
    parser.add_argument("--meshes", nargs="+", help="data,fsdp,tensor")
    parser.add_argument("--list", action="store_true", help="what is sent, by kind and shape")
    asked = parser.parse_args()
    print(f"A step of {BATCH} images, MB that each device sends:\n")
    print("| case | data x fsdp x tensor | all-reduce | all-gather | other | sum | least | ratio | collectives |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in asked.cases:
        config = config_of(case)
        state = abstract_state(config)
        for mesh in asked.meshes or MESHES[case]:
            data, fsdp, tensor = map(int, mesh.split(","))
            layout = training_layout(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
            found = collectives(partitioned_program(lower_step(config, state, layout)))
            sent = collections.Counter()
            for collective, times in found.items():
                known = collective.kind in ("all-reduce", "all-gather")
                sent[collective.kind if known else "other"] += times * collective.sent
            least, total = least_sent(config, state, layout), sum(sent.values())
            row = [*(sent[kind] for kind in ("all-reduce", "all-gather", "other")), total, least]
            print(
                f"| {case} | {data} x {fsdp} x {tensor} | {' | '.join(f'{size / 1e6:.0f}' for size in row)} | "
                f"{total / least:.2f} | {sum(found.values())} |",
                flush=True,
            )
            if asked.list:
                _print_list(found)


def _print_list(found: collections.Counter[Collective]) -> None:
    large = {one: times for one, times in found.items() if one.size >= LISTED}
    small = sum(times * one.sent for one, times in found.items() if one.size < LISTED)
    for one, times in sorted(large.items(), key=lambda item: -item[0].sent * item[1]):
        print(f"  {times * one.sent / 1e6:8.1f} MB  {times:4d} x {one.kind} of {one.group}: {one.arrays}")
    print(f"  {small / 1e6:8.1f} MB  {sum(found.values()) - sum(large.values()):4d} smaller ones")


if __name__ == "__main__":
    main()
