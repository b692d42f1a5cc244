"""Graders score completions. The scores are combined into a reward. Users' code runs in a sandbox.

scorer      scores completions for the training loop; handles errors by each grader's onError
builtin     graders that run in the trainer, and the checks of graders' settings
trusted     built-in graders that run in worker processes: regex, math, jsonSchema
symbolic    grader math: symbolic equality
json_schema grader jsonSchema: whether a completion is JSON that is valid under a schema
remote      runs graders http and model: several concurrent requests to a server
service     grader http: the protocol of a user's service
judge       grader model: the request to a judge model
reply       the score in a judge's reply
numbers     numbers in text, in the forms that people and models write
text        converts digits, signs and spaces of any script to plain characters
thought     the answer in a completion, which follows the thought of a thinking model
template    the judge's instruction
post        one HTTP POST with its retries
tokens      bearer tokens for http and model graders
combine     scale mapping and the weighted mean
client      the trainer's side of the protocol between trainer and grader process
serve       the grader process: runs users' code in its own container, or locally
pool        worker processes of the grader process: which one answers which request
workers     one worker process, seen from the grader process: deadlines, forged replies, its end
leftovers   removes processes and files that a score leaves behind
watchdog    limits on all descendants of the grader process together
worker      one process that runs one user's function (standard library only)
confinement what a worker gives up before it loads users' code: capabilities, and access to other processes
traces      notices what a score leaves behind (in the worker)
guard       the process above a worker, which kills it with all that it has started
ids         ids of requests that cannot be guessed

This module imports nothing, so that ``serve`` starts in a fraction of a second and never imports torch.
"""
