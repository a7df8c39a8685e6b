# What is done here by hand and by CI. `just` alone lists it; .venv/bin/just is installed by `scripts/setup dev`.

[private]
default:
    @just --list --unsorted

# Make .venv with everything that development needs.
setup:
    scripts/setup test dev examples torch

# Style, format and types.
check:
    scripts/check

# Put the code into the format.
format:
    .venv/bin/ruff check --fix-only .
    .venv/bin/ruff format .

# All tests; options go to pytest.
test *OPTIONS:
    scripts/test {{OPTIONS}}

# Set up and run the quickstart experiment; options go to `tune create`.
quickstart *OPTIONS:
    scripts/quickstart {{OPTIONS}}

# Kill the writer of the log, and a whole engine with live trials, COUNT times each.
crash COUNT='200':
    TUNE_CRASHES={{COUNT}} .venv/bin/python -m pytest -n 2 --timeout 0 tests/test_engine_log.py tests/crash -k killed

# Seeded histories of the whole program with faults: --seeds N --hosts H --events E, or --seed S --step K to repeat one.
simulate *OPTIONS:
    .venv/bin/python tests/simulation/run.py {{OPTIONS}}

# Plant bugs in the protocol one by one: the simulation has to catch 95 % of them.
mutants *OPTIONS='--seeds 400 --jobs 2':
    .venv/bin/python tests/simulation/run.py --mutants {{OPTIONS}}

# The table of figures: every measure beside its raw limit. On a quiet machine. NAMES: only these.
bench *NAMES:
    .venv/bin/python benchmarks/table.py {{NAMES}}

# Tuners compared by what they find: ours and the peers installed, with intervals; options go to benchmarks/tuners/run.py.
bench-tuners *OPTIONS:
    .venv/bin/python benchmarks/tuners/run.py {{OPTIONS}}

# Tuners that promote, and the peers installed, on recorded learning curves; options go to benchmarks/fidelity.py.
bench-fidelity *OPTIONS:
    .venv/bin/python benchmarks/fidelity.py {{OPTIONS}}

# Trials over SSH beside the same trials on this host: start, trials a second, results a second, memory.
bench-remote TRIALS='60' ROUNDS='3':
    .venv/bin/python benchmarks/remote.py {{TRIALS}} {{ROUNDS}}

# The web portal: lag and cost of 20 viewers, the page on a log of 1,000,000 events; options go to benchmarks/portal.py.
bench-portal *OPTIONS:
    .venv/bin/python benchmarks/portal.py {{OPTIONS}}

# Build the wheel into dist/ and check what is in it.
wheel:
    rm -rf build dist src/*.egg-info
    .venv/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
    .venv/bin/python scripts/check_wheel.py dist/*.whl

# The tables and the picture of docs/architecture.md, from the code.
architecture:
    .venv/bin/python scripts/architecture.py docs

# Put the counts of docs/reliability/*.jsonl into docs/reliability.md.
reached:
    .venv/bin/python scripts/reached.py

# Kill an engine COUNT times under 8 live trials, and take 64 trials over as often; recorded.
crash-engine COUNT='200':
    .venv/bin/python tests/crash/run_engine.py kills --count {{COUNT}} --record docs/reliability/engine_kills.jsonl
    .venv/bin/python tests/crash/run_engine.py adopt --count {{COUNT}} --live 64 --record docs/reliability/adoptions.jsonl

# Experiments on the GPUs of this machine; fails where there is none.
gpu:
    .venv/bin/python -m pytest -n 0 tests/gpu

# A trial that floods and noise on the keeper's socket, beside COUNT trials that behave.
neighbours COUNT='99':
    TUNE_NEIGHBOURS={{COUNT}} .venv/bin/python -m pytest -n 0 tests/crash/test_hostile.py -k neighbours

# Every way to end a hostile tree, COUNT times each.
hostile COUNT='20':
    for _ in $(seq {{COUNT}}); do .venv/bin/python -m pytest -q -n 0 tests/crash/test_hostile.py -k hostile_tree || exit 1; done

# The picture of the terminal in the README, from a real run.
picture:
    .venv/bin/python scripts/picture.py docs/terminal.svg

# The pictures of docs/portal.md, from a real run and a real browser.
screenshots:
    .venv/bin/python scripts/screenshots.py docs/pictures
