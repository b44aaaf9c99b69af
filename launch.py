"""The one entry: train, embed and evaluate, as one configuration says.

python launch.py --config=configs/vqvae_idr0093.py:simulated
python launch.py --config=configs/vqvae_idr0093.py --workdir=runs/vqvae --config.model.latent_dim=128
python launch.py --workdir=runs/vqvae --stage=evaluate
python launch.py --config=configs/vqvae_idr0093.py:simulated --stage=views
"""

import contextlib
import io
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from bie_jax.config.faults import allowed_values
from bie_jax.config.files import load_config_file
from bie_jax.config.readers import refuse_unread
from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, ConfigError
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
    "Folder of the run; the same folder again goes on. Default: runs/ and the configuration's name.",
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
    if config is not None:
        _refuse_unread(config)
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
    return Path("runs") / "-".join(filter(None, [Path(path).stem, variant]))


def _refuse_unread(config: ConfigDict) -> None:
    """A value that nothing reads is refused, if the command line changed it or a file that is not of configs/."""
    stated = load_config_file(config_flags.get_config_filename(flags.FLAGS["config"]))
    refuse_unread(check_config(config), [stated])
    try:
        of_file = check_config(stated)
    except ConfigError:
        return  # a table that only the command line makes whole; the changes have been looked at
    refuse_unread(of_file, base.tables())


def _parse_flags(argv: list[str]) -> list[str]:
    """Flags or one line: ml_collections answers a bad key, value or file with a traceback, some as the error's text."""
    try:
        for before, argument in itertools.pairwise(argv):
            if re.match("--?config=", argument):
                load_config_file(argument.partition("=")[2])
            elif before in ("-config", "--config"):
                load_config_file(argument)
        return flags.FLAGS(argv)
    except ConfigError as error:
        sys.exit(f"launch.py: {error}")
    except (KeyError, AttributeError) as error:
        said = str(error.args[0]).replace("\\n", ". ").replace("\n", ". ").replace("\\", "").replace("'", "")
        sys.exit(f"launch.py: the configuration has no such key: {said}")
    except (flags.Error, TypeError, ValueError, OSError) as error:
        value = re.search(r"--config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
        allowed = allowed_values(Config, value[1]) if value else ""
        if value and allowed:
            sys.exit(f"launch.py: config.{value[1]}={value[2]!r}: {allowed}")
        lines = [line for line in str(error).splitlines() if line.strip()]
        sys.exit(f"launch.py: {lines[-1].strip()}")


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
