"""Rebuilds the English word list, crnn_jax/synth/assets/words.txt.xz, from a Hunspell dictionary.

    apt-get install hunspell-en-us    (1:2020.12.07-2, from SCOWL)
    python experiments/build_words.py --dictionary /usr/share/hunspell/en_US

Every stem is expanded with its affix rules; words that consist of the letters a-z, in any case, are kept in lower case.
Takes seconds.
"""

import argparse
import lzma
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ASSETS = Path(__file__).parents[1] / "crnn_jax" / "synth" / "assets"
LONGEST = 23  # letters, as in the longest word of Synth90k


class Rule(NamedTuple):
    """One way to attach an affix; see PFX and SFX in hunspell(5)."""

    strip: str
    affix: str
    condition: re.Pattern  # on the whole stem
    crosses: bool  # whether a prefix and a suffix may be combined


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dictionary", type=Path, required=True, help="path of the .aff and .dic files, without suffix"
    )
    parser.add_argument("--out", type=Path, default=ASSETS / "words.txt.xz")
    args = parser.parse_args()

    prefixes, suffixes = read_rules(args.dictionary.with_suffix(".aff"))
    entries = args.dictionary.with_suffix(".dic").read_text(encoding="utf8").splitlines()[1:]
    words = set()
    for entry in entries:
        stem, _, flags = entry.split()[0].partition("/")
        words.update(expand(stem, flags, prefixes, suffixes))
    kept = sorted({word.lower() for word in words if re.fullmatch(rf"[A-Za-z]{{1,{LONGEST}}}", word)})
    compressed = lzma.compress("".join(f"{word}\n" for word in kept).encode(), preset=9 | lzma.PRESET_EXTREME)
    args.out.write_bytes(compressed)
    print(f"{len(entries)} stems, {len(words)} forms, {len(kept)} words, {len(compressed) / 1e3:.0f} kB")


def read_rules(path: Path) -> tuple[dict[str, list[Rule]], dict[str, list[Rule]]]:
    """Prefix rules and suffix rules of an affix file, by flag."""
    rules, crosses = {"PFX": defaultdict(list), "SFX": defaultdict(list)}, {}
    for line in path.read_text(encoding="utf8").splitlines():
        kind, *fields = line.split() or [""]
        if kind not in rules:
            continue
        flag = fields[0]
        if len(fields) == 3:  # a flag's header: whether it crosses, number of rules
            crosses[flag] = fields[1] == "Y"
            continue
        strip, affix = ("" if field == "0" else field for field in fields[1:3])
        condition = re.compile(f"^{fields[3]}" if kind == "PFX" else f"{fields[3]}$")
        rules[kind][flag].append(Rule(strip, affix, condition, crosses[flag]))
    return rules["PFX"], rules["SFX"]


def expand(stem: str, flags: str, prefixes: dict[str, list[Rule]], suffixes: dict[str, list[Rule]]) -> set[str]:
    """The stem and its forms with a suffix, a prefix, or both.

    >>> expand("try", "D", {}, {"D": [Rule("y", "ied", re.compile("[^aeiou]y$"), True)]}) == {"try", "tried"}
    True
    """
    forms = {stem}
    crossing = {stem}
    for rule in (rule for flag in flags for rule in suffixes.get(flag, ())):
        if rule.condition.search(stem):
            form = stem.removesuffix(rule.strip) + rule.affix
            forms.add(form)
            if rule.crosses:
                crossing.add(form)
    for rule in (rule for flag in flags for rule in prefixes.get(flag, ())):
        for form in crossing if rule.crosses else {stem}:
            if rule.condition.search(form):
                forms.add(rule.affix + form.removeprefix(rule.strip))
    return forms


if __name__ == "__main__":
    main()
