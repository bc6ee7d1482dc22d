"""The stages of the study, by what they look at: each a function of the study that returns (pictures, metrics).

network    what training left: curves, confusions, filters, activation maps
deconv     maps sent back to the pixels: the strongest ones, ways to unpool, what excites a map most
backprop   gradients with respect to the pixels: saliency, whole layers
space      the images as points: t-SNE and nearest neighbours in a layer's features
ascent     images made to excite a class

A stage computes with one module of `viz`, hands the arrays to `figures`, and says in words what is seen. What is
slow to import is imported inside: listing the stages and refusing bad input take no time.
"""
