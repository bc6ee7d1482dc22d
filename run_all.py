"""Train the study's network on a data set and draw every picture of the study: ``python run_all.py``.

Writes OUT/<dataset>/<stage>/*.png, metrics.json, run.json and weights.safetensors of each data set, and
OUT/report.html. ``python -m viz.study`` is the same.
"""

import sys

from viz.study import __main__ as study


def main(argv=None):
    """Run; return the exit status."""
    return study.main(argv, prog="python run_all.py")


if __name__ == "__main__":
    sys.exit(main())
