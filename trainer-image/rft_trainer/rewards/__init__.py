"""Rewards: graders, their combination, and the sandbox that users' code runs in.

scorer      what the loop calls; errors become scores by each grader's onError
builtin     graders that are pure functions, and the checks of settings
trusted     graders of ours that run in workers: regex, math, jsonSchema
symbolic    math: symbolic equality
json_schema jsonSchema: JSON valid under a schema
remote      graders behind an address: calls and their limits
service     http: the protocol of a user's service
judge       model: a judge's request and the score in its answer; template, its instruction
post        one POST with its tries; tokens, what authorizes it
combine     scale mapping and the weighted mean
client      the trainer's end of the grader protocol
serve       the program at the other end: in a container of its own, or as a local process
pool        its worker processes: deadlines, restarts
watchdog    its limits on all descendants together
worker      one process that runs one user's function (standard library only)

Nothing is imported here: ``serve`` starts within a fraction of a second and never sees torch.
"""
