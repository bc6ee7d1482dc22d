"""What the report says of each figure: prose in templates, one a stage, and never between the lines of code.

A template holds a part for each kind of picture::

    ## curve
    What is shown, and how to read it, in two sentences.

    alt: What a person who cannot see the figure should know.

    details: How it was made and measured.

Each of the three is a Jinja template of its own, given the facts of the run, of the stage and of the picture. It has
conditions on them and no arithmetic; a sentence that compares stands inside the ``if`` that makes it true. A fact that
is missing is an error that names it. What a fact holds is text, whatever a user wrote into it: it is never a template.
"""

import math
import re
from functools import cache
from pathlib import Path

import jinja2

from tinycnn.errors import InputError
from viz.report.results import Words
from viz.report.text import FILTERS

LONGEST = 500  # letters of a fact in a caption; of a list of names, too
PARTS = ("caption", "alt", "details")


class _Text(jinja2.Environment):
    def __init__(self):
        super().__init__(undefined=jinja2.StrictUndefined, finalize=_line, trim_blocks=True, lstrip_blocks=True)
        self.filters |= FILTERS


def _line(value):
    """A fact as one line of text, of `LONGEST` letters at most."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"\s+", " ", value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _compared(facts):
    """Facts, in whose intervals what is undefined can be compared: NaN is neither above nor below anything."""
    if not isinstance(facts, dict):
        return facts
    nan = {k: math.nan for k in ("mean", "low", "high") if facts.get(k, 0) is None and "low" in facts}
    return {k: _compared(v) for k, v in facts.items()} | nan


def speak(path, result, facts):
    """Return what a template says of a stage.

    Parameters
    ----------
    path : str or Path
        Of the template.
    result : viz.report.results.Result
    facts : dict
        Of the run.

    Returns
    -------
    dict of str to Words
        By the pictures' names.

    Raises
    ------
    InputError
        A part or a fact that is missing, or of another shape than the template takes.
    """
    parts, said = _parts(str(path)), {}
    for picture in result.pictures:
        if picture.words not in parts:
            raise InputError(f"{path}: no part '## {picture.words}', which the picture {picture.name!r} needs")
        known = _compared(facts | result.facts | picture.facts)
        try:
            text = {name: " ".join(t.render(known).split()) for name, t in parts[picture.words].items()}
        except (jinja2.UndefinedError, TypeError, KeyError) as e:  # a fact that is missing, or of another shape
            raise InputError(f"{path}: part '## {picture.words}': {e}; the stage must return it") from e
        said[picture.name] = Words(**text)
    return said


@cache
def _parts(path):
    """The compiled templates of a file: {part: {"caption": ..., "alt": ..., "details": ...}}."""
    env, found = _Text(), {}
    _, *rows = re.split(r"^## +(\S+)\s*$", Path(path).read_text("utf-8"), flags=re.MULTILINE)
    for name, text in zip(rows[::2], rows[1::2]):
        caption, *rest = re.split(r"^(alt|details): ", text, flags=re.MULTILINE)
        sources = {"caption": caption, "alt": "", "details": ""} | dict(zip(rest[::2], rest[1::2]))
        found[name] = {part: env.from_string(sources[part]) for part in PARTS}
    return found
