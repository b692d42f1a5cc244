"""The update: the policy, the objective, and how rollouts become rows of a forward pass."""
