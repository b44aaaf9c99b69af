"""Does the suite notice broken code? Breaks it in one place at a time and runs the tests that should see it.

    python tests/mutations/run.py by_hand                       # the breaks listed in by_hand.py
    python tests/mutations/run.py random --count=30 --seed=1    # breaks drawn at random over the whole code
    python tests/mutations/run.py random --only=17              # one of them again

Each break is made in a copy of the tree. Run are, up to the first failure: the tests of the folder that mirrors the
module, then every other test file that imports it, unit tests first. Prints a line for each and ends with how many were
caught; a survivor is a missing test, or a change that changes nothing.
"""

import argparse
import ast
import dataclasses
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.mutations.by_hand import BY_HAND

TEST_SECONDS = 900  # a break that makes the tests hang is caught by that


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A file, the text that is replaced in it (from `start` to `end`, characters), and what stands there instead."""

    file: str
    start: int
    end: int
    new: str

    def describe(self, source: str) -> str:
        """One line: place, before and after."""
        line = source.count("\n", 0, self.start) + 1
        return f"{self.file}:{line}: {source[self.start : self.end]!r} -> {self.new!r}"


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("by_hand", "random"))
    parser.add_argument("--count", type=int, default=30, help="how many are drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="number of the one to run")
    arguments = parser.parse_args()
    mutations = by_hand() if arguments.which == "by_hand" else drawn(arguments.count, arguments.seed)
    chosen = range(len(mutations)) if arguments.only is None else [arguments.only]
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        tracked = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for name in tracked:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
        if (ROOT.parent / "shared").exists():
            (Path(folder) / "shared").symlink_to(ROOT.parent / "shared")
        for number in chosen:
            mutation = mutations[number]
            began = time.monotonic()
            by = caught_by(mutation, copy)
            survived += by is None
            said = f"caught by {by}" if by else "SURVIVED"
            source = (ROOT / mutation.file).read_text()
            print(f"{number}: {mutation.describe(source)}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} caught")
    sys.exit(int(survived > 0))


def by_hand() -> list[Mutation]:
    """Those of `by_hand.py`; a text that does not stand in its file exactly once is an error."""
    found = []
    for file, old, new in BY_HAND:
        source = (ROOT / file).read_text()
        if source.count(old) != 1:
            sys.exit(f"{file} holds {old!r} {source.count(old)} times; bring tests/mutations/by_hand.py up to date")
        start = source.index(old)
        found.append(Mutation(file, start, start + len(old), new))
    return found


def drawn(count: int, seed: int) -> list[Mutation]:
    """Uniformly over all places where an operator, a comparison, a number or a condition can be changed."""
    places = []
    for path in sorted([*(ROOT / "bie_jax").rglob("*.py"), *(ROOT / "data").rglob("*.py")]):
        source = path.read_text()
        places += _places(str(path.relative_to(ROOT)), source)
    return random.Random(seed).sample(places, count)


_OPERATORS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "+"), ast.Div: ("/", "*")}
_COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
}


def _places(file: str, source: str) -> list[Mutation]:
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def offset(line: int, column: int) -> int:
        text = source[lines[line - 1] : lines[line]]
        return lines[line - 1] + len(text.encode()[:column].decode())

    def between(left: ast.expr, right: ast.expr, old: str, new: str) -> list[Mutation]:
        start, end = offset(left.end_lineno or 0, left.end_col_offset or 0), offset(right.lineno, right.col_offset)
        at = source.find(old, start, end)
        return [Mutation(file, at, at + len(old), new)] if at >= 0 else []

    places: list[Mutation] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            places += between(node.left, node.right, *_OPERATORS[type(node.op)])
        elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
            places += between(node.left, node.comparators[0], *_COMPARISONS[type(node.ops[0])])
        elif isinstance(node, ast.BoolOp):
            old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            places += between(node.values[0], node.values[1], old, new)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            start = offset(node.lineno, node.col_offset)
            places.append(Mutation(file, start, start + len("not "), ""))
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.end_col_offset:
            start, end = offset(node.lineno, node.col_offset), offset(node.end_lineno or 0, node.end_col_offset)
            places.append(Mutation(file, start, end, f"({source[start:end]} + 1)"))
    return places


def caught_by(mutation: Mutation, copy: Path) -> str | None:
    """The first test that fails, or None."""
    path = copy / mutation.file
    source = path.read_text()
    path.write_text(source[: mutation.start] + mutation.new + source[mutation.end :])
    try:
        for tests in _tests_of(mutation.file, copy):
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not eight_devices", *map(str, tests)]
            try:
                result = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=TEST_SECONDS)
            except subprocess.TimeoutExpired:
                return "a test that did not end"
            if result.returncode:
                failed = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
                return failed[0].split(" - ")[0] if failed else "an error before any test"
        return None
    finally:
        path.write_text(source)


def _tests_of(file: str, copy: Path) -> list[list[Path]]:
    """Groups of test files, those most likely to see a change of `file` first."""
    module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    mirror = file.removeprefix("bie_jax/").removesuffix(".py")
    near = copy / "tests" / "unit" / Path(mirror).parent
    mirrored = sorted(near.glob("test_*.py"))
    package, _, name = module.rpartition(".")
    importing = [
        path
        for path in sorted((copy / "tests").rglob("test_*.py"))
        if path not in mirrored
        and (module in (text := path.read_text()) or (f"from {package} import" in text and name in text))
    ]
    end_to_end = sorted((copy / "tests" / "end_to_end").glob("test_*.py"))
    groups = [
        mirrored,
        [path for path in importing if path not in end_to_end],
        [path for path in importing if path in end_to_end],
        [path for path in end_to_end if path not in importing],
    ]
    return [group for group in groups if group]


if __name__ == "__main__":
    main()
