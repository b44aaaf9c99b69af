"""The command line as a person meets it: real processes, one clear message, a non-zero exit, nothing overwritten."""

import shutil
import subprocess
import sys

import pytest

from tests.end_to_end.commands import REPOSITORY, launch

TINY = "--config=configs/vqvae_idr0093.py:tiny"


@pytest.mark.parametrize(
    ("arguments", "devices", "message"),
    [
        ([TINY, "--config.model.latnt_dim=3"], 1, "latnt_dim"),
        ([TINY, "--config.model.latent_dim=abc"], 1, "latent_dim"),
        (
            [TINY, "--config.model.latent_dim=0"],
            1,
            "config.model.latent_dim=0: expected a whole number from 1 to 65536",
        ),
        (
            [TINY, "--config.train.batch_size=9"],
            4,
            "batch_size=9 cannot be shared by 4 devices; the nearest that can: 8 or 12",
        ),
        (["--config=configs/vqvae_idr0093.py"], 1, "python -m data.build idr0093"),
        (["--config=configs/vqvae_idr0093.py:huge"], 1, "the variants are 'simulated', 'tiny' and none"),
        (["--config=configs/nothing.py"], 1, "configs/nothing.py"),
        (["--config=/etc/passwd"], 1, "a configuration is a Python file (.py)"),
        ([TINY, "--config.model.latent_dim=2.5"], 1, "config.model.latent_dim='2.5': expected a whole number from 1"),
        ([TINY, "--config.data.augment.flip=perhaps"], 1, "flip='perhaps': expected True or False"),
        (
            [TINY, "--config.data.augment.area=(0.9,0.4)"],
            1,
            "config.data: augment.area=(0.9, 0.4): expected (0, 0), windows at the image's own scale, or 0 < low <=",
        ),
        (
            ["--config=configs/shape_vae_mnist.py:tiny", "--config.data.augment.blur=1"],
            1,
            "config.data.augment.blur=1.0 is read only by data.kind='images'; leave it at 0.0",
        ),
        (["--stage=views"], 1, "neither --config nor --workdir is given"),
        ([TINY, "--config.objective.beta=4"], 1, "config.objective.beta=4.0 is read only by model.name='vae'"),
        ([TINY, "--workdir="], 1, "--workdir='': expected the path of a folder"),
        ([TINY, "--workdir=bie_jax"], 1, "--workdir=bie_jax: the folder holds other things than a run"),
        ([TINY, "--workdir=launch.py"], 1, "launch.py is a file; a run needs a folder of its own"),
        (["--stage=embed"], 1, "neither --config nor --workdir is given"),
        ([TINY, "surplus"], 1, "'surplus' is not understood"),
    ],
)
def test_bad_input_is_one_message_and_nothing_written(launches, datasets, tmp_path, arguments, devices, message):
    """The one about four devices by the command itself, the others by a process that has imported it."""
    workdir = tmp_path / "run"
    if not arguments[0].startswith("--stage") and "--workdir" not in arguments[-1]:
        arguments = [*arguments, f"--workdir={workdir}"]
    if arguments[0].startswith("--config=configs/vqvae"):
        arguments.append(f"--config.data.data_dir={datasets}")
    done = launches.run(*arguments) if devices == 1 else launch(*arguments, devices=devices)
    assert done.returncode != 0
    assert message in done.stderr
    assert all(line.startswith(("launch.py: ", "config.")) for line in done.stderr.splitlines()), done.stderr
    assert not workdir.exists()
    assert not (REPOSITORY / "config.json").exists()


@pytest.mark.parametrize(("stage", "is_needed"), [("all", True), ("train", False)])
def test_what_is_not_installed_for_a_later_stage_is_said_before_training(launches, tmp_path, stage, is_needed):
    (tmp_path / "anndata.py").write_text("raise ImportError('anndata is not installed')")
    elsewhere = f"--config.data.data_dir={tmp_path / 'nothing'}"
    done = launches.run(TINY, f"--workdir={tmp_path / 'run'}", f"--stage={stage}", elsewhere, path=(tmp_path,))
    assert done.returncode != 0
    assert ("anndata is not installed" in done.stderr) == is_needed
    assert ("python -m data.build" in done.stderr) == (not is_needed)
    assert not (tmp_path / "run").exists()


def test_workdir_of_another_configuration(launches, datasets, trained_workdir, tmp_path):
    workdir = shutil.copytree(trained_workdir[0], tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    changed = (f"--config.data.data_dir={datasets}", "--config.optimizer.lr=1e-4")
    done = launches.run(TINY, f"--workdir={workdir}", *changed)
    assert done.returncode != 0
    assert "was made by another configuration" in done.stderr
    assert "config.optimizer.lr: the workdir has 0.004, this run 0.0001" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("eval.label=gene", "config.eval.label='gene' is no column of 'simulated'; there are plate"),
        ("eval.append=('label',)", "config.eval.append=('label',): 'label' is no number known of 'simulated'"),
        ("eval.image_size=(64,64)", "config.eval.image_size=(64, 64) is larger than the images of 'simulated'"),
        ("eval.published=nowhere", "config.eval.published='nowhere': there is no folder nowhere"),
    ],
)
def test_what_cannot_be_scored_is_not_written_down(launches, datasets, trained_workdir, tmp_path, change, message):
    """A run's configuration would name it from then on."""
    workdir = shutil.copytree(trained_workdir[0], tmp_path / "run")
    before = (workdir / "config.json").read_bytes()
    given = (TINY, f"--config.data.data_dir={datasets}", f"--config.{change}", f"--workdir={workdir}")
    done = launches.run(*given, "--stage=evaluate")
    assert done.returncode != 0
    assert message in done.stderr
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.parametrize(("stage", "config"), [("embed", ()), ("evaluate", ()), ("embed", (TINY,))])
def test_later_stages_say_what_they_miss(launches, tmp_path, stage, config):
    done = launches.run(*config, f"--workdir={tmp_path}", f"--stage={stage}")
    assert done.returncode != 0
    assert "holds no config.json: nothing was trained there" in done.stderr
    assert not list(tmp_path.iterdir())
    assert "Traceback" not in done.stderr


def test_every_stage_to_a_report_with_wandb_offline(launches, datasets, tmp_path):
    """The whole way in one command, without an account."""
    workdir = tmp_path / "run"
    arguments = (TINY, f"--workdir={workdir}", f"--config.data.data_dir={datasets}", "--config.train.wandb=offline")
    done = launch(
        *arguments,
        "--config.train.epochs=1",
        "--config.optimizer.warmup_epochs=0",
        "--config.train.checkpoint_every_steps=1000",
        "--config.eval.folds=2",
        "--config.eval.umap=False",
        "--config.eval.trees=1",
        "--config.eval.bootstrap=2",
        "--config.eval.classical_baseline=False",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = workdir / "report" / "index.html"
    assert str(report) in done.stdout
    assert report.stat().st_size > 10_000
    for name in ("config.json", "metrics.jsonl", "embeddings.parquet", "embeddings.h5ad", "scores.json"):
        assert (workdir / name).stat().st_size > 0
    assert list(workdir.glob("wandb/offline-run-*"))
    again = launches.run(f"--workdir={workdir}", "--stage=embed")
    assert again.returncode == 0, again.stderr[-3000:]


def test_views_are_drawn_before_anything_is_trained(launches, datasets, tmp_path):
    workdir = tmp_path / "run"
    changes = ("--config.data.augment.area=(0.3,1.0)", "--config.data.augment.noise=0.1")
    done = launches.run(TINY, f"--workdir={workdir}", f"--config.data.data_dir={datasets}", "--stage=views", *changes)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"views: {workdir / 'views.png'}\n"
    assert (workdir / "views.png").stat().st_size > 50_000
    assert [path.name for path in workdir.iterdir()] == ["views.png"]


def test_models_and_losses_import_without_the_data_stack():
    """A step can be measured on any machine that has jax, flax and optax."""
    absent = "grain, tensorflow_datasets, wandb, torch, anndata, pandas, orbax, sklearn, umap"
    code = (
        "import sys\n"
        f"for name in '{absent}'.split(', '): sys.modules[name] = None\n"
        "import bie_jax.models, bie_jax.losses, bie_jax.objectives.base, bie_jax.training.optimizer\n"
        "import bie_jax.views.images, bie_jax.training.step\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
