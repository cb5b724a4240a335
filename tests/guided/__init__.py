"""Fuzzing that is guided by coverage: every parser, as far as inputs lead (make fuzz).

A target is a function of octets that asserts what a parser promises. ``targets`` has them all;
``python -m tests.guided`` runs them with atheris, which keeps each input that reaches something
new and makes others of it. What a target needs is here, and none of it needs atheris: a test
gives each of them its seeds and some thousand inputs made of those by chance.
"""
