"""A page to look inside a small network of digits with the mouse: python examples/explorer.py docs/explorer.html"""

import sys
from dataclasses import replace

from tinycnn import Network, data, models, optim, train
from viz import explorer

UNITS = 64  # of fc1, where the study's network has 1,024, so that the page stays small


def main(path):
    """Train the network, and write its page to `path`."""
    images, labels = data.load("digits", "train")
    test_images, test_labels = data.load("digits", "test")
    layers = [replace(layer, units=UNITS) if layer.name == "fc1" else layer for layer in models.layers("mnist")]
    net, untrained = (Network(layers, images.shape[1:], seed=0) for _ in range(2))
    adam, moved = optim.Adam(8e-3), train.Augment(shift=4)
    train.fit(net, images, labels, steps=150, optimizer=adam, schedule="one-cycle", augment=moved, progress=True)
    info = data.info("digits")
    explorer.write(path, net, untrained, info.title, info.classes, test_images, test_labels)
    right = (net.predict(test_images) == test_labels).mean()
    print(f"{path}: a network that names {100 * right:.1f} % of {len(test_images)} test images rightly")


if __name__ == "__main__":
    main(*sys.argv[1:])
