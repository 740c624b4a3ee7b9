"""Networks, a file each, and what they are made of: activations, initial weights, embeddings."""
