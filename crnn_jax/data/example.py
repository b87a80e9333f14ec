"""tf.train.Example messages of labelled images, in the schemas in common use; without TensorFlow."""

import threading
from collections.abc import Mapping

from crnn_jax.data.sample import DatasetError, Record

IMAGE = "image/encoded"
LABELS = ("text/string", "image/transcript")  # the first is also written here; ASTER and others use the second
_IMPORT = threading.Lock()


def parse_features(message: bytes, where: str) -> Mapping:
    """The features of a message by name. Raises DatasetError, which names `where`."""
    example, decode_error = _protobuf()
    try:
        return example.FromString(message).features.feature
    except decode_error:
        raise DatasetError(f"{where}: not a tf.train.Example") from None


def label_name(features: Mapping, where: str) -> str:
    """The name of the feature that holds the label. Raises DatasetError if the message is in no known schema."""
    label = next((key for key in LABELS if key in features), None)
    if label is None or IMAGE not in features:
        raise DatasetError(f"{where}: needs {IMAGE} and {' or '.join(LABELS)}, has {', '.join(sorted(features))}")
    return label


def to_record(message: bytes, label: str, where: str) -> Record:
    """The labelled image in a message whose label is the feature `label`. Raises DatasetError."""
    features = parse_features(message, where)
    image = _one_value(features, IMAGE, where)
    try:
        text = _one_value(features, label, where).decode()
    except UnicodeDecodeError:
        raise DatasetError(f"{where}: {label} is not UTF-8") from None
    return Record(image, text, where)


def serialise(image: bytes, label: str) -> bytes:
    """A message with `image/encoded` and `text/string`; equal arguments give equal bytes."""
    message = _protobuf()[0]()
    message.features.feature[IMAGE].bytes_list.value.append(image)
    message.features.feature[LABELS[0]].bytes_list.value.append(label.encode())
    return message.SerializeToString(deterministic=True)


def _protobuf():
    """The tf.train.Example class, and its error for other bytes. Raises DatasetError if the package is missing."""
    # The lock is held until the class is loaded: the package loads its modules lazily, under a lock of its own. Two
    # threads importing it at once can deadlock, one holding that lock and the other Python's lock on a module.
    with _IMPORT:
        try:
            from google.protobuf.message import DecodeError
            from tensorflow_datasets.proto import tf_example_pb2  # a generated module: it does not import TensorFlow

            return tf_example_pb2.Example, DecodeError
        except ImportError as error:
            package = "tensorflow-datasets"
            raise DatasetError(f"Examples need the package {package}: pip install {package} ({error})") from None


def _one_value(features: Mapping, key: str, where: str) -> bytes:
    values = features[key].bytes_list.value if key in features else []
    if len(values) != 1:
        raise DatasetError(f"{where}: {key} has {len(values)} byte strings instead of one")
    return values[0]
