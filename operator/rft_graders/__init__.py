"""Graders score completions. The scores are combined into a reward. Users' code runs in a sandbox.

scorer      scores completions for the training loop; handles a grader's errors as its onError says
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
thought     finds the answer in a completion: the text after the thought of a thinking model
template    fills in the judge's instruction, and the texts that are compared
post        one HTTP POST with its retries
tokens      bearer tokens for http and model graders
combine     scale mapping and the weighted mean
client      the trainer's side of the protocol between trainer and grader process
serve       the grader process: runs users' code, in a container of its own or as a local process
pool        the worker processes of all graders, with their queues of requests
workers     how the grader process controls one worker: time limits, forged replies, how it ends
leftovers   removes processes and files that users' code leaves after a score
watchdog    limits on all descendants of the grader process together
worker      one process that runs one user's function (standard library only)
confinement reduces a worker's rights before the worker loads users' code: capabilities, access to processes
traces      used in a worker; notices whether users' code leaves processes or files after a score
guard       the process above a worker, which kills it with all that it has started
ids         makes ids of requests that nobody can guess

This module imports nothing, so that ``serve`` starts in a fraction of a second and never imports torch.
"""
