"""Ends a short study at the n-th thing it asks of the file system, resumes it, and says what is there then.

    python tests/crash.py FOLDER '[["kill", 7], ["ENOSPC", 3], ...]'

prints a line of JSON for each fault: the exit status and the errors of the run and of its resumption, what lay half
written between them, and a hash of every file whose bytes the seeds determine. The fault 0 never comes. All runs are
forks of one process that has imported everything and computed nothing.
"""

import errno
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import run_all
from tinycnn import files
from viz import figures  # noqa: F401  (imported once, before the forks)
from viz.report import page  # noqa: F401
from viz.study import networks, recipes  # noqa: F401

ARGV = ["--only", "filters", "training_curve", "--seeds", "0"]  # a summary too
TOUCHES = ("open", "fsync", "replace")  # what `files.atomic_path` asks for, for each file


class Faulty:
    """Takes the place of `os` in `tinycnn.files`: at the n-th touch the process is killed, or told of an error."""

    def __init__(self, how, n):
        self.how, self.n, self.touched = how, n, 0

    def __getattr__(self, name):
        return getattr(os, name) if name not in TOUCHES else lambda *args: self.touch(name, *args)

    def touch(self, name, *args):
        self.touched += 1
        if self.touched != self.n:
            return getattr(os, name)(*args)
        if self.how != "kill":
            raise OSError(getattr(errno, self.how), os.strerror(getattr(errno, self.how)))
        if name == "open":  # there, and empty
            os.open(*args)
        if name == "fsync":  # in part
            os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
        return os.kill(os.getpid(), signal.SIGKILL)


def run(out, log, fault, *more):
    """Do the study in a process of its own; return (exit status, standard error, touches)."""
    child = os.fork()
    if child == 0:
        for fd in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
        files.os = Faulty(*fault)
        recipes.RECIPES["study"]["digits"] = recipes.Recipe(4, 2)
        status = run_all.main([*ARGV, "--out", str(out), *more])
        Path(f"{log}.touched").write_text(str(files.os.touched))
        sys.stderr.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    errors = [line for line in log.read_text().splitlines() if "error" in line or "Traceback" in line]
    return status, errors


def determined(out):
    """{name: SHA-256} of the files of a study that its seeds determine; of the others "" alone."""
    free = ("run.json", "result.json", "report.html")  # times
    paths = [p for p in sorted(out.rglob("*")) if p.is_file() and p.parent.name != ".locks"]
    hashes = ["" if p.name in free else hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
    return {str(p.relative_to(out)): digest for p, digest in zip(paths, hashes)}


def main(folder, faults):
    for fault in faults:
        out = folder / f"{fault[0]}-{fault[1]}"
        log = out.with_suffix(".log")
        found = dict(zip(("status", "errors"), run(out, log, fault)))
        found["half"] = [p.name for p in out.rglob(".tinycnn-*")]
        if fault[1]:
            found["resumed"] = run(out, log, ("kill", 0), "--resume")
        else:
            found["touched"] = int(Path(f"{log}.touched").read_text())
        print(json.dumps({"fault": fault, **found, "files": determined(out)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
