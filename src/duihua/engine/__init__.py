"""Text from a decoder: sampling, batches that change while they run, and the model that one talks to."""
