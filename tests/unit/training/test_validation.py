from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bie_jax.config.rules import check_config
from bie_jax.training.validation import Validation
from configs import base


class _Images:
    """Images that say their own row."""

    def images(self, rows, places):
        return np.stack([np.full((2, 2, 1), row, np.uint16) for row in rows])


@pytest.mark.parametrize("share", [[0, 1, 2, 3], [0, 1]], ids=["alone", "of two processes"])
def test_every_image_counts_once_whoever_reads_it(share):
    """Ten images in batches of four: the last is half full, and a process that reads its half knows the whole mean."""
    config = base.get_config("tiny", "base")
    config.model.name, config.train.batch_size = "ae", 4
    read, values = [], np.arange(10.0) ** 2

    def mean_over_all_processes(params, model_state, batch):
        """As the devices of all of them compute it, whatever part this one has read."""
        read.append(batch["row"])
        whole = validation._rows[4 * (len(read) - 1) : 4 * len(read)]
        return {"loss": values[whole].mean()}, {}, np.zeros((4, 2, 2, 1)), None

    validation = Validation(
        check_config(config), _Images(), [np.arange(10)], mean_over_all_processes, dict, np.asarray(share), Path("run")
    )
    metrics, pictures = validation(SimpleNamespace(eval_params=None, eval_model_state=None, step=1))
    assert metrics["val/loss"] == pytest.approx(values.mean())
    assert pictures is None
    assert [len(rows) for rows in read] == [len(share)] * 3
