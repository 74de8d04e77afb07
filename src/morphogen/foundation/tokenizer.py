"""The closed-vocabulary tokenizer of `tiny`: CLIP's own class, in which every word of the grammars is one token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from transformers import CLIPTokenizer

MAX_TOKENS = 64


def write_tokenizer(words: Sequence[str], folder: Path) -> CLIPTokenizer:
    """Train byte pairs until every word of `words` is a single token, and save them as a CLIP tokenizer.

    The same words, in any order, give the same ids.

    Args:
        words: Lower-case words and punctuation marks.
        folder: Where vocab.json, merges.txt and the configuration go.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    raw = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The trainer numbers last letters as it meets them, in an order that changes from call to call, and settles ties by
    # number: named beforehand, they have one order, and the same words always give the same ids.
    endings = sorted({f"{word[-1]}</w>" for word in words})
    trainer = trainers.BpeTrainer(
        vocab_size=1_000_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False,
        special_tokens=["<|startoftext|>", "<|endoftext|>", *endings],
    )  # fmt: skip
    raw.train_from_iterator(sorted(set(words)), trainer)
    model = json.loads(raw.to_str())["model"]
    # Letters that only occur inside longer tokens still need an id of their own.
    vocab = dict(sorted(model["vocab"].items(), key=lambda row: row[1]))
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=MAX_TOKENS,
        unk_token="<|endoftext|>", bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>",
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer
