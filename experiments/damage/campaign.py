"""Is damage ever silent? A finished run and its set are damaged, or a run is ended by force; then every stage runs.

    python experiments/damage/campaign.py flips --times=200
    python experiments/damage/campaign.py kills --times=30
    sudo python experiments/damage/campaign.py full_disk --times=20

flips: one random bit of one random file of the run or its set is turned over; then the scores are made again, and then
    all stages run. It ends in one of three ways: a stage refuses in one line; the run repairs itself, with a warning,
    and ends with the same numbers; no stage reads the file. A result that changed in silence, or a traceback, is a
    fault. Every folder of the run is as likely as another: checkpoints have most of the files.
kills: a run of all stages gets SIGKILL at a random moment, and the same command runs again: the same numbers.
full_disk: the disk of a run (a tmpfs, which only root may mount) is filled at a random moment: one line that names a
    path; once there is room, the same command runs again: the same numbers.

Prints a table, and exits with 1 if there is a fault.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import jax
from absl import flags

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.embedding import write_embeddings
from bie_jax.evaluation.evaluate import evaluate
from bie_jax.files.lock import LockedError
from bie_jax.files.parquet import read_parquet
from bie_jax.train import train_and_evaluate
from configs import vqvae_idr0093
from data.studies.simulated.build import build_simulated
from data.studies.simulated.simulation import Design

REFUSALS = (ConfigError, OSError, LockedError, FloatingPointError)  # what `launch.py` answers in one line
# Small: the files are what matters here.
EVAL = {"umap": False, "trees": 2, "bootstrap": 10, "classical_baseline": False, "folds": 2}

Counts = dict[str, collections.Counter[str]]


def build(folder: Path) -> None:
    design = Design(plates=2, control_wells=4, wells_per_sirna=1, sites=2, image_size=32, strengths=(0.5, 1.0))
    with contextlib.redirect_stderr(io.StringIO()):
        build_simulated(folder / "datasets", design, num_workers=1)


def run_all(folder: Path) -> None:
    """What `launch.py` does with --stage=all."""
    config = vqvae_idr0093.get_config("tiny")
    config.data.data_dir = str(folder / "datasets")
    config.eval.update(EVAL)
    train_and_evaluate(config, folder / "run")
    write_embeddings(folder / "run")
    evaluate(folder / "run")


def command(data_dir: Path, workdir: Path, cache: str) -> list[str]:
    values = [f"--config.eval.{key}={value}" for key, value in EVAL.items()]
    places = [f"--config.data.data_dir={data_dir}", f"--workdir={workdir}", f"--compilation_cache={cache}"]
    return [sys.executable, "launch.py", "--config=configs/vqvae_idr0093.py:tiny", *places, *values]


def results(workdir: Path) -> list[object]:
    """What a user takes away: embeddings, scores and the log, but for timings."""
    scores = json.loads((workdir / "scores.json").read_text())
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    steady = [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in log]
    # A checkpoint that was made again has other times in its metadata, and so another fingerprint.
    scores = {key: value for key, value in scores.items() if key not in ("seconds", "made_from")}
    return [read_parquet(workdir / "embeddings.parquet").to_dict("list"), scores, steady]


def flips(times: int, rng: random.Random) -> Counts:
    cache = tempfile.mkdtemp()
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    counts: Counts = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as temporary:
        folder, whole = Path(temporary) / "tried", Path(temporary) / "whole"
        build(folder)
        run_all(folder)
        run_all(folder)  # a second time, as every flip is followed by: what is written then is the comparison
        before = results(folder / "run")
        shutil.copytree(folder, whole)
        names: dict[Path, list[Path]] = collections.defaultdict(list)
        for path in sorted(whole.rglob("*")):
            if path.is_file() and path.stat().st_size:
                name = path.relative_to(whole)
                names[Path(*name.parts[:2])].append(name)
        for _ in range(times):
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
            path = folder / rng.choice(names[rng.choice(list(names))])
            content = bytearray(path.read_bytes())
            bit = rng.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
            ended = _after_a_flip(folder, before)
            print(f"{path.relative_to(folder)}, bit {bit}: {ended}", file=sys.stderr)
            place = path.relative_to(folder).parts
            counts["/".join(place[:2]) + ("/..." if len(place) > 2 else "")][ended.partition(":")[0]] += 1
    shutil.rmtree(cache)
    return counts


def _after_a_flip(folder: Path, before: list[object]) -> str:
    said, refused = io.StringIO(), False
    for stages in (lambda: evaluate(folder / "run"), lambda: run_all(folder)):
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                stages()
        except REFUSALS as error:
            if len(str(error).splitlines()) > 1:
                return f"FAULT, several lines: {error}"
            refused = True
            continue
        except Exception:
            return f"FAULT, a traceback: {traceback.format_exc(limit=-2)}"
        if results(folder / "run") != before:
            return "FAULT, changed in silence"
    if "put aside" in said.getvalue():
        return "repaired, with a warning"
    return "refused in one line" if refused else "not read again"


def kills(times: int, rng: random.Random) -> Counts:
    counts: Counts = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary), str(Path(temporary) / "cache")
        build(folder)
        _run(command(folder / "datasets", folder / "fills the cache", cache))
        start = time.monotonic()
        _run(command(folder / "datasets", folder / "unbroken", cache))
        seconds = time.monotonic() - start
        before = results(folder / "unbroken")
        for number in range(times):
            again = command(folder / "datasets", folder / f"run{number}", cache)
            process = subprocess.Popen(again, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            moment = rng.uniform(0.2 * seconds, seconds)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            process.kill()
            process.wait()
            ended = _same(again, folder / f"run{number}", before)
            print(f"killed after {moment:.1f} of {seconds:.1f} s: {ended}", file=sys.stderr)
            counts[f"after {int(4 * moment / seconds) * 25} % and more of the run"][ended.partition(":")[0]] += 1
    return counts


def full_disk(times: int, rng: random.Random) -> Counts:
    counts: Counts = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary), str(Path(temporary) / "cache")
        build(folder)
        disk = folder / "disk"
        disk.mkdir()
        _run(command(folder / "datasets", folder / "fills the cache", cache))
        start = time.monotonic()
        _run(command(folder / "datasets", folder / "unbroken", cache))
        seconds = time.monotonic() - start
        before = results(folder / "unbroken")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True)
        try:
            for number in range(times):
                again = command(folder / "datasets", disk / f"run{number}", cache)
                process = subprocess.Popen(
                    again, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                )
                moment = rng.uniform(0.3 * seconds, 0.95 * seconds)
                time.sleep(moment)
                _fill(disk / "filler")
                _, said = process.communicate()
                (disk / "filler").unlink()
                last = said.strip().splitlines()[-1] if said.strip() else ""
                if process.returncode == 0:
                    ended = "was done already"
                elif "Traceback" in said or not last.startswith("launch.py: "):
                    ended = f"FAULT, a traceback: {said[-1500:]}"
                elif str(disk) not in last or "needed" not in last:
                    ended = f"FAULT, no path or no size: {last}"
                else:
                    ended = _same(again, disk / f"run{number}", before)
                print(f"full after {moment:.1f} of {seconds:.1f} s: {ended}; {last}", file=sys.stderr)
                counts[f"after {int(4 * moment / seconds) * 25} % and more of the run"][ended.partition(":")[0]] += 1
                shutil.rmtree(disk / f"run{number}", ignore_errors=True)
        finally:
            subprocess.run(["umount", disk], check=True)
    return counts


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def _same(again: list[str], workdir: Path, before: list[object]) -> str:
    done = _run(again, check=False)
    if done.returncode:
        return f"FAULT, does not go on: {done.stderr[-1500:]}"
    return "same numbers" if results(workdir) == before else "FAULT, other numbers"


def _run(arguments: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    if check and done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("flips", "kills", "full_disk"))
    parser.add_argument("--times", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    flags.FLAGS.mark_as_parsed()
    campaign = {"flips": flips, "kills": kills, "full_disk": full_disk}[arguments.what]
    counts = campaign(arguments.times, random.Random(arguments.seed))
    endings = sorted({ending for one in counts.values() for ending in one})
    print(f"| {arguments.what} | times | {' | '.join(endings)} |\n|---|---|{'---|' * len(endings)}")
    for name, found in sorted(counts.items()):
        print(f"| {name} | {found.total()} | {' | '.join(str(found[ending]) for ending in endings)} |")
    faults = sum(count for one in counts.values() for ending, count in one.items() if ending.startswith("FAULT"))
    print(f"{arguments.times} times, {faults} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
