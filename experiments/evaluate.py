"""Measures a model on labelled words: one row per dataset.

    python experiments/evaluate.py --model NAME|DIR --data PATH [PATH ...] [--part all|tenth|rest]
        [--cased] [--punctuation] [--lexicon english|FILE [--bonus NATS] | --among FILE] [--thorough]
        [--json FILE] [--html FILE] [--words FILE]

A PATH is a folder with labels.tsv, labels.csv or gt.txt, an LMDB, TFRecord or ArrayRecord shards, or `rendered`:
held-out words, rendered in the style that the model was trained on. Lower-case letters and digits are compared; --cased
and --punctuation extend that.
With --lexicon its words (of a file, or English ones) count as likelier than others, by --bonus; two more rows separate
labels that are in it from those that are not. With --among only the words of a file are read, one per line; a label
that is not among them counts as wrong. For a single dataset the file may instead give each image words of its own, in
lines IMAGE<TAB>WORD<TAB>WORD ...; IMAGE is the name that --words writes, the path in a folder or image-000000001 in an
LMDB. With --thorough each word is read with three margins.
--html writes a page of the errors: by length and height, by character, by confidence, the worst words, and what the
spatial transformer does, if the model has one. A transformer that has collapsed is reported on stderr in any case.
--words writes every word as it was read, one row each below a header, tab-separated and quoted as by Python's csv:
dataset, number of the word in it or in its --part, from 0, the image's name, label, text, confidence, and 1 if it was
read right.
--json writes the rows, with those of all words and of the lexicon separate, what was compared and how many words were
left out, for bundle.py.
Words that cannot be read from a dataset are reported on stderr (prepare.py inspect lists all damage) and left out of
all rows; the exit code is then 1. A --part can be taken only of datasets whose lists or shards are complete.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from command import add_protocol, add_reading, check_reading, lexicon_of, run, tells
from outputs import check_outputs

import crnn_jax
from crnn_jax.charset import in_both_cases, respell
from crnn_jax.data.damage import Damage
from crnn_jax.data.dataset import share_words
from crnn_jax.data.sample import DatasetError
from crnn_jax.evaluation import (
    Among,
    Evaluation,
    Row,
    all_words,
    dataset_words,
    format_head,
    format_row,
    mean_diagnosis,
    not_expressed,
    open_datasets,
    read_words,
    to_json,
)
from crnn_jax.images import ImageError
from crnn_jax.lexicon import Lexicon, LexiconError
from crnn_jax.metrics import normalise
from crnn_jax.reader import DEFAULT_MODEL, Reader
from crnn_jax.report.page import report
from crnn_jax.stn import collapse
from crnn_jax.training.checkpoint import CheckpointError, step_of, weights_folder
from crnn_jax.wordlist import WordList, load_words_or_lists

TOTALS = ALL, INSIDE, OUTSIDE = "all words", "in the lexicon", "not in it"  # rows below those of the datasets


@tells(CheckpointError, DatasetError, ImageError, LexiconError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = parse(argv)
    lexicon = lexicon_of(args)
    folder = weights_folder(args.model)
    reader = crnn_jax.load(folder)
    among = load_among(args.among, reader, args.data) if args.among is not None else None
    # Open all before hours of work. A part needs a complete dataset: with records lost, its start is unknown.
    datasets = open_datasets(args.data, reader.config, part=args.part, strict=args.part != "all")
    inputs = [*args.data, *filter(None, (args.among, args.lexicon))]
    check_outputs(args.json, args.html, args.words, inputs=inputs)
    # Words of a list are returned with their own marks, even those that the model cannot read.
    for clause in () if among else not_expressed(reader, cased=args.cased, punctuation=args.punctuation):
        warn(f"{args.model} {clause}")
    width = max(map(len, [*datasets, *TOTALS]))
    evaluations, left_out, compiled = {}, {}, set()
    for name, dataset in datasets.items():  # print each row as soon as it is measured
        damage = Damage()
        evaluation = read_words(
            reader,
            dataset_words(reader, dataset, name, thorough=args.thorough, damage=damage),
            cased=args.cased,
            punctuation=args.punctuation,
            lexicon=lexicon,
            among=among,
            diagnose=True,
            compiled=compiled,
        )
        if damage:
            left_out[name] = len(damage)
            _, first = damage.places[0]
            warn(f"{name}: left out: {damage}; the first: {first}")
        if evaluation.words:
            evaluations[name] = evaluation
            for told in not_compared(evaluation, among, args, reader.charset.characters):
                warn(f"{name}: {told}")
            head = [] if len(evaluations) > 1 else [format_head(width)]
            print(*head, format_row(name, evaluation.row(), width), sep="\n", flush=True)
    if not evaluations:
        return 1
    table = {name: evaluation.row() for name, evaluation in evaluations.items()}
    together = all_words(list(evaluations.values()))
    total = {ALL: together.row()} if len(table) > 1 else {}
    total |= rows_by_lexicon(together, lexicon) if lexicon else {}
    for name, row in total.items():
        print(format_row(name, row, width))
    diagnosis = mean_diagnosis(together.words)
    if diagnosis and (reason := collapse(diagnosis)):
        warn(f"the spatial transformer of {args.model} has collapsed: {reason}")
    if args.json:
        names = "part", "cased", "punctuation", "lexicon", "among", "thorough"
        compared = {name: getattr(args, name) for name in names} | ({"bonus": lexicon.bonus} if lexicon else {})
        whole = {"model": args.model, "step": step_of(folder), "compared": compared}
        whole |= {"datasets": table, "totals": total, "left_out": left_out}
        args.json.write_text(to_json(whole) + "\n")
    if args.words:
        write_words(args.words, evaluations)
    if args.html:
        datasets, how = {name: datasets[name] for name in evaluations}, protocol(args, among, sum(left_out.values()))
        page = report(reader, datasets, evaluations, table | total, model=args.model, protocol=how)
        args.html.write_text(page, encoding="utf-8", errors="replace")
    return 1 if left_out else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="bundled model, model folder or workdir"
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="PATH")
    add_protocol(parser)
    add_reading(parser, among="read only these words, one per line, or a line per image")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows, and what was compared, to FILE")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of the errors to FILE")
    parser.add_argument("--words", type=Path, metavar="FILE", help="write a row for every word to FILE")
    args = parser.parse_args(argv)
    check_reading(parser, args)
    if args.cased and args.among is not None:
        parser.error("--cased does not work with --among, which ignores case and returns its words as listed")
    return args


def load_among(path: str, reader: Reader, data: list[str]) -> Among:
    """The words of a file, for all images or for each. Warns of those that can never be read."""
    if share_words(path, data):
        raise LexiconError(f"{path} is part of --data: expected a file of the words to choose from")
    words = load_words_or_lists(path)
    if isinstance(words, list):
        among = reader.word_list(words)
        for warning in among.warnings():
            warn(f"{path}: {warning}")
        return among
    if len(data) > 1:
        raise LexiconError(f"{path} has a list for each image of one dataset: give a single --data")
    among, unread = {}, 0
    for name, own in words.items():
        try:
            among[name] = reader.word_list(own)
            unread += len(among[name].unread)
        except LexiconError:
            unread += len(own)
    if unread:
        total = sum(map(len, words.values()))
        warn(f"{path}: {unread} of {total} words cannot be spelled by the model")
    return among


def warn(told: str) -> None:
    """Prints a line on stderr."""
    print(f"evaluate.py: {told}", file=sys.stderr)


def protocol(args: argparse.Namespace, among: Among | None, left_out: int) -> str:
    """What was compared, in the words of the page."""
    how = ("letters, " if args.cased else "lower-case letters, ") + "digits"
    how += ", punctuation" if args.punctuation else ""
    how += f"; {left_out} damaged words left out" if left_out else ""
    if among:
        which = f"the {len(among.words):,} words" if isinstance(among, WordList) else "each image's own words"
        how += f"; only {which} of {args.among} can be read"
    return how


def not_compared(evaluation: Evaluation, among: Among | None, args: argparse.Namespace, charset: str) -> Iterator[str]:
    """One line for each reason why some labels are only compared in part, or cannot be read right."""
    lost = letters_not_compared(evaluation, charset)
    if lost:
        yield f"{lost[0]} labels have letters that {args.model} lacks, which are not compared: {lost[1]}"
    if among and (count := labels_outside(evaluation, among, punctuation=args.punctuation, charset=charset)):
        yield f"{count} labels are not among the words of {args.among}"


def letters_not_compared(evaluation: Evaluation, charset: str) -> tuple[int, str] | None:
    """How many labels have letters or digits beyond ASCII that a charset lacks, and which; None if none have."""
    known = in_both_cases(charset)
    labels = (respell(word.label, charset) for word in evaluation.words)
    lost = [{c for c in label if c.isalnum() and not c.isascii()} - known for label in labels]
    return (sum(map(bool, lost)), "".join(sorted(set().union(*lost)))) if any(lost) else None


def labels_outside(evaluation: Evaluation, among: Among, *, punctuation: bool, charset: str) -> int:
    """How many labels, as they are compared, are not in the list, or in the image's own list."""

    def compared(words):
        return {normalise(word, punctuation=punctuation, charset=charset) for word in words}

    if isinstance(among, dict):
        lists = ((word, among.get(word.name)) for word in evaluation.words)
        return sum(own is None or word.truth not in compared(own.words) for word, own in lists)
    known = compared(among.words)
    return sum(word.truth not in known for word in evaluation.words)


def write_words(path: Path, evaluations: dict[str, Evaluation]) -> None:
    """Writes one row per word."""
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["dataset", "number", "image", "label", "text", "confidence", "right"])
        for name, evaluation in evaluations.items():
            for word in evaluation.words:
                read = [word.label, word.text, f"{word.confidence:.4f}", int(word.correct)]
                writer.writerow([name, word.index, word.name, *read])


def rows_by_lexicon(evaluation: Evaluation, lexicon: Lexicon) -> dict[str, Row]:
    """One row for the words whose labels are in the lexicon, and one for the others."""
    words = {INSIDE: [], OUTSIDE: []}
    for word in evaluation.words:
        words[INSIDE if word.label in lexicon else OUTSIDE].append(word)
    shares = {
        name: Evaluation(group, evaluation.seconds * len(group) / len(evaluation.words))
        for name, group in words.items()
    }
    return {name: share.row() for name, share in shares.items() if share.words}


if __name__ == "__main__":
    run(main)
