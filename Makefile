# The same commands as ./dev, for those who type make.

.PHONY: demo test lint bench fuzz lock
demo test lint bench fuzz:
	./dev $@

# Pins what pyproject.toml asks for, with hashes and without the name of any host: what the program needs, and with it
# what its developers need.
compile = .venv/bin/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-header \
	--python-version 3.11
lock:
	$(compile) --output-file requirements.lock pyproject.toml
	$(compile) --group dev --constraints requirements.lock --output-file requirements-dev.lock pyproject.toml
