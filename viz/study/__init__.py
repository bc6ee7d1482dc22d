"""The study: what ``run_all.py`` runs. The top floor: it may use every room of `viz`, and no room uses it.

__main__     the command line
run          one data set of a run: train, judges, stages, numbers; and the report of all of them
records      reading back what a run wrote, and what it came from
sets         the data sets, as the study splits them
recipes      how to train
judges       networks that had no part in an image say what it shows; `ways` to make images
subject      what a stage may use
table        the stages, a row each
stages       what they compute, a file each
words        what is said of it, a template each
fingerprint  what a stage depends on
estimate     how long it takes
"""
