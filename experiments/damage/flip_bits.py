"""Turn over single bits of the files of a finished run and of its set, and run every stage after each.

    python experiments/damage/flip_bits.py --flips=200

Each flip ends in one of four ways: a stage refuses in one line that names the file; the run repairs itself to the same
bits, with a warning; the file is one that no stage reads; or the result changed in silence, or a traceback came, which
are faults. Prints a table, and exits with 1 if there is a fault.
"""

import argparse
import collections
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import jax
from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bie_jax.config import ConfigError
from bie_jax.evaluation.embed import write_embeddings
from bie_jax.evaluation.evaluate import evaluate
from bie_jax.lock import LockedError
from bie_jax.parquet import read_parquet
from bie_jax.train import train_and_evaluate
from configs import vqvae_idr0093
from data.simulated.build import build_simulated
from data.simulated.simulation import Design

# What `launch.py` answers in one line.
REFUSALS = (ConfigError, OSError, LockedError, FloatingPointError)


def config_of(folder: Path):
    """A run of seconds, its forests small: the files are what matters here."""
    config = vqvae_idr0093.get_config("tiny")
    config.data.data_dir = str(folder / "datasets")
    config.eval.umap, config.eval.trees, config.eval.bootstrap, config.eval.classical_baseline = False, 10, 10, False
    return config


def run_all(folder: Path) -> None:
    """What `--stage=all` does."""
    train_and_evaluate(config_of(folder), folder / "run")
    write_embeddings(folder / "run")
    evaluate(folder / "run")


def results(folder: Path) -> list[object]:
    """What a user takes away: embeddings, scores and the log, but for timings."""
    scores = json.loads((folder / "run" / "scores.json").read_text())
    log = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    steady = [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in log]
    # A checkpoint that was made again has other times in its metadata, and so another fingerprint.
    scores = {key: value for key, value in scores.items() if key not in ("seconds", "made_from")}
    return [read_parquet(folder / "run" / "embeddings.parquet").to_dict("list"), scores, steady]


def outcome(folder: Path, path: Path, before: list[object]) -> str:
    """What became of a flip."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            run_all(folder)
    except REFUSALS as error:
        return "refused in one line" if len(str(error).splitlines()) == 1 else f"FAULT, several lines: {error}"
    except Exception:
        return f"FAULT, a traceback: {traceback.format_exc(limit=-2)}"
    if results(folder) != before:
        return f"FAULT, changed in silence: {path}"
    return "repaired, with a warning" if "put aside" in said.getvalue() else "not read again"


def main() -> None:
    """Build, train, flip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    flags.FLAGS.mark_as_parsed()
    cache = tempfile.mkdtemp()
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder, whole = Path(temporary) / "tried", Path(temporary) / "whole"
        design = Design(plates=2, control_wells=4, wells_per_sirna=1, sites=2, image_size=32, strengths=(0.5, 1.0))
        build_simulated(folder / "datasets", design, num_workers=1)
        run_all(folder)
        run_all(folder)  # a second time, as every flip is followed by: what is written then is the comparison
        before = results(folder)
        shutil.copytree(folder, whole)
        names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
        counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        faults = []
        for _ in range(arguments.flips):
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
            path = folder / rng.choice(names)
            content = bytearray(path.read_bytes())
            bit = rng.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
            ended = outcome(folder, path, before)
            kind = ended.partition(":")[0]
            place = path.relative_to(folder).parts
            counts["/".join(place[:2]) + ("/..." if len(place) > 2 else "")][kind] += 1
            if kind.startswith("FAULT"):
                faults.append(f"{path.relative_to(folder)}, bit {bit}: {ended}")
                print(faults[-1], file=sys.stderr)
            print(f"{path.relative_to(folder)}: {kind}", file=sys.stderr)
        print("| file | flips | " + " | ".join(sorted({kind for one in counts.values() for kind in one})) + " |")
        kinds = sorted({kind for one in counts.values() for kind in one})
        print("|---|---|" + "---|" * len(kinds))
        for name, found in sorted(counts.items()):
            print(f"| `{name}` | {found.total()} | " + " | ".join(str(found[kind]) for kind in kinds) + " |")
        print(f"{arguments.flips} flips, {len(faults)} faults")
    shutil.rmtree(cache)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
