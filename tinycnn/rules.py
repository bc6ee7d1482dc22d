"""What a ReLU does to the signal on its way back: the only difference between three ways of looking inside.

With y = max(x, 0) and dy coming back,

    gradient   dx = dy * (y > 0)                 Simonyan et al. 2013, arXiv:1312.6034
    deconvnet  dx = dy * (dy > 0)                Zeiler and Fergus 2013, arXiv:1311.2901
    guided     dx = dy * (y > 0) * (dy > 0)      Springenberg et al. 2014, arXiv:1412.6806

A rule also says how max-pools are undone: by their switches (the gradient's way, and Zeiler and Fergus'), by repeating
each value over its block, or by putting it in the centre of its window. Biases play no part on the way back.
"""

from dataclasses import dataclass, replace

from .errors import choose


@dataclass(frozen=True)
class Rule:
    """mask: keep dy where the ReLU was on; rectify: keep dy where it is positive itself."""

    mask: bool
    rectify: bool
    unpool: str = "switches"


RULES = {
    "gradient": Rule(mask=True, rectify=False),
    "deconvnet": Rule(mask=False, rectify=True),
    "guided": Rule(mask=True, rectify=True),
}
UNPOOLS = ("switches", "repeat", "center")


def get_rule(name, unpool="switches"):
    """Return the Rule called `name` with this way of unpooling; an InputError lists what there is."""
    return replace(RULES[choose(name, RULES, "rule")], unpool=choose(unpool, UNPOOLS, "unpool"))
