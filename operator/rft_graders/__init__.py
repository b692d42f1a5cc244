"""Rewards: the graders, the combination of their scores, and the sandbox for users' code.

scorer      scores completions for the training loop; handles errors by each grader's onError
builtin     graders that run in the trainer, and the checks of graders' settings
trusted     built-in graders that run in worker processes: regex, math, jsonSchema
symbolic    grader math: symbolic equality
json_schema grader jsonSchema: JSON valid under a schema
remote      graders behind an address: concurrency and limits
service     grader http: the protocol of a user's service
judge       grader model: the request to a judge model
reply       the score in a judge's reply
numbers     numbers in text, in the forms that people and models write
text        digits, signs and spaces of any script as plain characters
thought     what of a completion is the answer behind a thought
template    the judge's instruction
post        one HTTP POST with its retries
tokens      bearer tokens for http and model graders
combine     scale mapping and the weighted mean
client      the trainer's end of the grader protocol
serve       the grader process at the other end: in its own container, or a local process
pool        worker processes of the grader process: deadlines, restarts
watchdog    limits on all descendants of the grader process together
worker      one process that runs one user's function (standard library only)

Nothing is imported here, so that ``serve`` starts in a fraction of a second and never imports torch.
"""
