"""Feature visualization on the primitives of `tinycnn`: pictures of what a trained network has learned.

Every function takes a `tinycnn.Network` and NumPy images, and returns NumPy arrays; `viz.figures` alone
draws. Import what you need: ``from viz import saliency, maximize``.

activations   what a layer answers: maps, filters, the images and patches that excite each map most
deconvnet     one map projected back to pixels (Zeiler and Fergus)
saliency      gradients of class scores, and of every map of a layer, with respect to the pixels
maximize      images that excite a unit, by gradient ascent; `regularizers`, `transforms` and `parametrize` keep them
              natural, `presets` has the constants
embedding     t-SNE of a layer's features, and mosaics of images placed by it
neighbors     nearest images, in pixels or in features
interval      the confidence interval of a mean
"""
