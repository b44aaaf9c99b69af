import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.embedding.read import EvaluationError, read_embeddings
from bie_jax.files import integrity
from tests.unit.evaluation.conftest import write_workdir


def test_embeddings_of_other_images_are_refused(tmp_path, image_set, evaluate_fake):
    workdir = write_workdir(tmp_path / "run", image_set)
    table = pd.read_parquet(workdir / "embeddings.parquet")
    order = np.r_[1, 0, 2 : len(table)]
    integrity.write_file(workdir / "embeddings.parquet", table.iloc[order].to_parquet, 0)
    with pytest.raises(EvaluationError, match=r"row 0 of embeddings.parquet has site '1'"):
        evaluate_fake(workdir, image_set)
    integrity.write_file(workdir / "embeddings.parquet", table.iloc[:-1].to_parquet, 0)
    with pytest.raises(EvaluationError, match=r"107 rows .* 108 images"):
        evaluate_fake(workdir, image_set)
    (workdir / "embeddings.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="--stage=embed"):
        evaluate_fake(workdir, image_set)
    assert not (workdir / "scores.json").exists()


def test_embeddings_that_are_no_numbers_are_refused(tmp_path, image_set):
    workdir = write_workdir(tmp_path / "run", image_set)
    table = pd.read_parquet(workdir / "embeddings.parquet")
    table.loc[5, "vqvae_0002"] = np.nan
    integrity.write_file(workdir / "embeddings.parquet", table.to_parquet, 0)
    with pytest.raises(FloatingPointError, match=r"embeddings.parquet: 1 of 108 rows hold NaN or infinity, rows 5; "):
        read_embeddings(workdir / "embeddings.parquet")
