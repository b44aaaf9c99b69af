"""The one entry: train, embed and evaluate, as one configuration says.

python launch.py --config=configs/vqvae_idr0093.py:simulated
python launch.py --config=configs/vqvae_idr0093.py --workdir=runs/vqvae --config.model.latent_dim=128
python launch.py --workdir=runs/vqvae --stage=evaluate
python launch.py --config=configs/vqvae_idr0093.py:simulated --stage=views
"""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from bie_jax.config.flags import parse, refuse_unread_values
from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.config.stored import check_trained, load_config, save_config
from bie_jax.files.foreign_text import visible
from bie_jax.files.integrity import disk_errors
from bie_jax.files.lock import LockedError
from bie_jax.train import CollapsedError, Interrupted, train_and_evaluate
from bie_jax.training import processes, run_files
from configs import base

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration file, e.g. configs/vqvae_idr0093.py:simulated; --config.x.y=value changes a key.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run; the same folder again goes on. Default: runs/ (sweeps/) and the configuration's name.",
)
_STAGE = flags.DEFINE_enum(
    "stage",
    "all",
    ["all", "train", "embed", "evaluate", "views"],
    "What to do; the later stages need the earlier ones' files; views: draw what training will see, and no more.",
)
_DISTRIBUTED = flags.DEFINE_string(
    "distributed",
    "none",
    "Several processes train one run: 'auto', as SLURM, Open MPI or Kubernetes started them, or HOST:PORT,COUNT,INDEX.",
)
_SWEEP = flags.DEFINE_string(
    "sweep",
    None,
    "Sweep file, e.g. configs/sweeps/latent_size.py: many runs of --config on Ray Tune, and their ranking.",
)
_COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "bie-jax", "xla"),
    "Folder where compiled programs are kept between runs; empty: nowhere.",
)


def main(argv: list[str]) -> None:
    """Run the stages; exit 0 when all that was asked for is done."""
    if len(argv) > 1:
        sys.exit(f"launch.py: {argv[1]!r} is not understood; every argument is a --flag=value")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells its whole life at INFO
    if _COMPILATION_CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _COMPILATION_CACHE.value)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
        workdir = _workdir()
        processes.join(_DISTRIBUTED.value)
        # What all of several processes would say is said once.
        spoken = contextlib.redirect_stdout(sys.stdout if processes.is_first() else io.StringIO())
        with spoken, disk_errors(workdir, None):
            _run(workdir)
    # FloatingPointError: a loss or an embedding that is not finite.
    except (ConfigError, OSError, LockedError, CollapsedError, FloatingPointError) as error:
        processes.end(f"launch.py: {visible(error, keep=chr(10))}")
    except jax.errors.JaxRuntimeError as error:
        if not processes.are_several():
            raise
        processes.end_after_loss(error)
    except Interrupted as error:
        print(f"launch.py: {error}", file=sys.stderr)
        sys.exit(128 + error.number)  # what a shell reports for a signal


def _run(workdir: Path) -> None:
    config, stage = _CONFIG.value, _STAGE.value
    if _SWEEP.value is not None:
        _sweep(_SWEEP.value, workdir)
        return
    if config is not None:
        refuse_unread_values(config, config_flags.get_config_filename(flags.FLAGS["config"]), base.tables())
    # Imported for the stages that need them, a third of the time in which others begin, and before any training: what
    # is not installed is said now, not hours later.
    if stage == "views":
        from bie_jax.training.preview import draw_views

        for path in draw_views(load_config(workdir) if config is None else check_config(config), workdir):
            print(f"views: {visible(path.absolute())}")
        return
    if stage in ("all", "embed"):
        from bie_jax.evaluation.embedding import write_embeddings
    if stage in ("all", "evaluate"):
        from bie_jax.evaluation.evaluate import evaluate
    if stage in ("all", "train"):
        if config is None:
            raise ConfigError("--config is needed to train, e.g. --config=configs/vqvae_idr0093.py:simulated")
        train_and_evaluate(config, workdir)
    elif config is not None:
        check_trained(workdir)  # nothing to embed or score in a folder where nothing was trained
        if processes.is_first():
            with run_files.opened(workdir):
                save_config(check_config(config), workdir)
        processes.wait_for_all("the configuration is saved")
    if stage in ("all", "embed"):
        write_embeddings(workdir)
    if stage in ("all", "evaluate"):
        if processes.are_several():
            _evaluate_alone(workdir)
            return
        evaluate(workdir)
        print(f"report: {visible((workdir / 'report' / 'index.html').absolute())}")


def _sweep(file: str, workdir: Path) -> None:
    flag = flags.FLAGS["config"]
    if not flag.present:
        raise ConfigError("--sweep needs --config, the configuration of its trials")
    if _STAGE.value != "all" or processes.are_several():
        raise ConfigError("--sweep runs whole trials, each in a process of its own: without --stage and --distributed")
    jax.config.update("jax_platforms", "cpu")  # this process trains nothing, and takes no GPU from its trials
    try:
        from bie_jax.tuning.run import run_sweep
        from bie_jax.tuning.trials import Base
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "optuna", "rich"):
            raise
        raise ConfigError(f"--sweep needs {error.name}: pip install -r requirements-tune.txt") from None
    begun = Base(config_flags.get_config_filename(flag), config_flags.get_override_values(flag), base.tables())
    page = run_sweep(file, begun, workdir, _COMPILATION_CACHE.value)
    print(f"sweep: {visible(page)}")


def _evaluate_alone(workdir: Path) -> None:
    """Of several processes the first evaluates, by itself and on its own devices; the others are done."""
    first = processes.is_first()
    processes.wait_for_all("the embeddings are written")
    jax.distributed.shutdown()
    if first:
        print("the first process evaluates; the others are done", flush=True)
        given = (f"--workdir={workdir}", "--stage=evaluate", f"--compilation_cache={_COMPILATION_CACHE.value}")
        sys.exit(subprocess.run([sys.executable, __file__, *given]).returncode)


def _workdir() -> Path:
    flag = flags.FLAGS["config"]
    path, _, variant = (config_flags.get_config_filename(flag) if flag.present else "").partition(":")
    if _WORKDIR.value is not None:
        if not _WORKDIR.value.strip() or visible(_WORKDIR.value) != _WORKDIR.value:
            raise ConfigError(
                f"--workdir={_WORKDIR.value!r}: expected the path of a folder, in UTF-8 and without control "
                "characters, e.g. runs/first"
            )
        return Path(_WORKDIR.value)
    if not path:
        raise ConfigError("neither --config nor --workdir is given: say what to train, or where it was trained")
    name = "-".join(filter(None, [Path(path).stem, variant]))
    return Path("runs") / name if _SWEEP.value is None else Path("sweeps") / f"{name}-{Path(_SWEEP.value).stem}"


def _parse_flags(argv: list[str]) -> list[str]:
    """Flags, or one line."""
    try:
        return parse(flags.FLAGS, argv)
    except ConfigError as error:
        sys.exit(f"launch.py: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
