"""The one entry: train, embed and evaluate, as one configuration says.

python launch.py --config=configs/vqvae_idr0093.py:simulated
python launch.py --config=configs/vqvae_idr0093.py --workdir=runs/vqvae --config.model.latent_dim=128
python launch.py --workdir=runs/vqvae --stage=evaluate
python launch.py --workdir=runs/vqvae --stage=embed --images=PLATE --channels=DNA,actin
python launch.py --config=configs/vqvae_idr0093.py:simulated --stage=views
"""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from bie_jax.config.flags import parse, refuse_unread_values
from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, ConfigError
from bie_jax.config.set_rules import check_evaluated
from bie_jax.config.stored import check_trained, check_workdir, load_config, save_config
from bie_jax.evaluation.baselines.published_weights import open_published
from bie_jax.evaluation.treatments.plan import plan_treatments
from bie_jax.files.foreign_text import visible
from bie_jax.files.integrity import disk_errors
from bie_jax.files.lock import LockedError
from bie_jax.input.channels_by_name import channels_for
from bie_jax.input.columns import TRAIN
from bie_jax.input.image_set import ImageSet, open_image_set
from bie_jax.input.mixture import open_mixture
from bie_jax.train import CollapsedError, Interrupted, train_and_evaluate
from bie_jax.training import processes, run_files
from bie_jax.training.writers.stop_signal import StopSignal
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
_SET = flags.DEFINE_string(
    "set",
    None,
    "With --stage=embed: a built set that the run was not trained on, NAME beside the run's own or FOLDER/NAME.",
)
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "With --stage=embed: images that are no set yet; a folder, table, archive or file, or an address.",
)
_CHANNELS = flags.DEFINE_string(
    "channels",
    None,
    "With --set or --images: which channels, by the names of training: a,b in this order or theirs=ours,theirs=ours.",
)
_LAYOUT = flags.DEFINE_string("layout", None, "With --images: how they are organized, as in data/README.md.")
_CONTROLS = flags.DEFINE_string(
    "controls",
    None,
    "With --set or --images: COLUMN=VALUE, the images whose intensities alone each plate is normalized by.",
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
        _check_new_flags()
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
    if not (_SET.value is None and _IMAGES.value is None):
        _embed_new(config, workdir)
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
        _save(config, workdir)
    if stage in ("all", "embed"):
        write_embeddings(workdir)
    if stage in ("all", "evaluate"):
        if processes.are_several():
            _evaluate_alone(workdir)
            return
        evaluate(workdir)
        print(f"report: {visible((workdir / 'report' / 'index.html').absolute())}")


def _save(config: ConfigDict, workdir: Path) -> None:
    """The configuration of a run that was trained already."""
    check_trained(workdir)  # nothing to embed or score in a folder where nothing was trained
    checked = check_config(config)
    check_workdir(checked, workdir)
    mixture = open_mixture(checked.data)
    check_evaluated(checked, mixture)
    plan_treatments(mixture.sets[0].metadata, np.full(len(mixture.sets[0]), TRAIN), checked.eval)
    open_published(checked, len(mixture.sets[0].channel_names))
    if processes.is_first():
        with run_files.opened(workdir):
            save_config(checked, workdir)
    processes.wait_for_all("the configuration is saved")


def _check_new_flags() -> None:
    """Refuse flags about new images that do not go together, before anything is loaded."""
    given = {name: flags.FLAGS[name].value for name in ("set", "images", "channels", "layout", "controls")}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return
    first = next(iter(given))
    if _STAGE.value != "embed":
        raise ConfigError(f"--{first} goes with --stage=embed: it is about images that a trained network embeds")
    if "set" in given and "images" in given:
        raise ConfigError("--set and --images exclude each other: a set that is built, or images that are none yet")
    if "set" not in given and "images" not in given:
        raise ConfigError(f"--{first} needs --set or --images: it says how their images are read")
    if "set" in given and "layout" in given:
        raise ConfigError("--layout is for --images: a set is built already")
    if "set" in given and not re.fullmatch(r"[a-z][a-z0-9_]*", _set_name(given["set"])):
        raise ConfigError(
            f"--set={given['set']!r}: expected NAME of a set, or FOLDER/NAME; a name has small letters, digits and _"
        )
    if "images" in given and _DISTRIBUTED.value != "none":
        raise ConfigError("--images: one process reads them; build the set first (python -m data.build) and use --set")
    if "controls" in given and not all(given["controls"].partition("=")):
        raise ConfigError(f"--controls={given['controls']!r}: expected COLUMN=VALUE, e.g. --controls=compound=DMSO")


def _set_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _embed_new(config: ConfigDict | None, workdir: Path) -> None:
    """What --set or --images names."""
    if config is not None:
        _save(config, workdir)
    image_set, channels = _new_set(workdir)
    # Imported once the images are there: what is wrong with them is said at once.
    from bie_jax.evaluation.embedding import Controls, write_new_embeddings

    column, _, value = (_CONTROLS.value or "").partition("=")
    write_new_embeddings(workdir, image_set, channels, Controls(column, value) if column else None)


def _new_set(workdir: Path) -> tuple[ImageSet, dict[str, str]]:
    """What --set or --images stands for, and its channels -> as training calls them."""
    from data.errors import BuildError
    from data.fields.channels import choose_channels

    config = load_config(workdir)
    try:
        if _SET.value is None:
            return _built(workdir, config, _IMAGES.value or "")
        folder = _SET.value.rstrip("/").rpartition("/")[0]
        image_set = open_image_set(_set_name(_SET.value), folder or config.data.data_dir)
        return image_set, choose_channels(image_set.channel_names, _CHANNELS.value)
    except BuildError as error:
        raise ConfigError(str(error)) from None


def _built(workdir: Path, config: Config, source: str) -> tuple[ImageSet, dict[str, str]]:
    """Images as a set in the run's folder: that of an earlier call, or built now, in a process of its own."""
    from data.errors import BuildError
    from data.new_images import by_hand, find_images, name_of

    command = by_hand(name_of(source), source, _LAYOUT.value)
    if config.data.kind != "images":
        raise ConfigError(
            f"--images: {workdir} was trained on outlines, and how masks become outlines has to be said: {command} "
            "--kind=shapes --points=P --mask=..., and then --set=NAME"
        )
    more = f"more can be said with {command} ..., and then --set=NAME"
    try:
        images = find_images(source, _LAYOUT.value, _CHANNELS.value, workdir / "sets")
    except BuildError as error:
        raise ConfigError(f"{error}; {more}") from None
    wanted = channels_for(images.source, images.channels, run_files.read_dataset(workdir))
    arguments = images.arguments(wanted)
    if not images.is_built(arguments):
        if _run_builder(arguments):
            raise ConfigError(f"{images.source} is not embedded, see above; {more}")
    elif not images.state:
        print(f"{images.source}: was read before; remove {visible(images.data_dir / images.name)} to have it read anew")
    image_set = open_image_set(images.name, images.data_dir)
    return image_set, {name: name for name in image_set.channel_names}


def _run_builder(arguments: list[str]) -> int:
    """`python -m data.build`, which starts processes of its own; returns its status."""
    with (
        StopSignal() as stop,
        subprocess.Popen([sys.executable, "-m", "data.build", *arguments], cwd=Path(__file__).parent) as builder,
    ):
        while builder.poll() is None:
            time.sleep(0.05)
            if stop.number:
                if stop.number == signal.SIGTERM:  # Ctrl-C reaches both
                    builder.send_signal(signal.SIGINT)
                builder.wait()
        if stop.number:
            name = signal.Signals(stop.number).name
            raise Interrupted(f"stopped by {name} while images were read; the same command goes on", stop.number)
    return builder.returncode


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
