"""Records as TFDS encodes them, and the files by which TFDS knows a set."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, registered, splits

from data.records.description import Description

SPLIT = "images"


def features_of(description: Description) -> tfds.features.FeaturesDict:
    """Of one example, as TFDS names and types them."""
    scalars = {str: tfds.features.Text(), int: tfds.features.Scalar(np.int64), float: tfds.features.Scalar(np.float64)}
    image = tfds.features.Tensor(
        shape=description.image_shape,
        dtype=np.dtype(description.dtype),
        encoding=tfds.features.Encoding.BYTES,  # the default writes every pixel as a varint
    )
    columns = {column: scalars[kind] for column, kind in description.columns.items()}
    names = tfds.features.Sequence(tfds.features.Text())
    return tfds.features.FeaturesDict({"image": image, "channel_names": names, **columns})


def encoder(description: Description) -> Any:
    """(image, metadata) -> bytes of a tf.train.Example, the same ones every time."""
    features = features_of(description)
    specs: Any = features.get_serialized_info()
    serializer = example_serializer.ExampleSerializer(specs)
    names = list(description.channel_names)

    def encode(image: np.ndarray, metadata: dict[str, Any]) -> bytes:
        encoded = features.encode_example({"image": image, "channel_names": names, **metadata})
        # TFDS serializes a map as the process happens to hash its keys.
        return serializer.get_tf_example(encoded).SerializeToString(deterministic=True)

    return encode


def builder_of(
    description: Description, records: list[tuple[Path, int]], data_dir: Path
) -> tfds.core.GeneratorBasedBuilder:
    """A TFDS builder whose split "images" is exactly these files."""

    def info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=description.text,
            features=features_of(description),
            disable_shuffling=True,  # the order of the records is the order of metadata.parquet
        )

    def link(self, dl_manager, download_config) -> None:
        # Not `_generate_examples`: TFDS writes a split in one process and keeps it in memory until all of it is there.
        template = self._get_filename_template(SPLIT)
        for number, (path, _) in enumerate(records):
            os.link(path, str(template.sharded_filepath(shard_index=number, num_shards=len(records))))
        lengths, size = [count for _, count in records], sum(path.stat().st_size for path, _ in records)
        split = splits.SplitInfo(name=SPLIT, shard_lengths=lengths, num_bytes=size, filename_template=template)
        self.info.set_splits(splits.SplitDict([split]))

    body = {
        "name": description.name,
        "VERSION": tfds.core.Version(description.version),
        "_info": info,
        "_download_and_prepare": link,
        "_split_generators": lambda self, download_manager: {},  # abstract in TFDS, not called
        "_generate_examples": lambda self: iter(()),
    }
    with registered.skip_registration():
        builder_class = type("SetBuilder", (tfds.core.GeneratorBasedBuilder,), body)
    tfds.disable_progress_bar()  # ours knows how many parts come
    return builder_class(data_dir=str(data_dir), file_format="array_record")


def record_files(directory: Path) -> list[Path]:
    """The files of records in the folder of a set, in the order of `builder_of`."""
    return sorted(directory.glob(f"*-{SPLIT}.array_record-*-of-*"))
