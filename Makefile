# The same commands as ./dev, for those who type make.

.PHONY: demo test lint bench fuzz lock
demo test lint bench:
	./dev $@

# Fuzzes the readers for a minute; it wants atheris in .venv (`.venv/bin/pip install atheris`).
fuzz:
	./dev fuzz -max_total_time=60

# Pins what pyproject.toml asks for, with hashes and without the name of any host.
lock:
	uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-header \
		--all-extras --group build --output-file requirements.lock pyproject.toml
