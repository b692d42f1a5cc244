from reward_kit import reward_function


@reward_function
def evaluate(messages, ground_truth=None, **kwargs):
    return {"score": 1.0 if messages[-1]["content"] == ground_truth else 0.0}
