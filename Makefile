# make demo   the main job: trains the example on this machine, no cluster and no GPU needed
# make test   every check and every test but the long ones
.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help setup demo demo-cluster cluster-up cluster-down images generate gpu-image lint lock audit sbom pin-base format test test-long test-old test-unit bench-api bench-memory bench-operator bench-fleet bench-connections bench-data bench-trainer bench-reward bench-update gpu-check bench-architectures bench-kl bench-checkpoint chaos chaos-nodes interrupted resume clean monitoring kustomize chart-audit bench-report bench-gateway soak skew bench-environments upgrade

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup: ## Install everything into .venv
	@scripts/setup-venv.sh

demo: setup ## Train examples/arithmetic.yaml here, into runs/arithmetic
	.venv/bin/rft run examples/arithmetic.yaml --output runs/arithmetic

demo-cluster: setup ## The same on a real Kubernetes cluster, with the operator
	scripts/demo-cluster.sh run

cluster-up: ## Start the test cluster (builds it once where there is none)
	python3 -m tests.cluster up

cluster-down: ## Stop the test cluster and remove all it made
	python3 -m tests.cluster down

images: ## Build both images and load them into the test cluster
	scripts/demo-cluster.sh prepare

gpu-image: setup ## Build the trainer's image for GPUs, and check here what needs no GPU (40 GiB of disk)
	scripts/gpu-image.sh

generate: setup ## Write the generated files
	.venv/bin/python -m rft_codegen
	.venv/bin/python scripts/picture.py

lint: setup ## ruff, mypy, import-linter, generated files
	scripts/lint.sh

lock: setup ## Write both locks, with hashes, from what constraints.txt pins
	scripts/lock.sh

audit: ## Ask PyPI for known vulnerabilities of what constraints.txt pins
	@scripts/audit.sh audit

sbom: ## Write dist/sbom.json: what constraints.txt pins, with hashes, as CycloneDX
	@scripts/audit.sh sbom

pin-base: ## Write the digest that the base image has today into base-image.txt and both Dockerfiles
	python3 scripts/pin_base.py

format: setup ## Format the code
	.venv/bin/ruff format . && .venv/bin/ruff check --fix .

test: setup ## Every check and every test, the cluster's included, but not the long ones
	scripts/test.sh

test-long: setup ## The tests that take minutes each: memory, killed, preempted and lost runs, a cluster whose start is interrupted
	RFT_TEST_ONLY=long scripts/test.sh

test-old: setup ## The tests on the cluster, on Kubernetes 1.20, built once
	RFT_TEST_CLUSTER=old RFT_TEST_ONLY=cluster scripts/test.sh

test-unit: setup ## The tests that need neither vLLM nor a server
	.venv/bin/python -m pytest -m "not vllm and not cluster and not e2e and not modern"

bench-api: setup ## How fast RFTJobs are reviewed, in process and over TLS on one core
	.venv/bin/python bench/api.py

bench-memory: setup ## What a run on the CPU holds, against what the planner says
	.venv/bin/python bench/memory.py

bench-operator: setup ## The operator with 1,000 RFTJobs: applied at once, at rest, reporting
	.venv/bin/python -m bench.scale

bench-fleet: setup ## The operator with 5,000 fake nodes and 5,000 RFTJobs, Kueue and a restart (ARGS)
	@source scripts/ready-programs.sh && use_ready_programs && use_ready_chart && \
	  .venv/bin/python -m bench.fleet $(ARGS)

bench-connections: setup ## The webhook under thousands of silent and slow connections
	.venv/bin/python -m bench.connections

bench-trainer: setup ## The trainer against TRL's GRPOTrainer on this machine's CPU
	.venv/bin/python -m bench.trainer

bench-reward: setup ## Time to a held-out reward of 0.8 on arithmetic, ours and TRL's, three seeds (ARGS): hours
	.venv/bin/python -m bench.reward $(ARGS)

bench-update: setup ## The update alone: tokens per second, MFU and memory on a GPU where torch sees one
	.venv/bin/python -m bench.update

gpu-check: setup ## All that only a GPU can show, in parts; the same command again goes on (ARGS)
	.venv/bin/python -m bench.gpu $(ARGS)

bench-architectures: setup ## Train a small model of each architecture, and write docs/architectures.md
	.venv/bin/python -m bench.architectures --output docs/architectures.md

bench-kl: setup ## What the KL term does to arithmetic and retrieval, three seeds each (ARGS): hours
	.venv/bin/python -m bench.kl $(ARGS)

bench-staleness: setup ## What arithmetic learns with maxStaleness 0, 1 and 4, three seeds each (ARGS): an hour
	.venv/bin/python -m bench.staleness $(ARGS)

bench-checkpoint: setup ## What a checkpoint takes to write and read, against one pickle as before
	.venv/bin/python -m bench.checkpoint

bench-report: setup ## How long the page of a run of 10,000 steps takes (ARGS)
	.venv/bin/python -m bench.report $(ARGS)

bench-gateway: setup ## What the endpoint of rollouts adds to a turn, and the memory of an open rollout
	.venv/bin/python -m bench.gateway

bench-environments: setup ## What the demo's model learns with a tool and in a game, on held-out rows (ARGS): 40 minutes
	.venv/bin/python -m bench.environments $(ARGS)

bench-data: setup ## How long a dataset of 10 GB keeps a run from its first step, and what it holds
	.venv/bin/python bench/data.py

chaos: setup ## Strike jobs on the test cluster at random moments, and print the table (TIMES, AT_ONCE, ENGINE, FAULT)
	scripts/demo-cluster.sh prepare
	scripts/demo-cluster.sh install
	.venv/bin/python -m tests.chaos --times $(or $(TIMES),10) --at-once $(or $(AT_ONCE),1) \
	  --engine $(or $(ENGINE),transformers) $(if $(FAULT),--fault "$(FAULT)")

chaos-nodes: setup ## Drain, kill and cut off the node of running jobs on kind, and print the table (TIMES, AT_ONCE)
	. scripts/ready-programs.sh && use_ready_programs && trap end_engine EXIT && start_engine && \
	  export RFT_TEST_CLUSTER=kind && scripts/demo-cluster.sh prepare && scripts/demo-cluster.sh install && \
	  .venv/bin/python -m tests.chaos.nodes --times $(or $(TIMES),10) --at-once $(or $(AT_ONCE),1); \
	  status=$$?; python3 -m tests.cluster down; exit $$status

upgrade: setup ## Upgrade, roll back, uninstall and install beside another release, with jobs that train, on kind
	. scripts/ready-programs.sh && use_ready_programs && trap end_engine EXIT && start_engine && \
	  export RFT_TEST_CLUSTER=kind && scripts/demo-cluster.sh prepare && \
	  .venv/bin/python -m pytest -m releases --durations=0 tests/e2e/test_releases.py; \
	  status=$$?; python3 -m tests.cluster down; exit $$status

kustomize: ## Render the chart into charts/gitops/base, for those who use no Helm
	scripts/kustomize.sh

chart-audit: setup ## Check six renders of the chart by checkov; a finding needs a reason in tests/chart_audit/argued.yaml
	scripts/chart-audit.sh

monitoring: setup ## Ask every alert and panel of a real Prometheus, which must be on the PATH
	.venv/bin/python -m tests.monitoring

soak: setup ## The operator against an API server that refuses, delays and closes at random (MINUTES)
	@source scripts/ready-programs.sh && use_ready_programs && \
	  .venv/bin/python -m tests.soak --minutes $(or $(MINUTES),30)
skew: setup ## Let this release and those of COMMITS continue each other's runs and jobs
	@source scripts/ready-programs.sh && use_ready_programs && \
	  .venv/bin/python -m tests.skew $(COMMITS)

interrupted: setup ## Interrupt make test at random moments, and name what stays behind; run it alone (TIMES)
	.venv/bin/python -m tests.interrupted --times $(or $(TIMES),10)

resume: setup ## Kill a run with vLLM at random moments, and compare its end with one left alone (KILLS, ARGS)
	.venv/bin/python -m tests.resume --kills $(or $(KILLS),10) $(ARGS)

clean: cluster-down ## Remove what the targets made in this checkout
	rm -rf .venv .cache .cluster runs
