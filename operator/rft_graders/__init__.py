"""Scores completions with a job's graders, and combines the scores of a completion into its reward.

Users' code runs in worker processes with reduced rights. The modules are:

scorer      scores completions for the training loop; handles a grader's errors as its onError says
types       the completions that the scorer gets, and the scores that it returns
backends    sends requests to the grader process, which is in a container of its own or a local process
builtin     graders that run in the trainer, and the checks of graders' settings
ahead       finds mistakes in a job's graders before the run, without running users' code
trusted     built-in graders that run in worker processes: regex, math, jsonSchema
symbolic    grader math: symbolic equality
json_schema grader jsonSchema: whether a completion is JSON that is valid under a schema
remote      runs graders http and model: several concurrent requests to a server
calls       the types that http and model share: requests become HTTP calls, responses become scores
service     grader http: the protocol of a user's service
judge       grader model: the request to a judge model
reply       the score in a judge's reply
numbers     finds numbers in text, in the forms that people and models write
text        converts digits, signs and spaces of any script to plain characters
similarity  grader textSimilarity: BLEU, Google BLEU and ROUGE
thought     finds the answer in a completion: the text after the thought of a thinking model
template    fills in the judge's instruction, and the texts that are compared
post        one HTTP POST with its retries
tokens      bearer tokens for http and model graders
formula     grader formula: calculates a score from the scores of other graders
combine     converts raw scores to scores from 0 to 1; calculates their weighted mean, the reward
protocol    the messages between trainer, grader process and workers
client      the trainer's side of the protocol between trainer and grader process
serve       the grader process: runs users' code, in a container of its own or as a local process
pool        the worker processes of all graders, with their queues of requests
workers     used in the grader process; starts a worker, sends requests to it, and ends it
printed     collects the text that a worker prints
leftovers   removes processes and files that users' code leaves after a score
processes   reads process trees from /proc, and kills them
watchdog    limits the number and the memory of all processes of users' code together
worker      one process that runs one user's function (standard library only)
shapes      used in a worker; calls a user's function by the names of its parameters
hosted      used in a worker; runs a user's environment class
confinement reduces a worker's rights before the worker loads users' code: capabilities, access to processes
syscall_filter  prevents a worker from changing the limits and priorities of other processes
traces      used in a worker; notices whether users' code leaves processes or files after a score
guard       the parent process of a worker; kills the worker with all processes that the worker started
ids         makes ids of requests that nobody can guess

This module imports nothing, so that ``serve`` starts in a fraction of a second and never imports torch.
"""
