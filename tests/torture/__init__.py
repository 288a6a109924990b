"""Kill, fill and lie at random points, then look from outside whether what is promised still holds.

``python -m tests.torture --trials 1000 --seed 7`` (``make torture``); ``tests/test_torture.py`` runs a minute of it.

    program.py    a busy stage that announces on a pipe what it has finished
    trials.py     one trial: start it, harm it, recover
    reader.py     a small reader of what lies on disk, which shares no code with the library
    promises.py   what has to hold, in words
"""
