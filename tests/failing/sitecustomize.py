"""Begins to count a program's calls before it does anything, where its environment asks for it."""

import os

import calls

calls.install()
if text := os.environ.pop(calls.VARIABLE, None):
    calls.begin(text)
