"""Words from disk: `dataset.open_dataset` recognises a folder of images, an LMDB or TFRecord shards."""
