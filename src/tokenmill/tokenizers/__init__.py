"""Tokenizers: a vocabulary, and the engines that encode with it.

An engine changes speed, never an id. To add one: one file in ``engines``, and one line in
``ENGINES``; the contract tests of engines then run on it by themselves. To add a kind of tokenizer
file: a subclass of ``Vocabulary``, and a line in ``loading``.
"""

from __future__ import annotations
