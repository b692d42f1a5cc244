"""Rollouts of several turns: computes the prompt of each turn, and records every sampled token.

dialogue   the token ids of a conversation's first prompt, and those between one turn and the next
session    one rollout: its turns, its segments and its limits
sampler    collects the requests of many rollouts into batches for the rollout engine
answers    the JSON of OpenAI's API
server     the HTTP endpoint, for agents that use a client of OpenAI's API
"""
