"""Entries of other readers in the contests of bench.py: Tesseract by tesserocr, PP-OCR by rapidocr-onnxruntime.

Each needs only its own package. Inputs are grey word images of any size, the arrays of an .npz file; a call reads all
of them and returns the texts. Both recognise a word or a line directly, without detecting it first.
"""

from collections.abc import Callable

import numpy as np
from contest import ContestError, serve


def tesseract(*, inputs: str) -> Callable[[], list[str]]:
    """Tesseract's LSTM for English, one image at a time as one word (PSM 8); it cannot do batches."""
    import tesserocr
    from PIL import Image

    folder, languages = tesserocr.get_languages()
    if "eng" not in languages:
        raise ContestError(
            f"there is no eng.traineddata in {folder}: set TESSDATA_PREFIX to the folder that has it (Debian's package"
            " tesseract-ocr-eng)"
        )
    reader = tesserocr.PyTessBaseAPI(path=folder, lang="eng", psm=tesserocr.PSM.SINGLE_WORD)
    images = [Image.fromarray(image) for image in np.load(inputs).values()]

    def read(image):
        reader.SetImage(image)
        return reader.GetUTF8Text().strip()

    return lambda: [read(image) for image in images]


def pp_ocr(*, inputs: str, batches: bool, threads: int) -> Callable[[], list[str]]:
    """The recogniser of PP-OCR, one image at a time or in the batches that it makes itself."""
    from rapidocr_onnxruntime import RapidOCR

    reader = RapidOCR(intra_op_num_threads=threads, inter_op_num_threads=1).text_rec
    images = [np.repeat(image[..., None], 3, axis=2) for image in np.load(inputs).values()]

    def read(images):
        return [text for text, _ in reader(images)[0]]

    return lambda: read(images) if batches else [text for image in images for text in read([image])]


if __name__ == "__main__":
    serve(tesseract, pp_ocr)
