"""V, the vision model: a variational autoencoder that turns a frame into a short vector z."""
