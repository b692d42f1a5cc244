"""The update of the policy: the model, the objective, and how rollouts are packed into rows."""
