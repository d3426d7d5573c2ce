# Everything a fresh machine needs is a Rust toolchain; cargo fetches the rest. One profile (release) serves the program,
# the tests and the benches, because tract, the built-in engine, takes minutes to build.
CARGO  ?= cargo
PYTHON ?= python3
RUN     = target/run
ZOO     = target/zoo

.DEFAULT_GOAL := help
.PHONY: help run test update bench bench-huge bench-calibration bench-gradient gradients-check gradients-reference gradients-exact models-table repair-table protect-table criteria-table zoo zoo-check zoo-fixtures operators-check proto docs fuzz fuzz-files gpu-check

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build the program and prune the example model to half of its channels
	$(CARGO) build --release
	@mkdir -p $(RUN)
	target/release/onnx-mtprune onnx-models/digit_scenes/model.onnx $(RUN)/digit_scenes.onnx --ratio 0.5 \
		--samples onnx-models/digit_scenes/calibration.npz

test: ## Check format and lints, run all tests: what CI runs
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets -- -D warnings
	$(CARGO) test --release

update: ## Rewrite expected texts, generated documents and the README's output after a wanted change; then read the diff
	UPDATE=1 $(CARGO) test --release

bench: ## Measure pruning beside cp, peak memory, and growth with the graph; fails if a limit is exceeded
	$(CARGO) bench --bench pruning

bench-huge: ## The same for a model of 3 GB with data files; needs 10 GB of disk and of memory, so CI leaves it out
	$(CARGO) bench --bench pruning -- huge

bench-calibration: ## Measure statistics and repair beside inference, and memory with many samples; fails if a limit is exceeded
	$(CARGO) bench --bench calibration

bench-gradient: ## Measure backward passes beside forward passes in ONNX Runtime; fails above 3.5 (PYTHON=... with onnx, onnxruntime)
	$(CARGO) build --release
	$(PYTHON) tests/gradient_speed.py target/bench/resnet50.onnx ../shared/models/twinlitenet/model.onnx

gradients-check: ## Make backward models of real models and of the zoo; check and run them (PYTHON=... with onnx, onnxruntime)
	$(CARGO) build --release
	$(PYTHON) tests/zoo/gradients.py --zoo $(ZOO)

gradients-reference: ## Write fixtures/gradient/models anew, by autograd in double precision (PYTHON=... with torch, onnx)
	$(PYTHON) tests/gradient_reference.py

gradients-exact: ## Compare backward models of real models with autograd, both in double precision (PYTHON=... with torch, onnx)
	$(CARGO) build --release
	$(PYTHON) tests/gradient_reference.py --exact target/release/onnx-mtprune

models-table: ## Check pruned real models in Python with ONNX Runtime (PYTHON=... with onnx, onnxruntime, numpy)
	$(CARGO) build --release
	$(PYTHON) tests/models_table.py

repair-table: ## Measure trained models, pruned and repaired, on labelled samples (PYTHON=... with numpy, onnxruntime; EXTRA=...)
	$(CARGO) build --release
	$(PYTHON) tests/repair_table.py --extra="$(EXTRA)"

criteria-table: ## Compare criteria and aggregations at equal multiplications, task by task (PYTHON=... with numpy, onnxruntime; EXTRA="--labels ...")
	$(CARGO) build --release
	$(PYTHON) tests/criteria_table.py $(EXTRA)

protect-table: ## Compare how far tasks move with and without protection, at equal multiplications (PYTHON=... with numpy; EXTRA=...)
	$(CARGO) build --release
	$(PYTHON) tests/protect_table.py --extra="$(EXTRA)"

zoo: ## Write ONNX files of many architectures into target/zoo (PYTHON=... with tests/zoo/requirements.txt)
	-$(PYTHON) tests/zoo/export.py --out $(ZOO) --jobs 2
	-$(PYTHON) tests/zoo/derive.py --zoo $(ZOO)
	-$(PYTHON) tests/zoo/torch_pruning_table.py --zoo $(ZOO) --out $(ZOO)/torch_pruning.json

zoo-check: ## Prune the whole zoo to half, judge every file twice, and print the table; fails if a file does
	$(CARGO) build --release
	$(PYTHON) tests/zoo/check.py --zoo $(ZOO) --binary target/release/onnx-mtprune --page docs/zoo.md

operators-check: ## Prune around every operator alone, some 1900 cases, and judge in ONNX Runtime (PYTHON=... with onnx, onnxruntime)
	$(CARGO) build --release
	$(PYTHON) tests/zoo/operators.py

zoo-fixtures: ## Write the small zoo of fixtures/zoo anew (needs what zoo needs); then run update
	$(PYTHON) tests/zoo/fixtures.py

proto: ## Generate src/proto/onnx.rs from proto/onnx-ml.proto
	$(CARGO) run --manifest-path proto/generate/Cargo.toml

docs: ## Build the documentation of the library
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --no-deps

fuzz: ## Run the randomised tests with many more cases (CASES=..., MUTATIONS=...)
	CASES=$(or $(CASES),5000) $(CARGO) test --release --test random
	MUTATIONS=$(or $(MUTATIONS),100000) $(CARGO) test --release --test mutations

fuzz-files: ## Change whole files at random and put them through everything (MINUTES=...); SEED=... replays one case
	MINUTES=$(or $(MINUTES),10) $(CARGO) test --release --test fuzz_files -- --nocapture

gpu-check: ## On a machine with CUDA: the same numbers as on the CPU, the share of nodes there, the speed (docs/gpu.md)
	$(CARGO) build --release
	tests/gpu_check.sh target/release/onnx-mtprune
