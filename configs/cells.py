"""SimCLR on single cells: crops of about 64 pixels, any number of channels, a few hundred crops and more.

    python -m data.build my_cells --source=cells.npz --layout=arrays --label=label
    python launch.py --config=configs/cells.py --config.data.name=my_cells
    python launch.py --config=configs/cells.py:tiny        simulated plates, a minute, to try it

Stem, brightness, readout and length were chosen by `experiments/learning`. Validation holds out whole wells; of a set
that names none, `--config.data.split_by=image` holds out single cells.
751 HeLa cells took 8 minutes on 2 CPU cores with scores and report: .592 / .636 (macro F1 across plates, logistic
regression / random forest, per plate), the same readout of random weights .597 / .578, hand-made features .614 / .612
(raw .606 / .635, and this .581 / .648).
Of fewer than 2,600 cells 15,360 pairs of views are compared; of more, six times as many as there are cells.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant: "" or "tiny".

    Raises:
        ValueError: for another variant.
    """
    if variant not in ("", "tiny"):
        raise ValueError(f"configs/cells.py:{variant}: the variants are 'tiny' and none")
    config = base.get_view_config(variant or "simulated", "cells")
    config.model.name = "simclr"
    # On HeLa cells of 64 pixels it earned more than four times the images with a stem of stride 2.
    config.model.resnet.stem = "full"
    # Hiding it earned nothing, and to some it says something of a cell: its amount of DNA.
    config.data.augment.brightness = 0.0
    config.optimizer.lr = 1e-3
    config.optimizer.warmup_epochs = 0 if variant else 1
    config.eval.probe_control = ""
    if variant:
        return config
    config.data.name = "my_cells"
    config.data.crop_size = (48, 48)
    config.train.batch_size = 128
    config.train.epochs = 6
    config.train.min_epoch_steps = 20
    config.train.eval_every_epochs = 1
    return config
