"""Training of the policy: the model, the loss, and the packing of rollouts into rows of a batch."""
