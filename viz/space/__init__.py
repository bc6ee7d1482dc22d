"""Images as points in a layer's features: embeddings in the plane, nearest neighbours."""
