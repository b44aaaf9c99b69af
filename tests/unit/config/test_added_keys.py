import json

import pytest

from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.config.stored import check_workdir, load_config, save_config
from bie_jax.files import integrity
from configs import base


def test_a_run_from_before_a_key_was_added_goes_on(tmp_path):
    """As it began: with the value that it had without the key, and refused with another one."""
    config = base.get_config("tiny", "base")
    save_config(check_config(config), tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["model"]["cpu_kernels"]
    integrity.write_json(tmp_path / "config.json", stored)
    assert load_config(tmp_path) == check_config(config)
    check_workdir(check_config(config), tmp_path)
    config.model.cpu_kernels = False
    with pytest.raises(ConfigError, match=r"config.model.cpu_kernels: the workdir has True, this run False"):
        check_workdir(check_config(config), tmp_path)
    del stored["model"]["spread"]
    integrity.write_json(tmp_path / "config.json", stored)
    with pytest.raises(ConfigError, match=r"config.model.spread: missing"):
        load_config(tmp_path)


def test_a_run_from_before_there_were_more_changes_of_views_goes_on(tmp_path):
    config = base.get_config("tiny", "base")
    save_config(check_config(config), tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["data"]["augment"] = {"flip": True, "rotate90": True, "brightness": 0.1}
    integrity.write_json(tmp_path / "config.json", stored)
    assert load_config(tmp_path) == check_config(config)
    check_workdir(check_config(config), tmp_path)
    config.data.augment.area = (0.5, 1.0)
    with pytest.raises(ConfigError, match=r"augment.area: the workdir has \[0.0, 0.0\], this run \[0.5, 1.0\]"):
        check_workdir(check_config(config), tmp_path)


def test_a_run_from_before_labels_were_looked_at_is_divided_as_it_was(tmp_path):
    """The key is on by default: who goes on with such a run is told what it had."""
    config = base.get_config("tiny", "base")
    assert config.data.stratify_by == "label"
    save_config(check_config(config), tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["data"]["stratify_by"]
    integrity.write_json(tmp_path / "config.json", stored)
    assert load_config(tmp_path).data.stratify_by == ""
    with pytest.raises(ConfigError, match=r"has '', this run 'label', which goes on with --config.data.stratify_by=''"):
        check_workdir(check_config(config), tmp_path)
    config.data.stratify_by = ""
    check_workdir(check_config(config), tmp_path)
