"""`profiles_wells` and `profiles_treatments`, each as `.parquet` and `.h5ad`, in the conventions of pycytominer."""

from pathlib import Path

import numpy as np
import pandas as pd

from bie_jax.config.schema import EvalConfig
from bie_jax.evaluation.embedding.write import write_table
from bie_jax.evaluation.treatments.score import ScoredTreatments
from bie_jax.files.integrity import MadeFrom
from bie_jax.input.columns import embedding_columns
from bie_jax.training import run_files


def write_profiles(
    workdir: Path, treatments: ScoredTreatments, settings: EvalConfig, model: str, made_from: MadeFrom
) -> None:
    """Write wells and treatments behind the last step: `Metadata_*`, then features, as in `embeddings.parquet`.

    A column that is still one feature of the embedding keeps its name; one that mixes several is called
    `<model>_component_0000` and so on.

    Raises:
        DiskError: if there is no room or no right to write.
    """
    plan, corrected = treatments.plan, treatments.corrected
    last = corrected.tables[-1]
    names = feature_names(model, last.columns, last.features.shape[1])
    made_from = made_from | {"config.eval.profile": str(settings.profile.model_dump(mode="json"))}
    wells = plan.wells.assign(control=plan.controls)
    groups = corrected.treatments
    for level, table, features in (
        (run_files.WELL_PROFILES, wells, last.features),
        (run_files.TREATMENT_PROFILES, groups.metadata.assign(wells=groups.sizes), groups.features),
    ):
        known = embedding_columns(table)
        written = pd.concat([known, pd.DataFrame(features.astype(np.float32), columns=names)], axis=1)
        write_table(workdir, f"{level}.parquet", f"{level}.h5ad", written, made_from, {})


def feature_names(model: str, columns: np.ndarray | None, count: int) -> pd.Index:
    """Names of the columns of profiles."""
    if columns is None:
        return pd.Index([f"{model}_component_{i:04d}" for i in range(count)])
    return pd.Index([f"{model}_{i:04d}" for i in columns.tolist()])
